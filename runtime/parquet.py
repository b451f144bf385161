"""Parquet, through pyarrow: tables that are written a part at a time, and read whole."""

import contextlib
import io
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from refineloc.runtime.errors import InputError, MissingExtraError, first_line
from refineloc.runtime.files import atomic_path, read_content

__all__ = ["read_columns", "writing_rows"]

_ROWS = 2**17  # of a group: a reader takes whole ones


@contextlib.contextmanager
def writing_rows(
    path: str | os.PathLike[str], columns: Mapping[str, str]
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Give a function that takes rows, as a list or array of each column; the file is there when the block ends well.

    Args:
        path: of the file.
        columns: their types ("string", "float64", "int64") by name.

    Raises:
        OutputError: the file cannot be written.
        MissingExtraError: pyarrow is not installed.
    """
    pyarrow, parquet = _pyarrow(path)
    schema = pyarrow.schema([(name, getattr(pyarrow, kind)()) for name, kind in columns.items()])
    waiting: list[Any] = []
    with atomic_path(path) as aside, parquet.ParquetWriter(aside, schema) as writer:

        def write(least: int) -> None:
            if waiting and sum(map(len, waiting)) >= least:
                writer.write_table(pyarrow.concat_tables(waiting))
                waiting.clear()

        def take(rows: Mapping[str, Any]) -> None:
            waiting.append(pyarrow.table(dict(rows), schema=schema))
            write(_ROWS)

        yield take
        write(0)


def read_columns(path: Path, columns: Mapping[str, str], error: type[InputError], hint: str) -> dict[str, Any]:
    """The columns of a file, as lists of texts and as arrays of numbers.

    Args:
        path: of the file.
        columns: those that are read, as in `writing_rows`; numbers of other widths are taken, missing values are not.
        error: of a file that is missing, damaged or lacks a column.
        hint: what to give instead, for the message.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    pyarrow, parquet = _pyarrow(path)
    content = read_content(path, error, hint)
    try:
        file = parquet.ParquetFile(io.BytesIO(content))
        missing = [name for name in columns if name not in file.schema_arrow.names]
        if missing:
            raise error(f"{path}: lacks the column {missing[0]!r}; {hint}")
        table = file.read(columns=list(columns))
        values = {}
        for name, kind in columns.items():
            column = table[name].cast(getattr(pyarrow, kind)())
            if column.null_count:
                raise error(f"{path}: column {name!r}: {column.null_count} values are missing; {hint}")
            values[name] = column.to_pylist() if kind == "string" else column.to_numpy()
    except (pyarrow.ArrowException, OSError) as problem:
        raise error(f"{path}: cannot be read as Parquet ({first_line(problem)}); {hint}") from problem
    return values


def _pyarrow(path: str | os.PathLike[str]) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(f"{path}: Parquet needs pyarrow: pip install 'refineloc[formats]'") from error
    return pyarrow, pyarrow.parquet
