"""Matching of detections with ground truth, and average precision, as ActivityNet's evaluation kit defines them."""

include "arrays.pxi"


def match(start, end, group, truth_start, truth_end, truth_bounds, thresholds):
    """Which annotation each detection finds, at every tIoU threshold at once.

    A detection takes, of its group's annotations with tIoU >= threshold that no earlier detection took, the one of the
    largest tIoU; of equal ones, the later.

    Args:
        start, end: detections in the order in which they may take an annotation, float64 [n].
        group: index of the group (a class in a video) that each belongs to, int64 [n]; -1: one without annotations.
        truth_start, truth_end: annotations, grouped, float64 [m].
        truth_bounds: group g has the annotations truth_bounds[g] .. truth_bounds[g + 1] - 1, int64 [groups + 1].
        thresholds: float64 [K].

    Returns:
        int32 [K, n]: the index of the annotation that the detection takes, a true positive; -1 where it takes none.

    Raises:
        TypeError: groups or bounds that are no integers, or that int64 does not hold.
        ValueError: arrays whose sizes do not fit together, or a group or bounds out of range.
    """
    cdef const double[::1] s = _values(start, _float64)
    cdef const double[::1] e = _values(end, _float64)
    cdef const i64[::1] g = _indices("group", group)
    cdef const double[::1] ts = _values(truth_start, _float64)
    cdef const double[::1] te = _values(truth_end, _float64)
    cdef const i64[::1] bounds = _indices("truth_bounds", truth_bounds)
    cdef const double[::1] wanted = _values(thresholds, _float64)
    cdef Py_ssize_t n = s.shape[0], m = ts.shape[0], count = wanted.shape[0], i
    if e.shape[0] != n or g.shape[0] != n:
        raise ValueError(f"start, end, group: expected the same size, got {n}, {e.shape[0]}, {g.shape[0]}")
    if te.shape[0] != m:
        raise ValueError(f"truth_start, truth_end: expected the same size, got {m}, {te.shape[0]}")
    if not _rising(bounds, m) or bounds[0] != 0 or bounds[bounds.shape[0] - 1] != m:
        raise ValueError(f"truth_bounds: expected rising bounds from 0 to {m}")
    for i in range(n):
        if not -1 <= g[i] < bounds.shape[0] - 1:
            raise ValueError(f"group: expected -1 to {bounds.shape[0] - 2}, got {g[i]}")
    cdef i64 longest = 0
    for i in range(bounds.shape[0] - 1):
        longest = max(longest, bounds[i + 1] - bounds[i])

    found = np.full((count, n), -1, np.int32)
    cdef int[:, ::1] index = found
    cdef unsigned char[:, ::1] taken = np.zeros((count, m), np.uint8)
    cdef double[::1] tiou = _empty(longest, _float64)
    cdef Py_ssize_t j, k, low, high, best
    cdef double inside, largest
    with nogil:
        for i in range(n):
            if g[i] < 0:
                continue
            low, high = bounds[g[i]], bounds[g[i] + 1]
            for j in range(low, high):
                inside = max(min(e[i], te[j]) - max(s[i], ts[j]), 0.0)
                tiou[j - low] = inside / ((te[j] - ts[j]) + (e[i] - s[i]) - inside)
            for k in range(count):
                best, largest = -1, wanted[k]
                for j in range(low, high):
                    if tiou[j - low] >= largest and not taken[k, j]:
                        best, largest = j, tiou[j - low]
                if best >= 0:
                    taken[k, best] = 1
                    index[k, i] = <int>best
    return found


def average_precision(hits, class_bounds, positives, *, weights=None, interpolated=True):
    """Average precision of every class and threshold.

    Args:
        hits: int8 [K, n], detections by class, and within a class by falling score: 1 true positive, 0 false positive,
            -1 ignored.
        class_bounds: class c has the detections class_bounds[c] .. class_bounds[c + 1] - 1, int64 [C + 1].
        positives: annotations of each class, float64 [C].
        weights: how often each detection counts, float64 [n], for resampled videos; 1 if left out. With whole weights the
            interpolated precision is that of as many copies.
        interpolated: VOC 2011, as ActivityNet's kit: precision is the largest at the same or a higher recall; else the
            plain mean over annotations of the precision at each true positive.

    Returns:
        float64 [K, C]; 0 for a class without annotations.

    Raises:
        TypeError: bounds that are no integers, or that int64 does not hold.
        ValueError: arrays whose sizes do not fit together, or bounds out of range.
    """
    cdef const signed char[:, ::1] hit = _values(hits, _int8)
    cdef const i64[::1] bounds = _indices("class_bounds", class_bounds)
    cdef const double[::1] total = _values(positives, _float64)
    cdef Py_ssize_t count = hit.shape[0], classes = total.shape[0], n = hit.shape[1]
    cdef const double[::1] w = np.ones(n) if weights is None else _values(weights, _float64)
    if w.shape[0] != n:
        raise ValueError(f"weights: expected {n}, got {w.shape[0]}")
    if bounds.shape[0] != classes + 1 or not _rising(bounds, n):
        raise ValueError("class_bounds: expected rising bounds of each class within the detections")
    out = np.zeros((count, classes), np.float64)
    cdef double[:, ::1] ap = out
    cdef Py_ssize_t k, c, i
    cdef double found, seen, highest, precision
    cdef bint smooth = interpolated
    with nogil:
        for k in range(count):
            for c in range(classes):
                if total[c] <= 0.0:
                    continue
                found = seen = 0.0
                for i in range(bounds[c], bounds[c + 1]):
                    if hit[k, i] >= 0:
                        seen += w[i]
                        found += w[i] * hit[k, i]
                # Backwards: `highest` is the largest precision at this detection or a later one, which is what
                # interpolation puts in the place of each; each true positive adds one step of recall.
                highest = 0.0
                for i in range(bounds[c + 1] - 1, bounds[c] - 1, -1):
                    if hit[k, i] < 0 or w[i] <= 0.0:
                        continue
                    precision = found / seen
                    highest = max(highest, precision) if smooth else precision
                    if hit[k, i]:
                        ap[k, c] += w[i] * highest
                        found -= w[i]
                    seen -= w[i]
                ap[k, c] /= total[c]
    return out


cdef bint _rising(const i64[::1] bounds, Py_ssize_t limit) noexcept nogil:
    """Whether there are bounds, each within 0..limit and none below the one before; compared, as differences may wrap."""
    cdef Py_ssize_t i
    cdef i64 last = 0
    for i in range(bounds.shape[0]):
        if not last <= bounds[i] <= limit:
            return False
        last = bounds[i]
    return bounds.shape[0] > 0
