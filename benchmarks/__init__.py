"""Times of the kernels relative to named peers, measured in one run: `python -m benchmarks`."""
