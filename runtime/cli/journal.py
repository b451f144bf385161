"""Detections written as they come, so that a killed run can go on: `OUT.partial`, beside the output.

A text file. The first line says what the run was given; each later line holds the videos of one call of the model, with
their detections. A line that a kill cut short is dropped, so a run goes on with the first video of a call. Whatever
else is not as it was written is an error: a run that goes on adds to it for hours.
"""

import contextlib
import fcntl
import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

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

    One that holds no video is removed, whatever ends the run: there is nothing to go on with. One that holds videos
    stays for the next run, after a kill, an interruption and an error alike.

    Args:
        out: the output that it lies beside.
        given: what the run was given, texts by name; a run with other values cannot go on from it.
        classes: how many classes the model has.
        resume: go on from a journal that is there.

    Attributes:
        path: the journal.
        names: the videos that it has, in order.
        count: how many detections they have.

    Raises:
        InputError: a journal is there and `resume` is not asked for; or it is of a run that was given something else,
            is being written by another run, or is damaged.
        OutputError: it cannot be written.
    """

    def __init__(
        self, out: str | os.PathLike[str], given: Mapping[str, str], *, classes: int, resume: bool = False
    ) -> None:
        self.path = journal_path(out)
        self.names: list[str] = []
        self.count = 0
        self._given = dict(given)
        self._classes = classes
        with self._writing():
            # Nothing is cut before the lock is held.
            self._file: IO[bytes] = open(self.path, "a+b")  # noqa: SIM115 (closed by __exit__)
        try:
            self._lock()
            with self._writing():
                size = os.fstat(self._file.fileno()).st_size
            if size and not resume:
                raise InputError(
                    f"{self.path}: is there from a run that did not end; --resume goes on with it, "
                    "remove it to begin anew"
                )
            end = self._read_names() if size else 0
            with self._writing():
                self._file.truncate(end)
                if not end:
                    self._begin()
        except BaseException:
            with contextlib.suppress(OSError):
                self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not self.names:
            self.remove()
        with contextlib.suppress(OSError):  # a full disk, which was already told
            self._file.close()

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
        for _, line, _ in itertools.islice(self._lines(), 1, None):
            for name, *columns, label_index in line:
                start, end, score = (np.array(column, dtype=np.float64) for column in columns)
                labels = np.array(label_index, dtype=np.int64)
                yield name, Detections(start, end, score, labels, classes, provider)

    def remove(self) -> None:
        """The output is whole: the journal is not needed any more."""
        self.path.unlink(missing_ok=True)

    def _lock(self) -> None:
        """Hold the file for this process: two runs would write their lines into each other's."""
        busy = InputError(f"{self.path}: another run is writing it; wait for that, or give another output")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            same = os.fstat(self._file.fileno()).st_ino == os.stat(self.path).st_ino
        except BlockingIOError:
            raise busy from None
        except FileNotFoundError:
            same = False
        except OSError:  # a file system without locks: then the user has to see to it
            return
        if not same:  # the other run ended, and removed it, just now
            raise busy

    def _begin(self) -> None:
        try:
            self._write(self._given)
        except OSError:
            self.remove()
            raise

    def _read_names(self) -> int:
        """The videos of an earlier run, and the place after the last line that is whole."""
        end = 0
        known: set[str] = set()
        for number, value, end in self._lines():  # noqa: B007 (the last place is the result)
            if number == 0:
                self._check_head(value)
                continue
            if not self._is_good(value, known):
                raise self._damaged(number)
            self.names += [name for name, *_ in value]
            self.count += sum(len(start) for _, start, *_ in value)
        return end

    def _check_head(self, head: Any) -> None:
        if not isinstance(head, dict):
            raise self._damaged(0)
        for key in self._given:
            if head.get(key) != self._given[key]:
                raise InputError(
                    f"{self.path}: is of a run that was given something else ({key}); remove it to begin anew"
                )

    def _is_good(self, line: Any, known: set[str]) -> bool:
        """Whether a line is as `add` writes it; its names go to the known ones, of which none comes twice."""
        if not isinstance(line, list) or not line:
            return False
        for video in line:
            if not isinstance(video, list) or len(video) != 1 + len(_COLUMNS):
                return False
            name, *columns = video
            if not isinstance(name, str) or name in known:
                return False
            known.add(name)
            if not all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns):
                return False
            # Not isinstance: true and false are ints to it.
            *times_and_scores, labels = columns
            if not all(type(one) is float and math.isfinite(one) for column in times_and_scores for one in column):
                return False
            if not all(type(one) is int and 0 <= one < self._classes for one in labels):
                return False
        return True

    def _damaged(self, number: int) -> InputError:
        return InputError(f"{self.path}: line {number + 1} is damaged; remove it to begin anew")

    def _lines(self) -> Iterator[tuple[int, Any, int]]:
        """The lines that are whole: number from 0, what it holds, and the place after it."""
        end = 0
        with open(self.path, "rb") as file:
            for number, line in enumerate(file):
                if not line.endswith(b"\n"):
                    return
                end += len(line)
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise self._damaged(number) from error
                yield number, value, end

    def _write(self, value: object) -> None:
        self._file.write(json.dumps(value, allow_nan=False).encode() + b"\n")
        self._file.flush()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written: {(error.strerror or str(error)).lower()}") from error
