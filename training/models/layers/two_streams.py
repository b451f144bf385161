"""Features of two streams beside each other: the first half of the columns, and the second.

Files have appearance and motion (I3D's RGB and flow) one after the other. What is said of the two is the same with
either first.
"""

from torch import Tensor

__all__ = ["halves", "widths"]


def widths(width: int) -> tuple[int, int]:
    """The columns of the two streams; the second has one more where they do not divide.

    A single column is both streams.
    """
    first = max(width // 2, 1)
    return first, max(width - first, 1)


def halves(features: Tensor) -> tuple[Tensor, Tensor]:
    """`features` [S, D] -> the two streams."""
    first, second = widths(features.shape[1])
    return features[:, :first], features[:, -second:]
