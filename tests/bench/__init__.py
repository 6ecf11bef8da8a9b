"""Benchmarks: `python -m tests.bench`. Never part of the default tests."""
