"""Two rules of detection on the same scores, by hand."""

import numpy as np
import pytest

from refineloc.evaluation.rules import compare_rules
from refineloc.runtime.annotations import Annotations, VideoAnnotation
from refineloc.runtime.segments.grid import SnippetGrid
from refineloc.runtime.segments.rules import ManyThresholds, OneThreshold
from refineloc.runtime.segments.values import Scores

# snippet    0   1   2   3   4   5   6   7   (a second each)
# C̄         .1  .9  .9  .5  .1  .1  .5  .1
# high           ======                      C̄ >= 0.8
# low            ==========          ===     C̄ >= 0.4
COLUMN = np.float32([0.1, 0.9, 0.9, 0.5, 0.1, 0.1, 0.5, 0.1])
LOW = OneThreshold(alpha_a=1.0, alpha_c=0.4, top_k=1, max_gap=0, widen=0)
HIGH = OneThreshold(alpha_a=1.0, alpha_c=0.8, top_k=1, max_gap=0, widen=0)
GRID = SnippetGrid(16.0, 16)


def scores() -> Scores:
    column = COLUMN
    both = np.stack([column, np.zeros_like(column)], axis=1)
    return Scores(both, column, np.full(8, 0.125, np.float32), np.float32([[0.9, 0.1]]))


def test_the_agreement_is_the_mean_best_tiou() -> None:
    videos, grids = {"a": scores(), "b": scores()}, {"a": GRID, "b": GRID}
    comparison = compare_rules(videos, grids, ("x", "y"), LOW, HIGH)
    assert (comparison.detections, comparison.other_detections) == (4, 2)
    assert comparison.agreement == pytest.approx((2 / 3 + 0) / 2)
    assert compare_rules(videos, grids, ("x", "y"), HIGH, LOW).agreement == pytest.approx(2 / 3)
    assert (comparison.map, comparison.other_map) == (None, None)


def test_rules_of_either_kind_and_of_no_detections() -> None:
    none = OneThreshold(alpha_c=1.0)
    many = ManyThresholds(thresholds=(0.3, 0.8), max_gap=0, widen=0)
    arguments = ({"a": scores()}, {"a": GRID}, ("x", "y"))
    assert compare_rules(*arguments, many, none).agreement == 0
    assert compare_rules(*arguments, none, many).agreement == 1
    assert compare_rules(*arguments, HIGH, many).agreement == 1  # both of many's thresholds: 1..3, 1..2 and 6
    assert compare_rules({}, {}, ("x",), many, none).agreement == 1


def test_with_known_times_both_have_their_average_map() -> None:
    truth = VideoAnnotation("a", ("x",), start=np.array([1.0]), end=np.array([4.0]), segment_labels=("x",))
    arguments = ({"a": scores()}, {"a": GRID}, ("x", "y"))
    comparison = compare_rules(*arguments, LOW, HIGH, Annotations({"a": truth}), tious=(0.5, 0.7, 0.9))
    assert comparison.map == 1.0
    assert comparison.other_map == pytest.approx(1 / 3)  # a tIoU of 2/3
