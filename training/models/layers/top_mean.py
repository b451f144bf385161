"""The mean of the highest class activations of each video: how W-TALC and BaS-Net turn snippets into a video score."""

import math

import torch
from torch import Tensor

from refineloc.training.models.layers.packing import membership, video_of

__all__ = ["top_mean"]

_STEPS = 2.0**20  # of the grid of exact values, from 0 to 1: a step is about a millionth
_LARGEST = 2.0**11  # exact values beyond are cut; with the steps above an exact value has 32 bits
_FEW = 16  # from one of so many on, contenders are chosen before the sort
_APART = 2**33  # between the keys of neighbouring videos: more than the values of a video can span


def top_mean(values: Tensor, lengths: Tensor, one_of: int = 8, *, exact: bool = False) -> Tensor:
    """The mean over each video's ceil(T / one_of) highest values, for each column (W-TALC, section 3.3).

    Args:
        values: [S, K].
        lengths: snippets of each video, int64 [V], which sum to S; a video without any has mean 0.
        one_of: ceil(T / one_of) snippets of a video count.
        exact: add without rounding, so that the result does not depend on what a video is packed with (for inference).
            Values are rounded to the nearest 2^-20 and cut at 2^11.

    Returns:
        [V, K].

    One sort of the whole batch does it, without padding or a loop over videos. Keys are whole numbers that order by
    video first and then by falling value, so each video keeps its place and its highest values come first.
    """
    counts = (lengths + one_of - 1) // one_of
    if not exact and values.device.type == "cpu":  # a few short sorts; a GPU would wait for each
        parts = zip(torch.split(values, lengths.tolist()), counts.tolist(), strict=True)
        return torch.stack([part.topk(count, dim=0).values.sum(dim=0) / max(count, 1) for part, count in parts])
    if exact and one_of >= _FEW:
        values, lengths = _contenders(values, lengths, counts, math.isqrt(one_of))
    video = video_of(lengths, values)
    first_key = (video * _APART)[:, None]
    keys, order = torch.sort(first_key - (_grid_steps(values) if exact else _rank(values)), dim=0)
    starts = torch.cumsum(lengths, dim=0) - lengths
    place = torch.arange(values.shape[0], device=values.device) - starts[video]
    counted = (place < counts[video])[:, None]
    # Each video keeps its place in the sorted keys, so a key minus the video's first key gives the value back.
    highest = (first_key - keys).double() / _STEPS if exact else torch.gather(values, 0, order)
    one_hot = membership(lengths, values).to(highest.dtype)
    sums = one_hot @ torch.where(counted, highest, 0.0)
    return (sums / counts.clamp_min(1)[:, None].to(sums.dtype)).to(values.dtype)


def _contenders(values: Tensor, lengths: Tensor, counts: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Of each column and video values among which the `counts` highest are, [R, K], and how many of each video, [V].

    The snippets of a video form groups of `size`. The k highest values lie in the k groups of the highest maxima. So
    two sorts of a fraction each take the place of one of all; ONNX Runtime takes long to sort.
    """
    video, starts = video_of(lengths, values), torch.cumsum(lengths, dim=0) - lengths
    place = torch.arange(values.shape[0], device=values.device) - starts[video]
    groups = (lengths + size - 1) // size
    # Each group begins with one of the video's first snippets and has those that lie a number of groups further on.
    first = torch.nonzero(place < groups[video])[:, 0]
    video, place = video[first], place[first]
    members = place[:, None] + groups[video][:, None] * torch.arange(size, device=values.device)
    rows = torch.where(members < lengths[video][:, None], starts[video][:, None] + members, values.shape[0])
    lowest = values.new_full((1, values.shape[1]), -_LARGEST)  # in the place of members that there are none of
    grouped = torch.cat([values, lowest]).index_select(0, rows.flatten()).reshape(-1, size, values.shape[1])
    order = torch.argsort((video * _APART)[:, None] - _grid_steps(grouped.amax(dim=1)), dim=0)
    best = order.index_select(0, torch.nonzero(place < counts[video])[:, 0])
    chosen = torch.gather(grouped, 0, best[:, None].expand(-1, size, -1))
    return chosen.reshape(-1, values.shape[1]), size * counts


def _grid_steps(values: Tensor) -> Tensor:
    """Values in steps of the grid, int64. Their sums do not round, and an ONNX graph can compute them."""
    return (values.detach().double().clamp(-_LARGEST, _LARGEST) * _STEPS).round().to(torch.int64)


def _rank(values: Tensor) -> Tensor:
    """Whole numbers in the order of float32 values: their bits, with the order of negative values reversed."""
    bits = values.detach().float().view(torch.int32).to(torch.int64)
    return torch.where(bits < 0, -(bits & 0x7FFFFFFF), bits)
