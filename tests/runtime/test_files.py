"""Outputs appear whole or not at all."""

import os
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from refineloc.runtime.errors import InputError, OutputError
from refineloc.runtime.files import atomic_path, atomic_write, check_writable, make_folder


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
