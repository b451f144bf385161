"""The journal of a run of refineloc-detect, `OUT.partial` beside the output, from which a killed run can resume.

A text file. The first line states the run's inputs and settings. Each later line holds the videos of one call of the
model, with their detections. A last line that a kill cut short is dropped, so a run resumes with the first video of a
call. Any other damage is an error, so that hours of work are not added to a damaged file.
"""

import contextlib
import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self

import numpy as np

from refineloc.runtime.detections import Detections
from refineloc.runtime.errors import InputError
from refineloc.runtime.files import writing
from refineloc.runtime.locks import try_lock

__all__ = ["Journal", "journal_path"]

_COLUMNS = ("start", "end", "score", "label_index")


def journal_path(out: str | os.PathLike[str]) -> Path:
    """The path of the journal of an output."""
    return Path(out).with_name(Path(out).name + ".partial")


class Journal:
    """The journal of one run; a context manager.

    After an error or an interruption, a journal that holds videos stays for the next run. One without videos is
    removed.

    Args:
        out: the output of the run.
        inputs: inputs and settings of the run, texts by name; a run with other values cannot resume from this journal.
        classes: number of classes of the model.
        resume: read a journal that exists, and add to it.

    Attributes:
        path: of the journal.
        names: the videos in it, in order.
        count: number of their detections.

    Raises:
        InputError: a journal exists and `resume` is False; or it is of a run with other inputs or settings, is in use
            by another run, or is damaged.
        OutputError: it cannot be written.
    """

    def __init__(
        self, out: str | os.PathLike[str], inputs: Mapping[str, str], *, classes: int, resume: bool = False
    ) -> None:
        self.path = journal_path(out)
        self.names: list[str] = []
        self.count = 0
        self._inputs = dict(inputs)
        self._classes = classes
        with writing(self.path):
            # Appending, as nothing may be cut before the lock is held.
            self._file: IO[bytes] = open(self.path, "a+b")  # noqa: SIM115 (closed by __exit__)
        try:
            self._lock()
            with writing(self.path):
                size = os.fstat(self._file.fileno()).st_size
            if size and not resume:
                raise InputError(
                    f"{self.path}: is there from a run that did not end; --resume goes on with it, "
                    "remove it to begin anew"
                )
            end = self._read_names() if size else 0
            with writing(self.path):
                self._file.truncate(end)
                if not end:
                    self._begin()
        except BaseException:
            with contextlib.suppress(OSError):
                self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is not None and not self.names:
            self.remove()
        with contextlib.suppress(OSError):  # a full disk: an error was raised already
            self._file.close()

    def add(self, batch: Sequence[tuple[str, Detections]]) -> None:
        """Write the videos of one call of the model.

        Raises:
            OutputError: the file cannot be written, such as on a full disk.
        """
        with writing(self.path):
            self._write([[name, *(getattr(video, key).tolist() for key in _COLUMNS)] for name, video in batch])
        self.names += [name for name, _ in batch]
        self.count += sum(len(video) for _, video in batch)

    def read(self, classes: tuple[str, ...], provider: str) -> Iterator[tuple[str, Detections]]:
        """All videos so far with their detections; one line of the file is in memory at a time.

        Args:
            classes: class names of the model.
            provider: the execution provider that computed them.
        """
        for _, line, _ in itertools.islice(self._lines(), 1, None):
            for name, *columns, label_index in line:
                start, end, score = (np.array(column, dtype=np.float64) for column in columns)
                labels = np.array(label_index, dtype=np.int64)
                yield name, Detections(start, end, score, labels, classes, provider)

    def remove(self) -> None:
        """Delete the journal, once the output is written."""
        self.path.unlink(missing_ok=True)

    def _lock(self) -> None:
        """Lock the file for this process, as two runs must not write to it."""
        busy = InputError(f"{self.path}: another run is writing it; wait for that, or give another output")
        if not try_lock(self._file.fileno()):
            raise busy
        try:
            same = os.path.samestat(os.fstat(self._file.fileno()), os.stat(self.path))
        except FileNotFoundError:
            same = False
        if not same:  # the other run has just ended and removed it
            raise busy

    def _begin(self) -> None:
        try:
            self._write(self._inputs)
        except OSError:
            self.remove()
            raise

    def _read_names(self) -> int:
        """Read the videos of an earlier run; gives the offset after the last complete line."""
        end = 0
        known: set[str] = set()
        for number, value, end in self._lines():  # noqa: B007 (the last offset is the result)
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
        for key in self._inputs:
            if head.get(key) != self._inputs[key]:
                raise InputError(
                    f"{self.path}: is of a run that was given something else ({key}); remove it to begin anew"
                )

    def _is_good(self, line: Any, known: set[str]) -> bool:
        """Whether a line has the form that `add` writes, with new names; they are added to `known`."""
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
            # Not isinstance, to which true and false are integers.
            *times_and_scores, labels = columns
            if not all(
                type(value) is float and math.isfinite(value) for column in times_and_scores for value in column
            ):
                return False
            if not all(type(label) is int and 0 <= label < self._classes for label in labels):
                return False
        return True

    def _damaged(self, number: int) -> InputError:
        return InputError(f"{self.path}: line {number + 1} is damaged; remove it to begin anew")

    def _lines(self) -> Iterator[tuple[int, Any, int]]:
        """The complete lines: number from 0, value, and offset of the end."""
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
