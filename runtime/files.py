"""Outputs appear whole or not at all: written aside, flushed to the disk, then renamed."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal

from refineloc.runtime.errors import InputError, OutputError

__all__ = ["atomic_path", "atomic_write", "check_writable"]


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`; what was written there becomes `path` when the block ends well.

    On any error the temporary file is removed and an earlier `path` is left as it was. The suffix of `path`
    is kept, for writers that choose a format by it.

    Raises:
        OutputError: the folder is missing or cannot be written, or the disk is full.
    """
    target = Path(path)
    if target.is_dir():
        raise OutputError(f"{target}: is a folder; give the name of a file to write")
    try:
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.stem}.", suffix=target.suffix)
        os.close(descriptor)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {_reason(error)}") from error
    aside = Path(name)
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
    if target.is_dir():
        raise OutputError(f"{target}: is a folder; give the name of a file to write")
    try:
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.stem}.")
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {_reason(error)}") from error
    os.close(descriptor)
    os.unlink(name)


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
