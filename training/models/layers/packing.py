"""Where videos lie in a packed batch: snippets of all videos one after another, with nothing in between.

Written with operators that the ONNX exporter follows for any number of snippets and videos.
"""

import torch
from torch import Tensor

__all__ = ["membership", "video_of"]


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


def video_of(lengths: Tensor, snippets: Tensor) -> Tensor:
    """The video of each snippet, int64 [S]; arguments as for `membership`."""
    ends = torch.cumsum(lengths, dim=0)
    index = torch.arange(snippets.shape[0], device=lengths.device)
    return (index[:, None] >= ends).sum(dim=1)
