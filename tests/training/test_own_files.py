"""Base models and generators in files of one's own: trained, resumed and exported, and run only where named."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import programs
import pytest
from small_data import arguments

from refineloc.runtime.errors import ConfigError
from refineloc.training.settings.bases import base_names
from refineloc.training.settings.config import GENERATORS, read_toml, resolve
from refineloc.training.settings.given import keyword_settings
from refineloc.training.settings.model import base_lines
from refineloc.training.settings.own_files import is_own, own_file, same_file

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TRAIN = [*arguments(), "--iterations", "2", "--epochs", "1", "--run", "run"]
OWN = ["--base", "mine.py", "--generator", "labels.py"]


@pytest.fixture
def own(data: Path) -> Path:
    """The data, and the two examples as mine.py and labels.py."""
    shutil.copy(EXAMPLES / "own_base.py", data / "mine.py")
    shutil.copy(EXAMPLES / "own_generator.py", data / "labels.py")
    return data


def run(program: str, *given: str, cwd: Path) -> str:
    done = programs.run(program, *given, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def fails(program: str, *given: str, cwd: Path, message: str) -> None:
    done = programs.run(program, *given, cwd=cwd)
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert message in line, line


def test_trained_resumed_and_exported(own: Path) -> None:
    run("refineloc-train", *TRAIN, *OWN, "--set", "model.options.focus=1.5", cwd=own)
    settings = read_toml(own / "run/config.toml")
    assert settings["model"]["base"].startswith("mine.py#")
    assert settings["pseudo"]["generator"].startswith("labels.py#")
    assert settings["model"]["options"] == {"focus": 1.5}
    assert settings["training"]["learning_rate"] == 1e-3, "of DEFAULTS"
    # The file may lie elsewhere; the weights are read into its network, and the model file needs no code.
    (own / "elsewhere").mkdir()
    shutil.move(own / "mine.py", own / "elsewhere/mine.py")
    moved = ["--base", "elsewhere/mine.py", "--generator", "labels.py", "--set", "model.options.focus=1.5"]
    run("refineloc-train", *TRAIN, *moved, "--resume", "--iterations", "3", cwd=own)
    fails(
        "refineloc-export",
        "run",
        cwd=own,
        message="runs only where you name its file yourself: give base (--base FILE)",
    )
    run("refineloc-export", "run", "--base", "elsewhere/mine.py", cwd=own)
    # A changed file is another one.
    with (own / "elsewhere/mine.py").open("a") as file:
        file.write("# changed\n")
    changed = "elsewhere/mine.py: has changed since the run began"
    fails("refineloc-export", "run", "--base", "elsewhere/mine.py", cwd=own, message=changed)
    fails("refineloc-train", *TRAIN, *moved, "--resume", "--iterations", "4", cwd=own, message=changed)


@pytest.mark.long
def test_a_changed_generator_is_refused(own: Path) -> None:
    given = ["--preset", "sample", "--generator", "labels.py"]
    run("refineloc-train", *TRAIN, *given, cwd=own)
    (own / "labels.py").write_text((own / "labels.py").read_text().replace("0.3", "0.4"))
    message = "labels.py: has changed since the run began"
    fails("refineloc-train", *TRAIN, *given, "--resume", "--iterations", "3", cwd=own, message=message)
    run("refineloc-export", "run", cwd=own)  # needs no generator


STRANGE = "from pathlib import Path\nPath('ran').touch()\nraise SystemExit\n"


@pytest.mark.parametrize(
    "given",
    [
        ["--set", "model.base=strange.py"],
        ["--set", "model.base=strange.py#0123"],
        ["--set", "pseudo.generator=strange.py"],
        ["--config", "strange.toml"],
        ["--config", "strange.toml", "--base", "mine.py#0123"],
    ],
)
def test_code_that_a_file_of_settings_names_is_not_run(own: Path, given: list[str]) -> None:
    (own / "strange.py").write_text(STRANGE)
    (own / "strange.toml").write_text('[model]\nbase = "strange.py"\n')
    done = programs.run("refineloc-train", *TRAIN, *given, cwd=own)
    assert done.returncode == 2, done.stderr
    assert not (own / "ran").exists()
    assert not (own / "run").exists()


def test_code_that_a_stranger_s_run_names_is_not_run(own: Path) -> None:
    run("refineloc-train", *TRAIN, *OWN, "--iterations", "1", cwd=own)
    (own / "run/mine.py").write_text(STRANGE)
    config = own / "run/config.toml"
    for name in ("run/mine.py", f"{own}/run/mine.py", "run/mine.py#0123"):
        config.write_text(
            "\n".join(
                f'base = "{name}"' if line.startswith("base = ") else line for line in config.read_text().splitlines()
            )
        )
        for given in ([], ["--base", "mine.py"]):
            assert programs.run("refineloc-export", "run", *given, cwd=own).returncode == 2
        resumed = programs.run("refineloc-train", *TRAIN, *OWN, "--resume", cwd=own)
        assert resumed.returncode == 2, resumed.stderr
    assert not list(own.rglob("ran"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = (", "bad.py: line 1: cannot be loaded: SyntaxError"),
        ("\nx = 1 / 0\n", "bad.py: line 2: cannot be loaded: ZeroDivisionError: division by zero"),
        ("import nothing_such", "bad.py: line 1: cannot be loaded: ModuleNotFoundError"),
        ("raise SystemExit(0)", "bad.py: line 1: cannot be loaded: SystemExit"),
        ("build = 3", "bad.py: has no function build(options, width, classes), which a base needs"),
    ],
)
def test_files_that_cannot_be_used_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.py"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        keyword_settings(base=str(path))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match=r"gone\.py: no such file"):
        keyword_settings(generator=str(tmp_path / "gone.py"))


@pytest.mark.parametrize("table", ["DEFAULTS", "OF_AUTO"])
def test_settings_of_an_own_base_are_a_table(tmp_path: Path, table: str) -> None:
    path = tmp_path / "bad.py"
    path.write_text(f"def build(options, width, classes): ...\n{table} = 5\n")
    with pytest.raises(ConfigError, match=rf"bad\.py: {table}: expected a dictionary of settings"):
        resolve({"preset": "auto"}, keyword_settings(base=str(path)))


def test_what_a_generator_gives_is_checked(own: Path) -> None:
    (own / "labels.py").write_text(
        "import numpy as np\n\n\ndef generate(scores, lengths, known, rng):\n    return [1]\n"
    )
    given = ["--preset", "sample", "--generator", "labels.py"]
    message = "labels.py: generate gave int64 [1], expected which snippets are foreground, bool ["
    fails("refineloc-train", *TRAIN, *given, cwd=own, message=message)


def test_options_of_an_own_base_are_checked_as_ours(own: Path) -> None:
    settings = keyword_settings(base=str(own / "mine.py"))
    assert resolve(settings, {"model": {"options": {"focus": 3}}}).model.options.model_dump() == {"focus": 3.0}
    with pytest.raises(ConfigError, match=r"model\.options\.fokus"):
        resolve(settings, {"model": {"options": {"fokus": 3}}})
    name = settings["model"]["base"]
    assert is_own(name)
    assert same_file(name, f"elsewhere/{name}")
    assert not same_file(name, "refineloc")
    assert own_file(name, "base").module.build is not None


def test_the_generator_takes_the_share_that_scores_highest(own: Path, rng: np.random.Generator) -> None:
    from refineloc.runtime.segments.values import Scores

    name = keyword_settings(generator=str(own / "labels.py"))["pseudo"]["generator"]
    lengths = np.array([10, 40])
    scores = Scores(*(rng.random(shape).astype(np.float32) for shape in ((50, 3), (50,), (50,), (2, 3))))
    known = np.array([[True, False, False], [False, False, True]])
    foreground = own_file(name, "generator").module.generate(scores, lengths, known, rng)
    assert foreground[:10].sum() == 3
    assert foreground[10:].sum() == 12
    product = scores.class_scores[:10, 0] * scores.foreground[:10]
    assert set(np.flatnonzero(foreground[:10])) == set(np.argsort(product)[-3:])


def test_lists(call_program: Callable[..., object], tmp_path: Path) -> None:
    from refineloc.training.cli import main

    for option, names in (("--base", base_names()), ("--generator", GENERATORS)):
        done = call_program(main, option, "list")
        lines = done.stdout.splitlines()  # type: ignore[attr-defined]
        assert [line.split()[0] for line in lines] == [*names, "FILE.py"]
        assert all(len(line.split(maxsplit=1)[1]) > 10 for line in lines)
    assert base_lines()["basnet"].startswith("BaS-Net (section 4.1")
