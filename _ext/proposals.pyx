# cython: language_level=3
"""Proposals at many thresholds of one or two curves, for a packed batch of videos (docs/explanation/method.md).

The runs of a curve at rising thresholds lie within each other, also where they join over gaps: what is kept at a
threshold is kept at every lower one. So one sweep over the snippets finds the runs at all thresholds. It holds the runs
that are open, one a threshold; a snippet costs one look, and one step for each threshold that its value rises or falls
past. Sums come from prefix sums, so a score costs the same for every length.
"""

from libc.math cimport INFINITY, isfinite, pow

include "packed.pxi"

# Rows of the tables that hold the proposals.
cdef enum:
    VIDEO, LABEL
    INDEX_ROWS
cdef enum:
    FIRST, LAST, SCORE
    VALUE_ROWS
# Classes whose sums are found side by side: alone, each addition would wait for the one before.
cdef enum:
    LANES = 4
# Rows of the room to work in. A row of ints that holds first snippets is followed by that of the last ones.
cdef enum:
    X_CLASS, X_FOREGROUND, SCORED, PEAK_CLASS, PEAK_FOREGROUND, OPEN_PEAK
    FLOAT_ROWS
cdef enum:
    SUMS = 0
    POWERS = LANES
    DOUBLE_ROWS
cdef enum:
    OF_CLASS = 0
    OF_FOREGROUND = 2
    OPEN = 4
    INT_ROWS = 6


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
    FULL = -3


def detect_proposals(
    class_scores, foreground, video_scores, lengths, *,
    thresholds, top_k, scoring, class_threshold=0.0, curve="class", scored_on="class", outer=0.25, length_power=0.0,
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
        class_threshold: least ŷ of a class, as a share of the largest of the video, in float32; 0 keeps all.
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
        video int64 [n], label int64 [n], first float64 [n], last float64 [n], score float64 [n]; snippets are counted from
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
    for name, value in (("length_power", length_power), ("class_threshold", class_threshold)):
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{name}: expected a number from 0 to 1, got {value}")
    cdef const float[::1] levels = _levels(thresholds)

    cdef Rules rules
    rules.of_class, rules.of_foreground = curve != "foreground", curve != "class"
    rules.product = scored_on == "product"
    rules.contrast, rules.multiply = scoring == "contrast", video_term == "multiply"
    rules.outer, rules.video_weight, rules.length_power = outer, video_weight, length_power
    # No gap or widening goes beyond the snippets there are: so that sums of them cannot overflow.
    rules.max_gap, rules.widen = min(max_gap, snippets), min(widen, snippets)

    cdef Py_ssize_t v, begin = 0, longest = 0, at = 0, i
    cdef i64 count = 0
    for v in range(videos):
        # Compared with what is left, so that lengths whose sum overflows cannot pass.
        if not 0 <= length[v] <= snippets - begin:
            raise ValueError(f"lengths: expected lengths of at least 0 that sum to {snippets}, got {lengths.tolist()}")
        longest = max(longest, length[v])
        begin += length[v]
    if begin != snippets:
        raise ValueError(f"lengths: expected lengths of at least 0 that sum to {snippets}, got a sum of {begin}")
    cdef i64[:, ::1] ranked = _empty((videos, min(top_k, classes)), _int64)
    if not _rank(y, ranked, class_threshold):
        raise ValueError("video_scores: holds NaN")

    # Room for one video, the longest. It has fewer runs than snippets: those that lie within each other have each a
    # snippet that no smaller one has, and the least snippet is in none. There is one sum more than snippets. Level k of
    # the open runs is the k-th lowest threshold, from 1 on; level 0 holds what nobody reads.
    cdef Py_ssize_t width = max(longest, levels.shape[0]) + 1
    cdef float[:, ::1] floats = _empty((FLOAT_ROWS, width), _float32)
    cdef double[:, ::1] doubles = _empty((DOUBLE_ROWS, width), _float64)
    cdef i64[:, ::1] ints = _empty((INT_ROWS, width), _int64)
    if length_power > 0.0:  # powers of lengths, each found when it is first wanted; 0 until then
        for i in range(width):
            doubles[POWERS, i] = 0.0

    indices, numbers = _empty((INDEX_ROWS, snippets), _int64), _empty((VALUE_ROWS, snippets), _float64)
    cdef i64[:, ::1] index = indices
    cdef double[:, ::1] values = numbers
    v = begin = 0
    while v < videos:
        with nogil:
            while v < videos and count >= 0:
                count = _video(
                    c[begin:begin + length[v]], f[begin:begin + length[v]], y, ranked, levels, v, floats, doubles, ints,
                    index, values, at, rules,
                )
                if count >= 0:
                    at, begin, v = at + count, begin + length[v], v + 1
        if count == BAD_CLASS:
            raise ValueError("class_scores: expected finite values, of a range that float32 holds")
        if count == BAD_FOREGROUND:
            raise ValueError("foreground: expected finite values, of a range that float32 holds")
        if count == FULL:  # then this video again, with twice the room
            indices, numbers = _wider(indices, at), _wider(numbers, at)
            index, values = indices, numbers
            count = 0
    return indices[VIDEO, :at], indices[LABEL, :at], numbers[FIRST, :at], numbers[LAST, :at], numbers[SCORE, :at]


cdef _wider(table, Py_ssize_t used):
    """A table of twice as many columns, with the used ones of this one."""
    wider = _empty((table.shape[0], 2 * table.shape[1]), table.dtype)
    wider[:, :used] = table[:, :used]
    return wider


cdef i64 _video(
    const float[:, ::1] c, const float[::1] f, const float[:, ::1] y, const i64[:, ::1] ranked,
    const float[::1] levels, Py_ssize_t v, float[:, ::1] floats, double[:, ::1] doubles, i64[:, ::1] ints,
    i64[:, ::1] index, double[:, ::1] values, Py_ssize_t offset, Rules rules,
) noexcept nogil:
    """Write the proposals of one video from `offset` on; how many, or BAD_CLASS, BAD_FOREGROUND or FULL."""
    cdef Py_ssize_t length = f.shape[0], rank, lane = 0, n, t, at = offset, end = ints.shape[1]
    # The runs of the class lie at i..end - 1 of their rows, those of the foreground at j..end - 1.
    cdef Py_ssize_t i, j, first_of_foreground = end, first, last
    cdef bint on_x = rules.contrast and not rules.product  # the contrast is that of x
    cdef float highest
    cdef double own
    cdef float[::1] x = floats[X_CLASS]
    cdef float[::1] scored = floats[SCORED]
    if on_x:  # no conditional expression: Cython 3 counts the references of its slices wrong
        scored = x
    if rules.of_foreground or rules.product:
        if not _normalise(f, floats[X_FOREGROUND]):
            return BAD_FOREGROUND
    if rules.of_foreground and rules.contrast:  # the same runs for every class; peaks differ
        first_of_foreground = _sweep(length, levels, scored, rules, floats, X_FOREGROUND, ints, OF_FOREGROUND)
    for rank in range(ranked.shape[1]):
        n = ranked[v, rank]
        if n < 0:
            break
        if (rules.of_class or on_x) and not _normalise(c[:, n], x):
            return BAD_CLASS
        if rules.contrast and rules.product:
            lane = rank % LANES
            if lane == 0 and not _sum_products(c, f, ranked, v, rank, doubles):
                return BAD_CLASS
        else:
            if not on_x:
                for t in range(length):
                    scored[t] = f[t] * c[t, n] if rules.product else c[t, n]
            if not _sum(scored, length, doubles):
                return BAD_CLASS
        i, j = end, first_of_foreground
        if rules.of_class:
            i = _sweep(length, levels, scored, rules, floats, X_CLASS, ints, OF_CLASS)
        if rules.of_foreground and not rules.contrast:
            j = _sweep(length, levels, scored, rules, floats, X_FOREGROUND, ints, OF_FOREGROUND)
        if (end - i) + (end - j) > index.shape[1] - at:
            return FULL
        # Both lie in the order of their first and last snippets; a run of both is taken once.
        while i < end or j < end:
            if j == end or (i < end and _is_before(ints, OF_CLASS, i, OF_FOREGROUND, j)):
                first, last, highest = ints[OF_CLASS, i], ints[OF_CLASS + 1, i], floats[PEAK_CLASS, i]
                i += 1
            else:
                first, last = ints[OF_FOREGROUND, j], ints[OF_FOREGROUND + 1, j]
                highest = floats[PEAK_FOREGROUND, j]
                if i < end and not _is_before(ints, OF_FOREGROUND, j, OF_CLASS, i):
                    i += 1
                j += 1
            index[VIDEO, at], index[LABEL, at] = v, n
            values[FIRST, at] = max(first - rules.widen, 0)
            values[LAST, at] = min(last + rules.widen, length - 1)
            own = _contrast(doubles, lane, length, first, last, rules.outer) if rules.contrast else highest
            if rules.length_power > 0.0:
                own *= _power(doubles, last - first + 1, rules.length_power)
            values[SCORE, at] = max(own, 0.0) * y[v, n] if rules.multiply else own + rules.video_weight * y[v, n]
            at += 1
    return at - offset


cdef inline bint _is_before(
    i64[:, ::1] ints, Py_ssize_t row, Py_ssize_t i, Py_ssize_t other, Py_ssize_t j
) noexcept nogil:
    if ints[row, i] != ints[other, j]:
        return ints[row, i] < ints[other, j]
    return ints[row + 1, i] < ints[other + 1, j]


cdef Py_ssize_t _sweep(
    Py_ssize_t length, const float[::1] levels, const float[::1] scored, Rules rules, float[:, ::1] floats,
    Py_ssize_t curve, i64[:, ::1] ints, Py_ssize_t runs,
) noexcept nogil:
    """Find the runs of a curve at all levels, and the largest of `scored` in each unless the contrast is wanted.

    They are written from the end of the rows `runs` on, so that they come to lie in order; returns where they begin.
    """
    cdef Py_ssize_t t, k, low, between, at = ints.shape[1], max_gap = min(rules.max_gap, length)
    cdef Py_ssize_t level = 0  # of the snippet at t: how many thresholds are below its x
    cdef Py_ssize_t opened = 0  # levels 1..opened have an open run
    cdef float[::1] x = floats[curve]
    cdef float[::1] peak = floats[curve - X_CLASS + PEAK_CLASS]
    cdef float[::1] open_peak = floats[OPEN_PEAK]
    open_peak[0] = -INFINITY
    # Invariant: the open run of level k has its last snippet at ints[OPEN + 1, k], and its first one so far at t + 1
    # (k <= level) or at ints[OPEN, k] (k > level), which does not fall with k. Nothing is kept before snippet 0.
    for t in range(length - 1, -2 - max_gap, -1):
        while level > 0 and (t < 0 or not x[t] > levels[level - 1]):
            ints[OPEN, level] = t + 1
            level -= 1
        while t >= 0 and level < levels.shape[0] and x[t] > levels[level]:
            level += 1
            if level > opened:
                opened = level
                ints[OPEN + 1, level] = t
                open_peak[level] = -INFINITY
            elif not rules.contrast:  # what lies between is inside too, and may be high where x is low
                for between in range(t + 1, ints[OPEN, level]):
                    open_peak[level] = max(open_peak[level], scored[between])
        if level > 0 and not rules.contrast:
            open_peak[level] = max(open_peak[level], scored[t])
        low = opened
        while low > level and ints[OPEN, low] - t > max_gap:
            if not rules.contrast:
                open_peak[low - 1] = max(open_peak[low - 1], open_peak[low])
            low -= 1
        # The runs of the levels low + 1..opened can grow no more, and all have the same first snippet.
        for k in range(low + 1, opened + 1):
            if k > low + 1 and ints[OPEN + 1, k] == ints[OPEN + 1, k - 1]:
                continue  # the run of the threshold before
            at -= 1
            ints[runs, at], ints[runs + 1, at] = ints[OPEN, k], ints[OPEN + 1, k]
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


cdef inline bint _sum(const float[::1] scored, Py_ssize_t length, double[:, ::1] doubles) noexcept nogil:
    """Sums of the values from the first on; False where one is not finite."""
    cdef Py_ssize_t t
    cdef double total = 0.0
    doubles[SUMS, 0] = 0.0
    for t in range(length):
        total += scored[t]
        doubles[SUMS, t + 1] = total
    return isfinite(total)  # sums of finite float32 stay far within float64


cdef inline bint _sum_products(
    const float[:, ::1] c, const float[::1] f, const i64[:, ::1] ranked, Py_ssize_t v, Py_ssize_t rank,
    double[:, ::1] doubles,
) noexcept nogil:
    """As `_sum`, of foreground * C̄_n for the classes of `rank` and those after it, a row each."""
    cdef Py_ssize_t t, lane
    cdef i64[LANES] n
    cdef i64 last = ranked[v, rank]
    cdef double[LANES] total
    cdef bint finite = True
    for lane in range(LANES):
        # Where no class is left, the last again, into a row that nobody reads.
        if rank + lane < ranked.shape[1] and ranked[v, rank + lane] >= 0:
            last = ranked[v, rank + lane]
        n[lane] = last
        doubles[SUMS + lane, 0] = total[lane] = 0.0
    for t in range(f.shape[0]):
        for lane in range(LANES):
            total[lane] += f[t] * c[t, n[lane]]
            doubles[SUMS + lane, t + 1] = total[lane]
    for lane in range(LANES):
        finite &= isfinite(total[lane])
    return finite


cdef inline double _contrast(
    const double[:, ::1] doubles, Py_ssize_t lane, Py_ssize_t length, Py_ssize_t first, Py_ssize_t last, double outer
) noexcept nogil:
    """The mean over first..last, less the mean over the ring outside."""
    cdef Py_ssize_t row = SUMS + lane, size = last - first + 1, ring, left, right
    cdef double wide = outer * size, inside = doubles[row, last + 1] - doubles[row, first], outside
    ring = length if wide >= length else <Py_ssize_t>wide
    ring += ring < wide  # rounded up
    left, right = max(first - ring, 0), min(last + ring, length - 1)
    if right - left + 1 == size:
        return inside / size
    outside = (doubles[row, first] - doubles[row, left]) + (doubles[row, right + 1] - doubles[row, last + 1])
    return inside / size - outside / (right - left + 1 - size)


cdef inline double _power(double[:, ::1] doubles, Py_ssize_t size, double power) noexcept nogil:
    if doubles[POWERS, size] == 0.0:
        doubles[POWERS, size] = pow(<double>size, power)
    return doubles[POWERS, size]


cdef float[::1] _levels(thresholds):
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
