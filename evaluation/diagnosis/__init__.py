"""Why a detector is wrong: the three analyses of DETAD (Alwassel et al., ECCV 2018), in arrays.

    false_positives   what the false detections are, and what removing each kind would gain
    instances         which annotations are found well (sensitivity) and which not at all (false negatives)

docs/explanation/diagnosis.md says how to read them, and where they differ from DETAD's tool.
"""

from dataclasses import dataclass
from typing import Any

from refineloc.evaluation.diagnosis.characteristics import Bins, Characteristic, characteristics_of, choose_bins
from refineloc.evaluation.diagnosis.false_positives import ERROR_TYPES, FalsePositives, analyse_false_positives
from refineloc.evaluation.diagnosis.instances import (
    FalseNegatives,
    Sensitivity,
    analyse_false_negatives,
    analyse_sensitivity,
)
from refineloc.evaluation.matching import Matching

__all__ = [
    "ERROR_TYPES",
    "Bins",
    "Characteristic",
    "Diagnosis",
    "FalseNegatives",
    "FalsePositives",
    "Sensitivity",
    "diagnose",
]


@dataclass(frozen=True, slots=True, eq=False)
class Diagnosis:
    """The three analyses of one detector.

    Attributes:
        tious: thresholds that they are averaged over.
        bins: whose groups: "activitynet", "thumos14" or "quantile".
        characteristics: the groups of annotations.
        false_positives, sensitivity, false_negatives: the analyses.
    """

    tious: tuple[float, ...]
    bins: Bins
    characteristics: tuple[Characteristic, ...]
    false_positives: FalsePositives
    sensitivity: Sensitivity
    false_negatives: FalseNegatives

    def to_json(self) -> dict[str, Any]:
        """Everything as numbers: fractions of 1, groups in the order of "groups"; null where there is no annotation."""
        return {
            "tious": list(self.tious),
            "bins": self.bins,
            "groups": {kind.name: kind.to_json() for kind in self.characteristics},
            "false_positives": self.false_positives.to_json(),
            "sensitivity": self.sensitivity.to_json(),
            "false_negatives": self.false_negatives.to_json(),
        }


def diagnose(matching: Matching, *, bins: Bins | None = None) -> Diagnosis:
    """Diagnose matched detections; every figure is the mean over the thresholds of the matching.

    Args:
        matching: detections and ground truth, by `match_detections`. Detections whose end is not after their start are
            left out.
        bins: the groups of annotations; chosen by the data set if left out (`choose_bins`).
    """
    matching, annotations = matching.usable(), matching.annotations
    chosen = bins or choose_bins(annotations)
    characteristics = characteristics_of(matching.truth, annotations, chosen)
    return Diagnosis(
        tious=tuple(matching.tious.tolist()),
        bins=chosen,
        characteristics=characteristics,
        false_positives=analyse_false_positives(matching),
        sensitivity=analyse_sensitivity(matching, characteristics),
        false_negatives=analyse_false_negatives(matching, characteristics),
    )
