"""A pyramid over time of a packed batch: level l has a point at each 2^l-th snippet of a video, from its first on."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from refineloc.training.models.layers.packing import video_of

__all__ = ["Level", "beside", "first_level", "largest_of_levels", "next_level"]


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

    def around(self) -> Tensor:
        """Rows of the point before each point, of itself and of the one after, int64 [P, 3]; P where there is none."""
        own = torch.arange(self.place.shape[0], device=self.place.device)
        none = self.place.shape[0]
        before = torch.where(self.place > 0, own - 1, none)
        after = torch.where(self.place + 1 < self.points[self.video], own + 1, none)
        return torch.stack([before, own, after], dim=1)


def _with_none(values: Tensor) -> Tensor:
    """Values [P, K] and a row of zeros behind them, for rows of `Level.around` that are none."""
    return torch.cat([values, values.new_zeros(1, values.shape[1])])


def beside(values: Tensor, around: Tensor) -> Tensor:
    """Each point's values between those of its neighbours, [P, 3 K]: what a convolution of width 3 multiplies."""
    return _with_none(values).index_select(0, around.flatten()).reshape(-1, 3 * values.shape[1])


def first_level(lengths: Tensor, snippets: Tensor) -> Level:
    """Level 0, the snippets themselves; arguments as for `refineloc.training.models.layers.packing.membership`."""
    video = video_of(lengths, snippets)
    index = torch.arange(snippets.shape[0], device=lengths.device)
    return Level(video, index - (torch.cumsum(lengths, dim=0) - lengths)[video], lengths)


def next_level(level: Level, values: Tensor, around: Tensor) -> tuple[Level, Tensor]:
    """The level above, which has every second point, and the largest of `values` [P, K] there and beside, or 0."""
    kept = level.place % 2 == 0
    padded, rows = _with_none(values), around[kept]
    before, own, after = (padded.index_select(0, rows[:, index]) for index in range(3))
    above = Level(level.video[kept], level.place[kept] // 2, (level.points + 1) // 2)
    return above, torch.maximum(own, torch.maximum(before, after))


def largest_of_levels(levels: Sequence[Level], values: Sequence[Tensor]) -> Tensor:
    """The largest of all levels' values [P, K] at each snippet, [S, K]: of level l those of the point at or before it.

    Levels are gone down from the last, so that each point looks at one above.
    """
    largest = values[-1]
    for level, above, own in reversed(list(zip(levels, levels[1:], values, strict=False))):
        starts = torch.cumsum(above.points, dim=0) - above.points
        largest = torch.maximum(own, largest.index_select(0, starts[level.video] + level.place // 2))
    return largest
