"""Averaged weights, and a least number of steps."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import small_data
import torch
from safetensors.torch import load_file
from small_data import assert_same_run, files

from refineloc.training.data.inputs import read_inputs
from refineloc.training.fit import Labelled, fit, with_least_steps
from refineloc.training.models.layers.targets import labels_of
from refineloc.training.run.display import Silent
from refineloc.training.settings.bases import base_names
from refineloc.training.settings.config import Config, resolve


def settings(**training: Any) -> Config:
    return resolve({"training": {"iterations": 1, "epochs": 5, "batch_videos": 4, "learning_rate": 0.01, **training}})


def epochs_of(config: Config, data: Path) -> tuple[list[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    """The tensors of each epoch's state, and the weights that are kept at the end."""
    split = read_inputs(files(data), config, 2**30).train
    learned = Labelled(split, None, torch.ones(2))
    training = fit(config, learned, learned, 0)
    states = []
    while True:
        try:
            states.append(next(training).pack().tensors)
        except StopIteration as end:
            return states, dict(end.value[0].state_dict())


def test_the_average_is_that_of_the_weights_of_each_step(data: Path) -> None:
    """One batch an epoch, so that the states have the weights of every step; by hand: 0.1, 2/11, 3/12, then 0.3."""
    config = settings(batch_videos=12, ema=0.3, select="last")
    states, kept = epochs_of(config, data)
    plain, _ = epochs_of(settings(batch_videos=12, select="last"), data)
    for name in kept:
        average = torch.zeros_like(kept[name])
        for step, state in enumerate(states):
            # The averages teach nothing: what is trained is the same without them.
            assert torch.equal(state[f"model.{name}"], plain[step][f"model.{name}"])
            decay = (0.1, 2 / 11, 3 / 12, 0.3, 0.3)[step]
            begun = plain_initial(config, data)[name] if step == 0 else average
            average = decay * begun + (1 - decay) * state[f"model.{name}"]
            torch.testing.assert_close(state[f"average.{name}"], average)
        torch.testing.assert_close(kept[name], average)


def plain_initial(config: Config, data: Path) -> dict[str, torch.Tensor]:
    """The weights before the first step: a learning rate too small to move them."""
    still = config.model_copy(
        update={"training": config.training.model_copy(update={"learning_rate": 1e-30, "ema": 0.0, "epochs": 1})}
    )
    return epochs_of(still, data)[1]


def test_validation_is_of_the_averaged_weights(data: Path) -> None:
    states, best = epochs_of(settings(ema=0.9), data)
    for name, tensor in best.items():
        assert any(torch.equal(tensor, state[f"average.{name}"]) for state in states)
        assert not any(torch.equal(tensor, state[f"model.{name}"]) for state in states)


def test_an_interrupted_average_goes_on_bit_for_bit(data: Path, tmp_path: Path) -> None:
    config = settings(ema=0.9, checkpoint_s=0.0)

    class Stopping(Silent):
        def epoch(self, record: Mapping[str, Any]) -> None:
            if record["epoch"] == 3:
                raise KeyboardInterrupt

    small_data.train(data, tmp_path / "whole", config)
    with pytest.raises(KeyboardInterrupt):
        small_data.train(data, tmp_path / "parts", config, display=Stopping())
    assert "average.classifier.0.weight" in load_file(tmp_path / "parts/checkpoint.safetensors")
    small_data.train(data, tmp_path / "parts", config, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize(
    ("base", "batch_videos", "min_steps", "epochs"),
    [
        ("refineloc", 4, 0, 5),
        ("refineloc", 4, 15, 5),  # 3 batches an epoch
        ("refineloc", 4, 16, 6),
        ("refineloc", 5, 100, 34),  # 5, 5 and 2 videos
        ("refineloc", 32, 100, 100),
        ("wtalc", 5, 100, 34),  # pairs: batches of 4
        ("wtalc", 1, 100, 17),  # of 2
    ],
)
def test_epochs_are_raised_to_the_least_number_of_steps(
    data: Path, base: str, batch_videos: int, min_steps: int, epochs: int
) -> None:
    config = resolve(
        {"model": {"base": base}, "training": {"epochs": 5, "batch_videos": batch_videos, "min_steps": min_steps}}
    )
    split = read_inputs(files(data), config, 2**30).train
    raised = with_least_steps(config, split)
    assert raised.training.epochs == epochs
    assert with_least_steps(raised, split) == raised


def test_a_run_has_the_raised_number_of_epochs_and_goes_on(data: Path, tmp_path: Path) -> None:
    run = small_data.train(data, tmp_path / "run", settings(min_steps=18))
    assert len(run.files.metrics.read_text().splitlines()) == run.config.training.epochs == 6
    small_data.train(data, tmp_path / "run", settings(min_steps=18, iterations=2), resume=True)
    assert len(run.files.metrics.read_text().splitlines()) == 12


@pytest.mark.parametrize("base", base_names())
def test_smoothed_labels_are_the_targets_of_the_video_loss(base: str, data: Path) -> None:
    """The same loss as with targets that were smoothed by hand, which is another than the plain one."""
    training = {"epochs": 1, "label_smoothing": 0.4, "learning_rate": 1e-30, "batch_videos": 12, "weight_decay": 0.0}
    smooth = resolve({"model": {"base": base}, "training": training})
    split = read_inputs(files(data), smooth, 2**30).train
    losses = {}
    for name, config, targets in (
        ("smooth", smooth, split.targets),
        ("plain", resolve(smooth.document(), {"training": {"label_smoothing": 0.0}}), split.targets),
        ("by hand", resolve(smooth.document(), {"training": {"label_smoothing": 0.0}}), 0.6 * split.targets + 0.4 / 3),
    ):
        changed = dataclasses.replace(split, targets=targets)
        learned = Labelled(changed, None, torch.ones(2))
        losses[name] = next(fit(config, learned, learned, 0)).record["validation_loss"]
    assert losses["smooth"] == pytest.approx(losses["by hand"], rel=1e-6)
    assert losses["smooth"] != pytest.approx(losses["plain"], rel=1e-4)


def test_labels_are_known_in_smoothed_targets() -> None:
    plain = torch.tensor([[1.0, 0, 0], [0.5, 0, 0.5], [1 / 3] * 3])
    for smoothing in (0.0, 0.5, 0.99):
        assert torch.equal(labels_of((1 - smoothing) * plain + smoothing / 3), plain > 0)
