"""What a person submits: one module per job, and the command line."""
