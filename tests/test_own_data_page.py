"""The commands and blocks of docs/how-to/own-data.md run as a reader would run them, and say what the page shows."""

import re
import shlex
from pathlib import Path

import pytest
from programs import run

PAGE = (Path(__file__).resolve().parents[1] / "docs/how-to/own-data.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(python|console)\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
QUICK = ["--iterations", "1"]
for setting in ("training.models=1", "training.restarts=0", "training.min_steps=100"):
    QUICK += ["--set", setting]


def as_pattern(shown: str, figures: bool) -> str:
    """`...` is anything; without `figures`, a number is any number."""
    pattern = ".*".join(re.escape(" ".join(part.split())) for part in shown.split("..."))
    return pattern if figures else re.sub(r"\d+(\\\.\d+)?", r"[\\d.]+", pattern)


@pytest.mark.long
def test_the_page_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    assert BLOCKS[-1][0] == "python"
    commands = 0
    for language, block in (BLOCKS[-1], *BLOCKS[:-1]):  # the data first
        if language == "python":
            exec(compile(block, "docs/how-to/own-data.md", "exec"), {})
            continue
        for command, shown in COMMANDS.findall(block):
            program, *arguments = shlex.split(command)
            ended = run(program, *arguments, *(QUICK if program == "refineloc-train" else []), cwd=tmp_path)
            assert ended.returncode == (2 if "fail  " in shown else 0), (command, ended.stderr)
            # Such short training may end with warnings that the page's does not.
            lines = [line for line in (ended.stderr + ended.stdout).splitlines() if not line.startswith("warning: ")]
            said = " ".join(" ".join(lines).split())
            pattern = as_pattern(shown, figures=program == "refineloc-doctor")
            assert re.fullmatch(pattern, said), f"{command}\n{said}\n{shown}"
            commands += 1
    assert commands == 17
