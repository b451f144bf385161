"""Non-maximum suppression of segments on a time line, many groups (a class in a video) at once."""

import numpy as np

ctypedef long long i64


def hard_nms(start, end, score, group, *, tiou_threshold):
    """Greedy NMS: the best segment drops the weaker ones of its group that overlap it by more than the threshold.

    Segments are looked at by start, so that a kept one is compared only with those that begin before it ends and lie
    within the longest segment's reach: segments far apart are never compared.

    Args:
        start, end: float64 [n], start <= end.
        score: float64 [n]; of equal scores the earlier in the input is better.
        group: int64 [n]; segments of different groups never suppress each other.
        tiou_threshold: a segment of tIoU > threshold (strictly) with a kept one is dropped.

    Returns:
        indices of the kept segments, by group, then by falling score; int64.

    Raises:
        ValueError: sizes that differ, a segment that ends before it starts, or values that are not finite.
    """
    start = np.ascontiguousarray(start, np.float64)
    end = np.ascontiguousarray(end, np.float64)
    score = np.ascontiguousarray(score, np.float64)
    group = np.ascontiguousarray(group, np.int64)
    if not start.shape == end.shape == score.shape == group.shape or start.ndim != 1:
        raise ValueError(f"expected four arrays of one size, got {start.shape}, {end.shape}, {score.shape}, {group.shape}")
    if not (np.isfinite(start).all() and np.isfinite(end).all() and np.isfinite(score).all()):
        raise ValueError("start, end, score: expected finite values")
    if (end < start).any():
        raise ValueError("end: a segment ends before it starts")

    # Positions 0..n-1 are by group, then by start; `best_first` visits them by group, then by falling score.
    by_start = np.lexsort((start, group))
    best_first = np.lexsort((by_start, -score[by_start], group[by_start]))
    sorted_group = group[by_start]
    cdef const double[::1] s = start[by_start]
    cdef const double[::1] e = end[by_start]
    cdef const i64[::1] g = sorted_group
    cdef const i64[::1] visit = best_first.astype(np.int64)
    cdef Py_ssize_t n = s.shape[0], i, j, at, kept = 0
    # The longest segment at or before each position of its group: none further left than that can still overlap.
    reach_array = np.empty(n, np.float64)
    cdef double[::1] reach = reach_array
    cdef unsigned char[::1] dropped = np.zeros(n, np.uint8)
    kept_array = np.empty(n, np.int64)
    cdef i64[::1] keep = kept_array
    cdef double threshold = tiou_threshold, inside
    with nogil:
        for i in range(n):
            reach[i] = e[i]
            if i > 0 and g[i] == g[i - 1] and reach[i - 1] > e[i]:
                reach[i] = reach[i - 1]
        for at in range(n):
            i = visit[at]
            if dropped[i]:
                continue
            keep[kept] = i
            kept += 1
            dropped[i] = 1  # visited: later ones need not compare with it
            j = i + 1
            while j < n and g[j] == g[i] and s[j] <= e[i]:
                if not dropped[j]:
                    inside = min(e[i], e[j]) - s[j]
                    if inside > threshold * ((e[i] - s[i]) + (e[j] - s[j]) - inside):
                        dropped[j] = 1
                j += 1
            # reach[j] is the latest end of all segments up to j: once it lies before s[i], nothing there overlaps.
            j = i - 1
            while j >= 0 and g[j] == g[i] and reach[j] >= s[i]:
                if not dropped[j]:
                    inside = min(e[i], e[j]) - s[i]
                    if inside > threshold * ((e[i] - s[i]) + (e[j] - s[j]) - inside):
                        dropped[j] = 1
                j -= 1
    return by_start[kept_array[:kept]]
