"""Property tests draw the same examples in every run and do not look at the clock."""

from hypothesis import settings

settings.register_profile("reproducible", deadline=None, derandomize=True)
settings.load_profile("reproducible")
