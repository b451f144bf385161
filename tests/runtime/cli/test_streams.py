"""Standard streams as job runners, shells and terminals leave them: the work is done, and what is wrong is one line."""

import os
import subprocess
import sys
from pathlib import Path

import programs
import pytest

from refineloc.runtime.cli.common import fail
from refineloc.runtime.cli.streams import visible

# A program that prints, does its work, and prints more than a buffer holds.
PROGRAM = """
import sys, warnings
from pathlib import Path
from refineloc.runtime.cli.common import note, run_main
def main():
    print(sys.argv[2])
    note("noted")
    warnings.warn("warned")
    for _ in range(5000): print("a line")
    Path(sys.argv[1]).write_text("done")
run_main(main)
"""


def run_in(shell: str, folder: Path, text: str = "text", **env: str) -> subprocess.CompletedProcess[str]:
    """The program, with its streams as a line of bash has them; its work must be done."""
    (folder / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        ["bash", "-c", f'set -o pipefail; "$@" {shell}', "bash", sys.executable, "program.py", "work", text],
        cwd=folder,
        env=os.environ | env,
        capture_output=True,
        text=True,
    )
    assert (folder / "work").read_text() == "done"
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize("shell", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2>/dev/full", "| head -n 1"])
def test_no_one_to_read_is_no_error(tmp_path: Path, shell: str) -> None:
    done = run_in(shell, tmp_path)
    assert done.returncode == 0
    assert done.stdout.count("\n") == {"2>&-": 5001, "2>/dev/full": 5001, "| head -n 1": 1}.get(shell, 0)
    assert done.stderr == ("" if "2>" in shell else "noted\nwarning: warned\n")


def test_a_full_disk_behind_stdout_is_one_line(tmp_path: Path) -> None:
    done = run_in(">/dev/full", tmp_path)
    assert done.returncode == 2
    line = "error: standard output: cannot be written: no space left on device"
    assert done.stderr == f"noted\nwarning: warned\n{line}\n"


@pytest.mark.parametrize(
    ("encoding", "shown"), [("utf-8", "αł"), ("cp1252", r"\u03b1\u0142"), ("ascii", r"\u03b1\u0142")]
)
def test_letters_that_an_encoding_lacks_are_escaped(tmp_path: Path, encoding: str, shown: str) -> None:
    done = run_in("| head -n 1", tmp_path, "αł", PYTHONIOENCODING=encoding)
    assert done.stdout == f"{shown}\n"


def test_a_closed_stream_s_number_goes_to_no_other_file(tmp_path: Path) -> None:
    code = "import os\nfrom refineloc.runtime.cli.streams import prepare_streams\nprepare_streams()\n"
    code += "opened = os.open('f', os.O_CREAT | os.O_WRONLY)\nassert opened > 2\nprint('text')\n"
    subprocess.run(["bash", "-c", '"$@" >&- 2>&-', "bash", sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert (tmp_path / "f").read_bytes() == b""


def test_a_label_is_text_to_the_terminal(tmp_path: Path) -> None:
    """No markup of rich's, no emoji, and no letters that steer it."""
    labels = {label: label for label in ("jump", "[jump]", "[/x]", ":smile:", "[red]x[/red]")} | {"\x1b[2J": "\\x1b[2J"}
    rows = [f"v,0,1,{label}" for label in labels]
    (tmp_path / "t.csv").write_text("\n".join(["video-name,t-start,t-end,label", *rows]))
    (tmp_path / "d.csv").write_text("\n".join(["video-name,t-start,t-end,label,score", *(f"{row},1" for row in rows)]))
    code, shown = programs.on_terminal("refineloc-eval", "d.csv", "t.csv", "--per-class", cwd=tmp_path)
    assert code == 0
    for label in labels.values():
        assert f" {label} " in shown
    assert "\x1b[2J" not in shown


def test_what_steers_a_terminal_is_escaped_in_messages(capsys: pytest.CaptureFixture[str]) -> None:
    assert visible("a\x1b[2Jb\x07c\x9b\td\n") == "a\\x1b[2Jb\\x07c\\x9b\td\n"
    with pytest.raises(SystemExit):
        fail("\x1b[2J.csv: no such file")
    assert capsys.readouterr().err == "error: \\x1b[2J.csv: no such file\n"
