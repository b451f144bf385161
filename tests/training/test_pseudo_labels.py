"""The generators, on hand-computed time lines and by their properties."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from refineloc.runtime.annotations import Annotations, VideoAnnotation
from refineloc.runtime.errors import ConfigError
from refineloc.runtime.segments.grid import SnippetGrid
from refineloc.runtime.segments.rules import OneThreshold, changed
from refineloc.runtime.segments.values import Scores
from refineloc.training.data.split import Split
from refineloc.training.data.truth import true_foreground
from refineloc.training.pseudo_labels import generate, precision_and_recall, sample
from refineloc.training.settings.config import PseudoConfig, resolve

LENGTHS = np.array([6, 4], dtype=np.int64)
# class 0 on:       . # # . # .   . . . #
CLASS_0 = np.array([1, 9, 8, 2, 7, 1, 1, 2, 1, 9], np.float32) / 10
FOREGROUND = np.array([9, 9, 9, 9, 9, 1, 1, 1, 1, 9], np.float32) / 10
SCORES = Scores(
    np.stack([CLASS_0, 1 - CLASS_0], axis=1),
    FOREGROUND,
    np.array([0.3, 0.3, 0.1, 0.1, 0.1, 0.1, 0.4, 0.4, 0.1, 0.1], np.float32),
    np.array([[0.9, 0.1], [0.9, 0.1]], np.float32),
)


PAPER = OneThreshold()


def labels(profile: Any = "paper", max_gap: int = 1, **settings: Any) -> list[int]:
    config, detection = PseudoConfig(**settings), changed(PAPER, {"profile": profile, "max_gap": max_gap})
    return generate(config, detection, SCORES, LENGTHS, np.random.default_rng(0)).labels.tolist()


def test_segment_covers_bridged_snippets_and_is_not_widened() -> None:
    assert labels(generator="segment", class_activation=0.5, top_k=1) == [0, 1, 1, 1, 1, 0, 0, 0, 0, 1]
    # Joined as detections are.
    assert labels(max_gap=0, generator="segment", class_activation=0.5, top_k=1) == [0, 1, 1, 0, 1, 0, 0, 0, 0, 1]


def test_segment_of_the_release_is_dilated_widened_and_one_further_at_the_end() -> None:
    settings = {"generator": "segment", "class_activation": 0.85, "top_k": 1}
    # Kept: snippets 1 | 9. Dilated by one: 0..2 | 8..9.
    assert labels("release", **settings) == [1, 1, 1, 0, 0, 0, 0, 0, 1, 1]
    assert labels("release", **settings, widen=2, past_end=1) == [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    assert labels("release", **settings, widen=1, past_end=1) == [1, 1, 1, 1, 1, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("normalised", "expected"),
    [
        # Class 0 by its least and largest value: 0, 1, .875, .125, .75, 0 | 0, .125, 0, 1.
        (0.0, [0, 1, 1, 1, 1, 0, 0, 1, 0, 1]),
        (0.5, [0, 1, 1, 0, 1, 0, 0, 0, 0, 1]),
        (0.8, [0, 1, 1, 0, 0, 0, 0, 0, 0, 1]),
    ],
)
def test_segments_of_many_thresholds_have_one_for_pseudo_labels(normalised: float, expected: list[int]) -> None:
    settings = {"generator": "segment", "normalised": normalised, "top_k": 1}
    assert labels("multi-threshold", max_gap=0, **settings) == expected


def test_class_activation_takes_the_largest_of_all_classes() -> None:
    assert labels(generator="class-activation", max_class_activation=0.9) == [1, 1, 0, 0, 0, 1, 1, 0, 1, 1]


def test_attention_is_relative_to_one_over_t() -> None:
    # 1.5 / 6 = 0.25 in the first video, 1.5 / 4 = 0.375 in the second.
    assert labels(generator="attention", attention=1.5) == [1, 1, 0, 0, 0, 0, 1, 1, 0, 0]


@pytest.mark.parametrize(("generator", "share"), [("uniform", 0.5), ("distribution-aware", 0.2)])
def test_random_generators_have_their_share(generator: str, share: float) -> None:
    lengths = np.array([20_000])
    scores = Scores(
        np.zeros((20_000, 1), np.float32), *(np.zeros(20_000, np.float32),) * 2, np.zeros((1, 1), np.float32)
    )
    config = PseudoConfig(generator=generator, foreground_share=0.2)
    made = [generate(config, PAPER, scores, lengths, np.random.default_rng(seed)).labels for seed in (0, 0, 1)]
    assert made[0].mean() == pytest.approx(share, abs=0.02)
    assert np.array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])


def test_the_oracle_needs_times() -> None:
    truth = np.arange(10) < 5
    config = PseudoConfig(generator="oracle")
    made = generate(config, PAPER, SCORES, LENGTHS, np.random.default_rng(0), truth)
    assert made.labels.tolist() == truth.astype(int).tolist()
    with pytest.raises(ConfigError, match="oracle needs segments with times"):
        generate(config, PAPER, SCORES, LENGTHS, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("settings", "cause"),
    [
        ({"generator": "segment", "class_activation": 1.0}, "pseudo.class_activation = 1"),
        ({"generator": "segment", "foreground": 1.0}, "pseudo.foreground = 1"),
        ({"generator": "class-activation", "max_class_activation": 0.0}, "pseudo.max_class_activation = 0"),
        ({"generator": "attention", "attention": 9.0}, "pseudo.attention = 9"),
    ],
)
def test_labels_of_one_kind_name_their_threshold(settings: dict[str, Any], cause: str) -> None:
    made = generate(PseudoConfig(**settings), PAPER, SCORES, LENGTHS, np.random.default_rng(0))
    assert len(set(made.labels.tolist())) == 1
    assert cause in made.warning
    mixed = generate(PseudoConfig(class_activation=0.5), PAPER, SCORES, LENGTHS, np.random.default_rng(0))
    assert mixed.warning == ""


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.sampled_from([0.0, 0.3, 0.8, 1.0]), st.integers(0, 99))
def test_sampling_keeps_a_share_of_each_video(lengths: list[int], share: float, seed: int) -> None:
    n = np.array(lengths)
    before = np.random.default_rng(seed).integers(0, 2, n.sum())
    kept = sample(before, n, share, np.random.default_rng(seed))
    assert ((kept == before) | (kept == -1)).all()
    counts = np.add.reduceat(kept >= 0, np.cumsum(n) - n)
    assert counts.tolist() == np.rint(share * n).astype(int).tolist()


def test_sampling_is_drawn_over_the_whole_video() -> None:
    kept = sample(np.ones(100_000, np.int64), np.full(1000, 100), 0.5, np.random.default_rng(0)).reshape(1000, 100) >= 0
    assert (np.abs(kept.mean(axis=0) - 0.5) < 0.08).all()


def test_precision_and_recall() -> None:
    truth = np.array([True, True, True, False])
    assert precision_and_recall(np.array([1, 1, 0, 1]), truth) == (2 / 3, 2 / 3)
    assert precision_and_recall(np.array([0, 0, 0, 0]), truth) == (0.0, 0.0)
    assert precision_and_recall(np.array([1, -1, -1, -1]), truth) == (1.0, 1.0)


def split_of(videos: Mapping[str, int], grid: SnippetGrid | None) -> Split:
    """Videos of so many snippets, without anything else that matters."""
    lengths = torch.tensor(list(videos.values()))
    nothing = torch.zeros(int(lengths.sum()), 1)
    return Split(tuple(videos), nothing, lengths, nothing, ("x",), (grid,) * len(videos), 1, 1, Path("f.h5"))


def test_truth_needs_every_video() -> None:
    video = VideoAnnotation("v", ("x",), start=np.array([1.0]), end=np.array([3.0]), segment_labels=("x",))
    weak = VideoAnnotation("w", ("x",))
    grid = SnippetGrid(16.0, 16)
    annotations = Annotations({"v": video, "w": weak})
    mask = true_foreground(split_of({"v": 4}, grid), annotations)
    assert mask is not None
    assert mask.tolist() == [False, True, True, False]
    assert true_foreground(split_of({"v": 4, "w": 2}, grid), annotations) is None
    assert true_foreground(split_of({"v": 4}, None), annotations) is None
    assert true_foreground(split_of({"v": 4}, grid), None) is None


def fused_scores() -> tuple[Scores, np.ndarray]:
    """Two videos of 8 and 4 snippets and three classes; the second video's foreground is low everywhere."""
    foreground = np.array([0, 1, 1, 0, 0, 0.8, 0.8, 0, 0, 0, 0, 0], np.float32)
    class_scores = np.full((12, 3), 0.1, np.float32)
    class_scores[1:3, 0] = class_scores[5:7, 1] = class_scores[:, 2] = 0.8
    videos = np.array([[0.4, 0.2, 0.9], [0.3, 0.3, 0.9]], np.float32)
    return Scores(class_scores, foreground, np.full(12, 0.1, np.float32), videos), np.array([8, 4])


def test_fused_labels_are_the_detections_of_the_video_s_own_labels() -> None:
    """By hand: scores of the paper's rule are 0.1 + 0.8 + ŷ: 1.3 of class 0 and 1.1 of class 1, never of class 2."""
    scores, lengths = fused_scores()
    known = np.array([[True, True, False], [True, False, False]])
    rules = resolve({"detection": {"alpha_c": 0.5, "widen": 0, "top_k": 1}}).detection
    for threshold, covered in ((0.5, [1, 2, 5, 6]), (1.1 / 1.3 + 0.01, [1, 2])):
        config = resolve({"pseudo": {"generator": "fused", "fused_threshold": threshold}}).pseudo
        made = generate(config, rules, scores, lengths, np.random.default_rng(0), None, known)
        assert np.flatnonzero(made.labels).tolist() == covered
        assert made.classes is not None
        expected = np.zeros((12, 3), np.float32)
        expected[[1, 2], 0] = 1.0
        expected[[snippet for snippet in covered if snippet > 2], 1] = 1.0
        np.testing.assert_array_equal(made.classes, expected)


def test_a_snippet_that_two_classes_cover_has_shares_of_both() -> None:
    """In the order of their best detections: 0.1 + 0.8 + 0.4 and 0.1 + 0.8 + 0.2, over the video's best."""
    scores, lengths = fused_scores()
    scores.class_scores[1:3, 1] = 0.8
    known = np.array([[True, True, False], [True, False, False]])
    rules = resolve({"detection": {"alpha_c": 0.5, "widen": 0}}).detection
    made = generate(
        resolve({"pseudo": {"generator": "fused"}}).pseudo,
        rules,
        scores,
        lengths,
        np.random.default_rng(0),
        None,
        known,
    )
    assert made.classes is not None
    np.testing.assert_allclose(made.classes[1], np.array([1.3, 1.1, 0]) / 2.4, rtol=1e-5)
    np.testing.assert_allclose(made.classes.sum(axis=1), made.labels, rtol=1e-6)


def test_softness_keeps_the_teacher_s_foreground_in_fused_labels_alone() -> None:
    scores, lengths = fused_scores()
    known = np.array([[True, True, False], [True, False, False]])
    for generator in ("fused", "attention", "uniform"):
        config = resolve({"pseudo": {"generator": generator, "softness": 0.25}}).pseudo
        made = generate(config, PAPER, scores, lengths, np.random.default_rng(0), None, known)
        if generator == "fused":
            assert made.targets is not None
            np.testing.assert_allclose(made.targets, 0.75 * made.labels + 0.25 * scores.foreground, rtol=1e-6)
        else:
            assert made.targets is None
