"""Errors: what they carry from one process to another, and whose words they use."""

import ast
import pickle
import re
from pathlib import Path

import pytest

from refineloc.runtime import errors
from refineloc.runtime.cli.common import new_app, run_app

ROOT = Path(__file__).resolve().parents[2]
CLASSES = [kind for kind in map(errors.__dict__.get, errors.__all__) if issubclass(kind, errors.RefineLocError)]


@pytest.mark.parametrize("kind", CLASSES)
def test_errors_keep_message_and_parameter_through_pickle(kind: type[errors.RefineLocError]) -> None:
    error = pickle.loads(pickle.dumps(kind("its fps is not known", parameter="fps")))
    assert type(error) is kind
    assert (str(error), error.parameter) == ("its fps is not known", "fps")
    assert kind("text").parameter == ""


def test_numbers_of_things() -> None:
    assert [errors.counted(count, "video") for count in (0, 1, 2000)] == ["0 videos", "1 video", "2,000 videos"]
    assert [errors.counted(count, "class") for count in (1, 2)] == ["1 class", "2 classes"]
    assert [errors.counted(count, "video has", "videos have") for count in (1, 2)] == ["1 video has", "2 videos have"]
    assert errors.counted_of(1, 1, "video", "is", "are") == "1 of 1 video is"
    assert errors.counted_of(2, 12, "class", "is", "are") == "2 of 12 classes are"


def test_only_quotes_around_a_whole_line_go() -> None:
    assert errors.first_line(KeyError("videos")) == "videos"
    assert errors.first_line(ValueError("no such file: 'a.mp4'")) == "no such file: 'a.mp4'"
    assert errors.first_line(ValueError("one\ntwo")) == "one"
    assert errors.first_line(ValueError()) == "ValueError"


@pytest.mark.parametrize(
    ("parameter", "line"), [("fps", "error: give fps (--fps X)"), ("tiou", "error: give fps"), ("", "error: give fps")]
)
def test_a_program_adds_its_own_option(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, parameter: str, line: str
) -> None:
    app = new_app("program")

    @app.command()
    def command() -> None:
        raise errors.InputError("give fps", parameter=parameter)

    monkeypatch.setattr("sys.argv", ["program"])
    with pytest.raises(SystemExit) as ended:
        run_app(app, {"fps": "--fps X"})
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"{line}\n"


def options_raised(path: Path) -> list[str]:
    """The texts inside `raise` statements that hold a command-line option."""
    raises = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Raise)]
    texts = [
        node.value
        for statement in raises
        for node in ast.walk(statement)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return [text for text in texts if re.search(r"(^|\W)--[a-z]", text)]


@pytest.mark.parametrize("folder", ["runtime", "evaluation", "export", "training"])
def test_errors_of_the_library_do_not_speak_of_options(folder: str) -> None:
    files = [path for path in (ROOT / folder).rglob("*.py") if "cli" not in (path.stem, path.parent.name)]
    assert files
    assert {str(path): texts for path in files if (texts := options_raised(path))} == {}
