# cython: language_level=3
"""From scores to segments for a packed batch of videos (docs/explanation/method.md, both profiles).

Each snippet of a chosen class is looked at once for the thresholds, and once more for the score where it lies in a
segment; no prefix sums, no memory of the size of the input.
"""

include "packed.pxi"

# Rows of the tables that hold the segments, and of the one that holds the videos.
cdef enum:
    VIDEO, LABEL
    INDEX_ROWS
cdef enum:
    FIRST, LAST, SCORE
    VALUE_ROWS
cdef enum:
    BEGIN, OFFSET, COUNT
    VIDEO_ROWS


cdef struct Rules:
    # The release's runs of kept snippets dilated by `reach` = 1 are runs that join over gaps of two, then widened by
    # one before they are scored: so both profiles are one loop.
    bint strict
    float least_foreground
    float least_class
    Py_ssize_t max_gap
    Py_ssize_t reach
    Py_ssize_t widen


def detect_segments(
    class_scores, foreground, attention, video_scores, lengths, *,
    profile, alpha_a, alpha_c, top_k, max_gap=1, widen=2,
):
    """Detect the segments of a packed batch: S snippets of V videos one after another, N classes.

    Args:
        class_scores: C̄, float32 [S, N].
        foreground: Ā^bf_fg, float32 [S].
        attention: Ā^time, float32 [S].
        video_scores: ŷ, float32 [V, N]; a class of -inf is never chosen.
        lengths: snippets of each video, int64 [V], which sum to S; a video may have none.
        profile: "paper" keeps a snippet at foreground >= 1 - alpha_a and C̄ >= alpha_c and joins kept snippets that at
            most `max_gap` removed ones separate; "release" keeps at strictly greater on both, and takes the runs of the
            kept snippets dilated by one at both sides. The thresholds are rounded to float32 once, and compared so.
        alpha_a, alpha_c: α_A and α_C, in [0, 1].
        top_k: classes a video, those of the largest ŷ (of equal ones, the lower index).
        max_gap: see `profile`; "release" does not use it.
        widen: snippets added at both ends after scoring, clipped to the video.

    Returns:
        video int64 [n], label int64 [n], first float64 [n], last float64 [n], score float64 [n]; snippets are counted from
        the video's first, both ends included. Order: by video, then by rank of the class, then by time.
        The score is the mean over the segment (before widening) of Ā^time + C̄_n, plus ŷ_n ("paper"), or the mean of C̄_n
        plus that of the foreground, plus ŷ_n, over the dilated run ("release"); sums in float64, from left to right.

    Raises:
        TypeError: an argument of another dtype.
        ValueError: shapes that do not fit together, an unknown profile, a setting out of range, or NaN
            in ŷ, in the foreground, or in what a segment's score or extent depends on.
    """
    class_scores = _checked("class_scores", class_scores, _float32, 2)
    foreground = _checked("foreground", foreground, _float32, 1)
    attention = _checked("attention", attention, _float32, 1)
    video_scores = _checked("video_scores", video_scores, _float32, 2)
    lengths = _checked("lengths", lengths, _int64, 1)
    cdef const float[:, ::1] c = class_scores
    cdef const float[::1] f = foreground
    cdef const float[::1] a = attention
    cdef const float[:, ::1] y = video_scores
    cdef const i64[::1] length = lengths
    cdef Py_ssize_t snippets = c.shape[0], classes = c.shape[1], videos = length.shape[0]
    if f.shape[0] != snippets or a.shape[0] != snippets:
        raise ValueError(
            f"foreground, attention: expected {snippets} snippets as in class_scores, got {f.shape[0]} and {a.shape[0]}"
        )
    if y.shape[0] != videos or y.shape[1] != classes:
        raise ValueError(f"video_scores: expected shape {(videos, classes)}, got {video_scores.shape}")
    if profile not in ("paper", "release"):
        raise ValueError(f"profile: expected 'paper' or 'release', got {profile!r}")
    for name, value, least in (("top_k", top_k, 1), ("max_gap", max_gap, 0), ("widen", widen, 0)):
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")
    for name, value in (("alpha_a", alpha_a), ("alpha_c", alpha_c)):
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{name}: expected a number from 0 to 1, got {value}")

    cdef Rules rules
    rules.strict = profile == "release"
    rules.least_foreground = <float>(1.0 - <double>alpha_a)
    rules.least_class = <float>(<double>alpha_c)
    # No gap or widening goes beyond the snippets there are: so that sums of them cannot overflow.
    rules.max_gap = 2 if rules.strict else min(max_gap, snippets)
    rules.reach = 1 if rules.strict else 0
    rules.widen = min(widen, snippets)

    # Two segments of a class have a removed snippet between them, so T snippets hold at most (T + 1) // 2 a class. Pages
    # of the tables that nobody writes cost nothing.
    cdef Py_ssize_t chosen = min(top_k, classes), v, begin = 0, capacity = 0, at = 0
    cdef i64 count = 0
    for v in range(videos):
        # Compared with what is left, so that lengths whose sum overflows cannot pass.
        if not 0 <= length[v] <= snippets - begin:
            raise ValueError(f"lengths: expected lengths of at least 0 that sum to {snippets}, got {lengths.tolist()}")
        begin += length[v]
        capacity += (length[v] + 1) // 2 * chosen
    if begin != snippets:
        raise ValueError(f"lengths: expected lengths of at least 0 that sum to {snippets}, got a sum of {begin}")
    if _any_nan(f):
        raise ValueError("foreground: holds NaN")
    cdef i64[:, ::1] ranked = _empty((videos, chosen), _int64)
    if not _rank(y, ranked, 0.0):
        raise ValueError("video_scores: holds NaN")

    indices, numbers = _empty((INDEX_ROWS, capacity), _int64), _empty((VALUE_ROWS, capacity), _float64)
    cdef i64[:, ::1] index = indices
    cdef double[:, ::1] values = numbers
    cdef const float[::1] weight = f if rules.strict else a
    begin = 0
    with nogil:
        for v in range(videos):
            count = _video(c, f, weight, y, ranked, v, begin, begin + length[v], index, values, at, rules)
            if count < 0:
                break
            at, begin = at + count, begin + length[v]
    if count < 0:
        raise ValueError("class_scores, attention: holds NaN")
    return indices[VIDEO, :at], indices[LABEL, :at], numbers[FIRST, :at], numbers[LAST, :at], numbers[SCORE, :at]


def segment_score(profile, double class_mean, double foreground_mean, double attention_mean, double video_score):
    """The score of one segment, for callers that follow its means themselves.

    Args:
        profile: "paper" or "release".
        class_mean, foreground_mean, attention_mean: of C̄_n, Ā^bf_fg and Ā^time over the segment before widening.
        video_score: ŷ_n.
    """
    return _score(class_mean, foreground_mean if profile == "release" else attention_mean, video_score)


cdef inline double _score(double class_mean, double weight_mean, double video_score) noexcept nogil:
    return class_mean + weight_mean + video_score


cdef i64 _video(
    const float[:, ::1] c, const float[::1] f, const float[::1] weight, const float[:, ::1] y,
    const i64[:, ::1] ranked, Py_ssize_t v, Py_ssize_t begin, Py_ssize_t end,
    i64[:, ::1] index, double[:, ::1] values, Py_ssize_t offset, Rules rules,
) noexcept nogil:
    """The segments of one video, snippets begin..end-1 of the batch, written from `offset` on.

    Returns how many, or -1 where the score of one is NaN. NaN counts as kept, so that it always shows in a score; where
    the foreground is below its threshold and no segment reaches, C̄ is not even read.
    """
    cdef Py_ssize_t rank, t, n, i, first, last, kept, at = offset
    cdef double classes, weights, size
    for rank in range(ranked.shape[1]):
        n = ranked[v, rank]
        if n < 0:
            break
        t = begin
        while True:
            while t < end and not _kept(c, f, t, n, rules):
                t += 1
            if t == end:
                break
            first = kept = t
            t += 1
            # Invariant: `kept` is the last kept snippet of the open segment, and those after it up to t - 1 are not.
            while t < end and t - kept - 1 <= rules.max_gap:
                if _kept(c, f, t, n, rules):
                    kept = t
                t += 1
            first, last = max(first - rules.reach, begin), min(kept + rules.reach, end - 1)
            classes = weights = 0.0
            for i in range(first, last + 1):
                classes += c[i, n]
                weights += weight[i]
            size = last - first + 1
            index[VIDEO, at], index[LABEL, at] = v, n
            values[FIRST, at] = max(first - rules.widen, begin) - begin
            values[LAST, at] = min(last + rules.widen, end - 1) - begin
            values[SCORE, at] = _score(classes / size, weights / size, y[v, n])
            if values[SCORE, at] != values[SCORE, at]:
                return -1
            at += 1
    return at - offset


cdef inline bint _kept(const float[:, ::1] c, const float[::1] f, Py_ssize_t t, Py_ssize_t n, Rules rules) noexcept nogil:
    if rules.strict:
        return f[t] > rules.least_foreground and not c[t, n] <= rules.least_class
    return f[t] >= rules.least_foreground and not c[t, n] < rules.least_class


cdef bint _any_nan(const float[::1] values) noexcept nogil:
    cdef Py_ssize_t i
    cdef bint found = False
    for i in range(values.shape[0]):
        found |= values[i] != values[i]
    return found
