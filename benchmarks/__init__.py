"""Times of the kernels relative to named peers, measured in one run: `python -m benchmarks`."""

import refineloc  # noqa: F401 (before ONNX Runtime, whose telemetry is off then)
