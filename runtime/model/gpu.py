"""NVIDIA's driver, called without CUDA's libraries: whether there is a GPU, and page-locked memory.

The GPU copies features from page-locked memory at the full rate of the bus. Ordinary memory is first copied by the
driver.
"""

import contextlib
import ctypes
import functools
import math
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["PinnedBuffers", "gpu_problem", "pinned_empty"]

_PORTABLE = 1  # CU_MEMHOSTALLOC_PORTABLE: page-locked for every context, as the engine may make another


def gpu_problem() -> str | None:
    """Why no NVIDIA GPU can be used by any engine; None if one is visible."""
    driver = _load_driver()
    if driver is None:
        return "no NVIDIA driver is installed or visible (in a container: --gpus all)"
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return "no NVIDIA GPU is visible (see CUDA_VISIBLE_DEVICES, and in a container --gpus all)"
    return None


def pinned_empty(size: int) -> npt.NDArray[np.float32]:
    """A flat float32 array in page-locked memory, not initialised; freed with the last view of it.

    If the driver refuses (locked memory is limited), the array is in ordinary memory: slower, with the same results.
    """
    context = _context()
    if context is None or not size:
        return np.empty(size, dtype=np.float32)
    driver, handle = context
    address = ctypes.c_void_p()
    if driver.cuCtxPushCurrent_v2(handle) != 0:
        return np.empty(size, dtype=np.float32)
    refused = driver.cuMemHostAlloc(ctypes.byref(address), ctypes.c_size_t(4 * size), ctypes.c_uint(_PORTABLE)) != 0
    driver.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))
    if refused or address.value is None:
        return np.empty(size, dtype=np.float32)
    memory = (ctypes.c_float * size).from_address(address.value)
    # Not at exit: the driver may be gone by then, and the process frees all its memory.
    weakref.finalize(memory, _free, driver, handle, address).atexit = False
    return np.frombuffer(memoryview(memory), dtype=np.float32)


class PinnedBuffers:
    """Page-locked arrays that are kept for later calls, as locking memory takes longer than filling it.

    Thread-safe: each call borrows arrays of its own. At most `kept` arrays are kept.
    """

    def __init__(self, kept: int = 8) -> None:
        self._kept = kept
        self._free: list[npt.NDArray[np.float32]] = []  # flat
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return PinnedBuffers, (self._kept,)  # the copy, or another process, has arrays of its own

    @contextlib.contextmanager
    def lent(self) -> Iterator[Callable[[tuple[int, ...]], npt.NDArray[np.float32]]]:
        """Gives a function like `np.empty` for float32; its arrays may be used until the block ends."""
        taken: list[npt.NDArray[np.float32]] = []

        def empty(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
            size = math.prod(shape)
            taken.append(self._take(size))
            return taken[-1][:size].reshape(shape)

        try:
            yield empty
        finally:
            with self._lock:
                # The largest, as a call of any size can use them.
                self._free = sorted(self._free + taken, key=len)[-self._kept :]

    def _take(self, size: int) -> npt.NDArray[np.float32]:
        with self._lock:
            index = next((index for index, array in enumerate(self._free) if len(array) >= size), None)
            if index is not None:
                return self._free.pop(index)  # the smallest that is large enough
        return pinned_empty(size)


def _free(driver: Any, handle: ctypes.c_void_p, address: ctypes.c_void_p) -> None:
    if driver.cuCtxPushCurrent_v2(handle) == 0:
        driver.cuMemFreeHost(address)
        driver.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))


@functools.cache
def _context() -> tuple[Any, ctypes.c_void_p] | None:
    """The driver, and the first GPU's primary context, which CUDA's libraries share; kept until the process ends."""
    driver = _load_driver()
    device, handle = ctypes.c_int(0), ctypes.c_void_p()
    if (
        driver is None
        or driver.cuInit(0) != 0
        or driver.cuDeviceGet(ctypes.byref(device), 0) != 0
        or driver.cuDevicePrimaryCtxRetain(ctypes.byref(handle), device) != 0
    ):
        return None
    return driver, handle


def _load_driver() -> Any:
    try:
        return ctypes.CDLL("libcuda.so.1" if os.name == "posix" else "nvcuda.dll")
    except OSError:
        return None
