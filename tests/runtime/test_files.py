"""Outputs appear whole or not at all."""

import os
import resource
import signal
import socket
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from refineloc.runtime.errors import InputError, OutputError
from refineloc.runtime.files import (
    atomic_path,
    atomic_write,
    check_writable,
    is_stdout,
    is_stream,
    make_folder,
    output_ending,
)


def test_the_file_appears_when_the_block_ends_well(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    with atomic_write(target) as handle:
        handle.write("new")
        handle.flush()
        assert not target.exists()
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_an_error_keeps_the_earlier_file_and_leaves_no_other(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_write(target) as handle:  # noqa: PT012
        handle.write("half")
        _ = 1 / 0
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with atomic_write(tmp_path / "out.txt") as handle:
            handle.write("x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out.txt").stat().st_mode) == 0o644


def test_errors_of_reading_inside_the_block_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "out.bin"):
        (tmp_path / "absent").read_bytes()


@pytest.mark.parametrize("name", ["absent/out.json", "/proc/out.json"])
def test_places_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    with pytest.raises(OutputError, match="cannot be written"):
        check_writable(target)
    with pytest.raises(OutputError, match="cannot be written"), atomic_write(target) as handle:
        handle.write("x")


def test_the_longest_name_of_a_file_can_be_written(tmp_path: Path) -> None:
    for name in ("x" * 250 + ".json", "x" * 251 + ".srt", ".json", "x." + "y" * 253, "跳" * 84 + ".a"):
        check_writable(tmp_path / name)
        with atomic_path(tmp_path / name) as aside:
            assert len(os.fsencode(aside.name)) < 80
            aside.write_text("x")
        assert (tmp_path / name).read_text() == "x"
    for name in ("x" * 256, "x" * 300 + ".json", "a\0b"):
        for action in (check_writable, lambda path: atomic_path(path).__enter__()):
            with pytest.raises(
                OutputError, match=r"cannot be written: file name too long|cannot be the name of a file"
            ):
                action(tmp_path / name)
    assert len(list(tmp_path.iterdir())) == 5


def test_check_writable_leaves_nothing_and_knows_endings(tmp_path: Path) -> None:
    check_writable(tmp_path / "out.json", suffixes=(".json",))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match=r"ends in \.json"):
        check_writable(tmp_path / "out.txt", suffixes=(".json",))
    with pytest.raises(OutputError, match="is a folder"):
        check_writable(tmp_path)


def test_a_full_disk_is_one_error_and_leaves_nothing(tmp_path: Path) -> None:
    # A limit on the size of files stands for the full disk: the write fails part of the way.
    code = (
        "import sys\n"
        "from refineloc.runtime.errors import OutputError\n"
        "from refineloc.runtime.files import atomic_write\n"
        "try:\n"
        "    with atomic_write(sys.argv[1]) as handle: handle.write('x' * 1_000_000)\n"
        "except OutputError as error: print(error)\n"
    )

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    target = tmp_path / "out.txt"
    done = subprocess.run(
        [sys.executable, "-c", code, str(target)], capture_output=True, text=True, check=True, preexec_fn=limit
    )
    assert done.stdout.strip() == f"{target}: cannot be written: file too large"
    assert list(tmp_path.iterdir()) == []


def test_folders_are_made_with_their_parents_or_are_one_line(tmp_path: Path) -> None:
    assert make_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert make_folder(str(tmp_path / "a" / "b")).is_dir()
    (tmp_path / "file").touch()
    for path, parents in ((tmp_path / "file", True), (tmp_path / "file" / "c", True), (tmp_path / "no" / "c", False)):
        with pytest.raises(OutputError, match=r"(file|c): cannot be made a folder: [a-z ]+$") as caught:
            make_folder(path, parents=parents)
        assert str(caught.value).startswith(str(path))


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    for name, target in (("link", "other/there"), ("broken", "other/absent"), ("second", "link")):
        (tmp_path / name).symlink_to(target)
    (tmp_path / "other" / "there").write_text("old")
    for name in ("link", "broken", "second"):
        check_writable(tmp_path / name)
        with atomic_write(tmp_path / name) as handle:
            handle.write(name)
        assert (tmp_path / name).is_symlink()
    assert (tmp_path / "other" / "there").read_text() == "second"
    assert (tmp_path / "other" / "absent").read_text() == "broken"
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(OutputError, match="too many levels of symbolic links"):
        check_writable(tmp_path / "round")


def test_a_file_keeps_its_mode_and_owner(tmp_path: Path) -> None:
    target = tmp_path / "secret.txt"
    target.touch(mode=0o600)
    if not os.getuid():
        os.chown(target, 12345, 23456)
    before = target.stat()
    with atomic_write(target) as handle:
        handle.write("x")
    after = target.stat()
    assert after.st_ino != before.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def test_a_pipe_is_written_and_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    check_writable(tmp_path / "pipe.json", suffixes=(".json",))
    with ThreadPoolExecutor() as pool:
        read = pool.submit((tmp_path / "pipe.json").read_text)
        with atomic_write(tmp_path / "pipe.json") as handle:
            handle.write("x" * 1_000_000)
        assert read.result() == "x" * 1_000_000
    assert list(tmp_path.iterdir()) == [tmp_path / "pipe.json"]
    assert (tmp_path / "pipe.json").is_fifo()


def test_an_error_writes_nothing_to_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / "pipe") as handle:  # noqa: PT012
        handle.write("half")
        _ = 1 / 0
    assert os.read(reader, 9) == b""
    os.close(reader)


def test_a_pipe_that_nobody_reads_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refineloc.runtime.files._WAIT_S", 0.0)
    os.mkfifo(tmp_path / "pipe")
    with (
        pytest.raises(OutputError, match="pipe: cannot be written: no program reads this pipe"),
        atomic_write(tmp_path / "pipe") as handle,
    ):
        handle.write("x")
    assert (tmp_path / "pipe").is_fifo()


def test_a_device_is_written_and_not_replaced(tmp_path: Path) -> None:
    full = tmp_path / "full"
    try:
        os.mknod(full, 0o666 | stat.S_IFCHR, os.makedev(1, 7))
        os.mknod(tmp_path / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        os.mknod(tmp_path / "disk", 0o666 | stat.S_IFBLK, os.makedev(7, 200))
        (tmp_path / "null").write_text("")
    except PermissionError:
        pytest.skip("only root makes devices")
    check_writable(tmp_path / "null")
    with atomic_write(tmp_path / "null") as handle:
        handle.write("x")
    with (
        pytest.raises(OutputError, match="full: cannot be written: no space left on device"),
        atomic_write(full) as handle,
    ):
        handle.write("x")
    with pytest.raises(OutputError, match="disk: is a disk; give the name of a file"):
        check_writable(tmp_path / "disk")
    assert all(stat.S_ISCHR((tmp_path / name).stat().st_mode) for name in ("null", "full"))


def test_a_socket_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        with pytest.raises(OutputError, match="s: is a socket; give the name of a file"):
            check_writable(tmp_path / "s")


WRITE = """
import sys
from refineloc.runtime.errors import OutputError
from refineloc.runtime.files import atomic_write, check_writable
print("printed")
try:
    check_writable(sys.argv[1], (".json",))
    with atomic_write(sys.argv[1]) as handle: handle.write("written\\n")
except OutputError as error: print(error, file=sys.stderr)
"""


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_is_added_to_where_the_shell_sent_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "log").write_text("before\n")
    with (tmp_path / "log").open("a") as log:
        subprocess.run([sys.executable, "-c", WRITE, name], stdout=log, check=True)
    assert (tmp_path / "log").read_text() == "before\nprinted\nwritten\n"
    assert list(tmp_path.iterdir()) == [tmp_path / "log"]


def test_a_descriptor_that_cannot_be_written_is_refused_before_the_work() -> None:
    with open(os.devnull) as null:
        code = WRITE.replace('print("printed")', "")
        done = subprocess.run([sys.executable, "-c", code, "-"], stdout=null, stderr=subprocess.PIPE, text=True)
    assert done.stderr == "-: cannot be written: bad file descriptor\n"


@pytest.mark.parametrize(
    ("name", "ending"), [("a.csv", ".csv"), ("a.JSON", ".json"), ("-", ".json"), ("/dev/stdout", ".json")]
)
def test_the_ending_says_the_format_and_a_stream_has_the_first(name: str, ending: str) -> None:
    assert output_ending(name, (".json", ".csv")) == ending


def test_which_outputs_are_streams(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    (tmp_path / "1").touch()
    (tmp_path / "link").symlink_to("/dev/stdout")
    streams = ["-", "/dev/stdout", "/dev/fd/2", tmp_path / "pipe", tmp_path / "link"]
    assert [is_stream(path) for path in streams] == [True] * 5
    assert [is_stdout(path) for path in streams] == [True, True, False, False, True]
    assert not any(is_stream(tmp_path / name) for name in ("file", "1", "absent", "absent/absent"))


def test_a_descriptor_that_is_not_open_is_one_line() -> None:
    for name in ("/dev/fd/999", "/dev/fd/99999999999999999999"):
        with pytest.raises(OutputError, match="cannot be written"):
            check_writable(name)
