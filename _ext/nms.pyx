"""Non-maximum suppression of segments on a time line, many groups (a class in a video) at once.

All kinds look only at segments that may overlap. Where a group's segments come by start, as those of detection do, they
fall into clusters that do not touch, and each is a task of its own. Else, or within a large cluster, positions are
sorted by start, and a segment's neighbours lie in a window around its own. tIoU > threshold is tested as intersection > threshold * union, so that segments of length zero
need no special case.
"""

from libc.math cimport exp, isfinite

include "arrays.pxi"
include "sorting.pxi"

# Rows of the room to work in; m members of one group at a time.
cdef enum:
    START, END, SCORE, START_SORTED, END_SORTED, REACH, LOWERED
    DOUBLE_ROWS
cdef enum:
    INDEX, ORDER, RANK, DROPPED_BY, OWNER, KEPT, TREE
    INT_ROWS
# A group as small as this is looked at as a whole, round by round, rather than sorted.
cdef enum:
    FEW = 64

# Positions a leaf of the tree of best scores (soft-NMS): a leaf is looked through as a whole.
cdef enum:
    LEAF = 32

# The windows are cut by bounds on the tIoU; this much slack covers the rounding of the few operations in them.
cdef double SLACK = 1.0 - 1e-12


def groups(video, label):
    """Groups of segments that lie together: those of a class of a video.

    Args:
        video, label: int64 [n].

    Returns:
        int64 [n], from 0 on, one more where the video or the label is another than that of the segment before.

    Raises:
        TypeError: videos or labels that are no integers, or that int64 does not hold.
        ValueError: sizes that differ.
    """
    video, label = _indices("video", video), _indices("label", label)
    if video.shape != label.shape or video.ndim != 1:
        raise ValueError(f"expected two arrays of one size, got {video.shape} and {label.shape}")
    group = _empty(video.shape, _int64)
    cdef const i64[::1] videos = video
    cdef const i64[::1] labels = label
    cdef i64[::1] out = group
    cdef Py_ssize_t i
    cdef i64 current = 0
    for i in range(out.shape[0]):
        current += i > 0 and (videos[i] != videos[i - 1] or labels[i] != labels[i - 1])
        out[i] = current
    return group


def hard_nms(start, end, score, group, *, tiou_threshold):
    """Greedy NMS: the best segment drops the weaker ones of its group that overlap it by more than the threshold.

    Args:
        start, end: float64 [n], start <= end.
        score: float64 [n]; of equal scores the earlier in the input is better.
        group: int64 [n]; segments of different groups never suppress each other.
        tiou_threshold: in [0, 1]; a segment of tIoU > threshold (strictly) with a kept one is dropped.

    Returns:
        indices of the kept segments, rising; int64.

    Raises:
        TypeError: groups that are no integers, or that int64 does not hold.
        ValueError: sizes that differ, a segment that ends before it starts, values that are not finite, a threshold out
            of range.
    """
    return _greedy(Input(start, end, score, group, tiou_threshold))


def vote_nms(start, end, score, group, *, tiou_threshold):
    """Greedy NMS in which a kept segment collects the scores of those it drops, as in RefineLoc's released code.

    Args:
        as `hard_nms`.

    Returns:
        indices of the kept segments, those of `hard_nms`, int64; their new scores: the own one plus those of the dropped,
        added in input order, float64.

    Raises:
        TypeError, ValueError: as `hard_nms`.
    """
    cdef Input given = Input(start, end, score, group, tiou_threshold)
    kept = _greedy(given)
    votes_array = _array(given.score)
    cdef double[::1] votes = votes_array
    cdef Py_ssize_t i, owner
    with nogil:
        for i in range(given.n):
            owner = given.ints[OWNER, i]
            if owner != i:
                votes[owner] += given.score[i]
    return kept, votes_array[kept]


def fuse_nms(start, end, score, group, *, tiou_threshold, temperature):
    """Greedy NMS in which a kept segment takes the mean times of itself and those it drops (GauFuse).

    The means are weighted by exp(score / temperature), so that a segment far below the kept one moves it little.

    Args:
        start, end, score, group, tiou_threshold: as `hard_nms`.
        temperature: above 0; the lower, the more the best of them counts.

    Returns:
        indices of the kept segments, those of `hard_nms`, int64; their new start and end, float64: those of the kept one,
        plus the weighted mean distance from it, with sums in input order; and the chance that it or one of those is right,
        if scores were chances: 1 - product of (1 - score), of scores clipped to 0 and 1, float64.

    Raises:
        ValueError: as `hard_nms`, and a temperature out of range.
    """
    if not 0.0 < temperature < float("inf"):
        raise ValueError(f"temperature: expected a number above 0, got {temperature}")
    cdef Input given = Input(start, end, score, group, tiou_threshold)
    kept = _greedy(given)
    fused_start, fused_end = _empty(len(kept), _float64), _empty(len(kept), _float64)
    chances_array = _empty(given.n, _float64)
    cdef double[::1] chances = chances_array
    cdef const i64[::1] index = kept
    cdef double[::1] out_start = fused_start
    cdef double[::1] out_end = fused_end
    # Sums of the weights and of the weighted distances from the kept one; the rows are free by now.
    cdef double[::1] weights = given.doubles[START]
    cdef double[::1] to_start = given.doubles[START_SORTED]
    cdef double[::1] to_end = given.doubles[END_SORTED]
    cdef double scale = temperature, weight
    cdef Py_ssize_t i, owner
    with nogil:
        for i in range(given.n):
            weights[i] = to_start[i] = to_end[i] = 0.0
            chances[i] = min(max(given.score[i], 0.0), 1.0)
        for i in range(given.n):
            owner = given.ints[OWNER, i]
            if owner == i:
                weights[i] += 1.0
                continue
            # At most 1, as no score is above that of the one that drops it: so that nothing overflows.
            weight = exp((given.score[i] - given.score[owner]) / scale)
            # As 1 - (1 - a) (1 - b), without the rounding of the differences. Chances of dropped ones stay their own.
            chances[owner] += chances[i] * (1.0 - chances[owner])
            weights[owner] += weight
            to_start[owner] += weight * (given.start[i] - given.start[owner])
            to_end[owner] += weight * (given.end[i] - given.end[owner])
        for i in range(index.shape[0]):
            owner = index[i]
            out_start[i] = given.start[owner] + to_start[owner] / weights[owner]
            out_end[i] = given.end[owner] + to_end[owner] / weights[owner]
    return kept, fused_start, fused_end, chances_array[kept]


def soft_nms(start, end, score, group, *, method="gaussian", sigma=0.5, tiou_threshold=0.3, min_score=0.001):
    """Soft-NMS (Bodla et al., ICCV 2017): the best segment lowers the scores of those that overlap it, and so on.

    Args:
        start, end, group: as `hard_nms`.
        score: float64 [n], at least 0; of equal (lowered) scores the earlier in the input is taken first.
        method: "gaussian": times exp(-tIoU^2 / sigma); "linear": times 1 - tIoU where tIoU > tiou_threshold.
        sigma: above 0; not used by "linear".
        tiou_threshold: in [0, 1]; not used by "gaussian".
        min_score: segments whose score is below, or falls below, are dropped; at least 0.

    Returns:
        indices of the kept segments, rising, int64; their new scores, float64.

    Raises:
        TypeError, ValueError: as `hard_nms`; a negative score, an unknown method or a setting out of range.
    """
    if method not in ("gaussian", "linear"):
        raise ValueError(f"method: expected 'gaussian' or 'linear', got {method!r}")
    if not 0.0 < sigma < float("inf"):
        raise ValueError(f"sigma: expected a number above 0, got {sigma}")
    if not 0.0 <= min_score < float("inf"):
        raise ValueError(f"min_score: expected a number of at least 0, got {min_score}")
    cdef Input given = Input(start, end, score, group, tiou_threshold)
    cdef Py_ssize_t n = given.n
    cdef Decay decay
    decay.gaussian = method == "gaussian"
    decay.sigma = sigma
    decay.threshold = tiou_threshold
    decay.least = min_score
    cdef Py_ssize_t begin = 0, count = 0, members, i
    cdef double[::1] s = given.doubles[START]
    cdef double[::1] e = given.doubles[END]
    cdef double[::1] p = given.doubles[SCORE]
    cdef i64[::1] index = given.ints[INDEX]
    with nogil:
        for i in range(n):
            if given.score[i] < 0.0:
                with gil:
                    raise ValueError(f"score: expected at least 0, got {given.score[i]}")
        while begin < n:
            members = _gather(given, begin)
            begin += members
            count = _soft_rounds(given, s, e, p, index, &members, decay, count)
            if members:
                _sort(given, members)
                count = _soft_sweep(given, members, decay, count)
    kept = given.ints_array[KEPT, :count]
    order = kept.argsort()
    return kept[order], given.doubles_array[LOWERED, :count][order]


cdef class Input:
    """The checked arguments, and room to work in for the largest group."""

    cdef Py_ssize_t n
    cdef bint by_start  # the segments of each group come by rising start
    cdef double threshold
    cdef const double[::1] start
    cdef const double[::1] end
    cdef const double[::1] score
    cdef const i64[::1] group
    cdef object doubles_array, ints_array
    cdef double[:, ::1] doubles
    cdef i64[:, ::1] ints
    cdef u64[:, ::1] sorting

    def __init__(self, start, end, score, group, tiou_threshold):
        start = _values(start, _float64)
        end = _values(end, _float64)
        score = _values(score, _float64)
        group = _indices("group", group)
        if not start.shape == end.shape == score.shape == group.shape or start.ndim != 1:
            raise ValueError(
                f"expected four arrays of one size, got {start.shape}, {end.shape}, {score.shape}, {group.shape}"
            )
        if not 0.0 <= tiou_threshold <= 1.0:
            raise ValueError(f"tiou_threshold: expected a number from 0 to 1, got {tiou_threshold}")
        self.threshold = tiou_threshold
        self.start, self.end, self.score, self.group = start, end, score, group
        self.n = start.shape[0]
        if self.n >= 1 << 32:
            raise ValueError(f"expected fewer than 2^32 segments, got {self.n}")
        self.doubles_array = _empty((DOUBLE_ROWS, self.n), _float64)
        self.ints_array = _empty((INT_ROWS, self.n), _int64)
        self.doubles = self.doubles_array
        self.ints = self.ints_array
        self.sorting = _empty((SORT_ROWS, self.n), _uint64)
        cdef const double[::1] starts = self.start
        cdef const double[::1] ends = self.end
        cdef const double[::1] scores = self.score
        cdef const i64[::1] groups = self.group
        cdef Py_ssize_t i
        cdef bint finite = True, forward = True, ordered = True, by_start = True
        for i in range(self.n):
            # Two ends that are finite, but not their difference, would make a tIoU of infinity over infinity.
            finite &= isfinite(ends[i] - starts[i]) and isfinite(scores[i])
            forward &= ends[i] >= starts[i]
            if i > 0:
                ordered &= groups[i - 1] <= groups[i]
                by_start &= groups[i - 1] != groups[i] or starts[i - 1] <= starts[i]
            self.ints[ORDER, i] = i
        if not finite:
            raise ValueError("start, end, score: expected finite values")
        if not forward:
            raise ValueError("end: a segment ends before it starts")
        cdef Py_ssize_t before, after
        if not ordered:
            by_start = True
            for i in range(self.n):
                self.sorting[KEY, i] = rising_int(groups[i])
                self.sorting[PLACE, i] = i
            sort_by_key(self.sorting, self.n)
            for i in range(self.n):
                after = self.ints[ORDER, i] = self.sorting[PLACE, i]
                by_start &= i == 0 or groups[before] != groups[after] or starts[before] <= starts[after]
                before = after
        self.by_start = by_start


cdef Py_ssize_t _gather(Input given, Py_ssize_t begin) noexcept nogil:
    """Copy the segments from `begin` of the order by groups on that may overlap into the room; returns how many.

    They are a group; where its segments come by start, only those up to the first that starts after all before it end.
    """
    cdef Py_ssize_t i, members = 0
    cdef i64 group = given.group[given.ints[ORDER, begin]]
    cdef double reach = 0.0
    while begin + members < given.n:
        i = given.ints[ORDER, begin + members]
        if given.group[i] != group or (given.by_start and members > 0 and given.start[i] >= reach):
            break
        reach = given.end[i] if members == 0 else max(reach, given.end[i])
        given.doubles[START, members] = given.start[i]
        given.doubles[END, members] = given.end[i]
        given.doubles[SCORE, members] = given.score[i]
        given.ints[INDEX, members] = i
        members += 1
    return members


# --- hard NMS and votes --------------------------------------------------------------------------------------------


cdef _greedy(Input given):
    """Indices of the kept segments, rising; the row OWNER: of each segment the kept one that dropped it (itself where kept)."""
    cdef Py_ssize_t begin = 0, count = 0, members, left, i
    # Taken once: clusters are small, and a view of a row costs more than a look at its members.
    cdef double[::1] s = given.doubles[START]
    cdef double[::1] e = given.doubles[END]
    cdef double[::1] p = given.doubles[SCORE]
    cdef i64[::1] index = given.ints[INDEX]
    cdef i64[::1] owner = given.ints[OWNER]
    with nogil:
        while begin < given.n:
            members = _gather(given, begin)
            begin += members
            left = _rounds(s, e, p, index, owner, given.threshold, members)
            if left:
                _sort(given, left)
                _sweep(given, left)
        for i in range(given.n):
            count += owner[i] == i
    kept = _empty(count, _int64)
    cdef i64[::1] out = kept
    count = 0
    for i in range(given.n):
        if owner[i] == i:
            out[count] = i
            count += 1
    return kept


cdef inline Py_ssize_t _rounds(
    double[::1] s, double[::1] e, double[::1] p, i64[::1] index, i64[::1] owner, double threshold, Py_ssize_t m
) noexcept nogil:
    """Rounds of greedy NMS that each look at all members left, for as long as this is cheaper than sorting them.

    A round keeps the best and closes up those that it does not drop. While rounds drop an eighth or more, all of them
    together cost eight looks at each member at most; so segments that all overlap are never sorted. Returns how many
    are left to sweep: those of the first round that dropped fewer, unless only a few are left anyhow.
    """
    cdef double best_s, best_e, inside
    cdef Py_ssize_t k, left, best = 0, following
    cdef i64 best_index
    for k in range(1, m):
        if p[k] > p[best]:
            best = k
    while m > 0:
        best_s, best_e, best_index = s[best], e[best], index[best]
        owner[best_index] = best_index
        left = following = 0
        for k in range(m):
            if k == best:
                continue
            inside = min(best_e, e[k]) - max(best_s, s[k])
            if inside > threshold * ((best_e - best_s) + (e[k] - s[k]) - inside):
                owner[index[k]] = best_index
                continue
            # left <= k: what is written over has been looked at.
            s[left], e[left], p[left], index[left] = s[k], e[k], p[k], index[k]
            if p[left] > p[following]:
                following = left
            left += 1
        if left > FEW and m - left < m >> 3:
            return left
        m, best = left, following
    return 0


cdef void _sort(Input given, Py_ssize_t m) noexcept nogil:
    """Fill the sorted rows (by start), RANK (where among them each member is) and REACH."""
    cdef Py_ssize_t k
    cdef i64 member
    for k in range(m):
        given.sorting[KEY, k] = rising(given.doubles[START, k])
        given.sorting[PLACE, k] = k
    if not given.by_start:
        sort_by_key(given.sorting, m)
    for k in range(m):
        member = given.sorting[PLACE, k]
        given.ints[RANK, member] = k
        given.doubles[START_SORTED, k] = given.doubles[START, member]
        given.doubles[END_SORTED, k] = given.doubles[END, member]
        # The latest end up to here: where it lies before a segment's start, nothing further left overlaps that one.
        given.doubles[REACH, k] = given.doubles[END, member]
        if k > 0 and given.doubles[REACH, k - 1] > given.doubles[REACH, k]:
            given.doubles[REACH, k] = given.doubles[REACH, k - 1]


cdef void _sweep(Input given, Py_ssize_t m) noexcept nogil:
    """Greedy NMS of the members, sorted by start: each kept one looks only at starts from which it can be overlapped.

    With a segment [s, e] of length L, the tIoU of one that starts at s' >= s is at most (e - s') / L, and of one that
    starts at s' <= s at most L / (e - s'): both walks end where this bound falls to the threshold. So a long segment
    among short ones costs nothing; how far the walks go depends on the kept segment's own length alone.
    """
    cdef double[::1] s = given.doubles[START_SORTED]
    cdef double[::1] e = given.doubles[END_SORTED]
    cdef double[::1] reach = given.doubles[REACH]
    cdef i64[::1] owner = given.ints[OWNER]
    cdef i64[::1] dropped_by = given.ints[DROPPED_BY]  # -1: not yet; by position in the order of starts
    cdef i64[::1] rank = given.ints[RANK]
    cdef double threshold = given.threshold, cut = given.threshold * SLACK, length, inside
    cdef Py_ssize_t at, i, j
    cdef i64 member
    for at in range(m):
        dropped_by[at] = -1
        given.sorting[KEY, at] = ~rising(given.doubles[SCORE, at])
        given.sorting[PLACE, at] = at
    sort_by_key(given.sorting, m)
    for at in range(m):
        member = given.sorting[PLACE, at]
        i = rank[member]
        if dropped_by[i] >= 0:
            owner[given.ints[INDEX, member]] = dropped_by[i]
            continue
        member = given.ints[INDEX, member]
        owner[member] = member
        dropped_by[i] = member  # visited: later ones need not compare with it
        length = e[i] - s[i]
        j = i + 1
        while j < m and e[i] - s[j] > cut * length:
            inside = min(e[i], e[j]) - s[j]
            if inside > threshold * (length + (e[j] - s[j]) - inside) and dropped_by[j] < 0:
                dropped_by[j] = member
            j += 1
        j = i - 1
        while j >= 0 and length > cut * (e[i] - s[j]) and reach[j] >= s[i]:
            inside = min(e[i], e[j]) - s[i]
            if inside > threshold * (length + (e[j] - s[j]) - inside) and dropped_by[j] < 0:
                dropped_by[j] = member
            j -= 1


# --- soft-NMS ------------------------------------------------------------------------------------------------------


cdef struct Decay:
    bint gaussian
    double sigma
    double threshold
    double least


cdef inline double _lowered(double score, double inside, double lengths, Decay decay) noexcept nogil:
    """The score of a segment that the best one overlaps by `inside`, -1 where it falls below the least."""
    cdef double tiou = inside / (lengths - inside)
    if decay.gaussian:
        score *= exp(-(tiou * tiou) / decay.sigma)
    elif tiou > decay.threshold:
        score *= 1.0 - tiou
    return score if score >= decay.least else -1.0


cdef inline Py_ssize_t _soft_rounds(
    Input given, double[::1] s, double[::1] e, double[::1] p, i64[::1] index, Py_ssize_t* members, Decay decay,
    Py_ssize_t count,
) noexcept nogil:
    """As `_rounds`, for soft-NMS: while the best overlaps an eighth or more, of which each costs an exponential anyway.

    Returns how many are kept so far, and leaves in `members` how many are left to sweep.
    """
    cdef double best_s, best_e, inside, score
    cdef Py_ssize_t m = members[0], k, left = 0, best = 0, following, met
    for k in range(m):
        if p[k] >= decay.least:
            s[left], e[left], p[left], index[left] = s[k], e[k], p[k], index[k]
            if p[left] > p[best]:
                best = left
            left += 1
    m = left
    while m > 0:
        best_s, best_e = s[best], e[best]
        given.ints[KEPT, count] = index[best]
        given.doubles[LOWERED, count] = p[best]
        count += 1
        left = following = met = 0
        for k in range(m):
            if k == best:
                continue
            score = p[k]
            inside = min(best_e, e[k]) - max(best_s, s[k])
            if inside > 0.0:
                met += 1
                score = _lowered(score, inside, (best_e - best_s) + (e[k] - s[k]), decay)
                if score < 0.0:
                    continue
            p[left] = score
            if left != k:
                s[left], e[left], index[left] = s[k], e[k], index[k]
            if score > p[following]:
                following = left
            left += 1
        if left > FEW and met < m >> 3:
            members[0] = left
            return count
        m, best = left, following
    members[0] = 0
    return count


cdef Py_ssize_t _soft_sweep(Input given, Py_ssize_t m, Decay decay, Py_ssize_t count) noexcept nogil:
    """Soft-NMS of the members, sorted by start: only those that overlap the best are looked at.

    They lie in leaves of LEAF positions; a tree over the leaves has the best position of each and of all, so
    that taking the best, and lowering those that overlap it, touches the leaves around it and their paths to the root.
    A score of -1 marks a position that is taken or dropped; a leaf of such is not looked at again.
    """
    cdef double[::1] s = given.doubles[START_SORTED]
    cdef double[::1] e = given.doubles[END_SORTED]
    cdef double[::1] p = given.doubles[SCORE]
    cdef double[::1] reach = given.doubles[REACH]
    cdef double[::1] unsorted = given.doubles[START]
    cdef i64[::1] index = given.ints[RANK]
    cdef i64[::1] tree = given.ints[TREE]  # of 2 * leaves nodes: fewer than m, which is above FEW = 2 LEAF
    cdef Py_ssize_t leaves = 1, leaf, own, k, best
    while leaves * LEAF < m:
        leaves *= 2
    # By start: scores, and the input's indices. RANK is free once the scores are sorted, START since _sort.
    for k in range(m):
        unsorted[k] = p[given.sorting[PLACE, k]]
        index[k] = given.ints[INDEX, given.sorting[PLACE, k]]
    for k in range(m):
        p[k] = unsorted[k]
    for leaf in range(leaves):
        _find_best(p, index, tree, leaves, leaf, m)
    for k in range(leaves - 1, 0, -1):
        tree[k] = _better(p, index, tree[2 * k], tree[2 * k + 1])

    while tree[1] >= 0:
        best = tree[1]
        given.ints[KEPT, count] = index[best]
        given.doubles[LOWERED, count] = p[best]
        count += 1
        p[best] = -1.0
        own = leaf = best // LEAF
        while leaf * LEAF < m and (leaf == own or s[leaf * LEAF] < e[best]):
            _lower(s, e, p, index, tree, leaves, leaf, m, best, decay)
            leaf += 1
        leaf = own - 1
        while leaf >= 0 and reach[leaf * LEAF + LEAF - 1] > s[best]:
            _lower(s, e, p, index, tree, leaves, leaf, m, best, decay)
            leaf -= 1
    return count


cdef inline void _lower(
    double[::1] s, double[::1] e, double[::1] p, i64[::1] index, i64[::1] tree, Py_ssize_t leaves, Py_ssize_t leaf,
    Py_ssize_t m, Py_ssize_t best, Decay decay,
) noexcept nogil:
    """Lower the scores in a leaf of those that overlap `best`, and bring the tree up to date."""
    cdef Py_ssize_t k, node = leaves + leaf
    cdef double inside
    cdef bint changed = leaf == best // LEAF
    if tree[node] < 0:
        return
    for k in range(leaf * LEAF, min(leaf * LEAF + LEAF, m)):
        inside = min(e[best], e[k]) - max(s[best], s[k])
        if inside <= 0.0 or p[k] < 0.0:
            continue
        p[k] = _lowered(p[k], inside, (e[best] - s[best]) + (e[k] - s[k]), decay)
        changed = True
    if changed:
        _find_best(p, index, tree, leaves, leaf, m)
        node //= 2
        while node > 0:
            tree[node] = _better(p, index, tree[2 * node], tree[2 * node + 1])
            node //= 2


cdef inline void _find_best(
    double[::1] p, i64[::1] index, i64[::1] tree, Py_ssize_t leaves, Py_ssize_t leaf, Py_ssize_t m
) noexcept nogil:
    cdef Py_ssize_t k
    cdef i64 best = -1
    for k in range(leaf * LEAF, min(leaf * LEAF + LEAF, m)):
        if p[k] >= 0.0:
            best = _better(p, index, best, k)
    tree[leaves + leaf] = best


cdef inline i64 _better(double[::1] p, i64[::1] index, i64 one, i64 other) noexcept nogil:
    """The position of the higher score, of equal ones the earlier in the input; -1 is none."""
    if one < 0 or other < 0:
        return max(one, other)
    if p[one] != p[other]:
        return one if p[one] > p[other] else other
    return one if index[one] < index[other] else other
