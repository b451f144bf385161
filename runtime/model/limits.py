"""How much one call of the model takes. No imports, so that programs can say so before the engine is loaded."""

__all__ = ["BATCH_SNIPPETS", "MAX_BATCH_SNIPPETS", "MAX_THREADS"]

# Enough to fill the matrix products, few enough that the activations stay in the cache
# (on the CPU 2,000 a call ran about 25 % faster than 8,000; docs/performance.md).
BATCH_SNIPPETS = 2048
MAX_BATCH_SNIPPETS = 2**20  # the graph's sums over time are exact up to here
MAX_THREADS = 1024  # more than any machine's cores; ONNX Runtime starts whatever number it is given
