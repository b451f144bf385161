"""Plain NumPy twin of `refineloc._ext.video_scores`: sort, take, mean."""

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def best_snippet_scores(
    class_scores: Floats, foreground: Floats, lengths: npt.NDArray[np.int64], *, share: float
) -> Floats:
    """The mean of the snippets of the highest foreground, of equal ones the earlier; summed in the order of time."""
    scores = np.zeros((len(lengths), class_scores.shape[1]), np.float32)
    begin = 0
    for video, length in enumerate(lengths.tolist()):
        f, c = foreground[begin : begin + length], class_scores[begin : begin + length]
        begin += length
        if length:
            count = min(math.ceil(share * length), length)
            best = np.sort(np.argsort(-f, kind="stable")[:count])
            # A running sum, as np.sum adds in another order.
            scores[video] = np.cumsum(c[best], axis=0, dtype=np.float64)[-1] / count
    return scores
