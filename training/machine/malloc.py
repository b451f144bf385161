"""Memory of one batch kept for the next."""

import ctypes

__all__ = ["keep_freed_memory"]

# malloc.h of glibc
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, up to 2 GiB, instead of giving it back to the system at once.

    A batch's features and activations are tens of MB each, and glibc maps such blocks anew every time: the system
    clears their pages, one fault for each 4 KB, before anything is written there. On a virtual machine that took a
    tenth of an epoch (docs/explanation/performance.md). For programs, not for libraries: it concerns the whole process.

    Returns:
        Whether the C library can do that; glibc can.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(
        mallopt(parameter, value) == 1 for parameter, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1))
    )
