# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""The peer of `refineloc._ext.nms`: NMS as most projects have it, in compiled loops over all pairs (one group)."""

import numpy as np

from libc.math cimport exp


def hard_nms(const double[::1] start, const double[::1] end, score, double threshold):
    """Sort by score, then each kept segment against all that come after it."""
    order_array = np.argsort(-score, kind="stable")
    cdef const long[::1] order = order_array
    cdef Py_ssize_t n = start.shape[0], a, b, i, j, count = 0
    cdef unsigned char[::1] gone = np.zeros(n, np.uint8)
    kept_array = np.empty(n, np.int64)
    cdef long[::1] kept = kept_array
    cdef double inside, length
    with nogil:
        for a in range(n):
            if gone[a]:
                continue
            i = order[a]
            kept[count] = i
            count += 1
            length = end[i] - start[i]
            for b in range(a + 1, n):
                if gone[b]:
                    continue
                j = order[b]
                inside = max(min(end[i], end[j]) - max(start[i], start[j]), 0.0)
                if inside > threshold * (length + end[j] - start[j] - inside):
                    gone[b] = 1
    return kept_array[:count]


def soft_nms(start, end, score, double sigma, double least):
    """Gaussian soft-NMS: the best of the remaining swapped to the front, all behind it lowered, the fallen closed up."""
    start_array, end_array, score_array = start.copy(), end.copy(), score.copy()
    index_array = np.arange(start.shape[0])
    cdef double[::1] s = start_array
    cdef double[::1] e = end_array
    cdef double[::1] p = score_array
    cdef long[::1] index = index_array
    cdef Py_ssize_t n = s.shape[0], a = 0, b, best
    cdef double inside, tiou
    with nogil:
        while a < n:
            best = a
            for b in range(a + 1, n):
                if p[b] > p[best]:
                    best = b
            s[a], s[best] = s[best], s[a]
            e[a], e[best] = e[best], e[a]
            p[a], p[best] = p[best], p[a]
            index[a], index[best] = index[best], index[a]
            b = a + 1
            while b < n:
                inside = min(e[a], e[b]) - max(s[a], s[b])
                if inside > 0.0:
                    tiou = inside / ((e[a] - s[a]) + (e[b] - s[b]) - inside)
                    p[b] *= exp(-(tiou * tiou) / sigma)
                    if p[b] < least:
                        n -= 1
                        s[b], e[b], p[b], index[b] = s[n], e[n], p[n], index[n]
                        continue
                b += 1
            a += 1
    return index_array[:n], score_array[:n]
