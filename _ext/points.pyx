# cython: language_level=3
"""The segments that a model finds itself, at the points of a packed batch of videos (docs/explanation/method.md)."""

from libc.math cimport isfinite

include "packed.pxi"

cdef enum:
    VIDEO, LABEL
    INDEX_ROWS
cdef enum:
    FIRST, LAST, SCORE
    VALUE_ROWS


def detect_points(scores, to_start, to_end, video_scores, lengths, *, top_k, least, class_threshold=0.0, levels=1):
    """The segments of a packed batch: P points of V videos, N classes.

    The points of level 0 of all videos come first, one a snippet, then those of level 1, and so on; level l has a point
    at the snippets 0, 2^l, 2 * 2^l .. of each video. With t the point's snippet, its segment begins at t + 0.5 less
    `to_start` and ends at t + 0.5 plus `to_end`, both clipped to the video; snippet t covers [t, t + 1).

    Args:
        scores: of each point and class, float32 [P, N].
        to_start: snippets to the start of the point's segment, float32 [P].
        to_end: snippets to its end, float32 [P].
        video_scores: ŷ, float32 [V, N]; a class of -inf is never chosen.
        lengths: snippets of each video, int64 [V], which sum to P where there is one level; a video may have none.
        top_k: classes a video, those of the largest ŷ (of equal ones, the lower index).
        least: score of a segment, above 0.
        class_threshold: least ŷ of a class, as a share of the largest of the video, in float32; 0 keeps all.
        levels: of the points, 1 to 60.

    Returns:
        video int64 [n], label int64 [n], first float64 [n], last float64 [n], score float64 [n] of the segments of a
        length above 0 and a score of at least `least`. A segment covers [first, last + 1) snippets of its video. Its score
        is the point's, times ŷ_n over the largest ŷ of the video (float64). Order: by video, then by rank of the class,
        then by level, then by point.

    Raises:
        TypeError: an argument of another dtype.
        ValueError: shapes that do not fit together, a setting out of range, NaN in ŷ, or, where a class is chosen, a
            score or a distance that is not finite.
    """
    scores = _checked("scores", scores, _float32, 2)
    to_start = _checked("to_start", to_start, _float32, 1)
    to_end = _checked("to_end", to_end, _float32, 1)
    video_scores = _checked("video_scores", video_scores, _float32, 2)
    lengths = _checked("lengths", lengths, _int64, 1)
    cdef const float[:, ::1] p = scores
    cdef const float[::1] before = to_start
    cdef const float[::1] after = to_end
    cdef const float[:, ::1] y = video_scores
    cdef const i64[::1] length = lengths
    cdef Py_ssize_t points = p.shape[0], classes = p.shape[1], videos = length.shape[0], level, v
    cdef Py_ssize_t level_count = levels, begin = 0
    cdef double lowest = least
    for name, size in (("to_start", before.shape[0]), ("to_end", after.shape[0])):
        if size != points:
            raise ValueError(f"{name}: expected {points} points as in scores, got {size}")
    if y.shape[0] != videos or y.shape[1] != classes:
        raise ValueError(f"video_scores: expected shape {(videos, classes)}, got {video_scores.shape}")
    if not 1 <= level_count <= 60:
        raise ValueError(f"levels: expected a number from 1 to 60, got {levels}")
    if top_k < 1:
        raise ValueError(f"top_k: expected at least 1, got {top_k}")
    if not 0.0 < lowest < INFINITY:
        raise ValueError(f"least: expected a number above 0, got {least}")
    if not 0.0 <= class_threshold <= 1.0:
        raise ValueError(f"class_threshold: expected a number from 0 to 1, got {class_threshold}")

    # Where the points of each video begin at each level.
    begins = _empty((level_count, videos), _int64)
    cdef i64[:, ::1] first = begins
    for level in range(level_count):
        for v in range(videos):
            first[level, v] = begin
            # Compared with what is left, so that lengths whose sum overflows cannot pass.
            if not 0 <= length[v] or _points(length[v], level) > points - begin:
                raise ValueError(f"lengths: expected those of {points} points at {levels} levels, got {lengths.tolist()}")
            begin += _points(length[v], level)
    if begin != points:
        raise ValueError(f"lengths: expected those of {points} points at {levels} levels, got {lengths.tolist()}")

    ranking = _empty((videos, min(top_k, classes)), _int64)
    cdef i64[:, ::1] ranked = ranking
    if not _rank(y, ranked, class_threshold):
        raise ValueError("video_scores: holds NaN")
    # Counted first, then written.
    cdef i64[:, ::1] index = _empty((INDEX_ROWS, 0), _int64)
    cdef double[:, ::1] values = _empty((VALUE_ROWS, 0), _float64)
    cdef Py_ssize_t count
    with nogil:
        count = _segments(p, before, after, y, length, first, ranked, lowest, False, index, values)
    if count < 0:
        raise ValueError("scores, to_start or to_end: hold values that are not finite")
    indices, numbers = _empty((INDEX_ROWS, count), _int64), _empty((VALUE_ROWS, count), _float64)
    index, values = indices, numbers
    with nogil:
        count = _segments(p, before, after, y, length, first, ranked, lowest, True, index, values)
    # Fewer than counted only where another thread changed the values meanwhile.
    count = max(count, 0)
    return (
        indices[VIDEO, :count], indices[LABEL, :count],
        numbers[FIRST, :count], numbers[LAST, :count], numbers[SCORE, :count],
    )


cdef inline i64 _points(i64 length, Py_ssize_t level) noexcept nogil:
    """ceil(length / 2^level) without overflow."""
    return (length >> level) + ((length & ((<i64>1 << level) - 1)) != 0)


cdef Py_ssize_t _segments(
    const float[:, ::1] p, const float[::1] before, const float[::1] after, const float[:, ::1] y,
    const i64[::1] length, const i64[:, ::1] first, const i64[:, ::1] ranked, double least, bint write,
    i64[:, ::1] index, double[:, ::1] values,
) noexcept nogil:
    """How many segments there are, written where `write`; -1 for a value that is not finite."""
    cdef Py_ssize_t v, rank, level, point, row, n, count = 0
    cdef double share, score, middle, start, end, best
    for v in range(ranked.shape[0]):
        for rank in range(ranked.shape[1]):
            n = ranked[v, rank]
            if n < 0:
                break
            best = y[v, ranked[v, 0]]
            share = y[v, n] / best if best > 0.0 else 0.0
            for level in range(first.shape[0]):
                for point in range(_points(length[v], level)):
                    row = first[level, v] + point
                    if not (isfinite(p[row, n]) and isfinite(before[row]) and isfinite(after[row])):
                        return -1
                    score = p[row, n] * share
                    if not score >= least:
                        continue
                    middle = <double>(<i64>point << level) + 0.5
                    start, end = middle - before[row], middle + after[row]
                    start = start if start > 0.0 else 0.0
                    end = end if end < length[v] else <double>length[v]
                    if not start < end:
                        continue
                    if write:
                        if count == index.shape[1]:
                            return count
                        index[VIDEO, count], index[LABEL, count] = v, n
                        values[FIRST, count], values[LAST, count], values[SCORE, count] = start, end - 1.0, score
                    count += 1
    return count
