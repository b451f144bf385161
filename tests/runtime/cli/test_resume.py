"""Runs that are killed: what they found is kept, and `--resume` ends with the file that an unbroken run writes."""

import json
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from programs import Program
from small_job import UpperCase, job
from small_model import write_features

from refineloc.runtime.cli import run_of_parts
from refineloc.runtime.jobs.blocks import Block, Step, Work
from refineloc.runtime.jobs.parts import write_part


def detect(folder: Path, *arguments: str, before: str = "") -> Program:
    command = ["features.h5", "--model", "model.onnx", "--provider", "cpu", "--batch-snippets", "1", *arguments]
    return Program("refineloc-detect", *command, cwd=folder, before=before)


# Blocks of fifty videos.
SMALL_BLOCKS = """
from refineloc.runtime.cli import detect
detect._BLOCK_SNIPPETS = 300
"""

# It waits in the fifth of six blocks, so that a signal never comes too late.
WAITS = f"""{SMALL_BLOCKS}
import signal
from refineloc.runtime.jobs import run
write_part = run.write_part
def waits(block, rows):
    for step in write_part(block, rows):
        yield step
        if block.names[10] == "v0210": signal.pause()
run.write_part = waits
"""


@pytest.mark.parametrize(("name", "stop"), [("out.json", signal.SIGKILL), ("out.csv", signal.SIGINT)])
def test_a_killed_run_ends_with_the_file_of_an_unbroken_one(
    tmp_path: Path, model_path: Path, rng: np.random.Generator, name: str, stop: signal.Signals
) -> None:
    (tmp_path / "model.onnx").write_bytes(model_path.read_bytes())
    videos = {f"v{index:04}": rng.standard_normal((6, 24), np.float32) for index in range(300)}
    write_features(tmp_path / "features.h5", videos, fps=25.0)
    unbroken = tmp_path / f"whole-{name}"
    with detect(tmp_path, "-o", unbroken.name) as process:
        assert process.wait().returncode == 0
    assert unbroken.stat().st_size > 12_000

    partial = tmp_path / f"{name}.partial"
    with detect(tmp_path, "-o", name, before=WAITS) as process:
        process.wait_until(lambda: len(list(partial.glob("part-*"))) == 4)
        with detect(tmp_path, "-o", name, "--resume", before=SMALL_BLOCKS) as second:
            done = second.wait()
        assert done.returncode == 2
        assert "another run is writing it" in done.stderr
        process.send_signal(stop)
        done = process.wait()
    if stop == signal.SIGINT:
        assert done.returncode == 130
        assert "has 200 videos; --resume goes on with them" in done.stderr
        assert "Traceback" not in done.stderr
    else:
        assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / name).exists()
    for options, message in (
        ((), "--resume goes on with it"),
        (("--resume", "--alpha-c", "0.9"), "given something else (settings)"),
    ):
        with detect(tmp_path, "-o", name, *options, before=SMALL_BLOCKS) as process:
            done = process.wait()
        assert done.returncode == 2
        assert message in done.stderr
    # Whatever else happened to a part, its block is done again.
    second = partial / "part-00002.jsonl"
    second.write_bytes(second.read_bytes()[:-9])
    with detect(tmp_path, "-o", name, "--resume", before=SMALL_BLOCKS) as process:
        done = process.wait()
    assert done.returncode == 0, done.stderr
    assert "goes on after 150 of 300 videos" in done.stderr
    assert (tmp_path / name).read_bytes() == unbroken.read_bytes()
    assert not partial.exists()
    if name.endswith(".json"):
        assert len(json.loads((tmp_path / name).read_text())["results"]) == 300


def test_resume_without_an_earlier_run_begins(tmp_path: Path, model_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(model_path.read_bytes())
    write_features(tmp_path / "features.h5", {"v": np.ones((6, 24), np.float32)})
    with detect(tmp_path, "--fps", "25", "--resume") as process:
        assert process.wait().returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["detections.json", "features.h5", "model.onnx"]


def test_a_disk_that_is_full_in_the_middle(tmp_path: Path, model_path: Path, rng: np.random.Generator) -> None:
    (tmp_path / "model.onnx").write_bytes(model_path.read_bytes())
    videos = {f"v{index:04}": rng.standard_normal((6, 24), np.float32) for index in range(150)}
    write_features(tmp_path / "features.h5", videos, fps=25.0)
    full = f"""{SMALL_BLOCKS}
import os
fsync, calls = os.fsync, []
def full(descriptor):
    calls.append(descriptor)
    if len(calls) == 3: raise OSError(28, "No space left on device")
    fsync(descriptor)
os.fsync = full
"""
    with detect(tmp_path, "-o", "d.json", before=full) as process:
        done = process.wait()
    assert done.returncode == 2
    message = "d.json.partial has 100 videos: --resume goes on with them"
    assert f"part-00003.jsonl: cannot be written: no space left on device; {message}" in done.stderr
    assert not (tmp_path / "d.json").exists()
    with detect(tmp_path, "-o", "d.json", "--resume", before=SMALL_BLOCKS) as process:
        assert process.wait().returncode == 0
    with detect(tmp_path, "-o", "e.json") as process:
        assert process.wait().returncode == 0
    assert (tmp_path / "d.json").read_bytes() == (tmp_path / "e.json").read_bytes()


def test_what_else_lies_in_the_folder_stays(tmp_path: Path, model_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(model_path.read_bytes())
    write_features(tmp_path / "features.h5", {"v": np.ones((6, 24), np.float32)})
    (tmp_path / "detections.json.partial").mkdir()
    precious = tmp_path / "detections.json.partial" / "notes.txt"
    precious.write_text("precious")
    with detect(tmp_path, "--fps", "25") as process:
        assert process.wait().returncode == 0
    assert list(precious.parent.iterdir()) == [precious]


def test_a_part_that_no_step_has_told_of_survives_ctrl_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Processes and actors write parts; the news of them comes later."""

    def stopped(work: Work, blocks: Sequence[Block], workers: int) -> Iterator[Step]:
        list(write_part(blocks[1], work.process(blocks[1])))
        raise KeyboardInterrupt
        yield Step(0)

    monkeypatch.setattr(run_of_parts, "run_blocks", stopped)
    with pytest.raises(KeyboardInterrupt), run_of_parts.beside(tmp_path / "out.json", resume=False) as run:
        run_of_parts.do_blocks(run, UpperCase(), job(run.folder, shards=1), 2)
    assert [path.name for path in run.folder.glob("part-*")] == ["part-00002.jsonl"]
    assert "out.json.partial: has 3 videos; --resume goes on with them" in capsys.readouterr().err
