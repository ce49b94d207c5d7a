"""Benchmarks: each prints a table; none asserts. `python -m tests.benchmarks [NAME …]` runs them."""
