"""Where videos lie in a packed batch: snippets of all videos one after another, with nothing in between.

Written with operators that the ONNX exporter follows for any number of snippets and videos.
"""

import torch
from torch import Tensor

__all__ = ["membership", "moved", "spans", "video_of"]


def membership(lengths: Tensor, snippets: Tensor) -> Tensor:
    """Which snippet belongs to which video, as a one-hot matrix.

    Args:
        lengths: int64 [V], which sum to S; a video may have none.
        snippets: any tensor whose first dimension is S; its values are not used.

    Returns:
        bool [V, S].
    """
    ends = torch.cumsum(lengths, dim=0)
    starts = ends - lengths
    index = torch.arange(snippets.shape[0], device=lengths.device)
    return (index >= starts[:, None]) & (index < ends[:, None])


def spans(starts: Tensor, lengths: Tensor) -> Tensor:
    """The numbers of spans one after another: starts[0], starts[0] + 1, ..., starts[1], ..."""
    before = torch.cumsum(lengths, 0) - lengths
    return torch.arange(int(lengths.sum())) + torch.repeat_interleave(starts - before, lengths)


def video_of(lengths: Tensor, snippets: Tensor) -> Tensor:
    """The video of each snippet, int64 [S]; arguments as for `membership`."""
    ends = torch.cumsum(lengths, dim=0)
    index = torch.arange(snippets.shape[0], device=lengths.device)
    return (index[:, None] >= ends).sum(dim=1)


def moved(values: Tensor, lengths: Tensor, by: int, beyond: float = 0.0) -> Tensor:
    """The value of the snippet `by` places later (or earlier, below 0) of the same video, [S, ...].

    Args:
        values: [S] or [S, K].
        lengths: int64 [V], which sum to S.
        by: snippets.
        beyond: the value where a video has no such snippet.
    """
    if not by:
        return values
    video = video_of(lengths, values)
    place = torch.arange(len(values), device=values.device) + by
    inside = (place >= 0) & (place < len(values))
    place = place.clamp(0, max(len(values) - 1, 0))
    inside = inside & (video[place] == video)
    return torch.where(inside if values.dim() == 1 else inside[:, None], values[place], beyond)
