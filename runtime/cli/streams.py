"""Standard streams that do not end the work: closed, full, without a reader, or of an encoding that lacks letters."""

import contextlib
import errno
import io
import os
import re
import sys
from collections.abc import Iterable
from typing import Any, TextIO

__all__ = ["end_of_output", "prepare_streams", "visible"]


class _Steady:
    """A text stream that keeps its first failure and drops what comes after it.

    Attributes:
        failure: the first error of writing, None so far.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if self.failure is None:
            try:
                self._stream.write(text)
            except OSError as error:
                self._fail(error)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if self.failure is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._fail(error)

    def _fail(self, error: OSError) -> None:
        self.failure = error
        # What is left in the buffer goes nowhere: Python writes it at exit, and would fail again.
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def prepare_streams() -> None:
    """Make stdout and stderr steady, whatever the caller left of them. Letters that they cannot encode are escaped."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller
            _keep_closed(number)
            if number:
                setattr(sys, name, _Steady(open(os.devnull, "w", encoding="utf-8")))  # noqa: SIM115 (until the end)
        elif number and not isinstance(stream, _Steady):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
            setattr(sys, name, _Steady(stream))


def end_of_output() -> OSError | None:
    """Flush stdout; gives why what was printed did not all arrive, None where it did.

    A reader that has ended (head, less) had what it wanted.
    """
    sys.stdout.flush()
    failure = getattr(sys.stdout, "failure", None)
    return None if isinstance(failure, BrokenPipeError) else failure


def visible(text: str) -> str:
    """The text for a terminal: control characters, which could move its cursor or change its title, are escaped."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda letter: f"\\x{ord(letter[0]):02x}", text)


def _keep_closed(number: int) -> None:
    """Take the number of a closed stream: a file that is opened later would get it, and what is printed with it."""
    try:
        os.fstat(number)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        opened = os.open(os.devnull, os.O_RDONLY)  # also for output: writing to the descriptor stays an error
        if opened != number:
            os.dup2(opened, number)
            os.close(opened)
