"""Evaluation of the authors' predictions for iteration 0 (35,308 segments, ActivityNet v1.2) at 10 thresholds."""

from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.evaluators import by_numpy, by_pandas, truth_table
from benchmarks.timing import Row, race
from refineloc.evaluation import DEFAULT_TIOUS, evaluate, match_detections
from refineloc.runtime.annotations import read_annotations
from refineloc.runtime.detections import read_detections

RELEASE = Path(__file__).resolve().parents[2] / "shared" / "data" / "refineloc-release"
PREDICTIONS = RELEASE / "valid_predictions_iteration_0000.json"
TRUTH = RELEASE / "activitynet_v1-2_valid_groundtruth.csv"


def rows() -> list[Row]:
    """The function against two evaluators that get their tables ready-made."""
    if not PREDICTIONS.exists():
        print(f"evaluation: left out, {PREDICTIONS} is not here")
        return []
    detections, annotations, tious = read_detections(PREDICTIONS), read_annotations(TRUTH), np.array(DEFAULT_TIOUS)
    table = pd.DataFrame(
        [(video, *detection) for video, by_score in detections.items() for detection in by_score],
        columns=["video", "start", "end", "label", "score"],
    )
    truth = truth_table(annotations)
    ours = evaluate(match_detections(detections, annotations)).ap
    # Their sorts are not stable and order equal scores differently, so a few classes differ a little.
    for theirs in (by_pandas(table, truth, tious), by_numpy(table, truth, tious)):
        assert abs(ours.mean() - theirs.mean()) < 1e-4, (ours.mean(), theirs.mean())
    ours_s, numpy_s = race(
        lambda: evaluate(match_detections(detections, annotations)),
        lambda: by_numpy(table, truth, tious),
        budget_s=4,
    )
    (pandas_s,) = race(lambda: by_pandas(table, truth, tious))
    subject = f"evaluation, {len(table):,} x {len(tious)}"
    return [
        Row(subject, "pandas, as ActivityNet's kit", ours_s, pandas_s, "at least 1,000"),
        Row(subject, "NumPy", ours_s, numpy_s, "at least 80"),
    ]
