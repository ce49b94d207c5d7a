"""What can be wrong with files that are merged."""


class CheckpointError(Exception):
    """A checkpoint or a Gram file that cannot be used; the message is one line."""
