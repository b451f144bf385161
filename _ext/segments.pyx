# cython: language_level=3
"""From scores to segments for a packed batch of videos (RefineLoc, section 3; DESIGN section 1, both profiles).

One pass over the snippets of each chosen class: thresholds, grouping, scoring and widening together. The sums of a
segment run along with the pass, so its score costs no second look at its snippets.
"""

import numpy as np

from cython.parallel cimport prange

ctypedef long long i64

cdef struct Rules:
    bint release
    float least_foreground
    float least_class
    Py_ssize_t max_gap
    Py_ssize_t widen


def detect_segments(
    class_scores, foreground, attention, video_scores, lengths, *,
    profile, alpha_a, alpha_c, top_k, max_gap=1, widen=2, threads=1,
):
    """Detect the segments of a packed batch: S snippets of V videos one after another, N classes.

    Args:
        class_scores: C̄, float32 [S, N].
        foreground: Ā^bf_fg, float32 [S].
        attention: Ā^time, float32 [S].
        video_scores: ŷ, float32 [V, N].
        lengths: snippets of each video, int64 [V], which sum to S; a video may have none.
        profile: "paper" keeps a snippet at foreground >= 1 - alpha_a and C̄ >= alpha_c and joins kept snippets that at
            most `max_gap` removed ones separate; "release" keeps at strictly greater on both, and takes the runs of the
            kept snippets dilated by one at both sides. The thresholds are rounded to float32 once, and compared so.
        alpha_a, alpha_c: α_A and α_C, in [0, 1].
        top_k: classes a video, those of the largest ŷ (of equal ones, the lower index).
        max_gap: see `profile`; "release" does not use it.
        widen: snippets added at both ends after scoring, clipped to the video.
        threads: over videos; the result is the same for any number.

    Returns:
        video int64 [n], label int64 [n], first int64 [n], last int64 [n], score float64 [n]; snippets are counted from
        the video's first, both ends included. Order: by video, then by rank of the class, then by time.
        The score is the mean over the segment (before widening) of Ā^time + C̄_n, plus ŷ_n ("paper"), or the mean of C̄_n
        plus that of the foreground, plus ŷ_n, over the dilated run ("release"); sums in float64, from left to right.

    Raises:
        TypeError: an argument of another dtype.
        ValueError: shapes that do not fit together, an unknown profile, a setting out of range, or NaN.
    """
    class_scores = _checked("class_scores", class_scores, np.float32, 2)
    foreground = _checked("foreground", foreground, np.float32, 1)
    attention = _checked("attention", attention, np.float32, 1)
    video_scores = _checked("video_scores", video_scores, np.float32, 2)
    lengths = _checked("lengths", lengths, np.int64, 1)
    snippets, classes = class_scores.shape
    if foreground.shape[0] != snippets or attention.shape[0] != snippets:
        raise ValueError(
            f"foreground, attention: expected {snippets} snippets as in class_scores, "
            f"got {foreground.shape[0]} and {attention.shape[0]}"
        )
    if video_scores.shape != (lengths.shape[0], classes):
        raise ValueError(f"video_scores: expected shape {(lengths.shape[0], classes)}, got {video_scores.shape}")
    if (lengths < 0).any() or lengths.sum() != snippets:
        raise ValueError(f"lengths: expected lengths of at least 0 that sum to {snippets}, got a sum of {lengths.sum()}")
    if profile not in ("paper", "release"):
        raise ValueError(f"profile: expected 'paper' or 'release', got {profile!r}")
    for name, value, least in (("top_k", top_k, 1), ("max_gap", max_gap, 0), ("widen", widen, 0), ("threads", threads, 1)):
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")
    for name, value in (("alpha_a", alpha_a), ("alpha_c", alpha_c)):
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{name}: expected a number from 0 to 1, got {value}")

    cdef Rules rules
    rules.release = profile == "release"
    rules.least_foreground = np.float32(1.0 - alpha_a)
    rules.least_class = np.float32(alpha_c)
    rules.max_gap = 0 if rules.release else max_gap
    rules.widen = widen

    # The k largest ŷ of each video; stable, so that of equal ones the lower index comes first.
    cdef Py_ssize_t chosen = min(top_k, classes)
    ranked = np.ascontiguousarray(np.argsort(-video_scores, axis=1, kind="stable")[:, :chosen]).astype(np.int64)

    # Two segments of a class have a removed snippet between them, so T snippets hold at most (T + 1) // 2 a class. Each
    # video writes into its own part of buffers of that size; pages that nobody writes cost nothing.
    room = (lengths + 1) // 2 * chosen
    offset_array = np.concatenate([[0], np.cumsum(room)]).astype(np.int64)
    start_array = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    capacity = int(room.sum())
    label_array = np.empty(capacity, np.int64)
    first_array = np.empty(capacity, np.int64)
    last_array = np.empty(capacity, np.int64)
    score_array = np.empty(capacity, np.float64)
    count_array = np.zeros(lengths.shape[0], np.int64)

    cdef const float[:, ::1] c = class_scores
    cdef const float[::1] f = foreground
    cdef const float[::1] a = attention
    cdef const float[:, ::1] y = video_scores
    cdef const i64[:, ::1] order = ranked
    cdef const i64[::1] starts = start_array
    cdef const i64[::1] offsets = offset_array
    cdef i64[::1] label = label_array
    cdef i64[::1] first = first_array
    cdef i64[::1] last = last_array
    cdef double[::1] score = score_array
    cdef i64[::1] count = count_array
    cdef Py_ssize_t v, videos = lengths.shape[0]
    cdef int workers = threads
    if capacity:
        for v in prange(videos, nogil=True, num_threads=workers, schedule="dynamic"):
            count[v] = _video(c, f, a, y, order, v, starts[v], starts[v + 1], offsets[v], label, first, last, score, rules)

    # Close the unused rooms: the k-th segment written lies at its video's offset plus its rank within the video.
    earlier = np.cumsum(count_array) - count_array
    taken = np.arange(count_array.sum()) + np.repeat(offset_array[:videos] - earlier, count_array)
    return (
        np.repeat(np.arange(videos, dtype=np.int64), count_array),
        label_array[taken],
        first_array[taken],
        last_array[taken],
        score_array[taken],
    )


cdef struct Run:
    # The sums of an open segment's snippets, from its first to the one just seen; and what they were at the last snippet
    # that surely belongs to it.
    Py_ssize_t first
    Py_ssize_t last
    double classes, weight
    double sure_classes, sure_weight


cdef i64 _video(
    const float[:, ::1] c, const float[::1] f, const float[::1] a, const float[:, ::1] y, const i64[:, ::1] order,
    Py_ssize_t v, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t at,
    i64[::1] label, i64[::1] first, i64[::1] last, double[::1] score, Rules rules,
) noexcept nogil:
    """The segments of one video, snippets begin..end-1 of the batch, written from `at` on; returns how many."""
    cdef Py_ssize_t rank, t, n, low, high, written = at
    cdef bint inside, before, here, after
    cdef Run run
    for rank in range(order.shape[1]):
        n = order[v, rank]
        run.first = -1
        before = False
        here = begin < end and _kept(c, f, begin, n, rules)
        # Invariant: run.first >= 0 while a segment is open; run.last is its last snippet that is sure. The round t = end
        # closes the last segment.
        for t in range(begin, end + 1):
            after = t + 1 < end and _kept(c, f, t + 1, n, rules)
            inside = t < end and (here or (rules.release and (before or after)))
            if run.first >= 0 and not inside and (t == end or t - run.last > rules.max_gap):
                low = max(run.first - rules.widen, begin)
                high = min(run.last + rules.widen, end - 1)
                label[written] = n
                first[written] = low - begin
                last[written] = high - begin
                score[written] = _score(run, y[v, n], rules)
                written += 1
                run.first = -1
            if inside and run.first < 0:
                run.first = t
                run.classes = run.weight = 0.0
            if run.first >= 0 and t < end:
                run.classes += c[t, n]
                run.weight += f[t] if rules.release else a[t]
                if inside:
                    run.last = t
                    run.sure_classes = run.classes
                    run.sure_weight = run.weight
            before = here
            here = after
    return written - at


cdef inline bint _kept(const float[:, ::1] c, const float[::1] f, Py_ssize_t t, Py_ssize_t n, Rules rules) noexcept nogil:
    if rules.release:
        return f[t] > rules.least_foreground and c[t, n] > rules.least_class
    return f[t] >= rules.least_foreground and c[t, n] >= rules.least_class


cdef inline double _score(Run run, double video_score, Rules rules) noexcept nogil:
    cdef double length = run.last - run.first + 1
    return run.sure_classes / length + run.sure_weight / length + video_score


def _checked(name, values, dtype, ndim):
    """The argument as a C-contiguous array of the right dtype and without NaN; nothing is converted silently."""
    array = np.asarray(values)
    if array.dtype != dtype:
        raise TypeError(f"{name}: expected {np.dtype(dtype)}, got {array.dtype}")
    if array.ndim != ndim:
        raise ValueError(f"{name}: expected {ndim} dimensions, got shape {array.shape}")
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise ValueError(f"{name}: holds NaN")
    return np.ascontiguousarray(array)
