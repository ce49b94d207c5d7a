"""FuseGen (arXiv 2406.12527): prompts, filtering, cross-model variability, influence, feedback, reweighting."""
