"""The ground: the Ray session and the run storage."""
