"""Plain command lines mean what typer takes them for, in every program."""

import functools
import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from refineloc.runtime.cli.plain import plain_arguments

PROGRAMS = {
    "refineloc.runtime.cli.detect": (
        "f.h5",
        "f.h5 --model m.onnx -o out.csv --fps 25 --top-k 3 --provider cpu --resume --untrusted",
        "f.h5 --model a.onnx --leave-out v0 --model b.onnx --leave-out v1",
        "f.h5 --out out.json --fps 29.97 --threads 2 --alpha-c 0.05 --profile paper --videos labels.csv",
    ),
    "refineloc.runtime.cli.doctor": ("", "model.onnx"),
    "refineloc.evaluation.cli.evaluate": (
        "d.json t.csv",
        "d.json --tiou 0.5:0.95:0.05 t.csv --json out.json --per-class --bootstrap 100 --recall 1,10",
        "--subset validation d.json --interpolation none t.csv",
    ),
    "refineloc.evaluation.cli.convert": ("a.json b.csv", "a.json b.csv --cap 3 --min-score 0.25 --fps 25"),
    "refineloc.training.cli": ("f.h5 l.csv --val-features v.h5 --iterations 4 --preset auto --run runs/x --resume", ""),
    "refineloc.training.sample.cli": ("data", "data --videos 30 --classes 3 --dtype float16 --force"),
    "refineloc.export.cli.export": ("", "runs/x --iter 3 -o m.onnx --precision int8"),
}
# What typer reads, or refuses, itself.
LEFT_TO_TYPER = [
    "--help",
    "--version",
    "d.json",
    "d.json t.csv more.csv",
    "d.json t.csv --unknown",
    "d.json t.csv --json",
    "d.json t.csv --json=out.json",
    "d.json t.csv --json -",
    "d.json t.csv --seed 1 --seed 2",
    "d.json t.csv --seed -1",
    "d.json t.csv --seed 1.5",
    "d.json t.csv --seed 1_0",
    "d.json t.csv --seed ٣",
    "d.json t.csv --subset \udcff",
    "d.json t.csv --interpolation other",
    "d.json t.csv --per-class yes",
    "d.json -- t.csv",
]


def by_typer(module: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    app = importlib.import_module(module).app
    (declared,) = app.registered_commands
    seen: list[dict[str, Any]] = []
    recorder = functools.wraps(declared.callback)(lambda **arguments: seen.append(arguments))
    monkeypatch.setattr(declared, "callback", recorder)
    app(words, standalone_mode=False)
    monkeypatch.undo()
    return seen[0]


@pytest.mark.parametrize(("module", "line"), [(module, line) for module in PROGRAMS for line in PROGRAMS[module]])
def test_arguments_are_those_of_typer(module: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if module.startswith(("refineloc.training", "refineloc.export")):
        pytest.importorskip("torch")
    words = line.split()
    (declared,) = importlib.import_module(module).app.registered_commands
    arguments = plain_arguments(declared.callback, words)
    expected = by_typer(module, words, monkeypatch)
    assert arguments is not None
    assert not arguments.pop("_version")
    assert not expected.pop("_version")
    assert arguments == expected
    assert [type(value) for value in arguments.values()] == [type(value) for value in expected.values()]


@pytest.mark.parametrize("line", LEFT_TO_TYPER)
def test_what_is_not_plain_is_left_to_typer(line: str) -> None:
    (declared,) = importlib.import_module("refineloc.evaluation.cli.evaluate").app.registered_commands
    assert plain_arguments(declared.callback, line.split()) is None


def test_lists_and_callbacks_are_left_to_typer() -> None:
    (declared,) = importlib.import_module("refineloc.runtime.cli.detect").app.registered_commands
    assert plain_arguments(declared.callback, ["f.h5", "--version"]) is None
    (declared,) = importlib.import_module("refineloc.evaluation.cli.report").app.registered_commands
    assert plain_arguments(declared.callback, ["one.json", "two.json"]) is None


def test_a_plain_command_line_does_not_load_what_typer_needs_for_others(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("video-name,t-start,t-end,label,score\nv,1.0,9.0,run,0.5\n")
    (tmp_path / "t.csv").write_text("video-name,t-start,t-end,label\nv,1.0,9.0,run\n")
    code = (
        "import sys; sys.argv = ['refineloc-eval', 'd.csv', 't.csv']\n"
        "from refineloc.evaluation.cli.evaluate import main\n"
        "try: main()\n"
        "finally: print(*{'pydantic', 'rich', 'h5py', 'onnxruntime', 'matplotlib', 'numpy.ma', "
        "'refineloc.evaluation.diagnosis'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1.000000" in done.stdout
    assert done.stderr == "\n"
