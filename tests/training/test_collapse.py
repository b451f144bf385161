"""What collapses is said: one line that names cause and setting; networks without order are trained anew."""

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_data
from small_data import assert_same_run

from refineloc.runtime.segments.values import Scores
from refineloc.training import refine as refining
from refineloc.training.pseudo_labels import generate
from refineloc.training.run.display import Silent
from refineloc.training.run.files import Run
from refineloc.training.settings.config import Config, resolve


class Listening(Silent):
    """Remembers warnings and epochs; may interrupt."""

    def __init__(self, after: tuple[int, ...] | None = None) -> None:
        self.after, self.warnings, self.epochs = after, list[str](), list[tuple[int, ...]]()

    def warning(self, message: str) -> None:
        assert "\n" not in message
        self.warnings.append(message)

    def epoch(self, record: Mapping[str, Any]) -> None:
        names = ("iteration", "member", "attempt", "epoch")
        self.epochs.append(tuple(record[name] for name in names if name in record))
        if self.epochs[-1] == self.after:
            raise KeyboardInterrupt


def settings(training: dict[str, Any], **sections: Any) -> Config:
    base = {"iterations": 1, "epochs": 2, "batch_videos": 4, "learning_rate": 0.01}
    return resolve({"training": base | training, "detection": {"alpha_c": 0.4, "widen": 0}}, sections)


def train(data: Path, folder: Path, config: Config, **options: Any) -> tuple[Run, Listening]:
    display = options.pop("display", Listening())
    return small_data.train(data, folder, config, display=display, **options), display


def test_no_detections_and_whole_videos_are_said(data: Path, tmp_path: Path) -> None:
    run, display = train(data, tmp_path / "none", settings({}, detection={"alpha_c": 1.0}))
    (warning,) = [text for text in display.warnings if "no detections" in text]
    assert warning.startswith("iteration 0, validation videos: no detections at all")
    assert "detection.alpha_a = 0.5 with detection.alpha_c = 1" in warning
    assert [f"iteration 0, {text}" for text in run.records[0]["warnings"]] == display.warnings
    _, display = train(data, tmp_path / "whole", settings({}, detection={"alpha_a": 1.0, "alpha_c": 0.0}))
    (warning,) = [text for text in display.warnings if "cover more than 90 %" in text]
    assert "100 % of the detections" in warning
    assert "detection.alpha_a = 1 with detection.alpha_c = 0" in warning


def test_an_attention_without_order_is_said(data: Path, tmp_path: Path) -> None:
    _, display = train(data, tmp_path / "none", settings({"least_order": 1e9}))
    (warning,) = [text for text in display.warnings if "order" in text]
    assert "the attention has no order (attention_order " in warning
    assert "training.learning_rate" in warning
    _, display = train(data, tmp_path / "fine", settings({"least_order": -1e9}))
    assert display.warnings == []


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.01, "1.0 % of the pseudo labels are foreground"),
        (0.03, ""),
        (0.84, ""),
        (0.87, "87.0 % of the pseudo labels are foreground"),
        (0.9999, "99.9 % of the pseudo labels are foreground"),
    ],
)
def test_pseudo_labels_of_nearly_one_kind_are_said(share: float, text: str) -> None:
    snippets = 10_000
    class_scores = np.where(np.arange(snippets) < share * snippets, 1.0, 0.25).astype(np.float32)[:, None]
    even = np.full(snippets, 0.5, np.float32)
    config = resolve({"pseudo": {"generator": "class-activation", "max_class_activation": 0.5}})
    scores = Scores(class_scores, even, even, class_scores[:1])
    labels = generate(config.pseudo, config.detection, scores, np.array([snippets]), np.random.default_rng(0))
    assert labels.warning.startswith(text)
    assert bool(labels.warning) == bool(text)
    if text:
        assert "pseudo.max_class_activation = 0.5" in labels.warning


def judged(monkeypatch: pytest.MonkeyPatch, *orders: float) -> None:
    """Networks are judged with these orders, one after another, on both splits."""
    left = iter(orders)
    monkeypatch.setattr(
        refining, "_orders", lambda *_: dict.fromkeys(("attention_order", "training_order"), next(left))
    )


def test_a_network_without_order_is_trained_anew_with_another_seed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged(monkeypatch, -0.9, 0.1, 1.5)
    run, display = train(data, tmp_path / "run", settings({"restarts": 3}))
    assert display.epochs == list(itertools.product([0], range(3), range(2)))
    record = run.records[0]
    assert (record["attempt"], record["attempts"], record["training_order"]) == (2, 3, 1.5)
    assert not any("attempts" in text for text in display.warnings)
    lines = [json.loads(line) for line in run.files.metrics.read_text().splitlines()]
    assert len({line["train_loss"] for line in lines if line["epoch"] == 0}) == 3
    # The first attempt is the network of a run that has no restarts.
    plain, _ = train(data, tmp_path / "plain", settings({}))
    first = json.loads(plain.files.metrics.read_text().splitlines()[0])
    assert lines[0] == first | {"attempt": 0}


def test_the_best_of_all_attempts_is_kept_and_later_networks_are_trained_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the data are such, restarts cost their time once a run."""
    config = settings({"restarts": 2, "models": 2, "iterations": 2}, pseudo={"class_activation": 0.4})
    judged(monkeypatch, 0.1, 0.15, -0.9, 0.0, 0.0, 0.0)
    run, display = train(data, tmp_path / "run", config)
    trained = sorted({epoch[:3] for epoch in display.epochs})
    assert trained == [(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 0), (1, 0, 0), (1, 1, 0)]
    (warning,) = [text for text in display.warnings if "attempts" in text]
    assert warning.startswith(
        "iteration 0: no attention in order (attention_order of 0.2) in 3 attempts; the best has 0.15"
    )
    first, second = run.records[0]["members"]
    assert (first["attempt"], first["attempts"], first["attention_order"]) == (1, 3, 0.15)
    assert (second["attempt"], second["attempts"]) == (0, 1)


@pytest.mark.parametrize("after", [(0, 0, 1, 1), (0, 1, 0, 0), (1, 0, 0, 1)])
def test_an_interrupted_run_with_restarts_goes_on(data: Path, tmp_path: Path, after: tuple[int, ...]) -> None:
    """No order is high enough, so that every attempt is made."""
    config = settings(
        {"restarts": 1, "models": 2, "iterations": 2, "checkpoint_s": 0.0, "least_order": 1e9},
        pseudo={"class_activation": 0.4},
    )
    train(data, tmp_path / "whole", config)
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "parts", config, display=Listening(after))
    _, rest = train(data, tmp_path / "parts", config, resume=True)
    assert rest.epochs[0] == after
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
