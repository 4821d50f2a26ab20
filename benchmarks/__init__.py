"""Measurements and the demonstration; run as `python -m benchmarks`."""
