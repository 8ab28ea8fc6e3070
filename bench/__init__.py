"""Benchmarks: what is measured side by side, in one run, as a ratio."""
