"""Evaluation: detections and ground truth in, scores and their reasons out; NumPy alone, no engine, no torch.

    from refineloc.evaluation import evaluate, match_detections
    from refineloc.runtime import read_annotations, read_detections

    matching = match_detections(read_detections("detections.json"), read_annotations("val.csv"))
    print(evaluate(matching).average_mAP)

The way of the data: detections -> matching -> average precision, bootstrap, recall, operating points -> diagnosis,
pictures, report. What a program needs that only evaluates loads at once, the rest on first use. `formats/` reads and
writes what other tools have. The runtime never imports this package: a deployed detector does not need it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from refineloc.evaluation.average_precision import Evaluation, evaluate, video_scores
from refineloc.evaluation.bootstrap import Difference, Intervals, bootstrap, compare
from refineloc.evaluation.matching import DEFAULT_TIOUS, Matching, match_detections

if TYPE_CHECKING:
    from refineloc.evaluation.diagnosis import Diagnosis, diagnose
    from refineloc.evaluation.operating import (
        Calibration,
        OperatingPoint,
        OperatingPoints,
        at_precision,
        at_score,
        calibration,
    )
    from refineloc.evaluation.plausibility import Doubt, check_plausible
    from refineloc.evaluation.recall import average_recall

_HOMES = {
    "diagnosis": ("Diagnosis", "diagnose"),
    "operating": ("Calibration", "OperatingPoint", "OperatingPoints", "at_precision", "at_score", "calibration"),
    "plausibility": ("Doubt", "check_plausible"),
    "recall": ("average_recall",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "DEFAULT_TIOUS",
    "Calibration",
    "Diagnosis",
    "Difference",
    "Doubt",
    "Evaluation",
    "Intervals",
    "Matching",
    "OperatingPoint",
    "OperatingPoints",
    "at_precision",
    "at_score",
    "average_recall",
    "bootstrap",
    "calibration",
    "check_plausible",
    "compare",
    "diagnose",
    "evaluate",
    "match_detections",
    "video_scores",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
