"""From scores to segments: thresholds, grouping, widening and scoring (docs/method.md).

Three profiles: RefineLoc's two ("paper" and "release", section 3 and the released code) keep a snippet by its
foreground and one class threshold; "multi-threshold" (BaS-Net, W-TALC) takes the runs of the normalised class
activation at many.
Training uses this too: segment-based pseudo labels are detections.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from refineloc._ext.proposals import detect_proposals
from refineloc._ext.segments import detect_segments
from refineloc.runtime.errors import ConfigError
from refineloc.runtime.segments.values import Scores, Segments

__all__ = ["MAX_THRESHOLDS", "THRESHOLDS", "PostProcess", "Profile", "Scoring", "segments"]

Profile = Literal["paper", "release", "multi-threshold"]
Scoring = Literal["contrast", "peak"]

THRESHOLDS = tuple(
    step / 40 for step in range(10)
)  # BaS-Net, section 4.1: 0 to 0.25 in steps of 0.025, without the last
MAX_THRESHOLDS = 1_000  # finer than any curve needs; bounds what a hostile model file can cost


@dataclass(frozen=True, slots=True)
class PostProcess:
    """How scores become segments.

    Attributes:
        profile: "paper", "release" (the authors' code; docs/method.md has the differences) or "multi-threshold"
            (runs of the class activation, min-max normalised over the video, above each of many thresholds).
        alpha_a: α_A, the most background a kept snippet may have ("paper", "release").
        alpha_c: α_C, the least class activation C̄ a kept snippet must have ("paper", "release").
        top_k: classes a video, by ŷ.
        max_gap: removed snippets that may separate kept ones of a segment ("paper", "multi-threshold").
        widen: snippets added at both ends, clipped to the video.
        nms: tIoU above which the weaker of two segments of a class is dropped; None keeps all, as the paper does.
        thresholds: of the normalised class activation, in [0, 1], at least one and at most 1,000; a run that several
            give is one segment. This and the following are of "multi-threshold" alone.
        scoring: "contrast" (the mean of the normalised class activation inside, less that in a ring outside: AutoLoc,
            BaS-Net) or "peak" (the largest class activation C̄ inside: W-TALC); `video_weight` times ŷ is added.
        outer: width of the ring at each side, as a share of the segment's length ("contrast").
        video_weight: see `scoring`.
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
    thresholds: tuple[float, ...] = THRESHOLDS
    scoring: Scoring = "contrast"
    outer: float = 0.25
    video_weight: float = 0.2
    threads: int = 1

    def __post_init__(self) -> None:
        for name, known in (("profile", get_args(Profile)), ("scoring", get_args(Scoring))):
            if getattr(self, name) not in known:
                expected = " or ".join(map(repr, known))
                raise ConfigError(f"{name}: expected {expected}, got {getattr(self, name)!r:.40}")
        object.__setattr__(self, "thresholds", _checked_thresholds(self.thresholds))
        for name, low, high in (("alpha_a", 0.0, 1.0), ("alpha_c", 0.0, 1.0)):
            value = getattr(self, name)
            if not (_is_number(value) and low <= value <= high):
                raise ConfigError(f"{name}: expected a number from {low:g} to {high:g}, got {value!r:.40}")
        for name in ("outer", "video_weight"):
            value = getattr(self, name)
            if not (_is_number(value) and 0.0 <= value < math.inf):
                raise ConfigError(f"{name}: expected a finite number of at least 0, got {value!r:.40}")
        if self.nms is not None and not (_is_number(self.nms) and 0.0 <= self.nms <= 1.0):
            raise ConfigError(f"nms: expected a tIoU from 0 to 1, got {self.nms!r:.40}")
        for name, least in (("top_k", 1), ("max_gap", 0), ("widen", 0), ("threads", 1)):
            value = getattr(self, name)
            if not (isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= least):
                raise ConfigError(f"{name}: expected a whole number of at least {least}, got {value!r:.40}")


def segments(scores: Scores, lengths: npt.NDArray[np.int64], settings: PostProcess) -> Segments:
    """Detect the segments of a packed batch.

    Args:
        scores: of S snippets.
        lengths: snippets of each video, int64 [V], which sum to S.
        settings: thresholds and profile.

    Raises:
        ValueError: shapes or dtypes that do not fit together, or NaN (a defect of the caller, not of a user's file).
    """
    find = _proposals if settings.profile == "multi-threshold" else _segments
    found = find(scores, lengths, settings)
    return found if settings.nms is None else _suppressed(found, settings.nms)


def _segments(scores: Scores, lengths: npt.NDArray[np.int64], settings: PostProcess) -> Segments:
    return Segments(
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


def _proposals(scores: Scores, lengths: npt.NDArray[np.int64], settings: PostProcess) -> Segments:
    return Segments(
        *detect_proposals(
            scores.class_scores,
            scores.video_scores,
            lengths,
            thresholds=settings.thresholds,
            top_k=settings.top_k,
            scoring=settings.scoring,
            outer=settings.outer,
            video_weight=settings.video_weight,
            max_gap=settings.max_gap,
            widen=settings.widen,
            threads=settings.threads,
        )
    )


def _is_number(value: object) -> bool:
    return isinstance(value, (float, int, np.floating, np.integer)) and not isinstance(value, bool)


def _checked_thresholds(thresholds: object) -> tuple[float, ...]:
    """As a tuple of Python floats, also from a list or an array."""
    if isinstance(thresholds, str) or not isinstance(thresholds, (Sequence, np.ndarray)):
        raise ConfigError(f"thresholds: expected a list of numbers, got {thresholds!r:.40}")
    if not 0 < len(thresholds) <= MAX_THRESHOLDS:
        raise ConfigError(f"thresholds: expected 1 to {MAX_THRESHOLDS:,} numbers, got {len(thresholds):,}")
    for threshold in thresholds:
        if not isinstance(threshold, (float, int, np.floating)) or not 0.0 <= threshold <= 1.0:
            raise ConfigError(f"thresholds: expected numbers from 0 to 1, got {threshold!r:.40}")
    return tuple(map(float, thresholds))


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
