# cython: language_level=3
"""From snippets to seconds, and the detections of each video of a packed batch by falling score."""

include "arrays.pxi"
include "sorting.pxi"

# Columns of a grid (`refineloc.runtime.segments.grid`).
cdef enum:
    STRIDE, OFFSET, FPS, DURATION
    GRID_COLUMNS


cdef struct Grid:
    double stride
    double offset
    double fps
    double duration


def seconds(first, last, grid):
    """The times that the snippets first..last (both included) stand for, clipped to the video.

    Args:
        first, last: float64 [n].
        grid: float64 [4]: frames from one snippet to the next, frames before the first, frames a second, and the length
            of the video in seconds, infinity where it is not known.

    Returns:
        start, end: float64 [n].

    Raises:
        ValueError: sizes that do not fit together.
    """
    first, last, grid = _values(first, _float64), _values(last, _float64), _values(grid, _float64)
    if first.shape != last.shape or first.ndim != 1 or grid.shape != (GRID_COLUMNS,):
        raise ValueError(f"expected two arrays of one size and a grid, got {first.shape}, {last.shape}, {grid.shape}")
    cdef const double[::1] firsts = first
    cdef const double[::1] lasts = last
    cdef Grid g = _grid(grid[None], 0)
    start, end = _empty(first.shape, _float64), _empty(first.shape, _float64)
    cdef double[::1] starts = start
    cdef double[::1] ends = end
    cdef Py_ssize_t i
    with nogil:
        for i in range(firsts.shape[0]):
            starts[i], ends[i] = _start(firsts[i], g), _end(lasts[i], g)
    return start, end


def best_first(video, label, first, last, score, grids):
    """Segments of a packed batch in seconds: by video, then by falling score; of equal scores the earlier first.

    Those that begin where the video ends, or later, are left out.

    Args:
        video: which of the V videos, 0 to V - 1, not falling; int64 [n].
        label: int64 [n].
        first, last: snippets, both included; float64 [n].
        score: float64 [n].
        grids: as for `seconds`, of each video; float64 [V, 4].

    Returns:
        begins int64 [V + 1], start float64 [m], end float64 [m], score float64 [m], label int64 [m]; those of video v
        lie at begins[v]..begins[v + 1] - 1.

    Raises:
        TypeError: videos or labels that are no integers, or that int64 does not hold.
        ValueError: sizes that do not fit together, a video out of range or order, or a score that is NaN.
    """
    video, label = _indices("video", video), _indices("label", label)
    first, last, score = _values(first, _float64), _values(last, _float64), _values(score, _float64)
    grids = _values(grids, _float64)
    if not video.shape == label.shape == first.shape == last.shape == score.shape or video.ndim != 1:
        raise ValueError(
            "expected five arrays of one size, got "
            f"{video.shape}, {label.shape}, {first.shape}, {last.shape}, {score.shape}"
        )
    if grids.ndim != 2 or grids.shape[1] != GRID_COLUMNS:
        raise ValueError(f"grids: expected {GRID_COLUMNS} columns, got shape {grids.shape}")
    cdef const i64[::1] videos = video
    cdef const i64[::1] labels = label
    cdef const double[::1] firsts = first
    cdef const double[::1] lasts = last
    cdef const double[::1] scores = score
    cdef const double[:, ::1] table = grids
    cdef Grid g
    cdef Py_ssize_t n = videos.shape[0], v, i, k, at = 0, begin = 0, count, most = 0
    if n >= 1 << 32:
        raise ValueError(f"expected fewer than 2^32 segments, got {n}")
    begins = _empty(table.shape[0] + 1, _int64)
    cdef i64[::1] first_of = begins
    for v in range(table.shape[0]):
        i = begin
        while i < n and videos[i] == v:
            if scores[i] != scores[i]:
                raise ValueError("score: holds NaN")
            i += 1
        most = max(most, i - begin)
        begin = i
    if begin != n:
        raise ValueError(f"video: expected 0 to {table.shape[0] - 1}, not falling; got {video[begin]} at {begin}")

    start, end, out_score = _empty(n, _float64), _empty(n, _float64), _empty(n, _float64)
    out_label = _empty(n, _int64)
    cdef double[::1] starts = start
    cdef double[::1] ends = end
    cdef double[::1] ordered = out_score
    cdef i64[::1] ordered_label = out_label
    cdef u64[:, ::1] room = _empty((SORT_ROWS, most), _uint64)
    begin = 0
    with nogil:
        for v in range(table.shape[0]):
            g = _grid(table, v)
            first_of[v] = at
            count = 0
            while begin < n and videos[begin] == v:
                if _start(firsts[begin], g) < _end(lasts[begin], g):
                    room[KEY, count], room[PLACE, count] = ~rising(scores[begin]), begin
                    count += 1
                begin += 1
            sort_by_key(room, count)
            for k in range(count):
                i = room[PLACE, k]
                starts[at], ends[at] = _start(firsts[i], g), _end(lasts[i], g)
                ordered[at], ordered_label[at] = scores[i], labels[i]
                at += 1
        first_of[table.shape[0]] = at
    return begins, start[:at], end[:at], out_score[:at], out_label[:at]


cdef inline Grid _grid(const double[:, ::1] grids, Py_ssize_t v) noexcept nogil:
    cdef Grid grid
    grid.stride, grid.offset, grid.fps = grids[v, STRIDE], grids[v, OFFSET], grids[v, FPS]
    grid.duration = grids[v, DURATION]
    return grid


cdef inline double _start(double first, Grid grid) noexcept nogil:
    return min(max((first * grid.stride + grid.offset) / grid.fps, 0.0), grid.duration)


cdef inline double _end(double last, Grid grid) noexcept nogil:
    return min(((last + 1.0) * grid.stride + grid.offset) / grid.fps, grid.duration)
