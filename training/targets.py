"""What the points of a student's pyramid are taught: which of them are of a segment, and where its ends are.

After ActionFormer (Zhang and others, ECCV 2022): a point is of a segment where it lies near the segment's middle, and
the farther end of the segment is at a distance that its level is for. So a segment has three or four points, whatever
its length.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from refineloc.runtime.segments.values import Segments
from refineloc.training.models.layers.packing import spans

__all__ = ["BatchTargets", "SegmentTargets", "point_rows"]

_RADIUS = 1.5  # of the middle of a segment, in points of the level (ActionFormer)
_REACH = 4.0  # snippets to the farther end, of level 0 the most; each level's are twice those of the one before


@dataclass(frozen=True, slots=True)
class BatchTargets:
    """Of the points of a batch that are taught a class, K of them; a point may be taught several.

    Attributes:
        video: of every point of the batch, taught or not, int64 [P]: its video's place in the batch.
        row: of the point among the batch's (`refineloc.runtime.Points`), int64 [K].
        label: the class, int64 [K].
        distances: to the start and the end of the segment, in snippets, float32 [K, 2].
        weight: of the class's loss, in [0, 1], float32 [K].
        ends_weight: of the ends' loss: `weight`, or 0 where a shorter segment of another class has the point.
        points: how many a training video has, a mean; what losses are divided by.
    """

    video: Tensor
    row: Tensor
    label: Tensor
    distances: Tensor
    weight: Tensor
    ends_weight: Tensor
    points: float

    def to(self, device: torch.device) -> "BatchTargets":
        """On another device."""
        parts = (self.video, self.row, self.label, self.distances, self.weight, self.ends_weight)
        return BatchTargets(*(part.to(device) for part in parts), self.points)  # type: ignore[call-arg, arg-type]


class SegmentTargets:
    """The points of a split that are taught.

    Args:
        segments: in snippets, with scores from 0 to 1, which are the weights.
        lengths: snippets of each video, int64 [V].
        levels: of the pyramid.
    """

    def __init__(self, segments: Segments, lengths: npt.NDArray[np.int64], levels: int) -> None:
        # Of several segments of a point the shortest comes last, and the last is kept.
        segments = segments.take(np.argsort(segments.first - segments.last, kind="stable"))
        found = [_points_of(segments, lengths, level, is_last=level == levels - 1) for level in range(levels)]
        which = np.concatenate([each for each, _ in found])
        places = np.concatenate([each for _, each in found])
        level_of = np.repeat(np.arange(levels), [len(each) for each, _ in found])
        keys = np.stack([segments.video[which], level_of, places, segments.label[which]])
        kept = _last_of_each(keys, which)
        keys, which = keys[:, kept], which[kept]
        video, level, place, label = keys
        shortest = np.zeros(len(which), dtype=np.bool_)
        shortest[_last_of_each(keys[:3], which)] = True
        middle = place * 2**level + 0.5
        distances = np.stack([middle - segments.first[which], segments.last[which] + 1 - middle], axis=1)
        weight = segments.score[which].astype(np.float32)
        self.levels = levels
        self._begins = torch.from_numpy(np.searchsorted(video, np.arange(len(lengths) + 1)))
        self._level, self._place, self._label = (torch.from_numpy(each.copy()) for each in (level, place, label))
        self._distances = torch.from_numpy(np.maximum(distances, 0.0).astype(np.float32))
        self._weight = torch.from_numpy(weight)
        self._ends_weight = torch.from_numpy(np.where(shortest, weight, np.float32(0.0)))
        self._points = max(float(weight.sum()) / max(len(lengths), 1), 1.0)

    def of(self, videos: Tensor, lengths: Tensor) -> BatchTargets:
        """Those of a batch: its videos, int64 [V] on the CPU, and their lengths, which tell where their points lie."""
        taught = self._begins[videos + 1] - self._begins[videos]
        which = spans(self._begins[videos], taught)
        video = torch.arange(len(videos))
        counts, begins = _points_in(lengths.cpu(), self.levels)
        return BatchTargets(
            torch.repeat_interleave(video.repeat(self.levels), counts.flatten()),
            begins[self._level[which], torch.repeat_interleave(video, taught)] + self._place[which],
            self._label[which],
            self._distances[which],
            self._weight[which],
            self._ends_weight[which],
            self._points,
        )


def point_rows(lengths: Tensor, videos: Tensor, levels: int) -> Tensor:
    """Where the points of some videos lie among those of all, in the order of a batch of these videos.

    Args:
        lengths: of all videos, int64 [V].
        videos: indices, int64.
        levels: of the points.
    """
    counts, begins = _points_in(lengths, levels)
    return spans(begins[:, videos].flatten(), counts[:, videos].flatten())


def _points_in(lengths: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """How many points each video has at each level, and the first of them, int64 [levels, V]."""
    steps = 2 ** torch.arange(levels)[:, None]
    counts = (lengths + steps - 1) // steps
    begins = torch.cumsum(counts.flatten(), 0).reshape(counts.shape) - counts
    return counts, begins


def _points_of(
    segments: Segments, lengths: npt.NDArray[np.int64], level: int, *, is_last: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The points of a level that are of a segment: the segment's index, and the point's place in its video."""
    step, start, end = 2**level, segments.first, segments.last + 1
    middle = (start + end) / 2
    least, most = _REACH * step / 2 if level else 0.0, np.inf if is_last else _REACH * step
    which, places = [], []
    for further in (-2, -1, 0, 1, 2):
        place = np.rint((middle - 0.5) / step) + further
        at = place * step + 0.5
        farther = np.maximum(at - start, end - at)
        of_it = (start < at) & (at < end) & (np.abs(at - middle) < _RADIUS * step)
        of_it &= (least < farther) & (farther <= most)
        if not level and not further:
            of_it |= end - start < _RADIUS  # such a segment may lie between the middles of two snippets
        index = np.flatnonzero(of_it & (at > 0) & (at < lengths[segments.video]))
        which.append(index)
        places.append(place[index].astype(np.int64))
    return np.concatenate(which), np.concatenate(places)


def _last_of_each(keys: npt.NDArray[np.int64], order: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Of the columns of each kind that of the highest `order`: their indices, sorted by the rows from the first on."""
    ranked = np.lexsort((order, *keys[::-1]))
    of_kind = keys[:, ranked]
    is_last = np.ones(len(ranked), dtype=np.bool_)
    is_last[:-1] = (of_kind[:, 1:] != of_kind[:, :-1]).any(axis=0)
    return ranked[is_last]
