"""A pyramid over time of a packed batch: level l has a point at each 2^l-th snippet of a video, from its first on.

Points of all levels are one after another: level by level, and in a level video by video.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from refineloc.training.machine.products import for_products
from refineloc.training.models.layers.packing import video_of

__all__ = ["Pyramid", "convolved", "pyramid"]

_WIDE = 2  # times as many inputs as outputs: from there on fewer values are moved after the product than before it
_MANY = 512  # inputs, from which oneDNN's convolution is slow to give the gradient of its weights


class Pyramid(NamedTuple):
    """The points of all levels.

    Attributes:
        sizes: how many points each level has; level 0 has the snippets.
        beside: of each point the numbers of the one before it, of itself, and of the one after it, of its own video and
            level, int64 [P, 3]; they count from 1 on, and 0 is none.
        windows: of each level but the first, [P_l, 3]: rows of the level below around each point, and its own row in
            the place of one that there is not.
        above: of each level but the last, [P_l]: the row, in the level above, of the point at or before each point.
    """

    sizes: list[int]
    beside: Tensor
    windows: list[Tensor]
    above: list[Tensor]

    def largest(self, values: Tensor) -> Tensor:
        """The largest of all levels' values [P, K] at each snippet, [S, K]: of each level the point at or before it."""
        parts = torch.split(values, self.sizes)
        largest = parts[-1]
        for own, above in zip(reversed(parts[:-1]), reversed(self.above), strict=True):
            largest = torch.maximum(own, largest.index_select(0, above))
        return largest


def pyramid(lengths: Tensor, snippets: Tensor, levels: int) -> Pyramid:
    """The points of so many levels; other arguments as for `refineloc.training.models.layers.packing.membership`."""
    video = video_of(lengths, snippets)
    index = torch.arange(snippets.shape[0], device=lengths.device)
    place = index - (torch.cumsum(lengths, dim=0) - lengths).index_select(0, video)
    left = lengths.index_select(0, video) - place
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
    own = torch.arange(1, sum(each.shape[0] for each in before) + 1, device=lengths.device)
    beside = torch.stack([(own - 1) * torch.cat(before), own, (own + 1) * torch.cat(after)], dim=1)
    return Pyramid([each.shape[0] for each in before], beside, windows, above)


def convolved(values: Tensor, beside: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A convolution of width 3 over the points of each video and level.

    Args:
        values: [P, K].
        beside: of these points, int64 [P, 3]; see `Pyramid`.
        weight: [K', 3 K], of the point before, of the point itself, and of the one after.
        bias: [K'].

    Returns:
        [P, K']: weight · (before, own, after) + bias, with zeros in the place of a point that there is not.
    """
    inputs, outputs, on_cpu = values.shape[1], weight.shape[0], _on_cpu(values)
    if inputs >= _WIDE * outputs and (inputs >= _MANY or not on_cpu):
        # One product with the three parts of the weights; then sums of its few columns.
        parts = weight.reshape(outputs, 3, inputs).transpose(0, 1).reshape(3 * outputs, inputs)
        none = torch.zeros_like(bias)
        products = F.linear(for_products(values), parts, torch.cat([none, bias, none])).to_dense()
        thirds = _with_none(products).reshape(-1, outputs)
        before, own, after = (thirds.index_select(0, 3 * beside[:, part] + part) for part in range(3))
        return before + own + after
    if not on_cpu:
        return F.linear(_rows(values, beside), weight, bias)
    # oneDNN convolves rows as they lie. Points at the borders of videos and levels are computed again, by themselves.
    kernel = weight.reshape(outputs, 1, 3, inputs).permute(0, 3, 1, 2)
    images = F.pad(values, (0, 0, 0, _filling(len(values)))).reshape(1, 1, -1, inputs).permute(0, 3, 1, 2)
    result = F.conv2d(images, kernel, bias, padding=(0, 1)).permute(0, 2, 3, 1).reshape(-1, outputs)
    border = torch.nonzero((beside == 0).any(dim=1))[:, 0]
    alone = F.linear(_rows(values, beside[border]), weight, bias)
    return result.index_copy(0, border, alone)[: len(values)]


def _filling(rows: int) -> int:
    """How many rows to add, at most an eighth: oneDNN prepares itself for each new size, which takes as long as one."""
    return -rows % (1 << max(rows.bit_length() - 4, 0))


def _on_cpu(values: Tensor) -> bool:
    """Whether torch itself computes these values, on a CPU; what is traced is computed by another engine."""
    return not torch.compiler.is_compiling() and values.device.type == "cpu" and len(values) > 0


def _rows(values: Tensor, beside: Tensor) -> Tensor:
    """The values of each point between those of its neighbours, [R, 3 K]."""
    return _with_none(values).index_select(0, beside.flatten()).reshape(-1, 3 * values.shape[1])


def _with_none(values: Tensor) -> Tensor:
    """Values [P, K] behind a row of zeros, whose number is 0."""
    return torch.cat([values.new_zeros(1, values.shape[1]), values])
