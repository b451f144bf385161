"""refineloc-export as a user meets it: what it writes, what it prints, and what it says of mistakes."""

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from refineloc.export.cli import main
from refineloc.runtime.model.session import Session
from refineloc.training.data.record import DataRecord
from refineloc.training.models.base_model import build_model
from refineloc.training.run.files import Run
from refineloc.training.settings.config import resolve

Export = Callable[..., tuple[int, str, str]]
CLASSES = ("jump", "run", "swim")
ROWS = "video-name,t-start,t-end,label,video-duration,fps,video-num-frames\n"


@pytest.fixture
def export(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Export:
    """Run the program in `tmp_path`; gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("warnings.showwarning", None)  # the program sets its own; put back afterwards

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["refineloc-export", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call


def make_run(folder: Path, iterations: int = 2) -> None:
    """A run with fresh weights, and its validation files beside it."""
    parent = folder.parent
    parent.mkdir(exist_ok=True)
    generator = np.random.default_rng(0)
    with h5py.File(parent / "val.h5", "w") as file:
        for index in range(4):
            file[f"v{index}"] = generator.exponential(2.0, (60, 16)).astype(np.float32)
            file[f"v{index}"].attrs["fps"] = 16.0
    rows = "".join(f"v{index},{index},{10 + index},{CLASSES[index % 3]},60,16,960\n" for index in range(4))
    (parent / "val.csv").write_text(ROWS + rows)
    config = resolve({"detection": {"alpha_c": 0.3}, "training": {"iterations": iterations}})
    data = DataRecord("train.h5", "train.csv", str(parent / "val.h5"), str(parent / "val.csv"), CLASSES, 16)
    run = Run(folder, config, data)
    run.begin()
    for iteration in range(iterations):
        torch.manual_seed(iteration)
        run.add_iteration({"iteration": iteration}, build_model(config.model, 16, 3), None)


def test_an_iteration_of_a_run(export: Export, tmp_path: Path) -> None:
    make_run(tmp_path / "here")
    code, out, err = export("here", "--iter", "0", "-o", "zero.onnx")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    size = (tmp_path / "zero.onnx").stat().st_size
    assert lines[0] == f"zero.onnx: refineloc iteration 0, 3 classes, 16 features, fp32, {size / 1e3:.1f} kB"
    assert lines[1] == "  compared with the trained model on val.h5 (4 videos, 240 snippets)"
    assert [line.split()[0] for line in lines[2:]] == [
        "output", "class_scores", "foreground", "attention", "video_scores", "detections", "average",
    ]  # fmt: skip
    metadata = Session(tmp_path / "zero.onnx", provider="cpu").metadata
    assert metadata.classes == CLASSES
    assert (metadata.iteration, metadata.training_data, metadata.detection.alpha_c) == (0, "train.h5", 0.3)
    assert metadata.parity is not None
    assert metadata.parity.map is not None


def test_the_newest_run_and_its_last_iteration(export: Export, tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "a", iterations=1)
    make_run(tmp_path / "runs" / "b", iterations=2)
    make_run(tmp_path / "runs" / "c", iterations=1)
    for age, name in enumerate(("b", "c", "a")):
        os.utime(tmp_path / "runs" / name / "iterations.json", (1e9 - age, 1e9 - age))
    code, out, _ = export()
    assert code == 0
    assert out.startswith("model.onnx: refineloc iteration 1")
    assert (tmp_path / "model.onnx").exists()


def test_features_that_moved_away(export: Export, tmp_path: Path) -> None:
    make_run(tmp_path / "here")
    (tmp_path / "val.h5").unlink()
    code, out, err = export("here")
    assert code == 0
    assert "val.h5, which the run was validated on, is not there" in err
    assert "on generated (8 videos" in out


def test_other_features(export: Export, tmp_path: Path) -> None:
    make_run(tmp_path / "here")
    (tmp_path / "val.h5").rename(tmp_path / "moved.h5")
    code, out, err = export("here", "--features", "moved.h5")
    assert (code, err) == (0, "")
    assert "on moved.h5 (4 videos, 240 snippets)" in out
    assert "average mAP" not in out
    code, out, _ = export("here", "--features", "moved.h5", "--labels", "val.csv", "--precision", "fp16")
    assert code == 0
    assert "average mAP" in out
    assert ", fp16, " in out


def test_the_released_checkpoint(export: Export, tmp_path: Path, shared_data: Path) -> None:
    released = shared_data / "refineloc-release"
    checkpoint = released / "thumos14_tsn_best_refinement_state.ckpt"
    if not checkpoint.exists():
        pytest.skip(f"not here: {checkpoint}")
    labels = released / "thumos14_test_groundtruth.csv"
    code, out, err = export("--checkpoint", checkpoint, "-o", "released.onnx", "--classes", labels)
    assert (code, err) == (0, "")
    assert out.startswith("released.onnx: refineloc iteration 4, 20 classes, 1024 features, fp32, ")
    metadata = Session(tmp_path / "released.onnx", provider="cpu").metadata
    assert metadata.classes == tuple(str(number) for number in range(20))
    assert (metadata.detection.profile, metadata.stream, metadata.stream_order) == (
        "release",
        "temporal",
        "temporal-spatial",
    )
    assert (
        metadata.snippet_frames,
        metadata.detection.alpha_a,
        metadata.detection.alpha_c,
        metadata.detection.top_k,
    ) == (15, 0.5, 0.02, 2)
    assert (metadata.layers, metadata.attention_values) == (1, 1)
    (tmp_path / "ten.txt").write_text("\n".join("abcdefghij"))
    code, _, err = export("--checkpoint", checkpoint, "--classes", "ten.txt")
    assert code == 2
    assert err == "error: ten.txt: expected 20 classes, as many as the checkpoint has, got 10\n"


def test_a_checkpoint_without_its_settings_needs_a_preset(export: Export, tmp_path: Path) -> None:
    state = {}
    for branch, outputs in (("fc_cas", 2), ("fc_attention", 1)):
        state[f"{branch}.linear_0.weight"] = torch.randn(outputs, 6)
        state[f"{branch}.linear_0.bias"] = torch.randn(outputs)
    torch.save(state, tmp_path / "bare.ckpt")
    (tmp_path / "two.txt").write_text("a\nb\n")
    arguments = ("--checkpoint", "bare.ckpt", "--classes", "two.txt", "-o", "m.onnx")
    code, _, err = export(*arguments)
    assert code == 2
    assert "does not state snippet_frames, stream" in err
    assert "--preset" in err
    assert not (tmp_path / "m.onnx").exists()
    code, _, err = export(*arguments, "--preset", "thumos14-tsn")
    assert (code, err) == (0, "")
    metadata = Session(tmp_path / "m.onnx", provider="cpu").metadata
    assert (metadata.snippet_frames, metadata.detection.alpha_c, metadata.detection.profile) == (15, 0.02, "release")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none"], "none: no such run; there are here"),
        (["here", "--iter", "7"], "has no finished iteration 7; finished: 0 to 1"),
        ([], "runs/: holds no run with a finished iteration"),
        (["here", "-o", "no/such/folder/m.onnx"], "cannot be written"),
        (["here", "-o", "here"], "ends in .onnx"),
        (["here", "-o", "model.pt"], "ends in .onnx"),
        (["here", "--classes", "x.txt"], "--classes goes with --checkpoint"),
        (["here", "--preset", "thumos14-tsn"], "--preset goes with --checkpoint"),
        (["here", "--checkpoint", "x.ckpt", "--classes", "x.txt"], "without RUN"),
        (["--checkpoint", "x.ckpt"], "needs --classes"),
        (["--checkpoint", "x.ckpt", "--classes", "x.txt"], "x.ckpt: no such file"),
        (["here", "--labels", "val.csv"], "--labels goes with --features"),
        (["here", "--features", "none.h5"], "none.h5: no such file"),
        (["here", "--precision", "fp8"], "fp8"),
    ],
    ids=lambda value: "-".join(value)[:40] if isinstance(value, list) else "",
)
def test_mistakes_end_in_one_line(export: Export, tmp_path: Path, arguments: list[str], words: str) -> None:
    make_run(tmp_path / "here")
    before = sorted(tmp_path.rglob("*"))
    code, out, err = export(*arguments)
    assert code == 2
    assert out == ""
    assert words in err
    if "--precision" not in arguments:  # typer words that one, with its usage line
        assert err.startswith("error: ")
        assert err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before  # nothing half-written


def test_without_the_train_extra(export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr("refineloc.export.cli.find_spec", lambda name: None if name == "onnx" else real(name))
    code, _, err = export("anything")
    assert code == 2
    assert err == "error: refineloc-export needs onnx: pip install 'refineloc[train,cpu]'\n"
