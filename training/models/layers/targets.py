"""The labels of videos, as losses have them: rows that sum to 1, or to 0 where a video has none."""

import torch.nn.functional as F
from torch import Tensor

__all__ = ["labels_of", "with_background"]


def labels_of(targets: Tensor) -> Tensor:
    """Which classes are a video's labels, bool [V, N], of targets [V, N] that may be smoothed."""
    middle = (targets.amin(dim=1, keepdim=True) + targets.amax(dim=1, keepdim=True)) / 2
    return (targets >= middle) & (targets > 0)


def with_background(targets: Tensor) -> Tensor:
    """Targets [V, N] with the background as one more label of every video, [V, N + 1].

    The labels and the background have equal weights.
    """
    count = labels_of(targets).sum(dim=1, keepdim=True)
    return F.pad(targets * count, (0, 1), value=1.0) / (count + 1)
