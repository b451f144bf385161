"""How much one call of the model takes. No imports, so that programs can say so before the engine is loaded."""

__all__ = [
    "BATCH_SNIPPETS",
    "GPU_BATCH_SNIPPETS",
    "GPU_READERS",
    "MAX_BATCH_SNIPPETS",
    "MAX_THREADS",
    "MOST_CALLS",
    "SHARED_BATCH_SNIPPETS",
]

# Enough to fill the matrix products, few enough that the activations stay in the cache
# (on the CPU 2,000 a call ran about 25 % faster than 8,000; docs/explanation/performance.md).
BATCH_SNIPPETS = 2048
# int8 calls at a time on a CPU, at most. The threads are shared out among the calls: two threads of one call take a
# sixth more CPU time than two calls of one thread. One thread at a time reads, for a tenth of the time of a call.
MOST_CALLS = 8
SHARED_BATCH_SNIPPETS = 1024  # of each of these, as they share the cache
# On an H200 the products of 8,192 snippets a call reached three quarters of the card's rate, those of 2,048 a half.
GPU_BATCH_SNIPPETS = 8192
GPU_READERS = 8  # threads that read features for a model on a GPU, where there are as many cores
MAX_BATCH_SNIPPETS = 2**20  # the graph's sums over time are exact up to here
MAX_THREADS = 1024  # more than any machine's cores; ONNX Runtime starts whatever number it is given
