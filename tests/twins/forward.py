"""Twin of the exported graph: the method's forward pass in float64 NumPy, one video after another, no tricks.

Written from the equations (RefineLoc, section 3; docs/explanation/method.md), not from the torch code.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Layer = tuple[npt.NDArray[Any], npt.NDArray[Any]]  # weight [out, in], bias [out]


class Forward(NamedTuple):
    class_scores: npt.NDArray[np.float64]  # C̄ [S, N]
    foreground: npt.NDArray[np.float64]  # Ā^bf_fg [S]
    attention: npt.NDArray[np.float64]  # Ā^time [S]
    video_scores: npt.NDArray[np.float64]  # ŷ [V, N]


def forward(
    classifier: Sequence[Layer], attention: Sequence[Layer], features: npt.NDArray[Any], lengths: Sequence[int]
) -> Forward:
    """All outputs for the snippets of V videos one after another; `features` [S, D], `lengths` [V]."""
    parts = []
    first = 0
    for length in lengths:
        parts.append(_one_video(classifier, attention, features[first : first + length].astype(np.float64)))
        first += length
    assert first == len(features)
    return Forward(
        np.concatenate([part.class_scores for part in parts]),
        np.concatenate([part.foreground for part in parts]),
        np.concatenate([part.attention for part in parts]),
        np.stack([part.video_scores[0] for part in parts]),
    )


def _one_video(classifier: Sequence[Layer], attention: Sequence[Layer], features: npt.NDArray[np.float64]) -> Forward:
    class_scores = _softmax(_mlp(classifier, features), axis=1)
    values = _mlp(attention, features)
    if values.shape[1] == 2:
        foreground = _softmax(values, axis=1)[:, 1]
        over_time = _softmax(foreground, axis=0)  # of values that are already in [0, 1]
    else:
        foreground = 0.5 * (1.0 + np.tanh(values[:, 0] / 2.0))  # the sigmoid, without overflow
        over_time = _softmax(values[:, 0], axis=0)
    return Forward(class_scores, foreground, over_time, (over_time @ class_scores)[None])


def _mlp(layers: Sequence[Layer], x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    for index, (weight, bias) in enumerate(layers):
        if index:
            x = np.maximum(x, 0.0)
        x = x @ weight.astype(np.float64).T + bias.astype(np.float64)
    return x


def _softmax(x: npt.NDArray[np.float64], axis: int) -> npt.NDArray[np.float64]:
    if not x.size:
        return x
    grown = np.exp(x - x.max(axis=axis, keepdims=True))
    result: npt.NDArray[np.float64] = grown / grown.sum(axis=axis, keepdims=True)
    return result
