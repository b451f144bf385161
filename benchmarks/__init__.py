"""Ratios of the kernels against named peers, measured in one run: `python -m benchmarks`."""
