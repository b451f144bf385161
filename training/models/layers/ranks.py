"""The place of each snippet of a video among the others, by a value."""

import torch
from torch import Tensor

from refineloc.training.models.layers.packing import video_of

__all__ = ["highest", "ranks"]


def ranks(values: Tensor, lengths: Tensor) -> Tensor:
    """The place of each snippet in its video by falling value, from 0; of equal ones the earlier first.

    Args:
        values: [S]; no gradient flows through it.
        lengths: int64 [V], which sum to S.

    Returns:
        int64 [S].
    """
    video = video_of(lengths, values)
    order = torch.argsort(values.detach(), descending=True, stable=True)
    order = order[torch.argsort(video[order], stable=True)]
    place = torch.arange(len(values), device=values.device)
    starts = torch.cumsum(lengths, dim=0) - lengths
    return torch.empty_like(place).scatter(0, order, place - starts[video[order]])


def highest(values: Tensor, lengths: Tensor, one_of: int) -> Tensor:
    """Which snippets are among the ceil(T / one_of) of the highest value of their video, bool [S]."""
    counts = (lengths + one_of - 1) // one_of
    return ranks(values, lengths) < counts[video_of(lengths, values)]
