"""The true times, where they are known: for the scores that are shown and for references, never trained on."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from refineloc.runtime.annotations import Annotations
from refineloc.runtime.segments.grid import SnippetGrid
from refineloc.training.data.split import Split

__all__ = ["Truth", "foreground_of", "true_foreground", "true_share"]


@dataclass(frozen=True, slots=True)
class Truth:
    """Annotations with times: for evaluation and the oracle only, nothing is trained with them.

    Attributes:
        train, val: of the splits, None where no times are known.
    """

    train: Annotations | None = None
    val: Annotations | None = None


def true_share(split: Split, annotations: Annotations | None) -> float | None:
    """The true share of foreground; None where not every video's times and fps are known."""
    true = foreground_of(split, annotations)
    return None if true is None else float(true.mean())


def foreground_of(split: Split, annotations: Annotations | None) -> npt.NDArray[np.bool_] | None:
    if annotations is None:
        return None
    return true_foreground(annotations, split.names, split.grids, split.lengths.numpy())


def true_foreground(
    annotations: Annotations,
    names: tuple[str, ...],
    grids: tuple[SnippetGrid | None, ...],
    lengths: npt.NDArray[np.int64],
) -> npt.NDArray[np.bool_] | None:
    """The true foreground of each snippet, bool [S]; None where any video's times or fps are not known."""
    masks = []
    for name, grid, length in zip(names, grids, lengths.tolist(), strict=True):
        video = annotations[name]
        if grid is None or not len(video.start):
            return None
        masks.append(grid.foreground(video.start, video.end, length))
    return np.concatenate(masks)
