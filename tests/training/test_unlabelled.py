"""Videos without a label that is trained: background throughout, or out of the validation loss."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from small_data import WIDTH, files

from refineloc.evaluation.formats.database import write_activitynet
from refineloc.evaluation.formats.tracks import tracks_of_annotations
from refineloc.runtime.annotations import read_annotations
from refineloc.runtime.segments.values import Scores
from refineloc.training.criterion import attention_order, video_loss
from refineloc.training.data.inputs import Files, Inputs, read_inputs
from refineloc.training.data.truth import settled
from refineloc.training.models.layers.targets import labels_of
from refineloc.training.pseudo_labels import sample
from refineloc.training.refine import Iteration, refine
from refineloc.training.scoring import predict
from refineloc.training.settings.bases import base_names
from refineloc.training.settings.config import Config, resolve

BASES = base_names()


def settings(base: str, **training: Any) -> Config:
    return resolve({"preset": "sample", "model": {"base": base}}, {"training": {"evaluate_every": 0, **training}})


def iterations(config: Config, inputs: Inputs) -> list[Iteration]:
    config = settled(config, inputs.train, inputs.val, inputs.truth)
    return [each for each in refine(config, inputs.train, inputs.val, inputs.truth) if isinstance(each, Iteration)]


@pytest.fixture
def with_negatives(data: Path, rng: np.random.Generator) -> Files:
    """Six training videos without a label show what all actions share: column 5."""
    write_activitynet(data / "train.json", tracks_of_annotations(read_annotations(data / "train.csv")))
    document = json.loads((data / "train.json").read_text())
    with h5py.File(data / "train.h5", "a") as file:
        for index in range(6):
            features = rng.normal(0, 0.3, (30, WIDTH)).astype(np.float32)
            features[10:20, 5] += 2.0
            file[f"none{index}"] = features
            document["database"][f"none{index}"] = {"fps": 16, "annotations": []}
    (data / "train.json").write_text(json.dumps(document))
    return replace(files(data), labels=data / "train.json", unlabelled="negatives")


def test_from_iteration_1_on_pseudo_labels_of_negatives_are_background(
    with_negatives: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert with_negatives.val_labels is not None
    text = with_negatives.val_labels.read_text().replace(",jump,", ",leap,", 1)  # val01
    with_negatives.val_labels.write_text(text)
    config = resolve(
        {"pseudo": {"generator": "uniform"}}, {"training": {"iterations": 2, "epochs": 1, "evaluate_every": 0}}
    )
    inputs = read_inputs(with_negatives, config, 2**30)
    taught = []
    monkeypatch.setattr(
        "refineloc.training.refine.sample", lambda labels, *others: taught.append(labels) or sample(labels, *others)
    )
    assert len(iterations(config, inputs)) == 2
    of_train, of_val = (
        np.split(labels, np.cumsum(split.lengths.numpy())[:-1])
        for labels, split in zip(taught, (inputs.train, inputs.val), strict=True)
    )
    kinds = {name: set(labels) for name, labels in zip(inputs.train.names, of_train, strict=True)}
    assert kinds == {name: {0} if name.startswith("none") else {0, 1} for name in inputs.train.names}
    assert [set(labels) for labels in of_val] == [{0, 1}, {-1}, {0, 1}, {0, 1}, {0, 1}, {0, 1}]


@pytest.mark.long
@pytest.mark.parametrize("base", ["refineloc", "wtalc", "basnet", "cola", "threecnet"])
def test_negatives_teach_what_is_no_action(with_negatives: Files, base: str) -> None:
    """Refined, the foreground of what actions and negatives share falls, and that of actions stays."""
    config = settings(base, iterations=2, epochs=80, learning_rate=5e-3)
    negatives = read_inputs(with_negatives, config, 2**30)
    assert negatives.train.background is not None
    foreground = {}
    for unlabelled in ("leave-out", "negatives"):
        inputs = read_inputs(replace(with_negatives, unlabelled=unlabelled), config, 2**30)
        model = iterations(config, inputs)[-1].model
        parts = predict(model, negatives.train).foreground
        videos = np.split(parts, np.cumsum(negatives.train.lengths.numpy())[:-1])
        middles = [part[len(part) // 3 : 2 * len(part) // 3].mean() for part in videos]
        of_none = negatives.train.background.numpy()
        foreground[unlabelled] = np.mean(np.array(middles)[of_none]), np.mean(np.array(middles)[~of_none])
    assert foreground["negatives"][0] < foreground["leave-out"][0] - 0.3
    assert foreground["negatives"][1] > 0.8


@pytest.mark.parametrize("base", BASES)
def test_videos_of_an_unknown_class_are_scored_and_do_not_count_in_the_loss(data: Path, base: str) -> None:
    config = settings(base, iterations=2, epochs=2)
    given = files(data)
    expected = iterations(config, read_inputs(given, config, 2**30))
    rows = (data / "val.csv").read_text()
    with h5py.File(data / "val.h5", "a") as file:
        for index in range(3):
            file[f"zz{index}"] = np.random.default_rng(index).normal(0, 1, (20, WIDTH)).astype(np.float32)
            rows += f"zz{index},2,9,leap,20,16,320\n"
    (data / "val.csv").write_text(rows)
    inputs = read_inputs(given, config, 2**30)
    for ours, theirs in zip(iterations(config, inputs), expected, strict=True):
        for figure in ("validation_loss", "attention_order", "video_loss"):
            if not (figure == "validation_loss" and ours.record["iteration"]):  # the sample of snippets is another
                assert ours.record[figure] == pytest.approx(theirs.record[figure], rel=1e-5), figure
        assert ours.detections is not None
        assert ours.detections.keys() >= {"zz0", "zz1", "zz2"}
    assert inputs.truth.val is not None
    assert "leap" in inputs.truth.val.classes


def test_the_figures_are_of_videos_with_a_label() -> None:
    rng = np.random.default_rng(3)
    lengths = np.array([12, 9, 15])
    scores = Scores(rng.random((36, 4)), rng.random(36), rng.random(36), rng.random((3, 4)))
    targets = np.array([[0, 1, 0, 0], [0, 0, 0, 0], [0.5, 0, 0.5, 0]], np.float32)
    kept = np.r_[0:12, 21:36]
    other = Scores(scores.class_scores[kept], scores.foreground[kept], scores.attention[kept], scores.video_scores[::2])
    assert attention_order(scores, lengths, targets) == attention_order(other, lengths[::2], targets[::2]) != 0
    assert video_loss(scores, targets) == video_loss(other, targets[::2])


def test_a_row_of_zeros_has_no_label() -> None:
    targets = torch.tensor([[0.0, 0.0], [0.5, 0.5], [0.0, 1.0], [0.25, 0.75]])
    assert labels_of(targets).tolist() == [[False, False], [True, True], [False, True], [False, True]]
