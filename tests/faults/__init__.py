"""The random-kill suite: `make faults SEED=1`. It takes minutes, and is not part of `make test`."""
