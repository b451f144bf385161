"""What passes from the model to post-processing, and from there to detections and pseudo labels."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["POINT_SCORES", "SNIPPET_SCORES", "WHOLE_VIDEO", "Points", "Scores", "Segments"]

MOST_LEVELS = 24  # of points; beyond, a single point would stand for a video of days
WHOLE_VIDEO = 0.9  # of a video: a segment that covers more of it says nothing of when


class Points(NamedTuple):
    """What a model that finds segments itself says: P points of V videos, N classes (docs/reference/onnx.md).

    Points are those of level 0, of all videos one after another, then those of level 1, and so on. Level l has a point
    at the snippets 0, 2^l, 2 * 2^l .. of each video.

    Attributes:
        scores: of each class, float32 [P, N], in [0, 1].
        distances: from the middle of the point's snippet to the start and to the end of its segment, in snippets, at
            least 0, float32 [P, 2].
    """

    scores: npt.NDArray[np.float32]
    distances: npt.NDArray[np.float32]

    def of_video(self, lengths: npt.NDArray[np.int64], index: int) -> "Points":
        """A copy of those of one video, given the lengths of all, int64 [V]."""
        rows, begin, left = [], 0, np.asarray(lengths)
        for _ in range(self.levels(lengths)):
            first = begin + int(left[:index].sum())
            rows.append(np.arange(first, first + int(left[index])))
            begin, left = begin + int(left.sum()), (left + 1) // 2
        which = np.concatenate(rows) if rows else np.empty(0, dtype=np.int64)
        return Points(self.scores[which], self.distances[which])

    def levels(self, lengths: npt.NDArray[np.int64]) -> int:
        """How many levels these points are of; 0 where they are no points of videos of these lengths, int64 [V]."""
        points, levels = 0, 0
        left = np.asarray(lengths)
        while points < len(self.scores) and left.any():
            points, levels, left = points + int(left.sum()), levels + 1, (left + 1) // 2
            if levels > MOST_LEVELS:
                return 0
        return levels if points == len(self.scores) == len(self.distances) else 0


class Scores(NamedTuple):
    """What a model says about a packed batch: S snippets of V videos one after another, N classes.

    Attributes:
        class_scores: C̄, float32 [S, N], softmax over classes.
        foreground: Ā^bf_fg, float32 [S], in [0, 1].
        attention: Ā^time, float32 [S], sums to 1 over each video.
        video_scores: ŷ, float32 [V, N].
        points: of a model that finds segments itself; else None.
    """

    class_scores: npt.NDArray[np.float32]
    foreground: npt.NDArray[np.float32]
    attention: npt.NDArray[np.float32]
    video_scores: npt.NDArray[np.float32]
    points: Points | None = None

    @classmethod
    def of(cls, arrays: Iterable[npt.NDArray[Any]]) -> "Scores":
        """Of the outputs of a model file in their order: four, or six with points."""
        class_scores, foreground, attention, video_scores, *points = arrays
        return cls(class_scores, foreground, attention, video_scores, Points(*points) if points else None)

    @property
    def arrays(self) -> tuple[npt.NDArray[np.float32], ...]:
        """The four, or six with points."""
        return (self.class_scores, self.foreground, self.attention, self.video_scores, *(self.points or ()))


SNIPPET_SCORES = Scores._fields[:4]  # what every model gives
POINT_SCORES = ("point_scores", "distances")  # the further outputs of one that finds segments itself


class Segments(NamedTuple):
    """Detected segments of a packed batch, by video, then by rank of the class in ŷ, then by time before widening.

    Attributes:
        video: index into the batch, int64 [n].
        label: class index, int64 [n].
        first, last: snippets, both included, float64 [n]; whole numbers, but fractions where segments were fused. They
            cover [first, last + 1) snippets of time.
        score: float64 [n].
    """

    video: npt.NDArray[np.int64]
    label: npt.NDArray[np.int64]
    first: npt.NDArray[np.float64]
    last: npt.NDArray[np.float64]
    score: npt.NDArray[np.float64]

    def take(self, which: slice | npt.NDArray[np.int64]) -> "Segments":
        """Those at these positions."""
        return Segments(self.video[which], self.label[which], self.first[which], self.last[which], self.score[which])

    def by_video(self, videos: int) -> Iterator["Segments"]:
        """The segments of each of `videos` videos, in their order."""
        bounds = np.searchsorted(self.video, np.arange(videos + 1))
        for begin, end in itertools.pairwise(bounds.tolist()):
            yield self.take(slice(begin, end))
