"""The programs without their scripts: `python -m`, of the package and of each program's module."""

import runpy
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

import refineloc
from refineloc.__main__ import PROGRAMS


def test_the_list_is_that_of_the_scripts() -> None:
    scripts = {script.name: script.value for script in entry_points(group="console_scripts")}
    ours = {name.removeprefix("refineloc-"): value for name, value in scripts.items() if name.startswith("refineloc-")}
    assert {name: f"{module}:main" for name, (module, _) in PROGRAMS.items()} == ours


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")  # runpy, of modules that other tests loaded
@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_runs_as_a_module(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for line in ([PROGRAMS[name][0], "--version"], ["refineloc", name, "--version"]):
        monkeypatch.setattr(sys, "argv", line)
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(line[0], run_name="__main__", alter_sys=True)
        assert not ended.value.code
        assert capsys.readouterr().out == f"refineloc {refineloc.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "code", "out", "err"),
    [
        ([], 2, "", "error: no program named; there are train, export, detect"),
        (["x.h5"], 2, "", "error: no program 'x.h5'; there are train, export, detect"),
        (["--help"], 0, "  detect   features and a model -> detections\n", ""),
        (["eval", "--tiou", "2", "a", "b"], 2, "", "error: --tiou '2': expected"),
    ],
)
def test_the_package_as_a_module(arguments: list[str], code: int, out: str, err: str) -> None:
    done = subprocess.run([sys.executable, "-m", "refineloc", *arguments], capture_output=True, text=True)
    assert done.returncode == code
    assert out in done.stdout
    assert done.stderr.startswith(err)
    assert done.stderr.count("\n") == bool(err)
