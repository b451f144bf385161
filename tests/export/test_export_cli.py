"""refineloc-export as a user meets it: what it writes, what it prints, and what it says of mistakes."""

import functools
import hashlib
import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import torch
from small_run import CLASSES, make_run

from refineloc.export.cli.export import main
from refineloc.runtime.model.session import Session
from refineloc.training.models.ensemble import members_of
from refineloc.training.run.files import load_iteration

Export = Callable[..., CompletedProcess[str]]


@pytest.fixture
def export(call_program: Callable[..., CompletedProcess[str]]) -> Export:
    return functools.partial(call_program, main)


def test_an_iteration_of_a_run(export: Export, tmp_path: Path) -> None:
    make_run(tmp_path / "here")
    (tmp_path / "zero.onnx").write_text("what somebody wrote before")
    assert export("here", "--iter", "7", "-o", "zero.onnx").returncode == 2
    assert (tmp_path / "zero.onnx").read_text() == "what somebody wrote before"
    done = export("here", "--iter", "0", "-o", "zero.onnx")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    size = (tmp_path / "zero.onnx").stat().st_size
    assert lines[0] == f"zero.onnx: refineloc iteration 0, 3 classes, 16 features, fp32, {size / 1e3:.1f} kB"
    assert lines[1] == "  compared with the trained model on val.h5 (4 videos, 240 snippets)"
    assert [line.split()[0] for line in lines[2:]] == [
        "output", "class_scores", "foreground", "attention", "video_scores", "detections", "average",
    ]  # fmt: skip
    metadata = Session(tmp_path / "zero.onnx", provider="cpu").metadata
    assert metadata.classes == CLASSES
    assert (metadata.iteration, metadata.training_data, metadata.detection.alpha_c) == (0, "train.h5", 0.3)
    assert metadata.backbone == "ab12"
    assert metadata.parity is not None
    assert metadata.parity.map is not None


@pytest.mark.parametrize("drawn", [True, False])
def test_the_file_is_compared_on_the_run_s_own_validation_videos(export: Export, tmp_path: Path, drawn: bool) -> None:
    """Not on all videos of files that training videos are in as well."""
    make_run(tmp_path / "here")
    database = {
        f"v{index}": {"subset": "training" if index else "validation", "annotations": [{"label": "run"}]}
        for index in range(4)
    }
    labels = tmp_path / ("here/split.json" if drawn else "all.json")
    labels.write_text(json.dumps({"database": database}))
    settings = (
        (tmp_path / "here/config.toml").read_text().replace(str(tmp_path / "val.csv"), str(tmp_path / "all.json"))
    )
    changes = ("val_share = 0.0", "val_share = 0.2") if drawn else ('val_subset = ""', 'val_subset = "validation"')
    assert changes[0] in settings
    (tmp_path / "here/config.toml").write_text(settings.replace(*changes))
    done = export("here", "--iter", "0", "-o", "zero.onnx")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1] == "  compared with the trained model on val.h5 (1 video, 60 snippets)"


def test_the_newest_run_and_its_last_iteration(export: Export, tmp_path: Path) -> None:
    for age, (name, iterations) in enumerate((("b", 2), ("a", 1))):
        make_run(tmp_path / "runs" / name, iterations)
        os.utime(tmp_path / "runs" / name / "iterations.json", (1e9 - age, 1e9 - age))
    done = export()
    assert done.returncode == 0
    assert done.stdout.startswith("model.onnx: refineloc iteration 1")
    assert (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize("standardise", [False, pytest.param(True, marks=pytest.mark.long)])
@pytest.mark.parametrize("single", [False, True])
def test_several_models_are_one_file_and_single_takes_the_one_of_the_lowest_loss(
    export: Export, tmp_path: Path, single: bool, standardise: bool
) -> None:
    make_run(tmp_path / "here", iterations=1, models=3, settings={"features": {"standardise": standardise}})
    done = export("here", *(["--single"] if single else []))
    assert (done.returncode, done.stderr) == (0, "")
    ensemble = load_iteration(tmp_path / "here", 0).model
    members = members_of(ensemble)
    assert len(members) == 3
    model = members[1] if single else ensemble
    features = np.random.default_rng(1).exponential(2.0, (9, 16)).astype(np.float32)
    lengths = torch.tensor([9])
    with torch.inference_mode():
        expected = model.activations(model(torch.from_numpy(features), lengths), lengths)
    session = Session(tmp_path / "model.onnx", provider="cpu")
    assert session.metadata.networks == len(members_of(model))
    scores = session.run(features, lengths.numpy(), ["v"])
    for got, by_torch in zip(scores.arrays, expected, strict=True):
        np.testing.assert_allclose(got, by_torch.numpy(), atol=1e-5)


def test_the_best_iteration_without_times_and_its_warnings(export: Export, tmp_path: Path) -> None:
    make_run(tmp_path / "here", iterations=3, orders=(0.5, 1.25, 1.0), warnings=["validation videos: odd"])
    done = export("here", "--iter", "best")
    assert (done.returncode, done.stderr) == (0, "warning: iteration 1: validation videos: odd\n")
    assert done.stdout.startswith("model.onnx: refineloc iteration 1, ")


def test_features_that_moved_away(export: Export, tmp_path: Path) -> None:
    make_run(tmp_path / "here")
    (tmp_path / "val.h5").unlink()
    done = export("here")
    assert done.returncode == 0
    assert "val.h5, which the run was validated on, is not there" in done.stderr
    assert "on generated (8 videos" in done.stdout


def test_other_features(export: Export, tmp_path: Path) -> None:
    make_run(tmp_path / "here")
    (tmp_path / "val.h5").rename(tmp_path / "moved.h5")
    done = export("here", "--features", "moved.h5")
    assert (done.returncode, done.stderr) == (0, "")
    assert "on moved.h5 (4 videos, 240 snippets)" in done.stdout
    assert "average mAP" not in done.stdout
    done = export("here", "--features", "moved.h5", "--labels", "val.csv", "--precision", "fp16")
    assert done.returncode == 0
    assert "average mAP" in done.stdout
    assert ", fp16, " in done.stdout


def test_the_released_checkpoint(export: Export, tmp_path: Path, shared_data: Path) -> None:
    released = shared_data / "refineloc-release"
    checkpoint = released / "thumos14_tsn_best_refinement_state.ckpt"
    if not checkpoint.exists():
        pytest.skip(f"not here: {checkpoint}")
    labels = released / "thumos14_test_groundtruth.csv"
    done = export("--checkpoint", checkpoint, "-o", "released.onnx", "--classes", labels)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("released.onnx: refineloc iteration 4, 20 classes, 1024 features, fp32, ")
    metadata = Session(tmp_path / "released.onnx", provider="cpu").metadata
    assert metadata.classes == tuple(str(number) for number in range(20))
    rules = metadata.detection
    assert (rules.profile, rules.alpha_a, rules.alpha_c, rules.top_k) == ("release", 0.5, 0.02, 2)
    assert (metadata.snippet_frames, metadata.stream, metadata.stream_order) == (15, "temporal", "temporal-spatial")
    assert (metadata.layers, metadata.attention_values) == (1, 1)


def test_a_checkpoint_without_its_settings_needs_a_preset(export: Export, tmp_path: Path) -> None:
    state = {}
    for branch, outputs in (("fc_cas", 2), ("fc_attention", 1)):
        state[f"{branch}.linear_0.weight"] = torch.randn(outputs, 6)
        state[f"{branch}.linear_0.bias"] = torch.randn(outputs)
    torch.save(state, tmp_path / "bare.ckpt")
    (tmp_path / "two.txt").write_text("a\nb\n")
    arguments = ("--checkpoint", "bare.ckpt", "--classes", "two.txt", "-o", "m.onnx")
    done = export(*arguments)
    assert done.returncode == 2
    assert "does not state snippet_frames, stream" in done.stderr
    assert "--preset" in done.stderr
    assert not (tmp_path / "m.onnx").exists()
    done = export(*arguments, "--preset", "release-thumos14-tsn")
    assert (done.returncode, done.stderr) == (0, "")
    metadata = Session(tmp_path / "m.onnx", provider="cpu").metadata
    assert (metadata.snippet_frames, metadata.detection.alpha_c, metadata.detection.profile) == (15, 0.02, "release")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none"], "none: no such run; there are here"),
        (
            ["here", "--iter", "best"],
            "here: its records have no attention order to choose by; name an iteration by its",
        ),
        (["here", "--iter", "last"], "--iter: expected the number of an iteration, or best, got 'last'"),
        (["here", "--iter", "-1"], "--iter: expected the number of an iteration, or best, got '-1'"),
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
    ],
    ids=lambda value: "-".join(value)[:40] if isinstance(value, list) else "",
)
def test_mistakes_end_in_one_line(export: Export, tmp_path: Path, arguments: list[str], words: str) -> None:
    make_run(tmp_path / "here")
    before = sorted(tmp_path.rglob("*"))
    done = export(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before  # nothing half-written


def test_without_the_train_extra(export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr("refineloc.export.cli.export.find_spec", lambda name: None if name == "onnx" else real(name))
    done = export("anything")
    assert done.returncode == 2
    assert done.stderr == "error: refineloc-export needs onnx: pip install 'refineloc[train,cpu]'\n"


def test_a_model_on_standard_output_is_alone_there(export: Export, tmp_path: Path) -> None:
    make_run(tmp_path / "here", iterations=1)
    before = os.dup(1)
    try:
        with (tmp_path / "stdout.onnx").open("wb") as file:
            os.dup2(file.fileno(), 1)
        done = export("here", "-o", "-")
    finally:
        os.dup2(before, 1)
        os.close(before)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("-: refineloc iteration 0, 3 classes")
    assert Session(tmp_path / "stdout.onnx", "cpu").metadata.iteration == 0


def test_a_card_beside_the_file(export: Export, tmp_path: Path) -> None:
    make_run(tmp_path / "here", settings={"pseudo": {"generator": "attention"}})
    done = export("here", "-o", "here/model.onnx", "--card", "--licence", "MIT")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("here/README.md: its card\n")
    card = (tmp_path / "here/README.md").read_text()
    assert card.startswith("---\nlicense: mit\n")
    assert "of iteration 0; generator: attention" in card
    assert hashlib.sha256((tmp_path / "here/model.onnx").read_bytes()).hexdigest() in card
    metadata = Session(tmp_path / "here/model.onnx", "cpu").metadata
    assert (metadata.licence, metadata.pseudo_labels) == ("MIT", "attention")
    assert metadata.parity is not None
    assert metadata.parity.map is not None
    assert f"**{100 * metadata.parity.map:.1f} %**" in card
    # Of the file alone, later.
    (tmp_path / "here/README.md").unlink()
    done = export("here/model.onnx", "--card")
    assert (done.returncode, done.stdout, done.stderr) == (0, "here/README.md: the card of here/model.onnx\n", "")
    assert (tmp_path / "here/README.md").read_text() == card
