"""Which annotations are found: by their coverage, length and number of instances (DETAD, sections 5 and 6)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from refineloc.evaluation.diagnosis.characteristics import Characteristic
from refineloc.evaluation.diagnosis.normalised_precision import normalised_average_precision, normalised_precision
from refineloc.evaluation.matching import Matching

__all__ = ["FalseNegatives", "Sensitivity", "analyse_false_negatives", "analyse_sensitivity"]

LEAST_PRECISION = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Sensitivity:
    """Average mAP_N on the annotations of each group alone.

    Attributes:
        average_mAP_N: on all annotations.
        by_group: of each characteristic, float64 [groups]; NaN for a group without annotations.
    """

    average_mAP_N: float
    by_group: dict[str, npt.NDArray[np.float64]]

    def relative_change(self) -> dict[str, tuple[float, float]]:
        """How far the worst and the best group are from all, relative to all: -0.4 is 40 % below.

        NaN for both where average mAP_N is 0.
        """
        if self.average_mAP_N == 0:
            return dict.fromkeys(self.by_group, (np.nan, np.nan))
        changes = {name: values / self.average_mAP_N - 1 for name, values in self.by_group.items()}
        return {name: (float(np.nanmin(change)), float(np.nanmax(change))) for name, change in changes.items()}

    def to_json(self) -> dict[str, Any]:
        """{"average_mAP_N", "by_group": {characteristic: [groups]}, "relative_change": {characteristic: [min, max]}}.

        null where NaN.
        """
        changes = {name: np.array(change) for name, change in self.relative_change().items()}
        return {
            "average_mAP_N": self.average_mAP_N,
            "by_group": _json_lists(self.by_group),
            "relative_change": _json_lists(changes),
        }


@dataclass(frozen=True, slots=True, eq=False)
class FalseNegatives:
    """The share of annotations that no detection finds, mean over thresholds.

    A detection counts while the precision_N of its class, up to this detection, is above 0.05. Without this rule, a
    detector that lists enough segments would find everything.

    Attributes:
        rate: of all annotations.
        by_group: of each characteristic, float64 [groups]; NaN for a group without annotations.
    """

    rate: float
    by_group: dict[str, npt.NDArray[np.float64]]

    def to_json(self) -> dict[str, Any]:
        """{"rate", "by_group": {characteristic: [groups]}}; null where NaN."""
        return {"rate": self.rate, "by_group": _json_lists(self.by_group)}


def analyse_sensitivity(matching: Matching, characteristics: tuple[Characteristic, ...]) -> Sensitivity:
    """Average mAP_N on each group: with its annotations alone, and without the detections that find others.

    A detection that takes an annotation of another group at any threshold is left out at all of them, as in DETAD's
    tool. Classes without annotations in the group do not count in its mean.
    """
    truth = matching.truth
    instances = float(truth.instances.mean())
    taken = matching.annotation >= 0

    def average_mAP_N(wanted: npt.NDArray[np.bool_]) -> float:
        inside = np.append(wanted, False)[matching.annotation] & taken  # index -1 (none) reads the appended False
        other = (taken & ~inside).any(axis=0)
        positives = np.bincount(truth.label[wanted], minlength=len(truth.classes))
        ap = normalised_average_precision(inside & ~other, ~taken & ~other, matching.class_bounds, positives, instances)
        return float(ap[:, positives > 0].mean()) if wanted.any() else np.nan

    by_group = {
        kind.name: np.array([average_mAP_N(kind.group == index) for index in range(len(kind.sizes))])
        for kind in characteristics
    }
    return Sensitivity(average_mAP_N(np.ones(len(truth.start), dtype=np.bool_)), by_group)


def analyse_false_negatives(matching: Matching, characteristics: tuple[Characteristic, ...]) -> FalseNegatives:
    """The share of annotations that are not found, of all and of each group."""
    truth = matching.truth
    instances = float(truth.instances.mean())
    missed = np.ones((len(matching.tious), len(truth.start)), dtype=np.bool_)
    for index, count in enumerate(truth.instances.tolist()):
        rows = slice(matching.class_bounds[index], matching.class_bounds[index + 1])
        taken = matching.annotation[:, rows]
        precision = normalised_precision(taken >= 0, taken < 0, count, instances)
        threshold, detection = np.nonzero((taken >= 0) & (precision > LEAST_PRECISION))
        missed[threshold, taken[threshold, detection]] = False

    def rate(wanted: npt.NDArray[np.bool_]) -> float:
        return float(missed[:, wanted].mean()) if wanted.any() else np.nan

    by_group = {
        kind.name: np.array([rate(kind.group == index) for index in range(len(kind.sizes))]) for kind in characteristics
    }
    return FalseNegatives(float(missed.mean()), by_group)


def _json_lists(by_group: dict[str, npt.NDArray[np.float64]]) -> dict[str, list[float | None]]:
    return {
        name: [None if np.isnan(value) else value for value in values.tolist()] for name, values in by_group.items()
    }
