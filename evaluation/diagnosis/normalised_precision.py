"""Normalised average precision (AP_N): DETAD (Alwassel et al., ECCV 2018), after Hoiem et al. (ECCV 2012).

At the same recall R, a class or group with few instances has a lower precision than one with many, so that their AP
cannot be compared. AP_N takes the same number N of instances everywhere, the mean of the classes:
precision_N = R·N / (R·N + false positives).
"""

import numpy as np
import numpy.typing as npt

__all__ = ["normalised_average_precision", "normalised_precision"]

Flags = npt.NDArray[np.bool_]


def normalised_precision(true: Flags, false: Flags, positives: int, instances: float) -> npt.NDArray[np.float64]:
    """precision_N after each detection of one class.

    Args:
        true, false: whether each detection, by falling score, is a true or a false positive; one that is neither does
            not count; bool [K, n].
        positives: instances of this class (or of this subset of it), at least 1.
        instances: N.

    Returns:
        float64 [K, n]; 0 before the first detection that counts.
    """
    hits = np.cumsum(true, axis=1) * (instances / positives)  # R·N
    total = hits + np.cumsum(false, axis=1)
    precision = np.zeros_like(hits)
    np.divide(hits, total, out=precision, where=total > 0)
    return precision


def normalised_average_precision(
    true: Flags,
    false: Flags,
    class_bounds: npt.NDArray[np.int64],
    positives: npt.NDArray[np.int64],
    instances: float,
) -> npt.NDArray[np.float64]:
    """AP_N, interpolated as in ActivityNet's kit, of every class and threshold.

    Args:
        true, false: as in `normalised_precision`, classes one after another, bool [K, n].
        class_bounds: class c has the detections class_bounds[c] .. class_bounds[c + 1] - 1, int64 [C + 1].
        positives: instances of each class, int64 [C].
        instances: N.

    Returns:
        float64 [K, C]; NaN for a class without instances.
    """
    ap = np.zeros((len(true), len(positives)))
    for index, count in enumerate(positives.tolist()):
        if count == 0:
            ap[:, index] = np.nan
            continue
        rows = slice(class_bounds[index], class_bounds[index + 1])
        precision = normalised_precision(true[:, rows], false[:, rows], count, instances)
        # Each precision becomes the largest at the same or higher recall; a true positive adds a step of recall.
        highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        ap[:, index] = (highest * true[:, rows]).sum(axis=1) / count
    return ap
