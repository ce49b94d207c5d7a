"""FuseGen (arXiv 2406.12527): what is computed between the rounds of writing and of training."""
