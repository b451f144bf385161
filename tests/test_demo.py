"""`make demo`: the programs on sample data, and the files and figures that it promises."""

import importlib.util
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import programs
import pytest

from refineloc.evaluation import evaluate, match_detections
from refineloc.runtime import read_annotations, read_detections

DEMO = Path(__file__).resolve().parents[1] / "examples" / "demo.py"


def check(demo: Path, shown: str, iterations: int) -> list[float]:
    """Files and table are as promised; gives the average mAP of each iteration."""
    for name in ("data/train.h5", "data/train.csv", "data/val.h5", "data/val.csv", "model.onnx", "detections.json"):
        assert (demo / name).stat().st_size > 0
    assert (demo / "timeline.png").read_bytes().startswith(b"\x89PNG")
    table = re.findall(r"^ +(\d)((?: +\d+\.\d){8})", shown, flags=re.MULTILINE)
    assert [int(row[0]) for row in table] == list(range(iterations))
    averages = [float(row[1].split()[-1]) / 100 for row in table]
    records = json.loads((demo / "run/iterations.json").read_text())
    assert [record["iteration"] for record in records] == list(range(iterations))
    # What the exported file detects is what the last iteration of the run detected, and scores as the table says.
    annotations = read_annotations(demo / "data/val.csv")
    tious = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    exported = evaluate(match_detections(read_detections(demo / "detections.json"), annotations, tious))
    assert exported.average_mAP == pytest.approx(averages[-1], abs=1e-3)
    return averages


def test_on_fewer_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    specification = importlib.util.spec_from_file_location("demo", DEMO)
    assert specification is not None
    assert specification.loader is not None
    demo = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(demo)

    def run(line: str) -> None:
        program, *arguments = shlex.split(line)
        done = programs.run(program, *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr

    shorter = demo.PROGRAMS
    for words, fewer in (
        ("refineloc-synth demo/data", "refineloc-synth demo/data --videos 30 --classes 3 --dim 16"),
        (f"--iterations {demo.ITERATIONS}", "--iterations 2 --epochs 10"),
        (f"--iter {demo.LAST}", "--iter 1"),
    ):
        assert words in shorter
        shorter = shorter.replace(words, fewer)
    monkeypatch.setattr(demo, "PROGRAMS", shorter)
    monkeypatch.setattr(demo, "run", run)
    monkeypatch.chdir(tmp_path)
    demo.main()
    assert max(check(tmp_path / "demo", capsys.readouterr().out, iterations=2)) > 0.02


@pytest.mark.long
def test_the_demo_makes_what_it_promises(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(DEMO)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    averages = check(tmp_path / "demo", done.stdout, iterations=4)
    # Not a claim about the method (sample-data.md is): a broken loop would not learn from its own labels.
    assert averages[-1] > averages[0]
