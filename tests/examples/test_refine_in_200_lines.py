"""examples/refine_in_200_lines.py, the method in one file, computes what the package computes."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import small_data
import torch

from refineloc.training import members
from refineloc.training.data.inputs import read_inputs
from refineloc.training.fit import Epoch, Labelled, fit
from refineloc.training.refine import Iteration, refine
from refineloc.training.sample.synth import World, write_sample
from refineloc.training.settings.config import resolve

# The names of the file's constants, and of the settings that they are.
CONSTANTS = {
    "TOP_K": "detection.top_k",
    "ALPHA_A": "detection.alpha_a",
    "ALPHA_C": "detection.alpha_c",
    "WIDEN": "detection.widen",
    "LABEL_ALPHA_C": "pseudo.class_activation",
    "LABEL_WIDEN": "pseudo.widen",
    "BETA": "pseudo.beta",
    "SAMPLED": "pseudo.sampled",
    "ITERATIONS": "training.iterations",
    "EPOCHS": "training.epochs",
    "BATCH_VIDEOS": "training.batch_videos",
    "LEARNING_RATE": "training.learning_rate",
    "DECAY": "training.decay",
    "PATIENCE": "training.patience",
}


@pytest.fixture
def one_file(load_example: Callable[[str], ModuleType]) -> ModuleType:
    return load_example("refine_in_200_lines.py")


def test_it_has_200_lines_and_the_settings_of_the_preset(one_file: ModuleType) -> None:
    assert len(Path(str(one_file.__file__)).read_text().splitlines()) <= 200
    settings = resolve({"preset": "sample"}).document()
    for name, path in CONSTANTS.items():
        section, _, key = path.partition(".")
        assert getattr(one_file, name) == settings[section][key], name
    assert settings["pseudo"]["foreground"] == 1 - one_file.LABEL_ALPHA_A
    assert settings["features"]["snippet_frames"] == one_file.FRAMES
    # What it has no constants for.
    assert settings["pseudo"]["top_k"] == settings["detection"]["top_k"]
    assert settings["detection"]["max_gap"] == 1


def compare(one_file: ModuleType, data: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Compare losses, pseudo labels, detections and mAP of all iterations; gives the average mAP of each."""
    config = resolve({"preset": "sample"}, settings)
    document = config.document()
    for name, path in CONSTANTS.items():
        section, _, key = path.partition(".")
        monkeypatch.setattr(one_file, name, document[section][key])
    monkeypatch.setattr(one_file, "LABEL_ALPHA_A", 1 - config.pseudo.foreground)
    learned: list[tuple[Labelled, Labelled]] = []

    def remembered(config: Any, train: Labelled, val: Labelled, *rest: Any, **further: Any) -> Any:
        learned.append((train, val))
        return fit(config, train, val, *rest, **further)

    monkeypatch.setattr(members, "fit", remembered)
    inputs = read_inputs(small_data.files(data), config, 2**30)
    events = list(refine(config, inputs.train, inputs.val, inputs.truth))
    epochs = [event.record for event in events if isinstance(event, Epoch)]
    iterations = [event for event in events if isinstance(event, Iteration)]
    train, val = one_file.read(data)
    values = []
    for number, (losses, detections, pseudo) in enumerate(one_file.refine(train, val)):
        expected = [(epoch["train_loss"], epoch["validation_loss"]) for epoch in epochs if epoch["iteration"] == number]
        np.testing.assert_allclose(losses, expected, rtol=1e-5)
        for taught, own in zip(learned[number], pseudo, strict=True):
            if own is None:
                assert taught.pseudo is None
            else:
                labels, weights = own
                assert torch.equal(torch.cat(list(labels.values())), taught.pseudo)
                assert set(taught.pseudo.tolist()) == {-1, 0, 1}
                torch.testing.assert_close(weights, taught.weights)
        theirs = iterations[number].detections
        assert theirs is not None
        classes = inputs.train.classes
        rows = [(name, *detection) for name, video in theirs.items() for detection in video]
        order = [(name, start, end, classes[label], score) for name, label, start, end, score in detections]
        assert len(rows) == len(order) > 5
        for (*named, score), (*own_named, own_score) in zip(sorted(rows), sorted(order), strict=True):
            assert (named[0], named[3]) == (own_named[0], own_named[3])
            np.testing.assert_allclose([*named[1:3], score], [*own_named[1:3], own_score], rtol=1e-5)
        value = one_file.mean_average_precision(detections, val, np.linspace(0.5, 0.95, 10))
        assert value == pytest.approx(iterations[number].record["average_mAP"], abs=1e-9)
        values.append(value)
    assert len(values) == len(iterations) == config.training.iterations
    return values


def test_it_computes_what_the_package_computes(
    one_file: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = small_data.write_data(tmp_path, np.random.default_rng(11))
    settings = {
        "detection": {"alpha_c": 0.4},
        "pseudo": {"foreground": 0.55, "class_activation": 0.4},
        "training": {"iterations": 2, "epochs": 8, "batch_videos": 4, "learning_rate": 0.01},
    }
    assert max(compare(one_file, data, settings, monkeypatch)) > 0.05


@pytest.mark.long
def test_it_computes_what_the_package_computes_on_sample_data(
    one_file: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of so few videos that the package scores a split in one call; of more, scores differ in their last bits."""
    list(write_sample(tmp_path, World(6, 64, 0), {"train": 40, "val": 20}))
    values = compare(one_file, tmp_path, {"training": {"iterations": 3, "epochs": 20}}, monkeypatch)
    assert values[2] > 1.5 * values[0] > 0, "refinement must show"
