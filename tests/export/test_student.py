"""The student's file: packing, parity in three precisions, and the detections of training."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import small_data
import torch

from refineloc.export.graph import build_graph
from refineloc.export.library import export
from refineloc.export.precision import quantized
from refineloc.runtime.detector import Detector
from refineloc.runtime.features.opening import open_features
from refineloc.runtime.model.metadata import Precision
from refineloc.runtime.segments.values import Points
from refineloc.training.models.ensemble import as_one
from refineloc.training.models.student import Student
from refineloc.training.settings.config import resolve
from refineloc.training.settings.student import StudentConfig

WIDTH, CLASSES, LEVELS = 16, 3, 3


@pytest.mark.long
@pytest.mark.parametrize(
    ("networks", "precision", "near", "width"),
    [
        (1, "fp32", 1e-4, WIDTH),
        (2, "fp32", 1e-4, WIDTH),
        (2, "fp32", 1e-4, 600),
        (2, "fp16", 3e-2, WIDTH),
        (2, "int8", 0.3, 600),
    ],
)
def test_no_leak_between_videos_at_any_level(
    networks: int, precision: Precision, near: float, width: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """The graph scores points as torch does, and the same to the last bit whatever is packed around a video."""
    torch.manual_seed(5)
    options = StudentConfig(hidden=16, levels=LEVELS)
    model = as_one([Student(width, CLASSES, options) for _ in range(networks)]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
    graph = build_graph(model, width, half=precision == "fp16")
    assert capfd.readouterr().err == ""  # torch prints its own graph where a size cannot be traced
    if precision == "int8":
        graph = quantized(graph)
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    lengths = np.array([7, 1, 0, 40, 2, 300])
    features = np.random.default_rng(1).standard_normal((lengths.sum(), width)).astype(np.float32)

    def run(values: Any, own: Any) -> list[Any]:
        return list(session.run(None, {"features": values, "lengths": np.asarray(own, np.int64)}))

    packed = run(features, lengths)
    with torch.inference_mode():
        outputs = model(torch.from_numpy(features), torch.from_numpy(lengths))
        expected = (*model.activations(outputs, torch.from_numpy(lengths)), *model.points(outputs))
    for got, by_torch in zip(packed, expected, strict=True):
        np.testing.assert_allclose(got, by_torch.numpy(), rtol=near, atol=near)
    points = Points(packed[4], packed[5])
    assert points.levels(lengths) == LEVELS
    for index, (first, end) in enumerate(itertools.pairwise(np.cumsum([0, *lengths]).tolist())):
        if first == end:
            assert not packed[3][index].any()
            continue
        alone, own = run(features[first:end], [end - first]), points.of_video(lengths, index)
        for one, other in zip(
            alone, (*(each[first:end] for each in packed[:3]), packed[3][index : index + 1], *own), strict=True
        ):
            np.testing.assert_array_equal(one, other)


@pytest.mark.long
def test_the_file_detects_what_training_did(tmp_path: Path, rng: np.random.Generator) -> None:
    data = small_data.write_data(tmp_path, rng)
    config = resolve(
        {
            "features": {"standardise": True},
            "detection": {"alpha_c": 0.4, "widen": 0, "suppression": "fuse"},
            "training": {
                "epochs": 15,
                "batch_videos": 4,
                "learning_rate": 0.01,
                "iterations": 2,
                "evaluate_every": 0,
                "models": 2,
            },
            "student": {"first": 1, "hidden": 16, "levels": LEVELS, "learning_rate": 0.01, "threshold": 0.4},
        }
    )
    run = small_data.train(data, tmp_path / "run", config)
    written = export(tmp_path / "run", tmp_path / "student.onnx", iteration=1)
    parity = written.metadata.parity
    assert parity is not None
    assert parity.point_scores is not None
    assert parity.distances is not None
    assert max(parity.point_scores, parity.distances) < 1e-4
    assert (parity.lost, parity.gained) == (0, 0)
    assert written.metadata.networks == 2
    assert (written.metadata.base, written.metadata.detection.profile) == ("student", "boundaries")
    trained = run.detections(1)
    assert trained is not None
    with open_features(data / "val.h5") as store:
        for name, detections in Detector(tmp_path / "student.onnx", provider="cpu").detect_many(store, fps=16.0):
            assert len(detections) == len(trained[name]) > 0
            np.testing.assert_allclose(detections.start, trained[name].start, atol=1e-3)
    # The iteration before is of the base model, in the format that it always had.
    assert export(tmp_path / "run", tmp_path / "base.onnx", iteration=0).metadata.detection.profile == "paper"
