"""Files: outputs that appear whole or not at all (written aside, flushed, then renamed), and text inputs."""

import contextlib
import csv
import io
import json
import math
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Literal

from refineloc.runtime.errors import InputError, OutputError, RefineLocError

__all__ = [
    "atomic_path",
    "atomic_write",
    "check_writable",
    "csv_rows",
    "csv_writer",
    "finite_number",
    "is_text",
    "make_folder",
    "parse_json",
    "read_text",
    "writing",
]

_TEMPORARY = ".refineloc-"  # and eight characters of mkstemp's
_SUFFIX = 12  # the longest suffix that a temporary file keeps; longer ones are no file type


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`. The file written there is renamed to `path` when the block ends well.

    On any error the temporary file is removed and an earlier `path` stays as it was. The temporary file has the suffix
    of `path`, for writers that choose a format by it.

    Raises:
        OutputError: the folder is missing or cannot be written, or the disk is full.
    """
    target = Path(path)
    aside = _temporary(target)
    try:
        yield aside
        _flush(aside)
        aside.chmod(0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        aside.replace(target)
    except OSError as error:
        # An error of another file, such as an input that the block reads, keeps its type and message.
        if isinstance(error, OutputError) or (error.filename and Path(str(error.filename)) != aside):
            raise
        raise OutputError(f"{target}: cannot be written: {_reason(error)}") from error
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """Open a temporary file that is renamed to `path` when the block ends well (see `atomic_path`)."""
    encoding, newline = ("utf-8", "") if mode == "w" else (None, None)  # "": the same bytes on every system
    with atomic_path(path) as aside, aside.open(mode, encoding=encoding, newline=newline) as handle:
        yield handle


def check_writable(path: str | os.PathLike[str], suffixes: tuple[str, ...] = ()) -> None:
    """Check before hours of work that an output can be written.

    Raises:
        InputError: another ending than `suffixes`, if there are any.
        OutputError: the folder is missing or cannot be written.
    """
    target = Path(path)
    if suffixes and target.suffix.lower() not in suffixes:
        raise InputError(f"{target}: expected an output name that ends in {', '.join(suffixes)}")
    _temporary(target).unlink()


def make_folder(path: str | os.PathLike[str], *, parents: bool = True) -> Path:
    """Make a folder, and with `parents` those that it lies in, where there is none yet.

    Raises:
        OutputError: it cannot be made, or a file has its name.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=parents, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made a folder: {_reason(error)}") from error
    return folder


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an OSError of the block into an OutputError that names `path`."""
    try:
        yield
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{path}: cannot be written: {_reason(error)}") from error


def read_text(path: str | os.PathLike[str], error: type[RefineLocError], hint: str) -> str:
    """The text of a UTF-8 file, with its line ends as they are: quoted texts of a CSV keep theirs.

    Raises:
        RefineLocError: of the type `error`: the file is missing (the message ends with `hint`) or cannot be read.
    """
    source = Path(path)
    try:
        return source.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise error(f"{source}: no such file; {hint}") from None
    except (OSError, UnicodeDecodeError) as problem:
        raise error(f"{source}: cannot be read as text: {problem}") from problem


def csv_rows(
    text: str, columns: tuple[str, ...], source: Path, error: type[InputError]
) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a CSV with a header: where each is ("FILE: line N"), and its texts by column.

    Raises:
        InputError: of the type `error`: one of `columns` is missing, or a row has another length or is not CSV.
    """
    # Not text.splitlines(), which splits at U+2028, form feeds and the line ends inside quotes, too.
    rows = csv.reader(io.StringIO(text, newline=""))
    try:
        header = [name.strip() for name in next(rows, [])]
        if not set(columns) <= set(header):
            got = ",".join(header) or "an empty file"
            raise error(f"{source}: expected a header with the columns {', '.join(columns)}, got {got}")
        for row in rows:
            where = f"{source}: line {rows.line_num}"
            if row and len(row) != len(header):
                raise error(f"{where}: expected {len(header)} columns, got {len(row)}")
            if row:
                yield where, dict(zip(header, row, strict=True))
    except csv.Error as problem:
        raise error(f"{source}: line {rows.line_num}: not a CSV: {problem}") from problem


def parse_json(text: str, where: str, error: type[InputError]) -> Any:
    """The value of a JSON text; what is wrong with it is an error of the type `error` that begins with `where`."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise error(f"{where}: not valid JSON: {problem}") from problem


def finite_number(value: Any, where: str, error: type[InputError]) -> float:
    """A finite number, or the text of one; else an error of the type `error` that begins with `where`."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise error(f"{where}: expected a number, got {value!r:.60}") from None
    if not math.isfinite(number):
        raise error(f"{where}: expected a finite number, got {value!r}")
    return number


def csv_writer(handle: IO[str], texts: Iterable[str]) -> Any:
    """A writer of CSV rows that hold these texts, so that every reader of CSV gets them back unchanged.

    Everything is quoted if a text has a carriage return: Python would not quote it, and readers take it for a line end.
    """
    ends = any("\r" in text for text in texts)
    return csv.writer(handle, lineterminator="\n", quoting=csv.QUOTE_ALL if ends else csv.QUOTE_MINIMAL)


def is_text(value: str) -> bool:
    """Whether UTF-8 can encode it. Half a character (a lone surrogate), which JSON escapes can state, it cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _temporary(target: Path) -> Path:
    """A new file beside `target`. Its name is short however long the name of the target is."""
    try:
        if stat.S_ISDIR(target.stat().st_mode):
            raise OutputError(f"{target}: is a folder; give the name of a file to write")
    except FileNotFoundError:
        pass
    except OSError as error:  # such as a name that is too long
        raise OutputError(f"{target}: cannot be written: {_reason(error)}") from error
    except ValueError:
        raise OutputError(f"{str(target)!r}: cannot be the name of a file") from None
    suffix = target.suffix if len(target.suffix) <= _SUFFIX else ""
    with writing(target):
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=_TEMPORARY, suffix=suffix)
    os.close(descriptor)
    return Path(name)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)  # Windows flushes only what is open for writing
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
