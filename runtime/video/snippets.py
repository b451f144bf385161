"""Frames or samples on a constant grid -> the windows that a backbone takes, one a snippet."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Windows", "snippet_count", "windows_of"]


def snippet_count(steps: int, window: int, stride: int) -> int:
    """Snippets of a film of `steps` frames (or samples) on its grid: T, at least 1 where there is any frame.

    These are all whole windows, and one more at the end where at least half a stride would be left out; its missing
    frames repeat the last one.
    """
    if steps < 1:
        return 0
    whole = max((steps - window) // stride + 1, 1)
    left = steps - ((whole - 1) * stride + window)
    return whole + (2 * left >= stride and whole * stride < steps)


class Windows:
    """Cuts a running film into windows; keeps one window and what was pushed last.

        windows = Windows(window=16, stride=8)
        for frame in film.frames(rate=25.0):
            for window in windows.push(frame[None]): ...  # [16, H, W, 3]
        for window in windows.finish(): ...

    Args:
        window: frames (or samples) of a snippet.
        stride: from the first frame of a snippet to that of the next.
    """

    def __init__(self, window: int, stride: int) -> None:
        self._window, self._stride = window, stride
        self._parts: list[npt.NDArray[Any]] = []  # what the next window may need, in order
        self._held = 0  # steps in them
        self._skip = 0  # steps before the next window, where the stride is longer than a window
        self._given = 0
        self._steps = 0

    def push(self, steps: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
        """Add frames [k, ...] of any number; gives the windows that are whole now."""
        self._steps += len(steps)
        if self._skip:
            skipped = min(self._skip, len(steps))
            self._skip -= skipped
            steps = steps[skipped:]
        if len(steps):
            self._parts.append(steps)
            self._held += len(steps)
        while self._held >= self._window and not self._skip:
            yield self._take()

    def finish(self) -> Iterator[npt.NDArray[Any]]:
        """End the film; gives the window at the end, if there is one (`snippet_count`)."""
        if self._given < snippet_count(self._steps, self._window, self._stride):
            held = np.concatenate(self._parts)
            last = np.broadcast_to(held[-1:], (self._window - len(held), *held.shape[1:]))
            self._given += 1
            yield np.concatenate([held, last])

    def _take(self) -> npt.NDArray[Any]:
        joined = np.concatenate(self._parts) if len(self._parts) > 1 else self._parts[0]
        window, rest = joined[: self._window], joined[self._stride :]
        self._skip = max(self._stride - len(joined), 0)
        self._parts, self._held = ([rest] if len(rest) else []), len(rest)
        self._given += 1
        return window


def windows_of(parts: Iterable[npt.NDArray[Any]], window: int, stride: int) -> Iterator[npt.NDArray[Any]]:
    """The windows of a whole film, from its frames or samples in parts [k, ...]."""
    windows = Windows(window, stride)
    for part in parts:
        yield from windows.push(part)
    yield from windows.finish()
