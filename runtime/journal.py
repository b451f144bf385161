"""Detections written as they come, so that a killed run can go on: `OUT.partial`, beside the output.

A text file. The first line says what the run was given; each later line holds the videos of one call of the model, with
their detections. A line that a kill cut short is dropped, so a run goes on with the first video of a call, packs as it
would have packed, and ends with the same file.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from refineloc.runtime.detections import Detections
from refineloc.runtime.errors import InputError, OutputError

__all__ = ["Journal", "journal_path"]

_COLUMNS = ("start", "end", "score", "label_index")


def journal_path(out: str | os.PathLike[str]) -> Path:
    """Where the journal of an output lies: beside it."""
    return Path(out).with_name(Path(out).name + ".partial")


class Journal:
    """The journal of one run; a context manager.

    Leaving it by an error of the input removes it, as nothing half-written should remain where the run cannot go on.
    Whatever else ends the run (Ctrl-C, a full disk) leaves it for the next one, as a kill does.

    Args:
        out: the output that it lies beside.
        given: what the run was given, texts by name; a run with other values cannot go on from it.
        resume: go on from a journal that is there.

    Attributes:
        path: the journal.
        names: the videos that it has, in order.
        count: how many detections they have.

    Raises:
        InputError: a journal is there and `resume` is not asked for, or it is of a run that was given something else.
        OutputError: it cannot be written.
    """

    def __init__(self, out: str | os.PathLike[str], given: Mapping[str, str], *, resume: bool = False) -> None:
        self.path = journal_path(out)
        self.names: list[str] = []
        self.count = 0
        self._given = dict(given)
        if self.path.exists() and not resume:
            raise InputError(
                f"{self.path}: is there from a run that did not end; --resume goes on with it, remove it to begin anew"
            )
        end = self._read_names() if self.path.exists() else 0
        with self._writing():
            self._file = open(self.path, "r+b" if end else "wb")  # noqa: SIM115 (closed by __exit__)
            self._file.seek(end)
            self._file.truncate()
            if not end:
                self._write(self._given)
        self._begun_here = not end

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # a full disk, which was already told
            self._file.close()
        if isinstance(error, InputError) and self._begun_here:
            self.remove()

    def add(self, batch: Sequence[tuple[str, Detections]]) -> None:
        """Write the videos of one call.

        Raises:
            OutputError: the disk is full, or the like.
        """
        with self._writing():
            self._write([[name, *(getattr(found, key).tolist() for key in _COLUMNS)] for name, found in batch])
        self.names += [name for name, _ in batch]
        self.count += sum(len(found) for _, found in batch)

    def read(self, classes: tuple[str, ...], provider: str) -> Iterator[tuple[str, Detections]]:
        """All videos so far with their detections, read from the file as they are asked for.

        Args:
            classes: of the model, which the class indices count.
            provider: what computed them.
        """
        for line in self._lines():
            for name, *columns, label_index in line:
                start, end, score = (np.array(column, dtype=np.float64) for column in columns)
                labels = np.array(label_index, dtype=np.int64)
                yield name, Detections(start, end, score, labels, classes, provider)

    def remove(self) -> None:
        """The output is whole: the journal is not needed any more."""
        self.path.unlink(missing_ok=True)

    def _read_names(self) -> int:
        """The videos of an earlier run, and the place after the last line that is whole."""
        lines = iter(self._lines(with_head=True))
        head, end = next(lines, (None, 0))
        if not end:  # killed before it had begun
            return 0
        for key in self._given:
            if not isinstance(head, dict) or head.get(key) != self._given[key]:
                raise InputError(
                    f"{self.path}: is of a run that was given something else ({key}); remove it to begin anew"
                )
        for line, end in lines:  # noqa: B007 (the last place is the result)
            self.names += [name for name, *_ in line]
            self.count += sum(len(start) for _, start, *_ in line)
        return end

    def _lines(self, with_head: bool = False) -> Iterator[Any]:
        """The lines that are whole; with the head: pairs of a line and the place after it."""
        end = 0
        with open(self.path, "rb") as file:
            for number, line in enumerate(file):
                if not line.endswith(b"\n"):
                    return
                end += len(line)
                try:
                    value = json.loads(line)
                except ValueError as error:
                    raise InputError(f"{self.path}: line {number + 1} is damaged; remove it to begin anew") from error
                if with_head:
                    yield value, end
                elif number:
                    yield value

    def _write(self, value: object) -> None:
        self._file.write(json.dumps(value, allow_nan=False).encode() + b"\n")
        self._file.flush()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written: {(error.strerror or str(error)).lower()}") from error
