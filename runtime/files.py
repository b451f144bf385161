"""Outputs appear whole or not at all: written aside, flushed to the disk, then renamed."""

import contextlib
import csv
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Literal

from refineloc.runtime.errors import InputError, OutputError

__all__ = ["atomic_path", "atomic_write", "check_writable", "csv_writer", "is_text", "make_folder"]

_TEMPORARY = ".refineloc-"  # and eight characters of mkstemp's
_SUFFIX = 12  # characters of a suffix that a temporary file keeps; a longer one is no file's type


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`; what was written there becomes `path` when the block ends well.

    On any error the temporary file is removed and an earlier `path` is left as it was. The suffix of `path`
    is kept, for writers that choose a format by it.

    Raises:
        OutputError: the folder is missing or cannot be written, or the disk is full.
    """
    target = Path(path)
    aside = _temporary(target)
    try:
        yield aside
        _flush(aside)
        aside.chmod(0o666 & ~_umask())  # mkstemp makes files that only the owner can read
        aside.replace(target)
    except OSError as error:
        # Errors of reading an input inside the block keep their own type and message.
        if isinstance(error, OutputError) or (error.filename and Path(str(error.filename)) != aside):
            raise
        raise OutputError(f"{target}: cannot be written: {_reason(error)}") from error
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """Open `path` for writing, aside; it takes its name when the block ends well (see `atomic_path`)."""
    encoding = "utf-8" if mode == "w" else None
    with atomic_path(path) as aside, aside.open(mode, encoding=encoding) as handle:
        yield handle


def check_writable(path: str | os.PathLike[str], suffixes: tuple[str, ...] = ()) -> None:
    """Fail before hours of work, not after, when an output cannot be written.

    Args:
        path: the file that will be written.
        suffixes: the endings that its name may have; any if left out.

    Raises:
        InputError: another ending.
        OutputError: the folder is missing or cannot be written.
    """
    target = Path(path)
    if suffixes and target.suffix.lower() not in suffixes:
        raise InputError(f"{target}: expected an output name that ends in {', '.join(suffixes)}")
    _temporary(target).unlink()


def make_folder(path: str | os.PathLike[str], *, parents: bool = True) -> Path:
    """Make a folder where there is none yet.

    Args:
        path: the folder.
        parents: make the folders that it lies in, too.

    Raises:
        OutputError: it cannot be made, or a file has its name.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=parents, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made a folder: {_reason(error)}") from error
    return folder


def csv_writer(handle: IO[str], texts: Iterable[str]) -> Any:
    """A writer of CSV rows that hold these texts, which every reader of CSV gets back as they are.

    Python's quotes a line feed where it stands in a text, and not a carriage return, which ends a row as well.
    """
    ends = any("\r" in text for text in texts)
    return csv.writer(handle, lineterminator="\n", quoting=csv.QUOTE_ALL if ends else csv.QUOTE_MINIMAL)


def is_text(value: str) -> bool:
    """Whether a file can hold it: JSON's escapes and others' arrays can make half a character, which UTF-8 cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _temporary(target: Path) -> Path:
    """A new file beside `target`, which can be written if this one can; its name does not grow with the target's."""
    try:
        if stat.S_ISDIR(target.stat().st_mode):
            raise OutputError(f"{target}: is a folder; give the name of a file to write")
    except FileNotFoundError:
        pass
    except OSError as error:  # such as a name that is too long
        raise OutputError(f"{target}: cannot be written: {_reason(error)}") from error
    except ValueError:
        raise OutputError(f"{str(target)!r}: cannot be the name of a file") from None
    try:
        suffix = target.suffix if len(target.suffix) <= _SUFFIX else ""
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=_TEMPORARY, suffix=suffix)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {_reason(error)}") from error
    os.close(descriptor)
    return Path(name)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
