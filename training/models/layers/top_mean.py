"""The mean of the highest class activations of each video: how W-TALC and BaS-Net turn snippets into a video score."""

import torch
from torch import Tensor

from refineloc.training.models.layers.packing import membership, video_of

__all__ = ["top_mean"]

_STEPS = 2.0**20  # of the grid of exact values, from 0 to 1: a step is about a millionth
_LARGEST = 2.0**11  # exact values beyond are cut; with the steps above an exact value has 32 bits
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
    video = video_of(lengths, values)
    first_key = (video * _APART)[:, None]
    keys, order = torch.sort(first_key - (_grid_steps(values) if exact else _rank(values)), dim=0)
    starts = torch.cumsum(lengths, dim=0) - lengths
    counts = (lengths + one_of - 1) // one_of
    place = torch.arange(values.shape[0], device=values.device) - starts[video]
    counted = (place < counts[video])[:, None]
    # Each video keeps its place in the sorted keys, so a key minus the video's first key gives the value back.
    highest = (first_key - keys).double() / _STEPS if exact else torch.gather(values, 0, order)
    one_hot = membership(lengths, values).to(highest.dtype)
    sums = one_hot @ torch.where(counted, highest, 0.0)
    return (sums / counts.clamp_min(1)[:, None].to(sums.dtype)).to(values.dtype)


def _grid_steps(values: Tensor) -> Tensor:
    """Values in steps of the grid, int64. Their sums do not round, and an ONNX graph can compute them."""
    return (values.detach().double().clamp(-_LARGEST, _LARGEST) * _STEPS).round().to(torch.int64)


def _rank(values: Tensor) -> Tensor:
    """Whole numbers in the order of float32 values: their bits, with the order of negative values reversed."""
    bits = values.detach().float().view(torch.int32).to(torch.int64)
    return torch.where(bits < 0, -(bits & 0x7FFFFFFF), bits)
