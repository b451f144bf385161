# cython: language_level=3
"""Video scores over the snippets of the highest foreground, for a packed batch of videos (docs/explanation/method.md)."""

from libc.math cimport ceil, fmin
from libc.string cimport memcpy

include "packed.pxi"

ctypedef unsigned int u32


def best_snippet_scores(class_scores, foreground, lengths, *, share):
    """The mean class activations of each video over its ceil(share * T) snippets of the highest foreground.

    Args:
        class_scores: C̄, float32 [S, N].
        foreground: Ā^bf_fg, float32 [S]; of equal ones the lower index goes first.
        lengths: snippets of each video, int64 [V], which sum to S; a video may have none.
        share: of a video's snippets, above 0, at most 1.

    Returns:
        float32 [V, N], 0 for a video without snippets; sums in float64, in the order of time.

    Raises:
        TypeError: an argument of another dtype.
        ValueError: shapes that do not fit together, a share out of range, or NaN in the foreground.
    """
    class_scores = _checked("class_scores", class_scores, _float32, 2)
    foreground = _checked("foreground", foreground, _float32, 1)
    lengths = _checked("lengths", lengths, _int64, 1)
    cdef const float[:, ::1] c = class_scores
    cdef const float[::1] f = foreground
    cdef const i64[::1] length = lengths
    cdef Py_ssize_t snippets = c.shape[0], classes = c.shape[1], videos = length.shape[0], v, begin = 0
    if f.shape[0] != snippets:
        raise ValueError(f"foreground: expected {snippets} snippets as in class_scores, got {f.shape[0]}")
    if not 0.0 < share <= 1.0:
        raise ValueError(f"share: expected a number above 0, at most 1, got {share}")
    for v in range(videos):
        # Compared with what is left, so that lengths whose sum overflows cannot pass.
        if not 0 <= length[v] <= snippets - begin:
            raise ValueError(f"lengths: expected lengths of at least 0 that sum to {snippets}, got {lengths.tolist()}")
        begin += length[v]
    if begin != snippets:
        raise ValueError(f"lengths: expected lengths of at least 0 that sum to {snippets}, got a sum of {begin}")

    scores = _empty((videos, classes), _float32)
    cdef float[:, ::1] out = scores
    cdef double[::1] sums = _empty(classes, _float64)
    cdef double part = share
    cdef bint ordered = True
    begin = 0
    with nogil:
        for v in range(videos):
            ordered &= _video(c, f, begin, length[v], part, sums, out[v])
            begin += length[v]
    if not ordered:
        raise ValueError("foreground: holds NaN")
    return scores


cdef bint _video(
    const float[:, ::1] c, const float[::1] f, Py_ssize_t begin, Py_ssize_t length, double share, double[::1] sums,
    float[::1] out,
) noexcept nogil:
    """The scores of one video; False where its foreground holds NaN."""
    cdef Py_ssize_t count = <Py_ssize_t>fmin(ceil(share * length), length), t, n, left
    cdef u32 least
    for n in range(out.shape[0]):
        sums[n] = 0.0
        out[n] = 0.0
    for t in range(begin, begin + length):
        if f[t] != f[t]:
            return False
    if not length:
        return True
    least = _least_key(f, begin, length, count, &left)
    for t in range(begin, begin + length):
        if _key(f[t]) < least:
            continue
        if _key(f[t]) == least:
            if not left:
                continue
            left -= 1
        for n in range(out.shape[0]):
            sums[n] += c[t, n]
    for n in range(out.shape[0]):
        out[n] = <float>(sums[n] / count)
    return True


cdef u32 _least_key(const float[::1] f, Py_ssize_t begin, Py_ssize_t length, Py_ssize_t count, Py_ssize_t* equal) noexcept nogil:
    """The key of the count-th highest foreground, byte by byte from the highest; `equal`: how many of that key to take.

    Four looks at each snippet, whatever the values: there is no bad case.
    """
    cdef Py_ssize_t size[256]
    cdef Py_ssize_t t, left = count
    cdef u32 key, known = 0
    cdef int shift, byte
    for shift in range(24, -8, -8):
        for byte in range(256):
            size[byte] = 0
        for t in range(begin, begin + length):
            key = _key(f[t])
            if shift == 24 or key >> (shift + 8) == known:
                size[(key >> shift) & 255] += 1
        byte = 255
        # Invariant: the snippets above `known` and this byte are count - left, and those at or below it at least left.
        while byte > 0 and size[byte] < left:  # above 0 even where another thread changes the foreground
            left -= size[byte]
            byte -= 1
        known = known << 8 | byte
    equal[0] = left
    return known


cdef inline u32 _key(float value) noexcept nogil:
    """A key that sorts as the number does; -0.0 and 0.0 have one key."""
    cdef u32 bits
    value = value + <float>0.0  # -0.0 becomes 0.0
    memcpy(&bits, &value, sizeof(bits))
    # Negative numbers: more bits, smaller number, so all bits are turned; others: only the sign, to lie above them.
    return ~bits if bits >> 31 else bits | (<u32>1 << 31)
