"""From scores to segments: thresholds, grouping, widening and scoring (RefineLoc, section 3; DESIGN section 1).

Training uses this too: segment-based pseudo labels are detections.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from refineloc._ext.segments import detect_segments
from refineloc.runtime.errors import ConfigError

__all__ = ["PostProcess", "Profile", "Scores", "Segments", "segments"]

Profile = Literal["paper", "release"]


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
    """Detected segments of a packed batch, by video, then by rank of the class in ŷ, then by time.

    Attributes:
        video: index into the batch, int64 [n].
        label: class index, int64 [n].
        first, last: snippets, both included, int64 [n].
        score: float64 [n].
    """

    video: npt.NDArray[np.int64]
    label: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    last: npt.NDArray[np.int64]
    score: npt.NDArray[np.float64]

    def take(self, which: slice | npt.NDArray[np.int64]) -> "Segments":
        """Those at these positions."""
        return Segments(self.video[which], self.label[which], self.first[which], self.last[which], self.score[which])

    def by_video(self, videos: int) -> Iterator["Segments"]:
        """The segments of each of `videos` videos, in their order."""
        bounds = np.searchsorted(self.video, np.arange(videos + 1))
        for begin, end in itertools.pairwise(bounds.tolist()):
            yield self.take(slice(begin, end))


@dataclass(frozen=True, slots=True)
class PostProcess:
    """How scores become segments.

    Attributes:
        profile: "paper" or "release" (the authors' code; see DESIGN section 1 for the differences).
        alpha_a: α_A, the most background a kept snippet may have.
        alpha_c: α_C, the least class activation C̄ a kept snippet must have.
        top_k: classes a video, by ŷ.
        max_gap: removed snippets that may separate kept ones of a segment ("paper").
        widen: snippets added at both ends, clipped to the video.
        nms: tIoU above which the weaker of two segments of a class is dropped; None keeps all, as the paper does.
        threads: of the kernel, over videos.

    Raises:
        ConfigError: a value out of range.
    """

    profile: Profile = "paper"
    alpha_a: float = 0.5
    alpha_c: float = 0.005
    top_k: int = 2
    max_gap: int = 1
    widen: int = 2
    nms: float | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        if self.profile not in ("paper", "release"):
            raise ConfigError(f"profile: expected 'paper' or 'release', got {self.profile!r}")
        for name, low, high in (("alpha_a", 0.0, 1.0), ("alpha_c", 0.0, 1.0)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name}: expected a number from {low:g} to {high:g}, got {getattr(self, name)}")
        if self.nms is not None and not 0.0 <= self.nms <= 1.0:
            raise ConfigError(f"nms: expected a tIoU from 0 to 1, got {self.nms}")
        for name, least in (("top_k", 1), ("max_gap", 0), ("widen", 0), ("threads", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: expected at least {least}, got {getattr(self, name)}")


def segments(scores: Scores, lengths: npt.NDArray[np.int64], settings: PostProcess) -> Segments:
    """Detect the segments of a packed batch.

    Args:
        scores: of S snippets.
        lengths: snippets of each video, int64 [V], which sum to S.
        settings: thresholds and profile.

    Raises:
        ValueError: shapes or dtypes that do not fit together, or NaN (a defect of the caller, not of a user's file).
    """
    found = Segments(
        *detect_segments(
            *scores,
            lengths,
            profile=settings.profile,
            alpha_a=settings.alpha_a,
            alpha_c=settings.alpha_c,
            top_k=settings.top_k,
            max_gap=settings.max_gap,
            widen=settings.widen,
            threads=settings.threads,
        )
    )
    return found if settings.nms is None else _suppressed(found, settings.nms)


def _suppressed(found: Segments, tiou: float) -> Segments:
    from refineloc._ext.nms import hard_nms

    # Snippets first..last cover [first, last + 1); the order of the survivors stays that of `found`.
    classes = int(found.label.max(initial=0)) + 1
    group = found.video * classes + found.label
    kept = hard_nms(
        found.first.astype(np.float64),
        (found.last + 1).astype(np.float64),
        found.score,
        group,
        tiou_threshold=tiou,
    )
    return found.take(np.sort(kept))
