"""Inputs that are no plain files, or that the system refuses: one line, or the right text."""

import contextlib
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from refineloc.runtime import AnnotationError, FeatureError, open_features, read_annotations, read_detections
from refineloc.runtime.files import is_file, is_folder, status_of
from refineloc.runtime.text import read_text

LABELS = "video-name,t-start,t-end,label\nv,0,1,jump\n"
DETECTIONS = {
    "json": '{"results": {"v": [{"label": "jump", "score": 0.5, "segment": [0, 1]}]}}',
    "jsonl": '{"video": "v", "detections": [{"label": "jump", "score": 0.5, "segment": [0, 1]}]}\n',
    "csv": "video-name,t-start,t-end,label,score\nv,0,1,jump,0.5\n",
}


def text_of(path: object) -> str:
    return read_text(str(path), AnnotationError, "give labels")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody may enter the folder; root, who always may, is somebody else meanwhile."""
    folder.chmod(0)
    root = not os.geteuid()
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o700)


def test_names_that_the_system_refuses_are_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    for name, reason in (("x" * 300, "cannot be read: file name too long"), ("a\0b", "cannot be the name of a file")):
        for action in (text_of, lambda path: status_of(path, AnnotationError), read_annotations):
            with pytest.raises(AnnotationError, match=reason):
                action(tmp_path / name)
        with pytest.raises(FeatureError, match=reason):
            open_features(tmp_path / name)
    with locked(folder):
        for action in (text_of, read_annotations, open_features):
            with pytest.raises((AnnotationError, FeatureError), match="locked/x: cannot be read: permission denied"):
                action(folder / "x")


def test_what_an_input_is(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for name, kinds in {
        "file": (True, False),
        ".": (False, True),
        "pipe": (False, False),
        "no": (False, False),
    }.items():
        assert (is_file(tmp_path / name, FeatureError), is_folder(tmp_path / name, FeatureError)) == kinds
    assert status_of(tmp_path / "no", FeatureError) is None
    assert status_of(tmp_path / "file" / "no", FeatureError) is None
    with pytest.raises(AnnotationError, match="is a folder; give labels"):
        text_of(tmp_path)


@pytest.mark.parametrize("size", [5, 1_000_000])
def test_a_pipe_is_read_to_its_end(tmp_path: Path, size: int) -> None:
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor() as pool:
        written = pool.submit((tmp_path / "pipe").write_text, "x" * size)
        assert text_of(tmp_path / "pipe") == "x" * size
        written.result()


def test_a_writer_may_be_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts is that there is one: its first bytes may come when we wait for no more writers."""
    os.mkfifo(tmp_path / "pipe")
    writer = os.open(tmp_path / "pipe", os.O_RDWR)
    with ThreadPoolExecutor() as pool:
        read = pool.submit(text_of, tmp_path / "pipe")
        with pytest.raises(TimeoutError):
            read.result(timeout=0.05)
        os.write(writer, b"late")
        os.close(writer)
        assert read.result() == "late"


def test_a_pipe_that_nobody_writes_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refineloc.runtime.files._WAIT_S", 0.05)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(AnnotationError, match="pipe: cannot be read: no program writes this pipe"):
        text_of(tmp_path / "pipe")


def test_devices_are_refused_but_for_the_empty_one(tmp_path: Path) -> None:
    try:
        os.mknod(tmp_path / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        os.mknod(tmp_path / "zero", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
        assert text_of(tmp_path / "null") == ""
    except PermissionError:
        pytest.skip("only root makes devices")
    with pytest.raises(AnnotationError, match="zero: cannot be read: is a device; give a file or a pipe"):
        text_of(tmp_path / "zero")


def in_shell(code: str, line: str, cwd: Path) -> str:
    """What Python prints, called as `line` of bash says."""
    command = ["bash", "-c", line, "bash", sys.executable, "-c", code]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "line", ['"$@" <(cat t.csv)', 'cat t.csv | "$@" -', '"$@" /dev/stdin < t.csv', '"$@" - < t.csv']
)
def test_what_a_shell_makes_of_commands(tmp_path: Path, line: str) -> None:
    (tmp_path / "t.csv").write_text(LABELS)
    code = "import sys; from refineloc.runtime import read_annotations; print(*read_annotations(sys.argv[1]).classes)"
    assert in_shell(code, line, tmp_path) == "jump\n"


ENDLESS = """
import sys
from refineloc.runtime import AnnotationError, files, read_annotations
files._MAX_STREAM = 10**6
try: read_annotations(sys.argv[1])
except AnnotationError as error: print(error)
"""


def test_an_endless_pipe_is_one_line(tmp_path: Path) -> None:
    assert "cannot be read: gives more than 1 GiB" in in_shell(ENDLESS, '"$@" <(yes)', tmp_path)


@pytest.mark.parametrize("kind", DETECTIONS)
def test_a_name_without_an_ending_leaves_the_format_to_the_content(tmp_path: Path, kind: str) -> None:
    (tmp_path / "named").write_text(DETECTIONS[kind])
    assert [tuple(found) for found in read_detections(tmp_path / "named")["v"]] == [(0.0, 1.0, "jump", 0.5)]


def test_bytes_that_are_no_text_are_named_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbfvideo-name,label\nv,jump\nw,hu\xfcpfen\n")
    with pytest.raises(AnnotationError, match=r"t\.csv: line 3: cannot be read as text: not UTF-8 \(byte 0xfc\)"):
        read_annotations(tmp_path / "t.csv")
