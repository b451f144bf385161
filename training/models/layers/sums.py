"""Sums and means over each video's time."""

import torch
from torch import Tensor

from refineloc.training.models.layers.packing import membership

__all__ = ["video_means", "video_sums"]

_STEPS = 2.0**30  # of the grid of exact values, from 0 to 1
_LARGEST = 2.0**11  # exact values beyond are cut; 2^20 of them add up to 2^61 steps, which int64 holds


def video_sums(values: Tensor, lengths: Tensor, *, exact: bool = False) -> Tensor:
    """The sum over each video's snippets, [S, K] -> [V, K].

    Args:
        values: [S, K].
        lengths: int64 [V], which sum to S; a video without snippets has the sum 0.
        exact: add whole numbers, so that the result does not depend on what a video is packed with (for inference).
            Values are rounded to the nearest 2^-30 and cut at 2^11; the sums are float64, without a gradient.
    """
    if not exact:
        return membership(lengths, values).to(values.dtype) @ values
    steps = (values.detach().double().clamp(-_LARGEST, _LARGEST) * _STEPS).round().to(torch.int64)
    running = torch.cumsum(torch.cat([torch.zeros_like(steps[:1]), steps]), dim=0)
    ends = torch.cumsum(lengths, dim=0)
    return (running[ends] - running[ends - lengths]).double() / _STEPS


def video_means(values: Tensor, lengths: Tensor, *, exact: bool = False) -> Tensor:
    """The mean over each video's snippets, [S, K] -> [V, K]; arguments as for `video_sums`."""
    sums = video_sums(values, lengths, exact=exact)
    return (sums / lengths.clamp_min(1)[:, None].to(sums.dtype)).to(values.dtype)
