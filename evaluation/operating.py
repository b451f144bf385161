"""Detections as an application uses them: those of at least a score, each right or wrong at one tIoU.

Detections are matched by falling score, so those of at least a score keep their matches when the others go. One
matching therefore gives the counts at every score.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from refineloc.evaluation.matching import Matching
from refineloc.runtime.errors import ConfigError

__all__ = ["Calibration", "OperatingPoint", "OperatingPoints", "at_precision", "at_score", "calibration"]

_SECONDS = 3600.0  # in an hour


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """What a least score gives.

    Attributes:
        min_score: detections of at least this score count; None where there is no detection at all.
        true_positives, false_positives: how many of them are right, and wrong.
        instances: annotations.
        false_alarms_an_hour: wrong ones in the videos of the ground truth, for each hour of these; None where the
            duration of one of these videos is not known.
        is_reached: False where no score gives the wanted precision; the point is then the one of the highest precision.
    """

    min_score: float | None
    true_positives: int
    false_positives: int
    instances: int
    false_alarms_an_hour: float | None
    is_reached: bool = True

    @property
    def precision(self) -> float | None:
        """Right ones among the detections; None where there are none."""
        detections = self.true_positives + self.false_positives
        return self.true_positives / detections if detections else None

    @property
    def recall(self) -> float:
        """Annotations that are found, fraction of 1."""
        return self.true_positives / self.instances

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 where there are no detections."""
        return 2 * self.true_positives / (self.true_positives + self.false_positives + self.instances)

    def to_json(self) -> dict[str, Any]:
        """The figures; `min_score` is null where the wanted precision is not reached, and `highest` has what is."""
        figures = {name: getattr(self, name) for name in ("precision", "recall", "f1")}
        counts = {name: getattr(self, name) for name in ("true_positives", "false_positives", "instances")}
        document = {
            "min_score": self.min_score,
            **figures,
            "false_alarms_an_hour": self.false_alarms_an_hour,
            **counts,
            "is_reached": self.is_reached,
        }
        return document if self.is_reached else {"min_score": None, "is_reached": False, "highest": document}


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoints:
    """The operating point of all classes together, and of each.

    Attributes:
        tiou: at which a detection is right.
        wanted: the precision that was asked for; None where a score was.
        total: of all detections together.
        by_class: of each class of the ground truth alone.
    """

    tiou: float
    wanted: float | None
    total: OperatingPoint
    by_class: Mapping[str, OperatingPoint]

    def to_json(self) -> dict[str, Any]:
        """{"tiou", "wanted_precision", and the figures of all, "per_class": {label: figures}}."""
        by_class = {label: point.to_json() for label, point in self.by_class.items()}
        return {
            "tiou": self.tiou,
            "wanted_precision": self.wanted,
            **self.total.to_json(),
            "per_class": by_class,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Reliability: whether detections of a score are right as often as the score says.

    Attributes:
        tiou: at which a detection is right.
        edges: of B bins of equal width from 0 to 1, or from the least to the largest score where one lies outside,
            float64 [B + 1]; a bin has its lower edge, the last one both.
        detections: in each bin, int64 [B].
        score, precision: mean score, and right ones among the detections, float64 [B]; NaN in an empty bin.
        error: expected calibration error, the mean of `|score - precision|` over the detections, by bins (Naeini and
            others, AAAI 2015; Guo and others, ICML 2017). None where a score lies outside 0 to 1, or there is none.
    """

    tiou: float
    edges: npt.NDArray[np.float64]
    detections: npt.NDArray[np.int64]
    score: npt.NDArray[np.float64]
    precision: npt.NDArray[np.float64]
    error: float | None

    def to_json(self) -> dict[str, Any]:
        """{"tiou", "error", "bins": [{"from", "to", "detections", "score", "precision"}]}; null in an empty bin."""
        bins = [
            {"from": low, "to": high, "detections": count, "score": score, "precision": precision}
            if count
            else {"from": low, "to": high, "detections": 0, "score": None, "precision": None}
            for low, high, count, score, precision in zip(
                self.edges[:-1].tolist(),
                self.edges[1:].tolist(),
                self.detections.tolist(),
                self.score.tolist(),
                self.precision.tolist(),
                strict=True,
            )
        ]
        return {"tiou": self.tiou, "error": self.error, "bins": bins}


def at_score(matching: Matching, min_score: float, *, tiou: float | None = None) -> OperatingPoints:
    """What the detections of at least a score give, all together and by class.

    Args:
        matching: detections and ground truth, by `match_detections`. False positives that it spares, for they overlap
            an ambiguous region, count neither way; detections of classes that the ground truth lacks are not in it.
        min_score: the least score, itself included.
        tiou: one of the matching's; None for its lowest.

    Raises:
        ConfigError: no such tIoU.
    """
    return _points(matching, tiou, None, lambda curve: (curve.rows_above(min_score), True), min_score)


def at_precision(matching: Matching, precision: float, *, tiou: float | None = None) -> OperatingPoints:
    """The lowest score at which precision reaches what is wanted, for all detections together and for each class.

    It is the one of the highest recall: between it and the highest score precision may be lower.

    Args:
        matching, tiou: as for `at_score`.
        precision: the wanted one, above 0 and at most 1.

    Raises:
        ConfigError: no such tIoU, or a precision out of range.
    """
    if not 0 < precision <= 1:
        raise ConfigError(f"precision: expected a number above 0 and at most 1, got {precision}")
    return _points(matching, tiou, precision, lambda curve: curve.rows_of(precision), None)


def calibration(matching: Matching, *, tiou: float | None = None, bins: int = 10) -> Calibration:
    """Scores against precision, over the detections of all classes.

    Args:
        matching, tiou: as for `at_score`.
        bins: how many.

    Raises:
        ConfigError: no such tIoU, or no bins.
    """
    if bins < 1:
        raise ConfigError(f"bins: expected at least 1, got {bins}")
    index = _index(matching, tiou)
    hits = matching.hits[index]
    score, right = matching.score[hits >= 0], hits[hits >= 0] > 0
    outside = bool(len(score)) and (score.min() < 0 or score.max() > 1)
    low, high = (float(score.min()), float(score.max())) if outside else (0.0, 1.0)
    edges = low + (high - low) * (np.arange(bins + 1) / bins)  # of 0 to 1 the nearest numbers to k / bins
    place = np.clip(np.searchsorted(edges, score, side="right") - 1, 0, bins - 1)
    detections = np.bincount(place, minlength=bins)
    means = []
    for values in (score, right):
        mean = np.full(bins, np.nan)
        np.divide(np.bincount(place, weights=values, minlength=bins), detections, out=mean, where=detections > 0)
        means.append(mean)
    error = None
    if len(score) and not outside:
        error = float(np.nansum(detections * np.abs(means[0] - means[1])) / len(score))
    return Calibration(float(matching.tious[index]), edges, detections.astype(np.int64), means[0], means[1], error)


@dataclass(frozen=True, slots=True, eq=False)
class _Curve:
    """Some detections by falling score, and how many of the best are right, wrong, and wrong in a known video.

    Attributes:
        score: float64 [n].
        right, wrong, alarms: among the first k + 1, int64 [n].
    """

    score: npt.NDArray[np.float64]
    right: npt.NDArray[np.int64]
    wrong: npt.NDArray[np.int64]
    alarms: npt.NDArray[np.int64]

    def rows_above(self, min_score: float) -> int:
        """How many detections have at least a score."""
        return int(np.searchsorted(-self.score, -min_score, side="right"))

    def rows_of(self, precision: float) -> tuple[int, bool]:
        """The most of the best detections that have a precision, and True; else those of the highest, and False.

        Of equal scores all or none are taken.
        """
        if not len(self.score):
            return 0, False
        ends = np.flatnonzero(np.append(self.score[1:] != self.score[:-1], True))
        reached = self.right[ends] / (ends + 1)
        good = np.flatnonzero(reached >= precision)
        if len(good):
            return int(ends[good[-1]]) + 1, True
        return int(ends[np.flatnonzero(reached == reached.max())[-1]]) + 1, False


def _points(
    matching: Matching,
    tiou: float | None,
    wanted: float | None,
    choose: Callable[[_Curve], tuple[int, bool]],
    min_score: float | None,
) -> OperatingPoints:
    """The points of the detections that `choose` takes; their score is `min_score`, or None for that of the last."""
    index, truth = _index(matching, tiou), matching.truth
    durations = [video.duration_s for video in matching.annotations.values()]
    hours = None if None in durations else sum(each or 0.0 for each in durations) / _SECONDS
    hits = matching.hits[index]

    def point(rows: npt.NDArray[np.int64], instances: int) -> OperatingPoint:
        rows = rows[hits[rows] >= 0]
        wrong = hits[rows] == 0
        curve = _Curve(
            matching.score[rows],
            *(np.cumsum(each, dtype=np.int64) for each in (~wrong, wrong, wrong & (matching.video[rows] >= 0))),
        )
        count, is_reached = choose(curve)
        last = count - 1
        right, wrong_ones, alarms = (
            int(each[last]) if count else 0 for each in (curve.right, curve.wrong, curve.alarms)
        )
        score = min_score if min_score is not None else float(curve.score[last]) if count else None
        return OperatingPoint(
            min_score=score,
            true_positives=right,
            false_positives=wrong_ones,
            instances=instances,
            false_alarms_an_hour=None if not hours else alarms / hours,
            is_reached=is_reached,
        )

    bounds = matching.class_bounds.tolist()
    by_class = {
        label: point(np.arange(bounds[c], bounds[c + 1]), int(truth.instances[c]))
        for c, label in enumerate(truth.classes)
    }
    total = point(np.argsort(-matching.score, kind="stable"), int(truth.instances.sum()))
    return OperatingPoints(tiou=float(matching.tious[index]), wanted=wanted, total=total, by_class=by_class)


def _index(matching: Matching, tiou: float | None) -> int:
    """Of a tIoU among those of the matching."""
    if tiou is None:
        return int(matching.tious.argmin())
    close = np.flatnonzero(np.abs(matching.tious - tiou) < 1e-9)
    if not len(close):
        raise ConfigError(f"tiou: expected one of those matched at, {matching.tious.tolist()}, got {tiou}")
    return int(close[0])
