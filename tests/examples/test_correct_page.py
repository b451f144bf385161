"""The commands of docs/how-to/correct-and-retrain.md run as a reader would run them; a request corrects."""

import json
import re
import shlex
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from programs import run

from refineloc.runtime.annotations import read_annotations

PAGE = (Path(__file__).resolve().parents[2] / "docs/how-to/correct-and-retrain.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(python|console)\n(.*?)```", PAGE, re.DOTALL)
(APP,) = re.findall(r"^    python examples/(app\.py .*)$", PAGE, re.MULTILINE)
QUICK = ["--iterations", "1"]
for setting in ("training.models=1", "training.restarts=0", "training.min_steps=50"):
    QUICK += ["--set", setting]


def correct(load_example: Callable[[str], object]) -> None:
    """Start the app as the page says, and save the true segments of each video, as its page would."""
    app = load_example("app.py")
    _, *arguments = shlex.split(APP)
    server = app.create(app.parsed([*arguments, "--port", "0", "--provider", "cpu"]))  # type: ignore[attr-defined]
    truth = read_annotations("data/val.csv")
    with ThreadPoolExecutor(1) as thread:
        thread.submit(server.serve_forever, 0.01)
        for number, video in enumerate(server.videos):
            true = truth[video.name]
            rows = zip(true.start.tolist(), true.end.tolist(), true.segment_labels, strict=True)
            body = json.dumps({"segments": [[max(start, 0), end, label] for start, end, label in rows]}).encode()
            urllib.request.urlopen(f"{server.address}videos/{number}", body).read()
        server.shutdown()
    server.server_close()


@pytest.mark.long
def test_the_page_is_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load_example: Callable[[str], object]
) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    commands = 0
    for language, block in BLOCKS:
        if language == "python":
            exec(compile(block, "docs/how-to/correct-and-retrain.md", "exec"), {})
            continue
        for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
            program, *arguments = shlex.split(command)
            ended = run(program, *arguments, *(QUICK if program == "refineloc-train" else []), cwd=tmp_path)
            assert ended.returncode == 0, (command, ended.stderr)
            said = (ended.stderr + ended.stdout).splitlines()
            for line in shown.splitlines():  # numbers are those of a longer training
                pattern = re.sub(r"\d[\d.,]*", r"[\\d.,]+", re.escape(line).replace(r"\.", "."))
                assert line == "..." or any(re.fullmatch(pattern, each) for each in said), (command, line, said)
            commands += 1
        if not Path("corrections").exists():
            correct(load_example)
            assert len(read_annotations("corrections/corrected.csv")) == 12
    assert commands == 10
    assert len(read_annotations("all.csv")) == 72
