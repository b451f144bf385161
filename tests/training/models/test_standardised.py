"""Features are standardised by the model: in training, in a run's files and in the graph."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnxruntime
import pytest
import small_data
import torch
from safetensors.torch import load_file
from small_data import assert_same_run, files

from refineloc.export.graph import build_graph
from refineloc.export.precision import quantized
from refineloc.runtime.model.metadata import Precision
from refineloc.training.data.inputs import read_inputs
from refineloc.training.data.statistics import column_statistics
from refineloc.training.models.base_model import build_model
from refineloc.training.models.ensemble import Ensemble
from refineloc.training.models.standardised import Standardised
from refineloc.training.run.display import Silent
from refineloc.training.run.files import load_iteration
from refineloc.training.settings.config import resolve

SETTINGS: dict[str, Any] = {
    "features": {"standardise": True},
    "detection": {"alpha_c": 0.4, "widen": 0},
    "pseudo": {"class_activation": 0.4},
    "training": {"iterations": 2, "epochs": 4, "batch_videos": 4, "learning_rate": 0.01},
}


def rewrite(data: Path, change: Any) -> None:
    for name in ("train", "val"):
        with h5py.File(data / f"{name}.h5", "a") as file:
            for video in list(file):
                values = change(file[video][:])
                del file[video]
                file[video] = values


@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize("memory", [0, 2**30])
def test_the_statistics_are_those_of_the_training_snippets(data: Path, bits: int, memory: int) -> None:
    """Also where they stay on disk; a column that does not vary has scale 1."""

    def change(values: np.ndarray) -> np.ndarray:
        values[:, 3] = 7.0
        values[:, 4] = 1000 + 5 * values[:, 4]
        return values.astype(f"f{bits // 8}")

    rewrite(data, change)
    split = read_inputs(files(data), resolve(SETTINGS), memory).train
    with h5py.File(data / "train.h5") as file:
        values = np.concatenate([file[name][:] for name in sorted(file)]).astype(np.float64)
    mean, scale = (part.numpy() for part in column_statistics(split))
    deviation = values.std(axis=0)
    deviation[3] = 1.0
    np.testing.assert_allclose(mean, values.mean(axis=0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(scale, 1 / deviation, rtol=1e-4)
    assert deviation.min() < 0.5 < 1 < deviation.max(), "columns differ"


def test_units_of_columns_change_nothing(data: Path, tmp_path: Path) -> None:
    """Which they do without it; the model's files and its graph take features as they are."""
    small_data.train(data, tmp_path / "before", resolve(SETTINGS))
    generator = np.random.default_rng(3)
    factor, offset = 2.0 ** generator.integers(-3, 4, 16), generator.integers(-4, 5, 16)
    rewrite(data, lambda values: (values * factor + offset).astype(np.float32))
    small_data.train(data, tmp_path / "after", resolve(SETTINGS))
    lines = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("before", "after")
    ]
    for one, other in zip(*lines, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-2)
    model = load_iteration(tmp_path / "after", 1).model
    weights = load_file(tmp_path / "after/iter_1/model.safetensors")
    assert {"mean", "scale", "model.classifier.0.weight"} <= weights.keys()
    with h5py.File(data / "val.h5") as file:
        features = file["val00"][:]
    lengths = np.array([len(features)])
    with torch.inference_mode():
        packed = torch.from_numpy(lengths)
        expected = model.activations(model(torch.from_numpy(features), packed), packed)
    session = onnxruntime.InferenceSession(build_graph(model, 16).SerializeToString())
    for got, by_torch in zip(session.run(None, {"features": features, "lengths": lengths}), expected, strict=True):
        np.testing.assert_allclose(got, by_torch.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("base", "precision", "near"),
    [
        ("refineloc", "fp16", 2e-2),
        pytest.param("refineloc", "int8", 0.2, marks=pytest.mark.long),
        pytest.param("wtalc", "fp32", 1e-4, marks=pytest.mark.long),
        pytest.param("basnet", "fp32", 1e-4, marks=pytest.mark.long),
    ],
)
def test_every_graph_standardises(base: str, precision: Precision, near: float) -> None:
    """Features far from 0 and scales beyond float16: rounded before, they would be infinite or 0."""
    torch.manual_seed(0)
    network = build_model(resolve({"model": {"base": base}}).model, 16, 3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3.0)
    mean, scale = torch.full((16,), 1e5), torch.full((16,), 1e-2)
    scale[0], mean[0] = 1e6, 0.0
    model = Standardised(network, mean, scale).eval()
    features = mean + torch.randn(20, 16, generator=torch.Generator().manual_seed(1)) / scale
    lengths = torch.tensor([12, 8])
    with torch.inference_mode():
        expected = model.activations(model(features, lengths), lengths)
    graph = build_graph(model, 16, half=precision == "fp16")
    graph = quantized(graph) if precision == "int8" else graph
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    got = session.run(None, {"features": features.numpy(), "lengths": lengths.numpy()})
    for part, by_torch in zip(got, expected, strict=True):
        np.testing.assert_allclose(part, by_torch.numpy(), atol=near)
    assert np.ptp(got[0], axis=1).mean() > 0.05
    # What a file of a float16 model is measured against keeps its float32 statistics.
    assert torch.equal(model.mean, mean)


def test_a_run_of_several_averaged_models_goes_on(data: Path, tmp_path: Path) -> None:
    config = resolve(SETTINGS, {"training": {"models": 2, "ema": 0.9, "checkpoint_s": 0.0}})

    class Stopping(Silent):
        def epoch(self, record: Mapping[str, Any]) -> None:
            if (record["iteration"], record["member"], record["epoch"]) == (0, 1, 2):
                raise KeyboardInterrupt

    small_data.train(data, tmp_path / "whole", config)
    with pytest.raises(KeyboardInterrupt):
        small_data.train(data, tmp_path / "parts", config, display=Stopping())
    small_data.train(data, tmp_path / "parts", config, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    model = load_iteration(tmp_path / "parts", 1).model
    assert isinstance(model, Standardised)
    assert isinstance(model.model, Ensemble)
    # One copy of the statistics: those of a network of its own.
    keys = model.state_dict().keys()
    assert [name for name in keys if name.endswith(("mean", "scale"))] == ["mean", "scale"]
    mean, scale = column_statistics(read_inputs(files(data), config, 2**30).train)
    assert torch.equal(model.mean, mean)
    assert torch.equal(model.scale, scale)
