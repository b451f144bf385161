# cython: language_level=3
"""Proposals at many thresholds of one or two curves, for a packed batch of videos (docs/explanation/method.md).

The runs of a curve at rising thresholds lie within each other, also where they join over gaps: what is kept at a
threshold is kept at every lower one. So one sweep over the snippets finds the runs at all thresholds. It holds the runs
that are open, one a threshold; a snippet costs one look, and one step for each threshold that its value rises or falls
past. Sums come from prefix sums, so a score costs the same for every length.
"""

from libc.math cimport INFINITY, ceil, fmin, isfinite, pow

include "packed.pxi"

# Rows of the table that holds the proposals, of the one that holds the videos, and of those that hold runs.
cdef enum:
    VIDEO, LABEL, FIRST, LAST
    PROPOSAL_ROWS
cdef enum:
    BEGIN, OFFSET, COUNT
    VIDEO_ROWS
cdef enum:
    RUN_FIRST, RUN_LAST
    RUN_ROWS
# The curves that have runs.
cdef enum:
    OF_CLASS, OF_FOREGROUND
    CURVES


cdef struct Rules:
    bint of_class  # the class activation has runs
    bint of_foreground
    bint product
    bint contrast
    bint multiply  # ŷ multiplies the score
    double outer
    double length_power
    double video_weight
    Py_ssize_t max_gap
    Py_ssize_t widen


# What `_video` gives in place of a count.
cdef enum:
    BAD_CLASS = -1
    BAD_FOREGROUND = -2


def detect_proposals(
    class_scores, foreground, video_scores, lengths, *,
    thresholds, top_k, scoring, curve="class", scored_on="class", outer=0.25, length_power=0.0,
    video_term="add", video_weight=0.2, max_gap=0, widen=0,
):
    """Detect the proposals of a packed batch: S snippets of V videos one after another, N classes.

    A curve is normalised over each video, in float32: x_t = (z_t - min) / (max - min), with the least and largest z of
    the video; one that is the same everywhere has no runs. A proposal is a run of snippets with x_t > h for one of the
    thresholds h; a run that several thresholds or both curves give is one proposal.

    Args:
        class_scores: C̄, float32 [S, N].
        foreground: Ā^bf_fg, float32 [S]; not looked at where `curve` and `scored_on` are "class".
        video_scores: ŷ, float32 [V, N]; a class of -inf is never chosen.
        lengths: snippets of each video, int64 [V], which sum to S; a video may have none.
        thresholds: numbers in [0, 1], at least one; rounded to float32 once. Order and repetition make no difference.
        top_k: classes a video, those of the largest ŷ (of equal ones, the lower index).
        scoring: "contrast", the outer-inner contrast (AutoLoc, ECCV 2018; BaS-Net): the mean inside, less the mean over
            ceil(outer * length) snippets at each side, as far as they are in the video (0 where there are none);
            or "peak" (W-TALC): the largest value inside.
        curve: whose runs are proposals: "class" (C̄_n), "foreground" (the same runs for every class), or "both".
        scored_on: what is inside and outside: "class" (normalised C̄_n for the contrast, C̄_n for the peak), or "product"
            (foreground * C̄_n in float32, not normalised).
        outer: width of the ring outside, as a share of the proposal's length.
        length_power: contrast or peak is multiplied by the proposal's length in snippets, before it is widened, to this
            power; 0 leaves it.
        video_term: how ŷ enters the score s: "add": s + `video_weight` * ŷ_n (BaS-Net, W-TALC); "multiply": max(s, 0) * ŷ_n.
        video_weight: of ŷ where it is added.
        max_gap: removed snippets that may separate kept ones of a proposal.
        widen: snippets added at both ends after scoring, clipped to the video.

    Returns:
        video int64 [n], label int64 [n], first int64 [n], last int64 [n], score float64 [n]; snippets are counted from
        the video's first, both ends included. Order: by video, then by rank of the class, then by first and last before
        widening. Sums are float64 differences of sums from the video's first snippet on, from left to right.

    Raises:
        TypeError: an argument of another dtype.
        ValueError: shapes that do not fit together, an unknown word, a setting out of range, NaN in ŷ, or,
            in what a video's proposals depend on, a value that is not finite or a range that is none in float32.
    """
    class_scores = _checked("class_scores", class_scores, _float32, 2)
    foreground = _checked("foreground", foreground, _float32, 1)
    video_scores = _checked("video_scores", video_scores, _float32, 2)
    lengths = _checked("lengths", lengths, _int64, 1)
    cdef const float[:, ::1] c = class_scores
    cdef const float[::1] f = foreground
    cdef const float[:, ::1] y = video_scores
    cdef const i64[::1] length = lengths
    cdef Py_ssize_t snippets = c.shape[0], classes = c.shape[1], videos = length.shape[0]
    if f.shape[0] != snippets:
        raise ValueError(f"foreground: expected {snippets} snippets as in class_scores, got {f.shape[0]}")
    if y.shape[0] != videos or y.shape[1] != classes:
        raise ValueError(f"video_scores: expected shape {(videos, classes)}, got {video_scores.shape}")
    for name, value, allowed in (
        ("scoring", scoring, ("contrast", "peak")),
        ("curve", curve, ("class", "foreground", "both")),
        ("scored_on", scored_on, ("class", "product")),
        ("video_term", video_term, ("add", "multiply")),
    ):
        if value not in allowed:
            raise ValueError(f"{name}: expected {' or '.join(map(repr, allowed))}, got {value!r}")
    for name, value, least in (("top_k", top_k, 1), ("max_gap", max_gap, 0), ("widen", widen, 0)):
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")
    for name, value in (("outer", outer), ("video_weight", video_weight)):
        if not 0.0 <= value < INFINITY:
            raise ValueError(f"{name}: expected a finite number of at least 0, got {value}")
    if not 0.0 <= length_power <= 1.0:
        raise ValueError(f"length_power: expected a number from 0 to 1, got {length_power}")
    cdef const float[::1] levels = _levels(thresholds)

    cdef Rules rules
    rules.of_class, rules.of_foreground = curve != "foreground", curve != "class"
    rules.product = scored_on == "product"
    rules.contrast, rules.multiply = scoring == "contrast", video_term == "multiply"
    rules.outer, rules.video_weight, rules.length_power = outer, video_weight, length_power
    # No gap or widening goes beyond the snippets there are: so that sums of them cannot overflow.
    rules.max_gap, rules.widen = min(max_gap, snippets), min(widen, snippets)

    # Runs within each other have each a snippet that no smaller one has, and the least snippet is in none: so there are
    # fewer than snippets, and for few thresholds (T + 1) // 2 a threshold. Each video writes into its own part of a table
    # of that size; pages that nobody writes cost nothing.
    cdef Py_ssize_t chosen = min(top_k, classes), curves = rules.of_class + rules.of_foreground
    cdef Py_ssize_t v, begin = 0, capacity = 0, most_runs = 0, most_length = 0, runs, total = 0, at, i
    cdef i64[:, ::1] video = _empty((VIDEO_ROWS, videos), _int64)
    for v in range(videos):
        # Compared with what is left, so that lengths whose sum overflows cannot pass.
        if not 0 <= length[v] <= snippets - begin:
            raise ValueError(f"lengths: expected lengths of at least 0 that sum to {snippets}, got {lengths.tolist()}")
        runs = min(length[v], (length[v] + 1) // 2 * levels.shape[0])
        most_runs = max(most_runs, runs)
        most_length = max(most_length, length[v])
        video[BEGIN, v], video[OFFSET, v] = begin, capacity
        begin += length[v]
        capacity += runs * curves * chosen
    if begin != snippets:
        raise ValueError(f"lengths: expected lengths of at least 0 that sum to {snippets}, got a sum of {begin}")
    cdef i64[:, ::1] ranked = _empty((videos, chosen), _int64)
    if not _rank(y, ranked):
        raise ValueError("video_scores: holds NaN")

    cdef i64[:, ::1] proposal = _empty((PROPOSAL_ROWS, capacity), _int64)
    cdef double[::1] score = _empty(capacity, _float64)
    # The curves of each video: x of each, what is scored, and its sums from the video's first snippet on, one more than
    # snippets a video.
    cdef float[:, ::1] x = _empty((CURVES, snippets), _float32)
    cdef float[::1] scored = _empty(snippets, _float32)
    cdef double[::1] sums = _empty(snippets + videos, _float64)
    # Level k is the k-th lowest threshold, from 1 on; level 0 holds what nobody reads.
    cdef i64[:, ::1] open_ = _empty((RUN_ROWS, levels.shape[0] + 1), _int64)
    cdef float[::1] open_peak = _empty(levels.shape[0] + 1, _float32)
    # Powers of lengths, each found when it is first wanted; 0 until then.
    cdef double[::1] powers = _empty(most_length + 1 if length_power > 0.0 else 0, _float64)
    for i in range(powers.shape[0]):
        powers[i] = 0.0
    cdef i64[:, :, ::1] run = _empty((CURVES, RUN_ROWS, most_runs), _int64)
    cdef float[:, ::1] peak = _empty((CURVES, most_runs), _float32)
    with nogil:
        for v in range(videos):
            video[COUNT, v] = _video(
                c, f, y, ranked, levels, v, video[BEGIN, v], length[v], video[OFFSET, v], x[:, video[BEGIN, v]:],
                scored[video[BEGIN, v]:], sums[video[BEGIN, v] + v:], open_, open_peak, run, peak, proposal, score,
                powers, rules,
            )
    for v in range(videos):
        if video[COUNT, v] == BAD_CLASS:
            raise ValueError("class_scores: expected finite values, of a range that float32 holds")
        if video[COUNT, v] == BAD_FOREGROUND:
            raise ValueError("foreground: expected finite values, of a range that float32 holds")
        total += video[COUNT, v]

    # Close up the parts that the videos did not fill.
    proposals = _empty((PROPOSAL_ROWS, total), _int64)
    scores = _empty(total, _float64)
    cdef i64[:, ::1] out = proposals
    cdef double[::1] out_score = scores
    at = 0
    with nogil:
        for v in range(videos):
            for i in range(video[OFFSET, v], video[OFFSET, v] + video[COUNT, v]):
                out[VIDEO, at], out[LABEL, at] = v, proposal[LABEL, i]
                out[FIRST, at], out[LAST, at] = proposal[FIRST, i], proposal[LAST, i]
                out_score[at] = score[i]
                at += 1
    return proposals[VIDEO], proposals[LABEL], proposals[FIRST], proposals[LAST], scores


cdef i64 _video(
    const float[:, ::1] c, const float[::1] f, const float[:, ::1] y, const i64[:, ::1] ranked,
    const float[::1] levels, Py_ssize_t v, Py_ssize_t begin, Py_ssize_t length, Py_ssize_t offset, float[:, ::1] x,
    float[::1] scored, double[::1] sums, i64[:, ::1] open_, float[::1] open_peak, i64[:, :, ::1] run,
    float[:, ::1] peak, i64[:, ::1] proposal, double[::1] score, double[::1] powers, Rules rules,
) noexcept nogil:
    """Write the proposals of one video from `offset` on; how many, or BAD_CLASS or BAD_FOREGROUND."""
    cdef Py_ssize_t rank, n, t, at = offset, end = run.shape[2]
    # The runs of the class lie at i..end - 1 of their table, those of the foreground at j..end - 1.
    cdef Py_ssize_t i, j, first_of_foreground = end
    cdef bint on_x = rules.contrast and not rules.product  # the contrast is that of x
    cdef i64 first, last
    cdef float highest
    cdef double own
    cdef const float[::1] values = scored
    if on_x:  # no conditional expression: Cython 3 counts the references of its slices wrong
        values = x[OF_CLASS]
    if rules.of_foreground or rules.product:
        if not _normalise(f[begin:begin + length], x[OF_FOREGROUND]):
            return BAD_FOREGROUND
    if rules.of_foreground and rules.contrast:  # the same runs for every class; peaks differ
        first_of_foreground = _sweep(
            x[OF_FOREGROUND], length, levels, values, rules, open_, open_peak, run[OF_FOREGROUND], peak[OF_FOREGROUND]
        )
    for rank in range(ranked.shape[1]):
        n = ranked[v, rank]
        if n < 0:
            break
        if (rules.of_class or on_x) and not _normalise(c[begin:begin + length, n], x[OF_CLASS]):
            return BAD_CLASS
        if not on_x:
            for t in range(length):
                scored[t] = f[begin + t] * c[begin + t, n] if rules.product else c[begin + t, n]
        if not _sum(values, length, sums):
            return BAD_CLASS
        i, j = end, first_of_foreground
        if rules.of_class:
            i = _sweep(x[OF_CLASS], length, levels, values, rules, open_, open_peak, run[OF_CLASS], peak[OF_CLASS])
        if rules.of_foreground and not rules.contrast:
            j = _sweep(
                x[OF_FOREGROUND], length, levels, values, rules, open_, open_peak, run[OF_FOREGROUND],
                peak[OF_FOREGROUND],
            )
        # Both lie in the order of their first and last snippets; a run of both is taken once.
        while i < end or j < end:
            if j == end or (i < end and _is_before(run[OF_CLASS], i, run[OF_FOREGROUND], j)):
                first, last, highest = run[OF_CLASS, RUN_FIRST, i], run[OF_CLASS, RUN_LAST, i], peak[OF_CLASS, i]
                i += 1
            else:
                first, last = run[OF_FOREGROUND, RUN_FIRST, j], run[OF_FOREGROUND, RUN_LAST, j]
                highest = peak[OF_FOREGROUND, j]
                if i < end and not _is_before(run[OF_FOREGROUND], j, run[OF_CLASS], i):
                    i += 1
                j += 1
            proposal[LABEL, at] = n
            proposal[FIRST, at] = max(first - rules.widen, 0)
            proposal[LAST, at] = min(last + rules.widen, length - 1)
            own = _contrast(sums, length, first, last, rules.outer) if rules.contrast else highest
            if rules.length_power > 0.0:
                own *= _power(powers, last - first + 1, rules.length_power)
            score[at] = max(own, 0.0) * y[v, n] if rules.multiply else own + rules.video_weight * y[v, n]
            at += 1
    return at - offset


cdef inline bint _is_before(i64[:, ::1] one, Py_ssize_t i, i64[:, ::1] other, Py_ssize_t j) noexcept nogil:
    if one[RUN_FIRST, i] != other[RUN_FIRST, j]:
        return one[RUN_FIRST, i] < other[RUN_FIRST, j]
    return one[RUN_LAST, i] < other[RUN_LAST, j]


cdef Py_ssize_t _sweep(
    const float[::1] x, Py_ssize_t length, const float[::1] levels, const float[::1] values, Rules rules,
    i64[:, ::1] open_, float[::1] open_peak, i64[:, ::1] run, float[::1] peak,
) noexcept nogil:
    """Find the runs of x at all levels, and the largest of `values` in each unless the contrast is wanted.

    They are written from the end of `run` and `peak` on, so that they come to lie in order; returns where they begin.
    """
    cdef Py_ssize_t t, k, low, between, at = run.shape[1], max_gap = min(rules.max_gap, length)
    cdef Py_ssize_t level = 0  # of the snippet at t: how many thresholds are below its x
    cdef Py_ssize_t opened = 0  # levels 1..opened have an open run
    open_peak[0] = -INFINITY
    # Invariant: the open run of level k has its last snippet at open_[RUN_LAST, k], and its first one so far at t + 1
    # (k <= level) or at open_[RUN_FIRST, k] (k > level), which does not fall with k. Nothing is kept before snippet 0.
    for t in range(length - 1, -2 - max_gap, -1):
        while level > 0 and (t < 0 or not x[t] > levels[level - 1]):
            open_[RUN_FIRST, level] = t + 1
            level -= 1
        while t >= 0 and level < levels.shape[0] and x[t] > levels[level]:
            level += 1
            if level > opened:
                opened = level
                open_[RUN_LAST, level] = t
                open_peak[level] = -INFINITY
            elif not rules.contrast:  # what lies between is inside too, and may be high where x is low
                for between in range(t + 1, open_[RUN_FIRST, level]):
                    open_peak[level] = max(open_peak[level], values[between])
        if level > 0 and not rules.contrast:
            open_peak[level] = max(open_peak[level], values[t])
        low = opened
        while low > level and open_[RUN_FIRST, low] - t > max_gap:
            open_peak[low - 1] = max(open_peak[low - 1], open_peak[low])
            low -= 1
        # The runs of the levels low + 1..opened can grow no more, and all have the same first snippet.
        for k in range(low + 1, opened + 1):
            if k > low + 1 and open_[RUN_LAST, k] == open_[RUN_LAST, k - 1]:
                continue  # the run of the threshold before
            at -= 1
            run[RUN_FIRST, at], run[RUN_LAST, at] = open_[RUN_FIRST, k], open_[RUN_LAST, k]
            peak[at] = open_peak[k]
        opened = low
    return at


cdef inline bint _normalise(const float[:] z, float[::1] x) noexcept nogil:
    """x of one curve in one video; False where the curve is not finite, or its range is none in float32."""
    cdef Py_ssize_t t, length = z.shape[0]
    cdef float value, least = INFINITY, most = -INFINITY, span
    cdef bint ordered = True
    for t in range(length):
        value = x[t] = z[t]
        ordered &= value == value
        least, most = min(value, least), max(value, most)
    span = most - least
    if length > 0 and not (ordered and isfinite(span)):
        return False
    if not span > 0.0:
        for t in range(length):
            x[t] = 0.0
        return True
    for t in range(length):
        x[t] = (x[t] - least) / span
    return True


cdef inline bint _sum(const float[::1] values, Py_ssize_t length, double[::1] sums) noexcept nogil:
    """Sums of the values from the first on; False where one is not finite."""
    cdef Py_ssize_t t
    cdef double total = 0.0
    sums[0] = 0.0
    for t in range(length):
        total += values[t]
        sums[t + 1] = total
    return isfinite(total)  # sums of finite float32 stay far within float64


cdef inline double _contrast(
    const double[::1] sums, Py_ssize_t length, Py_ssize_t first, Py_ssize_t last, double outer
) noexcept nogil:
    """The mean over first..last, less the mean over the ring outside."""
    cdef Py_ssize_t size = last - first + 1, ring = <Py_ssize_t>fmin(ceil(outer * size), length)
    cdef Py_ssize_t left = max(first - ring, 0), right = min(last + ring, length - 1)
    cdef double inside = sums[last + 1] - sums[first], outside
    if right - left + 1 == size:
        return inside / size
    outside = (sums[first] - sums[left]) + (sums[right + 1] - sums[last + 1])
    return inside / size - outside / (right - left + 1 - size)


cdef inline double _power(double[::1] powers, Py_ssize_t size, double power) noexcept nogil:
    if powers[size] == 0.0:
        powers[size] = pow(<double>size, power)
    return powers[size]


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
