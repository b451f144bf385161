# cython: language_level=3
"""Proposals at many thresholds for a packed batch of videos, as BaS-Net and W-TALC make them (docs/method.md).

The runs of a class at rising thresholds lie within each other, also where they join over gaps: what is kept at a
threshold is kept at every lower one. So one sweep over the snippets finds the runs at all thresholds. It holds the runs
that are open, one a threshold; a snippet costs one look, and one step for each threshold that its value rises or falls
past. Sums come from prefix sums, so a score costs the same for every length.
"""

from libc.math cimport INFINITY, ceil, fmin, isfinite

include "packed.pxi"

# Rows of the table that holds the proposals, of the one that holds the videos, and of the one that holds open runs.
cdef enum:
    VIDEO, LABEL, FIRST, LAST
    PROPOSAL_ROWS
cdef enum:
    BEGIN, OFFSET, COUNT
    VIDEO_ROWS
cdef enum:
    RUN_FIRST, RUN_LAST
    RUN_ROWS


cdef struct Rules:
    bint contrast
    double outer
    double video_weight
    Py_ssize_t max_gap
    Py_ssize_t widen


def detect_proposals(
    class_scores, video_scores, lengths, *,
    thresholds, top_k, scoring, outer=0.25, video_weight=0.2, max_gap=0, widen=0,
):
    """Detect the proposals of a packed batch: S snippets of V videos one after another, N classes.

    For each video and each of its chosen classes, x_t = (C̄_tn - min) / (max - min), with the least and largest C̄_n of
    the video, in float32; a class whose C̄ is the same everywhere has no proposals. A proposal is a run of snippets with
    x_t > h for one of the thresholds h; a run that several thresholds give is one proposal.

    Args:
        class_scores: C̄, float32 [S, N].
        video_scores: ŷ, float32 [V, N].
        lengths: snippets of each video, int64 [V], which sum to S; a video may have none.
        thresholds: numbers in [0, 1], at least one; rounded to float32 once. Order and repetition make no difference.
        top_k: classes a video, those of the largest ŷ (of equal ones, the lower index).
        scoring: "contrast", the outer-inner contrast (AutoLoc, ECCV 2018; BaS-Net): the mean of x inside, less the mean of
            x over ceil(outer * length) snippets at each side, as far as they are in the video (0 where there are none);
            or "peak" (W-TALC): the largest C̄_n inside. To both `video_weight` * ŷ_n is added.
        outer: width of the ring outside, as a share of the proposal's length.
        video_weight: of ŷ in the score.
        max_gap: removed snippets that may separate kept ones of a proposal.
        widen: snippets added at both ends after scoring, clipped to the video.

    Returns:
        video int64 [n], label int64 [n], first int64 [n], last int64 [n], score float64 [n]; snippets are counted from
        the video's first, both ends included. Order: by video, then by rank of the class, then by first and last before
        widening. Sums are float64 differences of sums from the video's first snippet on, from left to right.

    Raises:
        TypeError: an argument of another dtype.
        ValueError: shapes that do not fit together, an unknown scoring, a setting out of range, NaN in ŷ, or, in a
            chosen class of a video, C̄ that is not finite or of a range that is none in float32.
    """
    class_scores = _checked("class_scores", class_scores, _float32, 2)
    video_scores = _checked("video_scores", video_scores, _float32, 2)
    lengths = _checked("lengths", lengths, _int64, 1)
    cdef const float[:, ::1] c = class_scores
    cdef const float[:, ::1] y = video_scores
    cdef const i64[::1] length = lengths
    cdef Py_ssize_t snippets = c.shape[0], classes = c.shape[1], videos = length.shape[0]
    if y.shape[0] != videos or y.shape[1] != classes:
        raise ValueError(f"video_scores: expected shape {(videos, classes)}, got {video_scores.shape}")
    if scoring not in ("contrast", "peak"):
        raise ValueError(f"scoring: expected 'contrast' or 'peak', got {scoring!r}")
    for name, value, least in (("top_k", top_k, 1), ("max_gap", max_gap, 0), ("widen", widen, 0)):
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")
    for name, value in (("outer", outer), ("video_weight", video_weight)):
        if not 0.0 <= value < INFINITY:
            raise ValueError(f"{name}: expected a finite number of at least 0, got {value}")
    cdef const float[::1] levels = _levels(thresholds)

    cdef Rules rules
    rules.contrast = scoring == "contrast"
    rules.outer, rules.video_weight = outer, video_weight
    # No gap or widening goes beyond the snippets there are: so that sums of them cannot overflow.
    rules.max_gap, rules.widen = min(max_gap, snippets), min(widen, snippets)

    # Runs within each other have each a snippet that no smaller one has, and the least snippet is in none: so there are
    # fewer than snippets, and for few thresholds (T + 1) // 2 a threshold. Each video writes into its own part of a table
    # of that size, from its end on; pages that nobody writes cost nothing.
    cdef Py_ssize_t chosen = min(top_k, classes), v, begin = 0, capacity = 0, total = 0, at, i
    cdef i64[:, ::1] video = _empty((VIDEO_ROWS, videos), _int64)
    for v in range(videos):
        # Compared with what is left, so that lengths whose sum overflows cannot pass.
        if not 0 <= length[v] <= snippets - begin:
            raise ValueError(f"lengths: expected lengths of at least 0 that sum to {snippets}, got {lengths.tolist()}")
        begin += length[v]
        capacity += min(length[v], (length[v] + 1) // 2 * levels.shape[0]) * chosen
        video[BEGIN, v], video[OFFSET, v] = begin - length[v], capacity
    if begin != snippets:
        raise ValueError(f"lengths: expected lengths of at least 0 that sum to {snippets}, got a sum of {begin}")
    cdef i64[:, ::1] ranked = _empty((videos, chosen), _int64)
    if not _rank(y, ranked):
        raise ValueError("video_scores: holds NaN")

    cdef i64[:, ::1] found = _empty((PROPOSAL_ROWS, capacity), _int64)
    cdef double[::1] found_score = _empty(capacity, _float64)
    # One class of each video: x, and its sums from the video's first snippet on, one more than snippets a video.
    cdef float[::1] x = _empty(snippets, _float32)
    cdef double[::1] sums = _empty(snippets + videos, _float64)
    # The open runs of each thread. Level k is the k-th lowest threshold, from 1 on; level 0 holds what nobody reads.
    cdef i64[:, ::1] run = _empty((RUN_ROWS, levels.shape[0] + 1), _int64)
    cdef float[::1] peak = _empty(levels.shape[0] + 1, _float32)
    with nogil:
        for v in range(videos):
            video[COUNT, v] = _video(
                c, y, ranked, levels, v, video[BEGIN, v], length[v], video[OFFSET, v], x[video[BEGIN, v]:],
                sums[video[BEGIN, v] + v:], run, peak, found, found_score, rules,
            )
    for v in range(videos):
        if video[COUNT, v] < 0:
            raise ValueError("class_scores: expected finite values, of a range that float32 holds")
        total += video[COUNT, v]

    # Close up the parts that the videos did not fill.
    proposals = _empty((PROPOSAL_ROWS, total), _int64)
    scores = _empty(total, _float64)
    cdef i64[:, ::1] out = proposals
    cdef double[::1] out_score = scores
    at = 0
    with nogil:
        for v in range(videos):
            for i in range(video[OFFSET, v] - video[COUNT, v], video[OFFSET, v]):
                out[VIDEO, at], out[LABEL, at] = v, found[LABEL, i]
                out[FIRST, at], out[LAST, at] = found[FIRST, i], found[LAST, i]
                out_score[at] = found_score[i]
                at += 1
    return proposals[VIDEO], proposals[LABEL], proposals[FIRST], proposals[LAST], scores


cdef i64 _video(
    const float[:, ::1] c, const float[:, ::1] y, const i64[:, ::1] ranked, const float[::1] levels, Py_ssize_t v,
    Py_ssize_t begin, Py_ssize_t length, Py_ssize_t offset, float[::1] x, double[::1] sums, i64[:, ::1] run,
    float[::1] peak, i64[:, ::1] found, double[::1] score, Rules rules,
) noexcept nogil:
    """The proposals of one video, written so that the last is at offset - 1; how many, or -1: C̄ is not finite.

    The last class first, and each class from its last snippet to its first: so the proposals come to lie in order.
    """
    cdef Py_ssize_t rank, n, t, k, low, at = offset, max_gap = min(rules.max_gap, length)
    cdef Py_ssize_t level  # of the snippet at t: how many thresholds are below its x
    cdef Py_ssize_t open_  # levels 1..open_ have an open run
    cdef double weighted
    for rank in range(ranked.shape[1] - 1, -1, -1):
        n = ranked[v, rank]
        if not _normalised(c, begin, length, n, x, sums):
            return -1
        weighted = rules.video_weight * y[v, n]
        level = open_ = 0
        peak[0] = -INFINITY
        # Invariant: the open run of level k has its last snippet at run[RUN_LAST, k], and its first one so far at t + 1
        # (k <= level) or at run[RUN_FIRST, k] (k > level), which does not fall with k. Nothing is kept before snippet 0.
        for t in range(length - 1, -2 - max_gap, -1):
            while level > 0 and (t < 0 or not x[t] > levels[level - 1]):
                run[RUN_FIRST, level] = t + 1
                level -= 1
            while t >= 0 and level < levels.shape[0] and x[t] > levels[level]:
                level += 1
                if level > open_:
                    open_ = level
                    run[RUN_LAST, level] = t
                    peak[level] = -INFINITY
            if level > 0:
                peak[level] = max(peak[level], c[begin + t, n])
            low = open_
            while low > level and run[RUN_FIRST, low] - t > max_gap:
                peak[low - 1] = max(peak[low - 1], peak[low])
                low -= 1
            # The runs of the levels low + 1..open_ can grow no more, and all have the same first snippet.
            for k in range(low + 1, open_ + 1):
                if k > low + 1 and run[RUN_LAST, k] == run[RUN_LAST, k - 1]:
                    continue  # the run of the threshold before
                at -= 1
                found[LABEL, at] = n
                found[FIRST, at] = max(run[RUN_FIRST, k] - rules.widen, 0)
                found[LAST, at] = min(run[RUN_LAST, k] + rules.widen, length - 1)
                if rules.contrast:
                    score[at] = _contrast(sums, length, run[RUN_FIRST, k], run[RUN_LAST, k], rules.outer) + weighted
                else:
                    score[at] = peak[k] + weighted
            open_ = low
    return offset - at


cdef inline bint _normalised(
    const float[:, ::1] c, Py_ssize_t begin, Py_ssize_t length, Py_ssize_t n, float[::1] x, double[::1] sums,
) noexcept nogil:
    """x of class n in one video, and its sums; False where C̄ is not finite, or its range is none in float32."""
    cdef Py_ssize_t t
    cdef float value, least = INFINITY, most = -INFINITY, span
    cdef double total = 0.0
    cdef bint ordered = True
    for t in range(length):
        value = x[t] = c[begin + t, n]
        ordered &= value == value
        least, most = min(value, least), max(value, most)
    span = most - least
    if length > 0 and not (ordered and isfinite(span)):
        return False
    sums[0] = 0.0
    for t in range(length):
        x[t] = (x[t] - least) / span if span > 0.0 else <float>0.0
        total += x[t]
        sums[t + 1] = total
    return True


cdef inline double _contrast(
    const double[::1] sums, Py_ssize_t length, Py_ssize_t first, Py_ssize_t last, double outer
) noexcept nogil:
    """The mean of x over first..last, less its mean over the ring outside."""
    cdef Py_ssize_t size = last - first + 1, ring = <Py_ssize_t>fmin(ceil(outer * size), length)
    cdef Py_ssize_t left = max(first - ring, 0), right = min(last + ring, length - 1)
    cdef double inside = sums[last + 1] - sums[first], outside
    if right - left + 1 == size:
        return inside / size
    outside = (sums[first] - sums[left]) + (sums[right + 1] - sums[last + 1])
    return inside / size - outside / (right - left + 1 - size)


cdef _levels(thresholds):
    """The thresholds in float32, rising, each once."""
    thresholds = list(thresholds)  # of its own: as long as it says, however the caller's may change
    cdef float[::1] levels = _empty(len(thresholds), _float32)
    cdef Py_ssize_t count = 0, at, i
    cdef double threshold
    cdef float level
    for threshold in thresholds:
        if not 0.0 <= threshold <= 1.0:
            raise ValueError(f"thresholds: expected numbers from 0 to 1, got {threshold}")
        level = <float>threshold
        at = count
        while at > 0 and levels[at - 1] > level:
            at -= 1
        if at > 0 and levels[at - 1] == level:
            continue
        for i in range(count, at, -1):
            levels[i] = levels[i - 1]
        levels[at] = level
        count += 1
    if not count:
        raise ValueError("thresholds: expected at least one")
    return levels[:count]
