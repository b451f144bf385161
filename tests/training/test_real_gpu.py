"""On a real NVIDIA GPU: training there is training on the CPU, goes on where it stopped, and ends in the same files."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_data
import torch

from refineloc.export.library import export
from refineloc.runtime import Detector, open_features
from refineloc.training.data.inputs import read_inputs
from refineloc.training.fit import Labelled, fit
from refineloc.training.machine.products import products_in
from refineloc.training.run.checkpoint import Checkpoint
from refineloc.training.settings.config import Config, resolve
from refineloc.training.train_run import train_run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

EPOCHS = 6


def settings(base: str = "refineloc", **training: Any) -> Config:
    shared = {"iterations": 1, "epochs": EPOCHS, "batch_videos": 4, "learning_rate": 1e-3}
    return resolve({"model": {"base": base}, "training": shared | training})


def losses(data: Path, device: str, config: Config, start: Checkpoint | None = None) -> tuple[list[Any], list[Any]]:
    """Training losses of all epochs of a refined iteration, and the states after each."""
    split = read_inputs(small_data.files(data), config, 2**30).train.to(torch.device(device))
    pseudo = (torch.arange(split.snippets) % 3 == 0).long()
    learned = Labelled(split, pseudo, torch.ones(2, device=device))
    values, states = [], []
    with products_in(config.training.precision):
        for epoch in fit(config, learned, learned, 1, start):
            values.append([epoch.record["train_loss"], epoch.record["validation_loss"]])
            states.append(epoch.pack())
    return values, states


def test_losses_are_those_of_the_cpu(data: Path) -> None:
    gpu, cpu = (losses(data, device, settings())[0] for device in ("cuda", "cpu"))
    assert len(gpu) == EPOCHS
    np.testing.assert_allclose(gpu, cpu, rtol=1e-4)


@pytest.mark.parametrize(("precision", "near"), [("tf32", 5e-3), ("bf16", 5e-2)])
def test_faster_products_stay_near(data: Path, precision: str, near: float) -> None:
    fast, exact = (losses(data, "cuda", settings(precision=name))[0] for name in (precision, "float32"))
    np.testing.assert_allclose(fast, exact, rtol=near)


def test_it_goes_on_where_it_stopped(data: Path) -> None:
    """With dropout, whose draws are of the device."""
    config = settings("wtalc")
    whole, states = losses(data, "cuda", config)
    rest, _ = losses(data, "cuda", config, states[2])
    np.testing.assert_allclose(rest, whole[3:], rtol=1e-5)


def test_features_may_stay_in_main_memory(data: Path) -> None:
    """Where they do not fit on the card, batches are fetched one ahead."""
    config = settings()
    split = read_inputs(small_data.files(data), config, 2**30).train
    there, here = split.to(torch.device("cuda"), room=2**40), split.to(torch.device("cuda"), room=0)
    assert there.features.device.type == "cuda"  # type: ignore[union-attr]
    assert here.features.device.type == "cpu"  # type: ignore[union-attr]
    for one, other in zip(there.batches(split.chunks()), here.batches(split.chunks()), strict=True):
        assert torch.equal(one.features, other.features)
        assert one.features.device.type == other.features.device.type == "cuda"


def test_a_student_learns_and_detects_as_on_the_cpu(data: Path) -> None:
    """Two iterations without random draws, the second of them a student; then its file, in both precisions of a GPU."""
    config = resolve(
        {
            "detection": {"alpha_c": 0.4, "widen": 0},
            "training": {"epochs": 15, "batch_videos": 4, "learning_rate": 0.01, "iterations": 2, "models": 2},
            "student": {"first": 1, "hidden": 16, "learning_rate": 0.01, "threshold": 0.4}
            | dict.fromkeys(("dropout", "input_dropout", "exchanged_means"), 0.0),
        }
    )
    trained = {}
    for device in ("cuda", "cpu"):
        train_run(lambda: config, small_data.files(data), data / device, device=device, show=False)
        lines = (data / device / "metrics.jsonl").read_text().splitlines()
        trained[device] = [json.loads(line)["train_loss"] for line in lines]
    # Two base networks of 15 epochs, and of two students of 45 the first: later, roundings have grown.
    np.testing.assert_allclose(trained["cuda"][:40], trained["cpu"][:40], rtol=1e-3)
    with open_features(data / "val.h5") as store:
        videos = {name: store.read(name) for name in store.names}
    for precision, near in (("fp32", 1e-4), ("fp16", 3e-2)):
        path = data / f"{precision}.onnx"
        export(data / "cuda", path, iteration=1, precision=precision)  # type: ignore[arg-type]
        on_gpu, on_cpu = (Detector(path, provider=provider) for provider in ("cuda", "cpu"))  # type: ignore[arg-type]
        assert on_gpu.provider == "cuda"
        for features in videos.values():
            scores, expected = on_gpu.scores(features), on_cpu.scores(features)
            assert expected.points is not None
            for values, others in zip(scores.arrays, expected.arrays, strict=True):
                np.testing.assert_allclose(values, others, atol=near, rtol=near)
    got, expected_of = (
        dict(Detector(data / "fp32.onnx", provider=provider).detect_many(videos, fps=16.0))  # type: ignore[arg-type]
        for provider in ("cuda", "cpu")
    )
    assert sum(map(len, expected_of.values())) > 5, "a test on nothing"
    for name, detections in expected_of.items():
        assert len(got[name]) == len(detections)
        np.testing.assert_allclose(np.sort(got[name].score), np.sort(detections.score), atol=1e-4)
        np.testing.assert_allclose(np.sort(got[name].start), np.sort(detections.start), atol=1e-3)


def test_one_process_of_torchrun_takes_nccl(data: Path) -> None:
    """Then the run is exported, and a tensor on the card is as good as an array."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    world = {"WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}
    environment = os.environ | world | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [
        sys.executable,
        "-m",
        "refineloc",
        "train",
        *small_data.arguments(data),
        "--run",
        "run",
        "--device",
        "cuda",
    ]
    command += ["--iterations", "2", "--set", "training.epochs=3"]
    done = subprocess.run(command, cwd=data, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "on cuda:0" in done.stderr
    lines = (data / "run/metrics.jsonl").read_text().splitlines()
    assert all(np.isfinite(json.loads(line)["train_loss"]) for line in lines)
    assert lines
    export(data / "run", data / "model.onnx", iteration=1)
    with open_features(data / "val.h5") as store:
        features = store.read(store.names[0])
    detector = Detector(data / "model.onnx", provider="cpu")
    assert list(detector.detect(torch.from_numpy(features).cuda(), fps=16.0)) == list(
        detector.detect(features, fps=16.0)
    )
