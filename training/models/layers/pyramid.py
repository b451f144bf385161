"""A pyramid over time of a packed batch: level l has a point at each 2^l-th snippet of a video, from its first on."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from refineloc.training.models.layers.packing import video_of

__all__ = ["Level", "first_level", "levels_of_snippets", "next_level"]


class Level(NamedTuple):
    """The points of a level, videos one after another.

    Attributes:
        video: of each point, int64 [P].
        place: its number in its video at this level, int64 [P].
        points: how many each video has, int64 [V].
    """

    video: Tensor
    place: Tensor
    points: Tensor

    def neighbours(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """The values [P, K] of the points before and after each point; 0 beyond the ends of its video."""
        index = torch.arange(values.shape[0], device=values.device)
        before, after = values[(index - 1).clamp_min(0)], values[torch.minimum(index + 1, index[-1:])]
        is_last = self.place + 1 == self.points[self.video]
        return torch.where((self.place > 0)[:, None], before, 0.0), torch.where(is_last[:, None], 0.0, after)

    def beside(self, values: Tensor) -> Tensor:
        """Each point's values between those of its neighbours, [P, 3 K]: what a convolution of width 3 multiplies."""
        before, after = self.neighbours(values)
        return torch.cat([before, values, after], dim=1)


def first_level(lengths: Tensor, snippets: Tensor) -> Level:
    """Level 0, the snippets themselves; arguments as for `refineloc.training.models.layers.packing.membership`."""
    video = video_of(lengths, snippets)
    index = torch.arange(snippets.shape[0], device=lengths.device)
    return Level(video, index - (torch.cumsum(lengths, dim=0) - lengths)[video], lengths)


def next_level(level: Level, values: Tensor) -> tuple[Level, Tensor]:
    """The level above, which has every second point, and the values [P, K] at these points."""
    kept = level.place % 2 == 0
    return Level(level.video[kept], level.place[kept] // 2, (level.points + 1) // 2), values[kept]


def levels_of_snippets(levels: Sequence[Level], values: Sequence[Tensor]) -> Tensor:
    """The values of each snippet's point at every level, [L, S, K]: at level l that at or before the snippet."""
    snippets = levels[0]
    rows = [
        (torch.cumsum(level.points, dim=0) - level.points)[snippets.video] + snippets.place // 2**index
        for index, level in enumerate(levels)
    ]
    return torch.stack([each[row] for each, row in zip(values, rows, strict=True)])
