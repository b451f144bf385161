"""The rule for running videos: by hand, in a run's records, and in the file that is exported from it."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import h5py
import numpy as np
import pytest
import small_data
from small_data import assert_same_run

from refineloc.export.cli.export import main
from refineloc.export.sources import from_run
from refineloc.runtime import Detector, ModelError, StreamingDetector
from refineloc.runtime.segments.postprocess import segments
from refineloc.runtime.segments.rules import ManyThresholds, OneThreshold
from refineloc.runtime.segments.values import Scores
from refineloc.training.criterion import agreement
from refineloc.training.data.split import Split
from refineloc.training.run.display import Silent
from refineloc.training.run.files import Run
from refineloc.training.settings.config import resolve
from refineloc.training.streaming import frozen_rule

RULES = ManyThresholds(
    thresholds=(0.25, 0.5, 0.75), curve="foreground", scored_on="product", top_k=5, max_gap=0, widen=0,
    suppression="fuse",
)  # fmt: skip
SETTINGS: dict[str, Any] = {
    "detection": {"profile": "multi-threshold", "curve": "foreground", "scored_on": "product", "widen": 0, "top_k": 5,
                  "thresholds": [0.2, 0.4, 0.6, 0.8], "suppression": "fuse"},
    "pseudo": {"generator": "fused"},
    "training": {"iterations": 2, "epochs": 4, "batch_videos": 4, "learning_rate": 0.01},
}  # fmt: skip


def scores_of(foreground: list[float], of_class: list[float], lengths: list[int]) -> tuple[Scores, np.ndarray]:
    """Of two classes: C̄ of the first is given, and ŷ says that it is there."""
    fg, first = np.array(foreground, np.float32), np.array(of_class, np.float32)
    both = np.stack([first, 1 - first], axis=1)
    attention = np.concatenate([np.full(length, 1 / max(length, 1), np.float32) for length in lengths])
    return Scores(both, fg, attention, np.tile(np.float32([0.9, 0.1]), (len(lengths), 1))), np.array(lengths)


def test_a_rule_by_hand() -> None:
    """A foreground of 0.2 to 1.0 in both videos; the action is where it is above 0.6, at half of its height."""
    #       snippets of video 1              of video 2, and one without any
    foreground = [0.2, 0.55, 1.0, 1.0, 0.55, 0.2, 0.2, 0.7, 1.0, 0.55, 0.2]
    of_class = [0.1, 0.8, 0.8, 0.8, 0.8, 0.1, 0.1, 0.8, 0.8, 0.8, 0.1]
    scores, lengths = scores_of(foreground, of_class, [6, 5, 0])
    rules = ManyThresholds(thresholds=(0.5,), curve="foreground", top_k=1, max_gap=0, widen=0)
    rule = frozen_rule(rules, scores, lengths)
    # Levels 0.3 and 0.4 (0.44, 0.52) are too wide, 0.7 (0.76) too narrow; of 0.5 and 0.6 (0.6, 0.68) the first.
    assert rule == OneThreshold(alpha_a=0.4, alpha_c=0.8, top_k=1, max_gap=0, widen=0)
    found, same = segments(scores, lengths, rules), segments(scores, lengths, rule)
    for name in ("video", "label", "first", "last"):
        np.testing.assert_array_equal(getattr(found, name), getattr(same, name))
    assert found.first.tolist() == [2, 1]


def test_nothing_to_agree_with_and_scores_below_zero() -> None:
    scores, lengths = scores_of([0.5, 0.5], [0.5, 0.5], [2])
    assert frozen_rule(ManyThresholds(min_score=9.0), scores, lengths) is None
    # The contrast of a class that is lower inside than beside; ŷ is not in the score.
    scores, lengths = scores_of([0.1, 0.9, 0.9, 0.1], [0.9, 0.3, 0.3, 0.9], [4])
    rules = ManyThresholds(thresholds=(0.5,), curve="foreground", top_k=1, max_gap=0, widen=0, video_weight=0)
    assert segments(scores, lengths, rules).score.tolist() == [-1.0]
    rule = frozen_rule(rules, scores, lengths)
    assert rule is not None
    assert (segments(scores, lengths, rule).first.tolist(), rule.alpha_c) == ([1], 0.3)


def test_no_level_agrees_better_with_the_best_detections(rng: np.random.Generator) -> None:
    lengths = np.array([30, 1, 0, 57, 12])
    count = int(lengths.sum())
    smooth = np.convolve(rng.random(count + 4), np.ones(5) / 5, "valid").astype(np.float32)
    class_scores = rng.dirichlet(np.ones(6), count).astype(np.float32)
    scores = Scores(class_scores, smooth, np.ones(count, np.float32), rng.dirichlet(np.ones(6), 5).astype(np.float32))
    rule = frozen_rule(RULES, scores, lengths)
    assert rule is not None
    assert (rule.top_k, rule.max_gap, rule.widen, rule.suppression) == (3, 0, 0, "none")
    found = segments(scores, lengths, RULES)
    best = found.take(
        np.flatnonzero([score >= found.score[found.video == v].max() / 2 for score, v in zip(found.score, found.video)])  # noqa: B905
    )
    assert 0 < len(best.first) < len(found.first)
    reached = agreement(best, segments(scores, lengths, rule))
    parts = np.split(smooth, np.cumsum(lengths)[:-1])
    low, high = (np.mean([side(part) for part in parts if len(part)]) for side in (np.min, np.max))
    for level in (0.3, 0.4, 0.5, 0.6, 0.7):
        other = OneThreshold(alpha_a=1 - low - level * (high - low), alpha_c=rule.alpha_c, top_k=3, max_gap=0, widen=0)
        assert agreement(best, segments(scores, lengths, other)) <= reached + 1e-9
    assert reached > 0


def test_a_run_has_it_in_its_records_and_scores_its_training_videos_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[str] = []
    batches = Split.batches

    def counted(split: Split, *arguments: Any) -> Any:
        passes.append(split.source.stem)
        return batches(split, *arguments)

    monkeypatch.setattr(Split, "batches", counted)
    run = small_data.train(data, tmp_path / "run", resolve(SETTINGS))
    assert passes.count("train") == 2 * (4 + 1)
    rules = [OneThreshold(**record["streaming"]) for record in run.records]
    assert rules[0] != rules[1]
    assert [from_run(run.folder, iteration).metadata.streaming for iteration in range(2)] == rules
    # Other rules are followed as they are, and other base models do not stream.
    short = {"training": {"iterations": 1, "epochs": 1}}
    one = resolve(SETTINGS, {"detection": {"profile": "paper"}}, short)
    for name, config in (("one", one), ("wtalc", resolve(SETTINGS, {"model": {"base": "wtalc"}}, short))):
        other = small_data.train(data, tmp_path / name, config)
        assert "streaming" not in other.records[0]
        assert from_run(other.folder, 0).metadata.streaming is None


def test_a_run_that_goes_on_has_the_same_rules(data: Path, tmp_path: Path) -> None:
    class Stopping(Silent):
        def epoch(self, record: Mapping[str, Any]) -> None:
            if (record["iteration"], record["epoch"]) == (1, 2):
                raise KeyboardInterrupt

    config = resolve(SETTINGS)
    small_data.train(data, tmp_path / "whole", config)
    with pytest.raises(KeyboardInterrupt):
        small_data.train(data, tmp_path / "parts", config, display=Stopping())
    small_data.train(data, tmp_path / "parts", config, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.long
def test_the_exported_file_streams_by_it(
    data: Path, tmp_path: Path, call_program: Callable[..., CompletedProcess[str]]
) -> None:
    """The loss is printed, and a stream ends with what the rule finds in the whole video."""
    run = small_data.train(data, tmp_path / "run", resolve(SETTINGS, {"training": {"epochs": 12, "iterations": 1}}))
    done = call_program(main, "run", "-o", "model.onnx")
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("  streaming")]
    assert "average mAP " in line
    rule = OneThreshold(**run.records[0]["streaming"])
    detector = Detector(tmp_path / "model.onnx", provider="cpu")
    stream = StreamingDetector(detector, fps=16.0)
    assert stream.settings == rule
    with h5py.File(data / "val.h5") as file:
        features = file["val00"][:]
    stream.push(features)
    stream.finish()
    whole = Detector(
        tmp_path / "model.onnx", provider="cpu", profile="paper", alpha_a=rule.alpha_a, alpha_c=rule.alpha_c,
        top_k=rule.top_k, suppression="none",
    ).detect(features, fps=16.0)  # fmt: skip
    got = stream.detections()
    assert len(whole) > 0
    np.testing.assert_array_equal(np.sort(got.start), np.sort(whole.start))
    np.testing.assert_array_equal(np.sort(got.end), np.sort(whole.end))


@pytest.mark.parametrize("value", [{"alpha_a": 2.0}, {"beta": 1.0}, [1], "none"])
def test_a_damaged_record_is_one_line(data: Path, tmp_path: Path, value: object) -> None:
    run: Run = small_data.train(data, tmp_path / "run", resolve(SETTINGS, {"training": {"iterations": 1, "epochs": 1}}))
    records = [run.records[0] | {"streaming": value}]
    run.files.records.write_text(json.dumps(records))
    with pytest.raises(ModelError, match=r"iterations\.json: streaming: not the settings of one threshold: "):
        from_run(run.folder, 0)
