"""A pseudo-label generator of one's own: the snippets that score highest for the labels of their video.

    refineloc-train TRAIN.h5 TRAIN.csv --generator examples/own_generator.py

docs/how-to/own-generator.md has what such a file consists of.
"""

import numpy as np
import numpy.typing as npt

from refineloc.runtime.segments.values import Scores

SHARE = 0.3  # of each video's snippets


def generate(
    scores: Scores, lengths: npt.NDArray[np.int64], known: npt.NDArray[np.bool_], rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Which snippets are foreground, [S]."""
    of_labels = np.where(np.repeat(known, lengths, axis=0), scores.class_scores, 0).max(axis=1) * scores.foreground
    parts = np.split(of_labels, np.cumsum(lengths)[:-1])
    return np.concatenate([part > np.quantile(part, 1 - SHARE) for part in parts])
