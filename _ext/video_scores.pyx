# cython: language_level=3
"""Video scores over the snippets of the highest foreground, for a packed batch of videos (docs/explanation/method.md)."""

from libc.math cimport ceil, fmin
from libc.string cimport memcpy

include "packed.pxi"

ctypedef unsigned int u32

# Rows of the room for the keys of a video: of all its snippets, and of those that may be the one that is sought.
cdef enum:
    KEYS, SOUGHT
    KEY_ROWS

cdef object _uint32 = np.dtype(np.uint32)


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
    cdef Py_ssize_t snippets = c.shape[0], classes = c.shape[1], videos = length.shape[0], v, begin = 0, longest = 0
    if f.shape[0] != snippets:
        raise ValueError(f"foreground: expected {snippets} snippets as in class_scores, got {f.shape[0]}")
    if not 0.0 < share <= 1.0:
        raise ValueError(f"share: expected a number above 0, at most 1, got {share}")
    for v in range(videos):
        # Compared with what is left, so that lengths whose sum overflows cannot pass.
        if not 0 <= length[v] <= snippets - begin:
            raise ValueError(f"lengths: expected lengths of at least 0 that sum to {snippets}, got {lengths.tolist()}")
        longest = max(longest, length[v])
        begin += length[v]
    if begin != snippets:
        raise ValueError(f"lengths: expected lengths of at least 0 that sum to {snippets}, got a sum of {begin}")

    scores = _empty((videos, classes), _float32)
    cdef float[:, ::1] out = scores
    cdef double[::1] sums = _empty(classes, _float64)
    cdef u32[:, ::1] keys = _empty((KEY_ROWS, longest), _uint32)
    cdef double part = share
    cdef bint ordered = True
    begin = 0
    with nogil:
        for v in range(videos):
            ordered &= _video(c, f, begin, length[v], part, keys, sums, out[v])
            begin += length[v]
    if not ordered:
        raise ValueError("foreground: holds NaN")
    return scores


cdef bint _video(
    const float[:, ::1] c, const float[::1] f, Py_ssize_t begin, Py_ssize_t length, double share, u32[:, ::1] keys,
    double[::1] sums, float[::1] out,
) noexcept nogil:
    """The scores of one video; False where its foreground holds NaN."""
    cdef Py_ssize_t count = <Py_ssize_t>fmin(ceil(share * length), length), t, n, left
    cdef u32 least
    cdef bint ordered = True
    for n in range(out.shape[0]):
        sums[n] = 0.0
        out[n] = 0.0
    for t in range(length):
        ordered &= f[begin + t] == f[begin + t]
        keys[KEYS, t] = _key(f[begin + t])
    if not ordered:
        return False
    if not length:
        return True
    least = _least_key(keys, length, count, &left)
    for t in range(length):
        if keys[KEYS, t] < least:
            continue
        if keys[KEYS, t] == least:
            if not left:
                continue
            left -= 1
        for n in range(out.shape[0]):
            sums[n] += c[begin + t, n]
    for n in range(out.shape[0]):
        out[n] = <float>(sums[n] / count)
    return True


cdef u32 _least_key(u32[:, ::1] keys, Py_ssize_t length, Py_ssize_t count, Py_ssize_t* equal) noexcept nogil:
    """The count-th largest key; `equal`: how many of that key to take.

    Byte by byte from the highest in which the keys differ; each look leaves those that share the bytes so far. At most
    four looks at each key, whatever the values: there is no bad case.
    """
    cdef Py_ssize_t size[256]
    cdef Py_ssize_t i, kept, sought = length, left = count
    cdef u32 least = keys[KEYS, 0], most = keys[KEYS, 0], byte
    cdef int shift = 0
    for i in range(length):
        least, most = min(least, keys[KEYS, i]), max(most, keys[KEYS, i])
        keys[SOUGHT, i] = keys[KEYS, i]
    while shift < 24 and (most - least) >> shift > 255:
        shift += 1
    while sought > 1:
        for byte in range(256):
            size[byte] = 0
        for i in range(sought):
            size[((keys[SOUGHT, i] - least) >> shift) & 255] += 1
        byte = 255
        # Invariant: the keys above those sought are count - left, and these are at least left.
        while size[byte] < left:
            left -= size[byte]
            byte -= 1
        kept = 0
        for i in range(sought):
            if ((keys[SOUGHT, i] - least) >> shift) & 255 == byte:
                keys[SOUGHT, kept] = keys[SOUGHT, i]
                kept += 1
        sought = kept
        if not shift:
            break
        shift = max(shift - 8, 0)
    equal[0] = left
    return keys[SOUGHT, 0]


cdef inline u32 _key(float value) noexcept nogil:
    """A key that sorts as the number does; -0.0 and 0.0 have one key."""
    cdef u32 bits
    value = value + <float>0.0  # -0.0 becomes 0.0
    memcpy(&bits, &value, sizeof(bits))
    # Negative numbers: more bits, smaller number, so all bits are turned; others: only the sign, to lie above them.
    return ~bits if bits >> 31 else bits | (<u32>1 << 31)
