"""The blocks of README and of the pages in docs/ run in order, as a reader would run them, and say what the page shows.

- All `python` blocks of a page share their names. One whose first line is `# FILE.py` is saved as that file instead.
- In a `console` block lines that begin with `$ ` are commands, and what follows one is its output: `...` is anything,
  and any number stands for any other, but for refineloc-doctor's. A command without output may say anything.
- A comment before a block, `<!-- not run: WHY -->`, leaves it out. Blocks of other languages are not run.
- Files that a page takes for granted are those of `write_files`.
"""

import importlib.util
import json
import re
import shlex
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from films import write_film
from programs import run
from small_backbone import write_backbone
from small_model import WIDTH, write_features, write_model
from typer.main import get_command

from refineloc.__main__ import PROGRAMS
from refineloc.runtime import read_annotations

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^(?P<indent> *)```(python|console)\n(.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: [^>]+ -->\n *$")
COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*)\n?((?:(?!\$ ).*\n?)*)", re.MULTILINE)

# A run that takes seconds, for pages that train several.
QUICK = ["--iterations", "1"]
for setting in ("training.models=1", "training.restarts=0", "training.min_steps=100"):
    QUICK += ["--set", setting]
TRAIN = {"docs/how-to/own-data.md": QUICK, "docs/how-to/correct-and-retrain.md": QUICK}
LONG = {*TRAIN, "docs/reference/python.md", "docs/tutorials/features.md", "docs/tutorials/films.md"}


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of each block that runs."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        (block[2], re.sub(rf"^{block['indent']}", "", block[3], flags=re.MULTILINE))
        for block in BLOCK.finditer(text)
        if not NOT_RUN.search(text[: block.start()])
    ]


def pages() -> list[Any]:
    paths = sorted(["README.md", *(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md"))])
    return [pytest.param(page, marks=[pytest.mark.long] if page in LONG else []) for page in paths if blocks(page)]


def check_python(names: dict[str, Any], folder: Path, said: str) -> None:
    """What reference/python.md trains finds the two actions of its data, and leaves no files but the model."""
    assert [path.name for path in folder.iterdir()] == ["model.onnx"]
    assert "0 lost" in said
    best = names["detections"][0]
    assert best.label == "jump"
    assert (best.start, best.end) == pytest.approx((12.8, 25.6), abs=2)
    assert names["evaluation"].average_mAP > 0.5


def check_corrected(names: dict[str, Any], folder: Path, said: str) -> None:
    """The second training of how-to/correct-and-retrain.md has the new videos, too."""
    assert len(read_annotations(folder / "all.csv")) == 60 + 12


def correct_by_hand(*arguments: str) -> None:
    """Start examples/app.py, and save the true segments of each video, as its page would."""
    spec = importlib.util.spec_from_file_location("app", ROOT / "examples/app.py")
    assert spec is not None
    assert spec.loader is not None
    app = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "examples"))
        spec.loader.exec_module(app)
    truth = read_annotations("data/val.csv")
    server = app.create(app.parsed([*arguments, "--port", "0", "--provider", "cpu"]))
    with server, ThreadPoolExecutor(1) as thread:
        thread.submit(server.serve_forever, 0.01)
        for number, video in enumerate(server.videos):
            true = truth[video.name]
            segments = [*zip(true.start.tolist(), true.end.tolist(), true.segment_labels, strict=True)]
            body = json.dumps({"segments": segments}).encode()
            urllib.request.urlopen(f"{server.address}videos/{number}", body).read()
        server.shutdown()


HANDS = {"examples/app.py": correct_by_hand}  # what a person does in a program's page
CHECKS = {"docs/how-to/correct-and-retrain.md": check_corrected, "docs/reference/python.md": check_python}


@pytest.mark.parametrize("page", pages())
def test_the_page_is_true(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    if page not in LONG:  # those begin in an empty folder
        write_files(tmp_path)
    names: dict[str, Any] = {}
    texts = []
    for language, text in blocks(page):
        if saved := re.match(r"# (\S+\.py)\n", text):
            (tmp_path / saved[1]).write_text(text)
        else:
            texts.append((language, text))
    for language, text in texts:
        if language == "python":
            exec(compile(text, page, "exec"), names)
        else:
            for command, shown in COMMAND.findall(text):
                check_command(command, shown, tmp_path, TRAIN.get(page, []))
    if page in CHECKS:
        CHECKS[page](names, tmp_path, capsys.readouterr().out)


def test_commands_have_options_that_exist() -> None:
    """Of all blocks and words set as code, run or not."""
    pytest.importorskip("torch")
    commands = {name: get_command(import_module(module).app) for name, (module, _) in PROGRAMS.items()}
    options = {
        name: {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        | {"-h", "--help"}
        for name, command in commands.items()
    }
    used = []
    for path in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]:
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        for name, rest in re.findall(r"refineloc[- ](\w+)((?: [^\n`|#]*)?)", text):
            if name in options:
                used += [(path.name, name, option) for option in re.findall(r"(?<=\s)--?[a-z][\w-]*", rest)]
    assert len(used) > 100
    assert [(page, name, option) for page, name, option in used if option not in options[name]] == []


def write_files(folder: Path) -> None:
    """A model, features, a backbone and a film, by the names that the pages give them."""
    generator = np.random.default_rng(0)
    videos = {name: generator.standard_normal((40, WIDTH), dtype=np.float32) for name in ("my_video", "video")}
    write_model(folder / "model.onnx")
    np.save(folder / "my_video.npy", videos["my_video"])
    write_features(folder / "features.h5", videos, fps=25.0)
    write_backbone(folder / "backbone.onnx", width=WIDTH, size=(112,), snippet_frames=16, stride_frames=16)
    write_film(folder / "game.mp4", range(0, 4000, 40))


def check_command(command: str, shown: str, folder: Path, train: list[str]) -> None:
    """Run a line; compare its exit code and output with what the page shows."""
    program, *arguments = shlex.split(command.replace("\\\n", " "))
    if program == "python" and arguments[0] in HANDS:
        HANDS[arguments[0]](*arguments[1:])
        return
    if program == "python":
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=folder)
    else:
        done = run(program, *arguments, *(train if program == "refineloc-train" else []), cwd=folder)
    assert done.returncode == (2 if "fail  " in shown else 0), (command, done.stderr)
    # Such short training may end with warnings that the page's does not.
    said = [line for line in (done.stderr + done.stdout).splitlines() if not line.startswith("warning: ")]
    if shown:
        pattern = as_pattern(shown, figures=program == "refineloc-doctor")
        assert re.fullmatch(pattern, " ".join(" ".join(said).split())), f"{command}\n{said}\n{shown}"


def as_pattern(shown: str, figures: bool) -> str:
    """`...` is anything; without `figures`, a number is any number."""
    pattern = ".*".join(re.escape(" ".join(part.split())) for part in shown.split("..."))
    return pattern if figures else re.sub(r"\d+(\\\.\d+)?", r"[\\d.]+", pattern)
