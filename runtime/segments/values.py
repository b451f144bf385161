"""What passes from the model to post-processing, and from there to detections and pseudo labels."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["WHOLE_VIDEO", "Scores", "Segments"]

WHOLE_VIDEO = 0.9  # of a video: a segment that covers more of it says nothing of when


class Scores(NamedTuple):
    """What a model says about a packed batch: S snippets of V videos one after another, N classes.

    Attributes:
        class_scores: C̄, float32 [S, N], softmax over classes.
        foreground: Ā^bf_fg, float32 [S], in [0, 1].
        attention: Ā^time, float32 [S], sums to 1 over each video.
        video_scores: ŷ, float32 [V, N].
    """

    class_scores: npt.NDArray[np.float32]
    foreground: npt.NDArray[np.float32]
    attention: npt.NDArray[np.float32]
    video_scores: npt.NDArray[np.float32]


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
