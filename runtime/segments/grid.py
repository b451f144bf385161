"""The one place that turns snippets into seconds and back."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from refineloc.runtime.errors import InputError
from refineloc.runtime.scalars import as_number, as_whole

__all__ = ["SnippetGrid"]

# Far outside of what videos and snippets have, and near enough that every time is a finite number of seconds.
_LEAST_FPS, _MOST_FPS = 1e-3, 1e6
_MOST_FRAMES = 2**24


@dataclass(frozen=True, slots=True)
class SnippetGrid:
    """Non-overlapping snippets of H frames over a video.

    Snippet t covers the half-open interval [t * H / fps, (t + 1) * H / fps) of seconds.

    Attributes:
        fps: frames a second of the video the features were made from, 0.001 to 1,000,000.
        snippet_frames: frames a snippet (H), a whole number from 1 to 2^24.
        duration_s: length of the video in seconds where it is known, above 0; segments are clipped to it.

    Raises:
        InputError: a value out of range, or no number.
    """

    fps: float
    snippet_frames: int
    duration_s: float | None = None

    def __post_init__(self) -> None:
        fps, frames = as_number(self.fps), as_whole(self.snippet_frames)
        if fps is None or not _LEAST_FPS <= fps <= _MOST_FPS:
            raise InputError(
                f"fps: expected a positive number of frames a second, {_LEAST_FPS:g} to {_MOST_FPS:,.0f}, "
                f"got {self.fps!r:.40}"
            )
        if frames is None or not 1 <= frames <= _MOST_FRAMES:
            raise InputError(
                f"snippet_frames: expected a whole number of at least 1 frame, got {self.snippet_frames!r:.40}"
            )
        duration = None if self.duration_s is None else as_number(self.duration_s)
        if self.duration_s is not None and not (duration is not None and 0 < duration < math.inf):
            raise InputError(f"duration_s: expected a number of seconds above 0, got {self.duration_s!r:.40}")
        for name, value in (("fps", fps), ("snippet_frames", frames), ("duration_s", duration)):
            object.__setattr__(self, name, value)

    def seconds(
        self, first: npt.NDArray[np.float64 | np.int64], last: npt.NDArray[np.float64 | np.int64]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """The times that the snippets first..last (both included) cover, clipped to the duration.

        Args:
            first, last: snippet indices, or fractions of snippets, shape [n], 0 <= first <= last.

        Returns:
            start and end in seconds, shape [n]: first * H / fps and (last + 1) * H / fps.
        """
        start = np.asarray(first, np.float64) * self.snippet_frames / self.fps
        end = (np.asarray(last, np.float64) + 1) * self.snippet_frames / self.fps
        if self.duration_s is not None:
            start, end = np.minimum(start, self.duration_s), np.minimum(end, self.duration_s)
        return start, end

    def foreground(
        self, start_s: npt.NDArray[np.float64], end_s: npt.NDArray[np.float64], snippets: int
    ) -> npt.NDArray[np.bool_]:
        """Which of `snippets` snippets lie in any of the segments: those with their centre in [start, end).

        Args:
            start_s, end_s: segment bounds in seconds, shape [n]; bounds past the video's end are allowed.
            snippets: T.

        Returns:
            bool, shape [T].
        """
        mask = np.zeros(snippets, dtype=np.bool_)
        # centre (t + 0.5) H / fps >= start  <=>  t >= start fps / H - 0.5, and the same for the end.
        first = np.ceil(np.asarray(start_s) * self.fps / self.snippet_frames - 0.5)
        past = np.ceil(np.asarray(end_s) * self.fps / self.snippet_frames - 0.5)
        for a, b in zip(np.clip(first, 0, snippets), np.clip(past, 0, snippets), strict=True):
            mask[int(a) : int(b)] = True
        return mask
