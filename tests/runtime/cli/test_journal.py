"""Runs that are killed: what they found is kept, and `--resume` ends with the file that an unbroken run writes."""

import contextlib
import json
import signal
from pathlib import Path

import numpy as np
import pytest
from programs import Program
from small_model import write_features

from refineloc.runtime.cli.journal import Journal, journal_path
from refineloc.runtime.detections import Detections
from refineloc.runtime.errors import EngineError, FeatureError, InputError

GIVEN = {"model": "abc", "settings": "x"}
CLASSES = ("jump", "run")


def found(*starts: float) -> Detections:
    start = np.array(starts)
    return Detections(start, start + 1 / 3, start * 0.1, np.arange(len(starts)) % 2, CLASSES, "cpu")


def test_what_is_added_is_read_again_to_the_last_bit(tmp_path: Path) -> None:
    out = tmp_path / "d.json"
    with Journal(out, GIVEN, classes=2) as journal:
        journal.add([("a", found(0.1, 1 / 7)), ("b", found())])
        journal.add([("ü/c", found(2.0))])
    with Journal(out, GIVEN, classes=2, resume=True) as again:
        assert again.names == ["a", "b", "ü/c"]
        again.add([("d", found(5.0))])
        read = dict(again.read(CLASSES, "cpu"))
    assert again.count == 4
    assert list(read) == ["a", "b", "ü/c", "d"]
    assert list(read["a"]) == list(found(0.1, 1 / 7))
    assert list(read["b"]) == []
    assert read["a"].provider == "cpu"
    again.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("lost", [1, 5, 30])
def test_a_line_that_was_cut_short_is_dropped(tmp_path: Path, lost: int) -> None:
    out = tmp_path / "d.json"
    with Journal(out, GIVEN, classes=2) as journal:
        journal.add([("a", found(1.0))])
        whole = journal.path.stat().st_size
        journal.add([("b", found(2.0)), ("c", found(3.0))])
    path = journal_path(out)
    path.write_bytes(path.read_bytes()[:-lost])
    with Journal(out, GIVEN, classes=2, resume=True) as again:
        assert again.names == ["a"]
        assert again.count == 1
        assert path.stat().st_size == whole


def test_a_head_that_was_cut_short_begins_anew(tmp_path: Path) -> None:
    journal_path(tmp_path / "d.json").write_text('{"model": "a')
    with Journal(tmp_path / "d.json", GIVEN, classes=2, resume=True) as journal:
        assert journal.names == []
        journal.add([("a", found(1.0))])
    with Journal(tmp_path / "d.json", GIVEN, classes=2, resume=True) as again:
        assert again.names == ["a"]


def test_another_run_cannot_go_on_and_nothing_is_lost(tmp_path: Path) -> None:
    out = tmp_path / "d.json"
    with Journal(out, GIVEN, classes=2) as journal:
        journal.add([("a", found(1.0))])
    before = journal.path.read_bytes()
    with pytest.raises(InputError, match="--resume goes on with it"):
        Journal(out, GIVEN, classes=2)
    with pytest.raises(InputError, match=r"something else \(settings\)"):
        Journal(out, {**GIVEN, "settings": "y"}, classes=2, resume=True)
    assert journal.path.read_bytes() == before
    journal.path.write_bytes(before + b"no json\n")
    with pytest.raises(InputError, match="line 3 is damaged"):
        Journal(out, GIVEN, classes=2, resume=True)


@pytest.mark.parametrize("error", [FeatureError("bad"), KeyboardInterrupt(), MemoryError(), EngineError("no memory")])
def test_it_stays_where_there_is_something_to_go_on_with(tmp_path: Path, error: BaseException) -> None:
    out = tmp_path / "d.json"
    with pytest.raises(type(error)), Journal(out, GIVEN, classes=2):
        raise error
    assert list(tmp_path.iterdir()) == []
    with contextlib.suppress(type(error)), Journal(out, GIVEN, classes=2) as journal:
        journal.add([("a", found(1.0))])
        raise error
    with Journal(out, GIVEN, classes=2, resume=True) as again:
        assert again.names == ["a"]


def test_two_runs_do_not_write_one(tmp_path: Path) -> None:
    out = tmp_path / "d.json"
    with Journal(out, GIVEN, classes=2) as first:
        with pytest.raises(InputError, match="another run is writing it"):
            Journal(out, GIVEN, classes=2, resume=True)
        first.add([("a", found(1.0))])
    with Journal(out, GIVEN, classes=2, resume=True) as again:
        assert again.names == ["a"]


@pytest.mark.parametrize(
    "line",
    [
        "5",
        "null",
        "[]",
        '[["v"]]',
        '[["v",[1.0],[2.0],[0.5],[2]]]',  # a class that the model has not
        '[["v",[1.0],[2.0],[0.5],[-1]]]',
        '[["v",[1.0],[2.0],[0.5],[true]]]',
        '[["v",[1.0],[2.0],[0.5],[]]]',
        '[["v",[1],[2.0],[0.5],[0]]]',
        '[["v",[1e999],[2.0],[0.5],[0]]]',
        '[["a",[1.0],[2.0],[0.5],[0]]]',  # a video that it has already
        "[[7,[1.0],[2.0],[0.5],[0]]]",
        "[" * 5000,
    ],
)
def test_lines_that_no_run_wrote_are_refused(tmp_path: Path, line: str) -> None:
    out = tmp_path / "d.json"
    with Journal(out, GIVEN, classes=2) as journal:
        journal.add([("a", found(1.0))])
    with journal.path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match="line 3 is damaged"):
        Journal(out, GIVEN, classes=2, resume=True)


def detect(folder: Path, *arguments: str, before: str = "") -> Program:
    command = ["features.h5", "--model", "model.onnx", "--provider", "cpu", "--batch-snippets", "1", *arguments]
    return Program("refineloc-detect", *command, cwd=folder, before=before)


# It waits before its last hundred videos, so that a signal never comes too late.
WAITS = """
import signal
from refineloc.runtime.cli.journal import Journal
add = Journal.add
def waits(journal, *arguments):
    if len(journal.names) >= 200: signal.pause()
    add(journal, *arguments)
Journal.add = waits
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
        process.wait_until(lambda: partial.exists() and partial.stat().st_size > 3_000)
        process.send_signal(stop)
        done = process.wait()
    if stop == signal.SIGINT:
        assert done.returncode == 130
        assert "--resume goes on with them" in done.stderr
        assert "Traceback" not in done.stderr
    else:
        assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / name).exists()
    with detect(tmp_path, "-o", name) as process:
        done = process.wait()
    assert done.returncode == 2
    assert "--resume goes on with it" in done.stderr
    with detect(tmp_path, "-o", name, "--resume") as process:
        done = process.wait()
    assert done.returncode == 0
    assert "goes on after" in done.stderr
    assert 0 < int(done.stderr.split("goes on after ")[1].split()[0]) < 300
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
