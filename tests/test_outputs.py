"""One convention of outputs for all programs (docs/reference/programs.md).

A named file is replaced, whole or not at all; a folder that holds something else is refused, and stays as it is.
"""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import h5py
import numpy as np
import pytest

from refineloc.__main__ import PROGRAMS

Run = Callable[..., CompletedProcess[str]]
BEFORE = "what somebody wrote before"
TRUTH = "video-name,t-start,t-end,label,video-duration,fps,video-num-frames\na,1,9,run,19.2,25,480\n"
FOUND = {"results": {"a": [{"label": "run", "segment": [1, 8], "score": 0.5}]}}

# Arguments of programs, {out} for the output; and a name of an output, or of a file in it.
FILES = {
    "eval": (["eval", "found.json", "truth.csv", "--json", "{out}"], "out.json"),
    "report": (["report", "found.json", "--truth", "truth.csv", "--bootstrap", "5", "-o", "{out}"], "out.html"),
    "timeline": (["report", "found.json", "--truth", "truth.csv", "--timeline", "a", "{out}"], "out.svg"),
    "convert": (["convert", "found.json", "{out}", "--fps", "25"], "out.csv"),
    "convert to tasks": (["convert", "found.json", "{out}", "--to", "label-studio", "--fps", "25"], "out.json"),
    "convert to subtitles": (["convert", "found.json", "{out}"], "out.srt"),
    "convert to ELAN": (["convert", "found.json", "{out}"], "out.eaf"),
    "tune": (
        ["tune", "{model}", "a.h5", "truth.csv", "--precision", "0.5", "--keep-rule", "-o", "{out}"],
        "out.onnx",
    ),
    "detect": (["detect", "a.h5", "--model", "{model}", "--provider", "cpu", "--fps", "25", "-o", "{out}"], "out.json"),
}
FOLDERS = {
    "convert": (["convert", "found.json", "{out}", "--to", "srt"], "a.srt"),
    "convert to ELAN": (["convert", "found.json", "{out}", "--to", "elan"], "a.eaf"),
    "report": (["report", "found.json", "--truth", "truth.csv", "--diagnose", "{out}"], "diagnosis.json"),
    "report of two": (
        ["report", "x=found.json", "y=found.json", "--truth", "truth.csv", "--diagnose", "{out}"],
        "x/diagnosis.json",
    ),
    "parts": (
        ["detect", "a.h5", "--model", "{model}", "--fps", "25", "--shard", "1/1", "-o", "{out}"],
        "part-00001.jsonl",
    ),
    "synth": (["synth", "{out}", "--videos", "4", "--classes", "2", "--dim", "8", "--force"], "train.h5"),
}


@pytest.fixture
def here(tmp_path: Path, rng: np.random.Generator) -> Path:
    (tmp_path / "found.json").write_text(json.dumps(FOUND))
    (tmp_path / "truth.csv").write_text(TRUTH)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = rng.standard_normal((30, 24)).astype(np.float32)
    return tmp_path


@pytest.fixture
def run(here: Path, model_path: Path, call_program: Run) -> Run:
    def program(arguments: list[str], out: str) -> CompletedProcess[str]:
        name, *rest = [each.format(out=out, model=model_path) for each in arguments]
        return call_program(importlib.import_module(PROGRAMS[name][0]).main, *rest)

    return program


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("case", FILES)
def test_a_named_file_is_replaced_whole_or_not_at_all(here: Path, run: Run, case: str) -> None:
    if case == "tune":
        pytest.importorskip("onnx")
    arguments, name = FILES[case]
    (here / name).write_text(BEFORE)
    before = tree(here)
    failing = ["a.h5" if each == "truth.csv" else each for each in arguments]
    failing = failing if failing != arguments else [*arguments[:1], "truth.csv.absent", *arguments[2:]]
    assert run(failing, name).returncode == 2
    assert tree(here) == before
    assert run(arguments, name).returncode == 0
    after = tree(here)
    assert after.keys() == before.keys()
    assert BEFORE.encode() not in after[name]
    assert len(after[name]) > 20


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_of_others_is_refused_and_ours_taken_again(
    here: Path, run: Run, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("refineloc.evaluation.pictures.diagnosis._FIGURES", {})  # pictures, which take seconds
    arguments, name = FOLDERS[case]
    (here / "out").mkdir()
    (here / "out" / "thesis.txt").write_text(BEFORE)
    before = tree(here)
    done = run(arguments, "out")
    assert done.returncode == 2
    assert "error: out: holds 'thesis.txt', which is not of " in done.stderr
    assert tree(here) == before
    # What systems and shells leave there does not count; a new folder is made, with those that it lies in.
    (here / "out" / "thesis.txt").rename(here / "out" / "job.log")
    (here / "out" / ".DS_Store").write_text("")
    for out in ("out", "out", "new/folder"):
        done = run(arguments, out)
        assert done.returncode == 0, done.stderr
        assert (here / out / name).is_file()


def test_films_may_lie_beside_subtitles(here: Path, run: Run) -> None:
    (here / "films").mkdir()
    (here / "films" / "a.MP4").write_text("")
    assert run(FOLDERS["convert"][0], "films").returncode == 0
    assert (here / "films" / "a.srt").is_file()


def test_two_sets_of_one_folder_are_refused(here: Path, run: Run) -> None:
    done = run(["report", "a:b=found.json", "a_b=found.json", "--truth", "truth.csv", "--diagnose", "{out}"], "why")
    assert done.returncode == 2
    assert "--diagnose: 'a:b' and 'a_b' would both be why/a_b; give NAME=FILE" in done.stderr
    assert not (here / "why").exists()


@pytest.mark.parametrize("study", [(), ("--study", "generators-beta", "--betas", "1", "--seeds", "0")])
def test_a_run_s_folder(here: Path, run: Run, study: tuple[str, ...]) -> None:
    pytest.importorskip("torch")
    assert run(["synth", "{out}", "--videos", "4", "--classes", "2", "--dim", "8"], "data").returncode == 0
    (here / "out").mkdir()
    (here / "out" / "thesis.txt").write_text(BEFORE)
    before = tree(here)
    data = ["data/train.h5", "data/train.csv", "--val-features", "data/val.h5", "--val-labels", "data/val.csv"]
    done = run(["train", *data, "--preset", "sample", "--run", "{out}", *study], "out")
    assert done.returncode == 2
    assert "error: out: holds 'thesis.txt', which is not of a " in done.stderr
    assert tree(here) == before


def test_a_name_in_a_table_is_no_formula_and_no_other_cell(here: Path, run: Run) -> None:
    label = "=1+1\tx\ny"
    rows = [{"label": label, "segment": [1, 9]}]
    (here / "truth.json").write_text(json.dumps({"database": {"a": {"annotations": rows}}}))
    (here / "odd.json").write_text(json.dumps({"a": [{**rows[0], "score": 0.5}]}))
    done = run(["eval", "odd.json", "truth.json", "--per-class", "--tiou", "0.5"], "")
    assert done.returncode == 0
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["class", "all", "'=1+1 x y"]
