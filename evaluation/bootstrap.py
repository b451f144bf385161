"""Bootstrap confidence intervals of mAP, and of the difference of two: how far would they move on other videos?

Videos are drawn with replacement; a video drawn twice counts twice. Which annotation a detection takes depends on its
video alone. Detections are therefore matched once, and a resample only changes their weights.

A video drawn twice doubles its true positives. Where classes have few videos, the mAP of the resamples therefore lies
above that of the sample (by 1.5 points on ActivityNet's 100 classes), and plain percentiles can leave out the figure
that they are for. The interval is the percentiles of the deviations from the mean of the resamples, around the figure
of the sample; the shift is reported.

Two sets of detections are compared on the same resamples: that some videos are harder than others is in both figures,
and not in their difference. Its interval is therefore narrower than those of the two.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from refineloc._ext.matching import average_precision
from refineloc.evaluation.average_precision import Evaluation
from refineloc.evaluation.matching import Matching
from refineloc.runtime.errors import ConfigError

__all__ = ["Difference", "Intervals", "bootstrap", "compare"]

Weights = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Intervals:
    """Intervals over resampled videos, around the figures that `evaluate` gives.

    Attributes:
        level: the share of resamples inside, such as 0.95.
        mAP: low and high at each threshold, float64 [2, K]; in [0, 1], as all of them.
        average_mAP: low and high.
        classes: low and high of each class's AP, mean over thresholds, float64 [2, N]; over the resamples that have it.
        shift: by how much the resamples' average mAP lies above the sample's, on the mean.
        resamples: how many.
    """

    level: float
    mAP: npt.NDArray[np.float64]
    average_mAP: tuple[float, float]
    classes: npt.NDArray[np.float64]
    shift: float
    resamples: int

    def to_json(self, evaluation: Evaluation) -> dict[str, Any]:
        """{"level", "resamples", "shift", "average_mAP": [low, high], "mAP": {"0.50": [low, high], ...}}."""
        return {
            "level": self.level,
            "resamples": self.resamples,
            "shift": self.shift,
            "average_mAP": list(self.average_mAP),
            "mAP": {f"{tiou:.2f}": bounds for tiou, bounds in zip(evaluation.tious, self.mAP.T.tolist(), strict=True)},
        }


def bootstrap(
    matching: Matching,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    interpolated: bool = True,
) -> Intervals:
    """Confidence intervals of the mAP that `evaluate` gives.

    A class without any annotation in a resample is left out of its mean. Detections of videos that the annotations do
    not have are in every resample.

    Args:
        matching: detections and ground truth, by `match_detections`.
        resamples: draws of as many videos as the annotations have.
        level: share of the resamples inside the interval.
        seed: of the draws.
        interpolated: as for `evaluate`.

    Raises:
        ConfigError: no resamples, or a level outside (0, 1).
    """
    _check(resamples, level)
    scores_of = _scores(matching, interpolated)
    videos, classes = len(matching.annotations), len(matching.truth.classes)
    scores = np.empty((resamples, len(matching.tious)))
    by_class = np.empty((resamples, classes))
    for row, class_row, weights in zip(scores, by_class, _draws(videos, resamples, seed), strict=True):
        row[:], class_row[:] = scores_of(weights)
    sample, class_sample = scores_of(np.ones(videos))
    shift = scores.mean(axis=0) - sample
    tails = [(1 - level) / 2, (1 + level) / 2]
    # Moved by the shift, an interval can reach past 0 or 1, where no AP and no mean of them can be.
    low, high = np.clip(np.quantile(scores.mean(axis=1) - shift.mean(), tails), 0.0, 1.0)
    # A class that a resample lacks has no AP there; one that every resample lacks keeps its own figure as both bounds.
    drawn = np.where(np.isnan(by_class).all(axis=0), class_sample, by_class)
    class_shift = np.nanmean(drawn, axis=0) - class_sample
    return Intervals(
        level,
        np.clip(np.quantile(scores - shift, tails, axis=0), 0.0, 1.0),
        (float(low), float(high)),
        np.clip(np.nanquantile(drawn - class_shift, tails, axis=0), 0.0, 1.0),
        float(shift.mean()),
        resamples,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Difference:
    """How much higher the mAP of one set of detections is than that of another, with intervals over resampled videos.

    Attributes:
        level: the share of resamples inside, such as 0.95.
        mAP: the difference at each threshold, float64 [K]; in [-1, 1], as all of them.
        mAP_interval: low and high at each threshold, float64 [2, K].
        average_mAP: the difference of the averages.
        average_mAP_interval: low and high.
        resamples: how many.
    """

    level: float
    mAP: npt.NDArray[np.float64]
    mAP_interval: npt.NDArray[np.float64]
    average_mAP: float
    average_mAP_interval: tuple[float, float]
    resamples: int

    def to_json(self, evaluation: Evaluation) -> dict[str, Any]:
        """{"level", "resamples", "average_mAP": [difference, low, high], "mAP": {"0.50": [...], ...}}."""
        rows = zip(evaluation.tious, self.mAP.tolist(), *self.mAP_interval.tolist(), strict=True)
        return {
            "level": self.level,
            "resamples": self.resamples,
            "average_mAP": [self.average_mAP, *self.average_mAP_interval],
            "mAP": {f"{tiou:.2f}": [difference, low, high] for tiou, difference, low, high in rows},
        }


def compare(
    matching: Matching,
    other: Matching,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    interpolated: bool = True,
) -> Difference:
    """By how much the mAP of `matching` is above that of `other`; each resample draws the same videos for both.

    Args:
        matching, other: detections, by `match_detections` with the same annotations and thresholds.
        resamples, level, seed, interpolated: as for `bootstrap`.

    Raises:
        ConfigError: other annotations or thresholds, no resamples, or a level outside (0, 1).
    """
    _check(resamples, level)
    if matching.annotations is not other.annotations or not np.array_equal(matching.tious, other.tious):
        raise ConfigError("compare: expected detections that are matched with the same annotations and thresholds")
    scores_of, others_of = _scores(matching, interpolated), _scores(other, interpolated)
    videos = len(matching.annotations)

    def difference(weights: Weights) -> npt.NDArray[np.float64]:
        result: npt.NDArray[np.float64] = scores_of(weights)[0] - others_of(weights)[0]
        return result

    sample = difference(np.ones(videos))
    drawn = np.stack([difference(weights) for weights in _draws(videos, resamples, seed)])
    around = drawn - (drawn.mean(axis=0) - sample)
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.clip(np.quantile(around.mean(axis=1), tails), -1.0, 1.0)
    by_tiou = np.clip(np.quantile(around, tails, axis=0), -1.0, 1.0)
    return Difference(level, sample, by_tiou, float(sample.mean()), (float(low), float(high)), resamples)


def _check(resamples: int, level: float) -> None:
    if resamples < 1 or not 0 < level < 1:
        raise ConfigError(f"bootstrap: expected resamples >= 1 and a level between 0 and 1, got {resamples}, {level}")


def _draws(videos: int, resamples: int, seed: int) -> Iterator[Weights]:
    """How often each video is in each resample."""
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.bincount(rng.integers(0, videos, videos), minlength=videos).astype(np.float64)


def _scores(
    matching: Matching, interpolated: bool
) -> Callable[[Weights], tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    """mAP by threshold, and AP by class (NaN without annotations), where video v counts weights[v] times."""
    hits, truth = matching.hits, matching.truth
    classes = len(truth.classes)
    group_video, group_class = np.divmod(truth.keys, classes)
    counts = np.diff(truth.bounds)

    def scores_of(weights: Weights) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        positives = np.bincount(group_class, weights=weights[group_video] * counts, minlength=classes).astype(
            np.float64
        )
        each = np.append(weights, 1.0)[matching.video]  # video -1, not in the annotations, takes the last
        ap = average_precision(hits, matching.class_bounds, positives, weights=each, interpolated=interpolated)
        present = ap[:, positives > 0]
        by_class = np.where(positives > 0, ap.mean(axis=0), np.nan)
        return present.mean(axis=1) if present.size else np.zeros(len(ap)), by_class

    return scores_of
