"""The mean of the highest class activations of each video: how W-TALC and BaS-Net turn snippets into a video score."""

import torch
from torch import Tensor

from refineloc.training.models.layers.packing import membership, video_of

__all__ = ["top_mean"]

_STEPS = 2.0**20  # of the grid of exact values, to 1: about a millionth
_LARGEST = 2.0**11  # exact values beyond are cut; with the line above one has 32 bits
_APART = 2**33  # between the keys of neighbouring videos: more than the values of one can span


def top_mean(values: Tensor, lengths: Tensor, one_of: int = 8, *, exact: bool = False) -> Tensor:
    """The mean over each video's ceil(T / one_of) highest values, for each column (W-TALC, section 3.3).

    Args:
        values: [S, K].
        lengths: snippets of each video, int64 [V], which sum to S; a video without any has mean 0.
        one_of: of how many snippets one counts.
        exact: add without rounding, for inference: the result does not depend on what a video is packed with. Values
            are taken to the nearest 2^-20, and to 2^11 at most.

    Returns:
        [V, K].

    One sort of the whole batch does it, without padding or a loop over videos: keys are whole numbers that order by
    video first and then by falling value, so every video's highest values come at the beginning of its own place.
    """
    video = video_of(lengths, values)
    first_key = (video * _APART)[:, None]
    keys, order = torch.sort(first_key - (_grid_steps(values) if exact else _rank(values)), dim=0)
    starts = torch.cumsum(lengths, dim=0) - lengths
    counts = (lengths + one_of - 1) // one_of
    place = torch.arange(values.shape[0], device=values.device) - starts[video]
    counted = (place < counts[video])[:, None]
    # The sorted keys lie as the videos do, so each still knows its video, and holds its value.
    highest = (first_key - keys).double() / _STEPS if exact else torch.gather(values, 0, order)
    one_hot = membership(lengths, values).to(highest.dtype)
    sums = one_hot @ torch.where(counted, highest, 0.0)
    return (sums / counts.clamp_min(1)[:, None].to(sums.dtype)).to(values.dtype)


def _grid_steps(values: Tensor) -> Tensor:
    """Values in steps of the grid, int64: sums of them do not round, and an ONNX graph can compute them."""
    return (values.detach().double().clamp(-_LARGEST, _LARGEST) * _STEPS).round().to(torch.int64)


def _rank(values: Tensor) -> Tensor:
    """Whole numbers in the order of float32 values: their bits, those of negative ones turned round."""
    bits = values.detach().float().view(torch.int32).to(torch.int64)
    return torch.where(bits < 0, -(bits & 0x7FFFFFFF), bits)
