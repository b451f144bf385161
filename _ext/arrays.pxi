# Arguments as arrays, shared by the kernels through `include` (Cython finds no .pxd across mapped folders).
#
# The loops know nothing of the caller's objects: only of what these functions give, and only that is checked.

import numpy as np

ctypedef long long i64

# Looked up once: on a few segments, looking up names and making arrays takes longer than the work.
cdef object _array = np.array, _asarray = np.asarray, _can_cast = np.can_cast, _empty = np.empty
cdef object _int8 = np.dtype(np.int8), _int64 = np.dtype(np.int64), _uint64 = np.dtype(np.uint64)
cdef object _float32 = np.dtype(np.float32), _float64 = np.dtype(np.float64)


cdef inline _values(values, dtype):
    """The argument as an array of the dtype, C-contiguous and aligned; copied only where it is not."""
    array = _asarray(values, dtype, "C")
    return array if array.flags.aligned else array.copy()


cdef inline _indices(name, values):
    """Integers that say where to read or write, as an int64 array of the kernel's own.

    A copy, so that no other thread changes what was checked. Types that int64 does not hold, such as uint64 and floats,
    are refused: they would wrap.
    """
    array = _asarray(values)
    if array.dtype != _int64 and array.size and not _can_cast(array.dtype, _int64):
        raise TypeError(f"{name}: expected int64, got {array.dtype}")
    return array.astype(_int64, "C")
