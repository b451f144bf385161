"""A pyramid over time of a packed batch: level l has a point at each 2^l-th snippet of a video, from its first on.

Points of all levels are one after another: level by level, and in a level video by video.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from refineloc.training.models.layers.convolution import Table, with_filling
from refineloc.training.models.layers.packing import video_of

__all__ = ["Pyramid", "pyramid"]


class Pyramid(NamedTuple):
    """The points of all levels.

    Attributes:
        sizes: how many points each level has; level 0 has the snippets.
        snippets, all: the tables of level 0 and of all levels. With blank rows each level's follows the one before.
        windows: of each level but the first, [R_l, 3]: rows of the level below around each row, and its own row in the
            place of one that there is not.
        above: of each level but the last, [P_l]: among the points of the level above, that at or before each point.
    """

    sizes: list[int]
    snippets: Table
    all: Table
    windows: list[Tensor]
    above: list[Tensor]

    def joined(self, levels: list[Tensor]) -> Tensor:
        """The values of each level's rows [R_l, K] as those of all rows."""
        if not self.all.size:  # sizes are not compared while they are traced
            return torch.cat(levels)
        filling = self.all.size - sum(map(len, levels))
        return torch.cat([*levels, levels[0].new_zeros(filling, levels[0].shape[1])])

    def largest(self, values: Tensor) -> Tensor:
        """The largest of all levels' values [P, K] at each snippet, [S, K]: of each level the point at or before it."""
        parts = torch.split(values, self.sizes)
        largest = parts[-1]
        for own, above in zip(reversed(parts[:-1]), reversed(self.above), strict=True):
            largest = torch.maximum(own, largest.index_select(0, above))
        return largest


def pyramid(lengths: Tensor, snippets: Tensor, levels: int, *, blanks: bool = False) -> Pyramid:
    """The points of so many levels; other arguments as for `refineloc.training.models.layers.packing.membership`.

    With `blanks` there are blank rows around each video; on a CPU alone.
    """
    if blanks:
        return _with_blanks(lengths, levels)
    video = video_of(lengths, snippets)
    index = torch.arange(snippets.shape[0], device=lengths.device)
    place = index - (torch.cumsum(lengths, dim=0) - lengths).index_select(0, video)
    before, after, windows, above = _levels(place, lengths.index_select(0, video) - place, levels)
    own = torch.arange(1, sum(each.shape[0] for each in before) + 1, device=lengths.device)
    beside = torch.stack([(own - 1) * torch.cat(before), own, (own + 1) * torch.cat(after)], dim=1)
    of_snippets, of_all = (Table(each, own[:0], own[:0], 0) for each in (beside[: snippets.shape[0]], beside))
    return Pyramid([each.shape[0] for each in before], of_snippets, of_all, windows, above)


def _levels(place: Tensor, left: Tensor, levels: int) -> tuple[list[Tensor], ...]:
    """Of each level: whether points have one before and one after them; then windows, and `above`.

    Args:
        place: of each snippet in its video.
        left: how many snippets its video has from there on.
        levels: how many.
    """
    before, after, windows, above = [(place > 0).long()], [(left > 1).long()], [], []
    for level in range(1, levels):
        stays = place % 2**level == 0
        above.append(torch.cumsum(stays, dim=0) - 1)
        kept = torch.nonzero(stays)[:, 0]
        first, last = kept - before[-1].index_select(0, kept), kept + after[-1].index_select(0, kept)
        windows.append(torch.stack([first, kept, last], dim=1))
        place, left = place.index_select(0, kept), left.index_select(0, kept)
        before.append((place > 0).long())
        after.append((left > 2**level).long())
    return before, after, windows, above


def _with_blanks(lengths: Tensor, levels: int) -> Pyramid:
    """Each blank row is a video of one snippet, so that it has one point at each level, which sees no other."""
    one = torch.ones_like(lengths)
    spread = torch.cat([torch.stack([one, lengths], dim=1).flatten(), one[:1]])
    ends = torch.repeat_interleave(torch.cumsum(spread, dim=0), spread)
    left = ends - torch.arange(len(ends))
    _, _, windows, above = _levels(torch.repeat_interleave(spread, spread) - left, left, levels)
    is_point = [torch.repeat_interleave(torch.arange(len(spread)) % 2 == 1, spread)]
    for level, window in enumerate(windows):
        is_point.append(is_point[-1].index_select(0, window[:, 1]))
        points_before = torch.cumsum(is_point[-1], dim=0) - 1
        above[level] = points_before.index_select(0, above[level][is_point[level]])
    sizes = [int(each.sum()) for each in is_point]
    is_point[0] = _filled(is_point[0])
    return Pyramid(sizes, _table(is_point[0]), _table(_filled(torch.cat(is_point))), windows, above)


def _filled(is_point: Tensor) -> Tensor:
    return F.pad(is_point, (0, with_filling(len(is_point)) - len(is_point)))


def _table(is_point: Tensor) -> Table:
    rows, blank = (torch.nonzero(each)[:, 0] for each in (is_point, ~is_point))
    return Table(rows[:0], rows, blank, len(is_point))
