# What the kernels on packed batches share through `include`.
#
# On one short video the cost is that of the call, so arguments are checked in compiled loops rather than by NumPy.

from libc.math cimport INFINITY

include "arrays.pxi"


cdef inline bint _rank(const float[:, ::1] y, i64[:, ::1] ranked, double threshold) noexcept nogil:
    """The classes of largest ŷ of each video, falling; of equal ones the lower index first. False: ŷ holds NaN.

    A class of -inf is left out, and, where `threshold` is above 0, one whose ŷ is below this share of the largest (in
    float32). Where fewer are left than there is room for, -1 stands behind them.
    """
    cdef Py_ssize_t v, n, at, filled
    cdef float share = <float>threshold, least
    for v in range(y.shape[0]):
        filled = 0
        for n in range(y.shape[1]):
            if y[v, n] != y[v, n]:
                return False
            if y[v, n] == -INFINITY:
                continue
            if filled == ranked.shape[1]:
                if not y[v, n] > y[v, ranked[v, filled - 1]]:
                    continue
                filled -= 1
            at = filled
            while at > 0 and y[v, ranked[v, at - 1]] < y[v, n]:
                ranked[v, at] = ranked[v, at - 1]
                at -= 1
            ranked[v, at] = n
            filled += 1
        if share > 0.0 and filled > 0:
            least = share * y[v, ranked[v, 0]]
            while filled > 0 and y[v, ranked[v, filled - 1]] < least:
                filled -= 1
        for at in range(filled, ranked.shape[1]):
            ranked[v, at] = -1
    return True


cdef _checked(name, values, dtype, Py_ssize_t ndim):
    """The argument as a C-contiguous array of the right dtype; nothing is converted silently.

    Integers, which bound the loops, are copied, so that no other thread changes what was checked.
    """
    array = _asarray(values, None, "C")
    if array.dtype != dtype:
        raise TypeError(f"{name}: expected {dtype}, got {array.dtype}")
    if array.ndim != ndim:
        raise ValueError(f"{name}: expected {ndim} dimensions, got shape {array.shape}")
    return array if array.flags.aligned and dtype != _int64 else array.copy()
