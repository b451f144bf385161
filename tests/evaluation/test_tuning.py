"""The choice of a rule on a few videos: found where it is clear, left alone where it may be chance."""

import numpy as np
import pytest

from refineloc.evaluation import evaluate, match_detections
from refineloc.evaluation.rules import detect
from refineloc.evaluation.tuning import Choice, tune
from refineloc.runtime.annotations import Annotations, VideoAnnotation
from refineloc.runtime.errors import InputError
from refineloc.runtime.segments.grid import SnippetGrid
from refineloc.runtime.segments.rules import OneThreshold
from refineloc.runtime.segments.values import Scores

SNIPPETS = 60
GRID = SnippetGrid(16.0, 16)  # a snippet is a second
# Four actions of 4 snippets with class activation 0.9, in a background that a low threshold takes for one long action.
RULES = OneThreshold(alpha_c=0.05, alpha_a=1.0, top_k=1, widen=2)


def video(rng: np.random.Generator, noise: float, background: float = 0.1) -> tuple[Scores, np.ndarray]:
    starts = np.arange(5, 60, 14) + rng.integers(0, 3, 4)
    column = np.full(SNIPPETS, background)
    for start in starts:
        column[start : start + 4] = 0.9
    column = np.clip(column + rng.normal(0, noise, SNIPPETS), 0, 1).astype(np.float32)
    both = np.stack([column, 1 - column], axis=1)
    return Scores(both, column, np.full(SNIPPETS, 1 / SNIPPETS, np.float32), np.float32([[0.9, 0.1]])), starts


def some(
    rng: np.random.Generator, count: int, noise: float = 0.01, shifted: int = 0
) -> tuple[dict[str, Scores], dict[str, SnippetGrid], Annotations]:
    scores, annotations = {}, {}
    for index in range(count):
        name = f"v{index}"
        scores[name], starts = video(rng, noise)
        starts = starts + rng.integers(-shifted, shifted + 1, len(starts))
        annotations[name] = VideoAnnotation(
            name, ("x",), start=starts.astype(float), end=starts + 4.0, segment_labels=("x",) * len(starts)
        )
    return scores, dict.fromkeys(scores, GRID), Annotations(annotations)


def test_a_clear_gain_is_taken(rng: np.random.Generator) -> None:
    scores, grids, annotations = some(rng, 5)
    own = Choice(0, RULES)
    tuned = tune([scores], grids, ("x", "y"), own, annotations)
    assert tuned.is_better
    assert tuned.choice == tuned.best
    rules = tuned.choice.rules
    assert isinstance(rules, OneThreshold)
    assert rules.widen == 0  # actions have hard bounds
    assert (rules.alpha_a, rules.top_k) == (RULES.alpha_a, RULES.top_k) or rules.alpha_a < 1
    # The figures are those of the rules on these videos.
    for choice, figure in ((own, tuned.own_map), (tuned.best, tuned.best_map)):
        detections = detect(scores, grids, ("x", "y"), choice.rules)
        assert evaluate(match_detections(detections, annotations)).average_mAP == pytest.approx(figure)
    assert tuned.best_map == 1.0
    assert tuned.gain == pytest.approx(tuned.best_map - tuned.own_map)  # every fold chooses alike
    assert (tuned.videos, tuned.folds) == (5, 5)
    # And it holds on other videos.
    others, other_grids, truth = some(np.random.default_rng(99), 10)
    detections = detect(others, other_grids, ("x", "y"), rules)
    assert evaluate(match_detections(detections, truth)).average_mAP > 0.9


def test_a_gain_that_may_be_chance_is_not(rng: np.random.Generator) -> None:
    """The own rule is right and the annotations are not sharp: what suits the videos that chose suits no others."""
    scores, grids, annotations = some(rng, 5, noise=0.3, shifted=1)
    own = Choice(0, OneThreshold(alpha_c=0.5, alpha_a=0.5, top_k=1, widen=0))
    tuned = tune([scores], grids, ("x", "y"), own, annotations)
    assert tuned.best_map > tuned.own_map
    assert tuned.gain <= 1.5 * tuned.noise
    assert not tuned.is_better
    assert tuned.choice == own != tuned.best


def test_the_network_is_chosen_too(rng: np.random.Generator) -> None:
    good, grids, annotations = some(rng, 5)
    poor = {
        name: each._replace(class_scores=np.roll(each.class_scores, 7, 0), foreground=np.roll(each.foreground, 7))
        for name, each in good.items()
    }
    rules = OneThreshold(alpha_c=0.5, top_k=1, widen=0)
    tuned = tune([poor, good], grids, ("x", "y"), Choice(0, rules), annotations)
    assert tuned.is_better
    assert tuned.choice.network == 1
    kept = tune([poor, good], grids, ("x", "y"), Choice(1, rules), annotations)
    assert kept.best == kept.choice == Choice(1, rules)  # nothing is better
    assert (kept.gain, kept.noise, kept.is_better) == (0.0, 0.0, False)


def test_many_videos_share_folds_and_few_are_refused(rng: np.random.Generator) -> None:
    scores, grids, annotations = some(rng, 12)
    assert tune([scores], grids, ("x", "y"), Choice(0, RULES), annotations).folds == 10
    two = {name: grids[name] for name in ("v0", "v1")}
    with pytest.raises(InputError, match="2 videos are too few to choose on; annotate at least 3"):
        tune([scores], two, ("x", "y"), Choice(0, RULES), annotations)
