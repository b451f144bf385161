"""`--shard K/N` and `--workers N`: merged, the file of one run."""

import json
from pathlib import Path

import numpy as np
import pytest
from programs import Program, run
from small_model import write_features

from refineloc.runtime import DetectionError, read_detections

DETECT = ("refineloc-detect", "features.h5", "--provider", "cpu", "--threads", "1")
SMALL_BLOCKS = """
from refineloc.runtime.cli import detect
detect._BLOCK_SNIPPETS = 100
"""


@pytest.fixture
def folder(tmp_path: Path, model_path: Path, rng: np.random.Generator) -> Path:
    (tmp_path / "model.onnx").write_bytes(model_path.read_bytes())
    videos = {f"v{index:03}": rng.standard_normal((1 + index % 30, 24), np.float32) for index in range(60)}
    write_features(tmp_path / "features.h5", videos, fps=25.0)
    return tmp_path


def test_merged_shards_are_the_file_of_one_run(folder: Path) -> None:
    assert run(*DETECT, "-o", "one.json", cwd=folder).returncode == 0
    for shard in (1, 3, 2, 3):
        done = run(*DETECT, "-o", "parts", "--shard", f"{shard}/3", cwd=folder, before=SMALL_BLOCKS)
        assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("parts: goes on after ")
    assert len(list((folder / "parts").iterdir())) > 6
    assert run("refineloc-convert", "parts", "merged.json", cwd=folder).returncode == 0
    assert (folder / "merged.json").read_bytes() == (folder / "one.json").read_bytes()
    merged, one = (read_detections(folder / name) for name in ("parts", "one.json"))
    assert {name: (list(video), video.classes) for name, video in merged.items()} == {
        name: (list(video), video.classes) for name, video in one.items()
    }


def test_what_is_missing_is_named_and_a_changed_list_is_refused(folder: Path, rng: np.random.Generator) -> None:
    for shard in (1, 3):
        assert run(*DETECT, "-o", "parts", "--shard", f"{shard}/4", cwd=folder).returncode == 0
    for program in (("refineloc-convert", "parts", "all.json"), ("refineloc-eval", "parts", "truth.csv")):
        (folder / "truth.csv").write_text("video-name,t-start,t-end,label\nv001,0,1,run\n")
        done = run(*program, cwd=folder)
        assert done.returncode == 2
        assert done.stderr == "error: parts: parts 2, 4 of 4 are missing; run shards 2, 4 of 4 again\n"
    assert not (folder / "all.json").exists()
    write_features(folder / "features.h5", {"v": rng.standard_normal((9, 24), np.float32)}, fps=25.0)
    done = run(*DETECT, "-o", "parts", "--shard", "2/4", cwd=folder)
    assert done.returncode == 2
    assert "part-00001.jsonl: is of a run that was given something else (features)" in done.stderr
    with pytest.raises(DetectionError, match="parts 2, 4 of 4 are missing"):
        read_detections(folder / "parts")


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.long)])
def test_one_hostile_video_among_many_is_a_row(folder: Path, rng: np.random.Generator, workers: int) -> None:
    videos = {f"v{index:04}": rng.standard_normal((2, 24), np.float32) for index in range(1000)}
    write_features(folder / "good.h5", {name: videos[name] for name in videos if name not in ("v0500", "v0700")})
    videos["v0500"][1, 3] = np.inf
    videos["v0700"] = np.zeros((0, 24), np.float32)
    write_features(folder / "hostile.h5", videos)
    line = ("refineloc-detect", "hostile.h5", "--provider", "cpu", "--fps", 25)
    done = run(*line, "--shard", "1/1", "-o", "parts", "--workers", workers, cwd=folder)
    assert done.returncode == 2
    *errors, last = done.stderr.splitlines()
    assert [error.split(": ")[2] for error in errors] == ["video 'v0500'", "video 'v0700'"]
    assert last.startswith("error: parts: 2 videos have errors, the first: hostile.h5: video 'v0500': snippet 1 holds")
    done = run("refineloc-convert", "parts", "merged.json", cwd=folder)
    assert done.returncode == 0
    assert "warning: parts: 2 videos have an error and no detections, the first: hostile.h5: video" in done.stderr
    assert run(line[0], "good.h5", *line[2:], "-o", "one.json", cwd=folder).returncode == 0
    assert (folder / "merged.json").read_bytes() == (folder / "one.json").read_bytes()
    with pytest.warns(UserWarning, match="2 videos have an error"):
        assert len(read_detections(folder / "parts")) == 998
    # The next start tries them again, and can do without them.
    assert run(*line, "--shard", "1/1", "-o", "parts", cwd=folder).returncode == 2
    left_out = ("--leave-out", "v0500", "--leave-out", "v0700")
    assert run(*line, "--shard", "1/1", "-o", "parts", *left_out, cwd=folder).returncode == 0


def test_workers_write_what_one_process_writes(folder: Path) -> None:
    assert run(*DETECT, "-o", "one.json", cwd=folder).returncode == 0
    done = run(*DETECT, "-o", "two.json", "--workers", "2", cwd=folder, before=SMALL_BLOCKS)
    assert done.returncode == 0, done.stderr
    assert (folder / "two.json").read_bytes() == (folder / "one.json").read_bytes()
    assert not (folder / "two.json.partial").exists()


def test_two_of_one_shard_at_a_time_do_no_harm(folder: Path) -> None:
    line = (*DETECT, "-o", "parts", "--shard", "1/1")
    with (
        Program(*line, cwd=folder, before=SMALL_BLOCKS) as first,
        Program(*line, cwd=folder, before=SMALL_BLOCKS) as second,
    ):
        assert first.wait().returncode == second.wait().returncode == 0
    assert run(*DETECT, "-o", "one.json", cwd=folder).returncode == 0
    assert run("refineloc-convert", "parts", "merged.json", cwd=folder).returncode == 0
    assert (folder / "merged.json").read_bytes() == (folder / "one.json").read_bytes()


def test_each_machine_may_have_its_own_copy_of_the_features(folder: Path) -> None:
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    for name in ("features.h5", "model.onnx"):
        (elsewhere / name).write_bytes((folder / name).read_bytes())
    assert run(*DETECT, "-o", "parts", "--shard", "1/2", cwd=folder).returncode == 0
    assert run(*DETECT, "-o", "../parts", "--shard", "2/2", cwd=elsewhere).returncode == 0
    assert run("refineloc-convert", "parts", "merged.csv", "--min-score", "0.5", cwd=folder).returncode == 0
    found = read_detections(folder / "merged.csv")
    assert 0 < min(video.score.min() for video in found.values()) >= 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--shard", "0/4", "-o", "p"), "--shard '0/4': expected K/N with K from 1 to N, such as 3/64"),
        (("--shard", "5/4", "-o", "p"), "--shard '5/4': expected"),
        (("--shard", "3", "-o", "p"), "--shard '3': expected"),
        (("--shard", "1/2000000", "-o", "p"), "--shard '1/2000000': expected"),
        (("--shard", "1/2"), "--shard: writes parts into a folder, and detections.json is none; give --out FOLDER"),
        (("--shard", "1/2", "-o", "-"), "--shard: writes parts into a folder"),
        (("--shard", "1/2", "-o", "model.onnx"), "model.onnx: cannot be made a folder"),
    ],
)
def test_bad_shards_are_one_line(folder: Path, options: tuple[str, ...], message: str) -> None:
    before = sorted(folder.iterdir())
    done = run(*DETECT, *options, cwd=folder)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1
    assert sorted(folder.iterdir()) == before


def test_parts_that_are_no_detections(folder: Path) -> None:
    assert run(*DETECT, "-o", "parts", "--shard", "1/1", cwd=folder).returncode == 0
    (part,) = (folder / "parts").iterdir()
    head, _, *rest = part.read_text().splitlines()
    good = {"video": "v000", "start": [1.0], "end": [2.0], "score": [0.5], "label_index": [1]}
    for change in (
        {"label_index": [99]},  # a class that the model has not
        {"label_index": [True]},
        {"label_index": []},
        {"start": [1]},
        {"end": [float("nan")]},
        {"score": None},
    ):
        part.write_text("\n".join([head, json.dumps({**good, **change}), *rest]))
        with pytest.raises(DetectionError, match=r"part-00001.jsonl: line 2: is damaged; remove the file, and run"):
            read_detections(folder / "parts")
    part.write_text("\n".join([json.dumps({**json.loads(head), "about": {}}), *rest]))
    with pytest.raises(DetectionError, match="its parts are not of detections"):
        read_detections(folder / "parts")
