"""The programs without their scripts: `python -m`, of the package and of each program's module."""

import os
import runpy
import subprocess
import sys
from importlib import import_module
from importlib.metadata import entry_points
from inspect import signature

import pytest

import refineloc.__main__
from refineloc.__main__ import PROGRAMS


def test_the_list_is_that_of_the_scripts() -> None:
    scripts = {script.name: script.value for script in entry_points(group="console_scripts")}
    ours = {name.removeprefix("refineloc-"): value for name, value in scripts.items() if name.startswith("refineloc")}
    assert ours.pop("refineloc") == "refineloc.__main__:main"
    assert set(ours) == set(PROGRAMS)
    for name, value in ours.items():
        module, _, function = value.partition(":")
        assert module == "refineloc.__main__"
        assert function == (f"{name}_" if name == "eval" else name)  # no built-in's name


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
        ([], 2, "", "error: no program named; there are extract, train, export, "),
        (["x.h5"], 2, "", "error: no program 'x.h5'; there are extract, train, export, "),
        (["--help"], 0, "  detect   features and a model -> detections\n", ""),
        (["-h"], 0, "Usage: refineloc PROGRAM", ""),
        (["--version"], 0, f"refineloc {refineloc.__version__}\n", ""),
        (["eval", "--tiou", "2", "a", "b"], 2, "", "error: --tiou '2': expected"),
    ],
)
def test_the_package_as_a_module(arguments: list[str], code: int, out: str, err: str) -> None:
    done = subprocess.run([sys.executable, "-m", "refineloc", *arguments], capture_output=True, text=True)
    assert done.returncode == code
    assert out in done.stdout
    assert done.stderr.startswith(err)
    assert done.stderr.count("\n") == bool(err)


def in_python(lines: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python that runs these lines, elsewhere."""
    env = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, cwd="/", env=env)


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_is_in_groups_that_name_options(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """-h is --help; each option of the program stands in one group, and each name in a group is an option."""
    module = import_module(PROGRAMS[name][0])
    shown = []
    for word in ("-h", "--help"):
        monkeypatch.setattr(sys, "argv", [f"refineloc-{name}", word])
        with pytest.raises(SystemExit) as ended:
            module.main()
        assert not ended.value.code
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    about = shown[0].split("About the program:")[1]
    assert all(option in about for option in ("--version", "--install-completion", "-h, --help"))
    groups = getattr(module, "GROUPS", {})
    assert all(f"\n{title}:\n" in shown[0] for title in groups)
    named = [parameter for names in groups.values() for parameter in names]
    assert len(named) == len(set(named))
    (declared,) = module.app.registered_commands
    assert set(named) <= set(signature(declared.callback).parameters)


@pytest.mark.parametrize(
    ("program", "line", "completed"),
    [
        ("refineloc", "refineloc tr", {"train"}),
        ("refineloc", "refineloc eval --interp", {"--interpolation"}),
        ("refineloc-eval", "refineloc-eval --interpolation ", {"voc", "none"}),
        ("refineloc-doctor", "refineloc-doctor --vers", {"--version"}),
    ],
)
def test_a_shell_completes_command_lines(program: str, line: str, completed: set[str]) -> None:
    variable = f"_{program}_complete".replace("-", "_").upper()
    (script,) = entry_points(group="console_scripts", name=program)
    module, _, function = script.value.partition(":")
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    run = f"import sys; sys.argv = [{program!r}]; from {module} import {function}; {function}()"
    done = in_python(run, **{variable: "complete_bash"}, **words)
    assert set(done.stdout.split()) == completed, done.stderr


@pytest.mark.parametrize("by_package", [True, False])
def test_the_package_loads_nothing_that_the_program_does_not(by_package: bool) -> None:
    words = ["refineloc", "eval"] if by_package else ["refineloc-eval"]
    function = "main" if by_package else "eval_"
    done = in_python(
        f"import sys; sys.argv = [*{words!r}, 'd.csv', 't.csv']; from refineloc.__main__ import {function}\n"
        f"try: {function}()\n"
        "finally: print(*sorted(sys.modules))"
    )
    loaded = set(done.stdout.split())
    assert "refineloc.evaluation.cli.evaluate" in loaded
    assert not {"pydantic", "rich", "h5py", "onnxruntime", "torch", "refineloc.training", "refineloc.export"} & loaded


@pytest.mark.parametrize("name", PROGRAMS)
def test_ctrl_c_while_packages_are_imported_is_one_line(name: str) -> None:
    """The interrupt comes when the module of the program is looked up."""
    function = f"{name}_" if name == "eval" else name
    done = in_python(
        "import sys, signal, os\n"
        "class Interrupted:\n"
        "    def find_spec(self, module, *_):\n"
        f"        if module == {PROGRAMS[name][0]!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        f"from refineloc.__main__ import {function}; {function}()"
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_ctrl_c_is_one_line_where_typer_reads_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    from refineloc.evaluation.cli import report

    monkeypatch.setattr(report, "read_named", interrupted)
    monkeypatch.setattr(sys, "argv", ["refineloc-report", "one.json", "two.json"])  # a list, which plain lines lack
    with pytest.raises(SystemExit) as ended:
        report.main()
    assert ended.value.code == 130
    assert capsys.readouterr() == ("", "interrupted\n")
