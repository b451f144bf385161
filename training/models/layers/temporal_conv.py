"""A convolution over time that never looks from one video of a packed batch into the next."""

import torch
from torch import Tensor, nn

from refineloc.training.models.layers.packing import video_of

__all__ = ["TemporalConv"]


class TemporalConv(nn.Module):
    """Width 3, zeros beyond both ends of each video; `nn.Conv1d(inputs, outputs, 3, padding=1)` video by video.

    It is one matrix product of each snippet beside its two neighbours, so it needs no padding and no loop over videos.
    The weight is [outputs, 3 x inputs]: of the snippet before, the snippet, and the one after.

    Args:
        inputs, outputs: values a snippet.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.product = nn.Linear(3 * inputs, outputs)

    def forward(self, values: Tensor, lengths: Tensor) -> Tensor:
        """`values` [S, inputs], `lengths` int64 [V], which sum to S -> [S, outputs]."""
        video = video_of(lengths, values)
        neighbours = (video[1:] == video[:-1])[:, None]
        nothing = torch.zeros_like(values[:1])
        before = torch.cat([nothing, torch.where(neighbours, values[:-1], 0.0)])
        after = torch.cat([torch.where(neighbours, values[1:], 0.0), nothing])
        result: Tensor = self.product(torch.cat([before, values, after], dim=1))
        return result
