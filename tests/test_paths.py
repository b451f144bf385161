"""Every program with paths that the system refuses: one line and exit code 2."""

import os
from pathlib import Path

import numpy as np
import programs
import pytest
from small_model import WIDTH

LONG = "x" * 300
LINES = [
    "refineloc-convert LONG o.csv",
    "refineloc-convert t.csv LONG.json",
    "refineloc-convert t.csv LONG --to srt",
    "refineloc-convert t.csv o.json --videos LONG",
    "refineloc-convert t.csv o.json --classes LONG --to training",
    "refineloc-detect LONG --model m.onnx",
    "refineloc-detect f --model LONG",
    "refineloc-detect f --model m.onnx -o LONG.csv",
    "refineloc-detect f --model m.onnx --videos LONG",
    "refineloc-doctor LONG",
    "refineloc-eval LONG t.csv",
    "refineloc-eval d.csv LONG",
    "refineloc-eval d.csv t.csv --json LONG",
    "refineloc-eval d.csv t.csv --ambiguous LONG",
    "refineloc-export LONG --iter 0",
    "refineloc-export r -o LONG.onnx",
    "refineloc-export --checkpoint LONG --classes c",
    "refineloc-report LONG --truth t.csv",
    "refineloc-report d.csv --truth LONG",
    "refineloc-report d.csv --truth t.csv -o LONG.html",
    "refineloc-report d.csv --truth t.csv -o o.html --films LONG",
    "refineloc-report d.csv --truth t.csv --diagnose LONG",
    "refineloc-report d.csv --truth t.csv --timeline v LONG.png",
    "refineloc-report d.csv --truth t.csv --timeline v o.png --model m.onnx --features LONG",
    "refineloc-synth LONG",
    "refineloc-train LONG t.csv --val-features f --val-labels t.csv --allow-leaks",
    "refineloc-train f LONG --val-features f --val-labels t.csv",
    "refineloc-train f t.csv --val-features f --val-labels t.csv --config LONG",
    "refineloc-train f t.csv --val-features f --val-labels t.csv --allow-leaks --run LONG",
    "refineloc-train f t.csv --val-features f --val-labels t.csv --allow-leaks --run LONG --resume",
    "refineloc-train f t.csv --val-features f --val-labels t.csv --allow-leaks --run LONG --study generators-beta",
    "refineloc-tune LONG f t.csv",
    "refineloc-tune m.onnx LONG t.csv",
    "refineloc-tune m.onnx f LONG",
    "refineloc-tune m.onnx f t.csv -o LONG.onnx",
]


@pytest.fixture
def folder(tmp_path: Path, model_path: Path) -> Path:
    (tmp_path / "t.csv").write_text("video-name,t-start,t-end,label,fps\nv,0,1,jump,25\nw,0,1,run,25\n")
    (tmp_path / "d.csv").write_text("video-name,t-start,t-end,label,score\nv,0,1,jump,0.5\n")
    (tmp_path / "m.onnx").symlink_to(model_path)
    (tmp_path / "f").mkdir()
    for name in "vw":
        np.save(tmp_path / "f" / f"{name}.npy", np.ones((20, WIDTH), np.float32))
    return tmp_path


@pytest.mark.parametrize("line", LINES)
def test_a_name_that_is_too_long_is_one_line(folder: Path, line: str) -> None:
    before = sorted(folder.rglob("*"))
    program, *arguments = line.replace("LONG", LONG).split()
    done = programs.run(program, *arguments, cwd=folder)
    assert done.returncode == 2
    said = done.stdout + done.stderr
    (error,) = (text for text in said.splitlines() if "too long" in text)
    assert program == "refineloc-doctor" or error.startswith("error: xxx")
    assert sorted(folder.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may read nothing here")
@pytest.mark.parametrize("line", LINES[::3])
def test_a_folder_that_may_not_be_entered_is_one_line(folder: Path, line: str) -> None:
    program, *arguments = line.replace("LONG", "there").split()
    # First what is imported late: it may lie where only root reads.
    before = "import os, refineloc.evaluation.cli.convert; os.seteuid(65534)"
    done = programs.run(program, *arguments, cwd=folder, before=before)
    assert done.returncode == 2
    said = done.stdout + done.stderr
    assert [text for text in said.splitlines() if "ermission denied" in text]
