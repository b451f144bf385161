"""The one place that turns snippets into seconds and back."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from refineloc._ext import times
from refineloc.runtime.errors import InputError
from refineloc.runtime.scalars import as_number, as_whole

__all__ = ["SnippetGrid"]

# Far outside of what videos and snippets have, and near enough that every time is a finite number of seconds.
_LEAST_FPS, _MOST_FPS = 1e-3, 1e6
_MOST_FRAMES = 2**24


@dataclass(frozen=True, slots=True)
class SnippetGrid:
    """Snippets of H frames over a video, one every S frames.

    The centre of snippet t is (t * S + H / 2) / fps seconds, as in ActionFormer (feat_stride, num_frames). It stands
    for the half-open interval from half a stride before its centre to half a stride after it. Where S is H, that is
    [t * H / fps, (t + 1) * H / fps).

    >>> grid = SnippetGrid(fps=25.0, snippet_frames=16)
    >>> grid.seconds(np.array([0, 10]), np.array([4, 12]))
    (array([0. , 6.4]), array([3.2 , 8.32]))

    Attributes:
        fps: frames a second of the video the features were made from, 0.001 to 1,000,000.
        snippet_frames: the window, frames a snippet (H), a whole number from 1 to 2^24.
        duration_s: length of the video in seconds where it is known, above 0; segments are clipped to it.
        stride_frames: frames from one snippet to the next (S), in the same bounds; H where it is left out.

    Raises:
        InputError: a value out of range, or no number.
    """

    fps: float
    snippet_frames: int
    duration_s: float | None = None
    stride_frames: int | None = None

    def __post_init__(self) -> None:
        fps = as_number(self.fps)
        if fps is None or not _LEAST_FPS <= fps <= _MOST_FPS:
            raise InputError(
                f"fps: expected a positive number of frames a second, {_LEAST_FPS:g} to {_MOST_FPS:,.0f}, "
                f"got {self.fps!r:.40}"
            )
        frames = _frames("snippet_frames", self.snippet_frames)
        stride = frames if self.stride_frames is None else _frames("stride_frames", self.stride_frames)
        duration = None if self.duration_s is None else as_number(self.duration_s)
        if self.duration_s is not None and not (duration is not None and 0 < duration < math.inf):
            raise InputError(f"duration_s: expected a number of seconds above 0, got {self.duration_s!r:.40}")
        values = {"fps": fps, "snippet_frames": frames, "duration_s": duration, "stride_frames": stride}
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def stride(self) -> int:
        """S, in frames."""
        return self.stride_frames or self.snippet_frames

    @property
    def row(self) -> tuple[float, float, float, float]:
        """What a kernel makes seconds with: S, the frames before the first snippet's part, fps, and the duration.

        The first window begins at 0, and its part is its middle. A duration that is not known is infinity.
        """
        stride = self.stride
        duration_s = math.inf if self.duration_s is None else self.duration_s
        return stride, (self.snippet_frames - stride) / 2, self.fps, duration_s

    def covered_s(self, snippets: int) -> tuple[float, float]:
        """How long a video of T snippets is, the least and the most, seconds.

        T * S / fps where the last windows are padded, ((T - 1) * S + H) / fps where they end with the video.
        """
        lengths = snippets * self.stride, (snippets - 1) * self.stride + self.snippet_frames
        return min(lengths) / self.fps, max(lengths) / self.fps

    def tolerance_s(self, snippets: int) -> float:
        """By how many seconds the duration of a video may differ from what its T snippets cover.

        3 snippets or 1 % of T, whichever is more, and at least a window: the end of a video may be cut by one.
        """
        return max(max(3.0, 0.01 * snippets) * self.stride, self.snippet_frames) / self.fps

    def contradicts(self, snippets: int) -> bool:
        """Whether the duration is known and cannot be that of a video of T snippets."""
        if self.duration_s is None:
            return False
        least, most = self.covered_s(snippets)
        tolerance = self.tolerance_s(snippets)
        return not least - tolerance <= self.duration_s <= most + tolerance

    def seconds(
        self, first: npt.NDArray[np.float64 | np.int64], last: npt.NDArray[np.float64 | np.int64]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """The times that the snippets first..last (both included) stand for, clipped to the video.

        Args:
            first, last: snippet indices, or fractions of snippets, of one shape, [n] or any, 0 <= first <= last.

        Returns:
            start and end in seconds, of that shape: (first * S + (H - S) / 2) / fps, and the same of last + 1.
        """
        firsts, lasts = np.asarray(first, np.float64), np.asarray(last, np.float64)
        start, end = times.seconds(firsts.ravel(), lasts.ravel(), np.array(self.row))
        return start.reshape(firsts.shape), end.reshape(lasts.shape)

    def foreground(
        self, start_s: npt.NDArray[np.float64], end_s: npt.NDArray[np.float64], snippets: int
    ) -> npt.NDArray[np.bool_]:
        """Which of `snippets` snippets lie in any of the segments: those with their centre in [start, end).

        >>> SnippetGrid(fps=10.0, snippet_frames=10).foreground(np.array([1.5]), np.array([3.5]), 5).tolist()
        [False, True, True, False, False]

        Args:
            start_s, end_s: segment bounds in seconds, shape [n]; bounds past the video's end are allowed.
            snippets: T.

        Returns:
            bool, shape [T].
        """
        mask = np.zeros(snippets, dtype=np.bool_)
        # centre (t S + H / 2) / fps >= start  <=>  t >= start fps / S - H / 2 S, and the same for the end.
        half_window = self.snippet_frames / 2 / self.stride
        first = np.ceil(np.asarray(start_s) * self.fps / self.stride - half_window)
        past = np.ceil(np.asarray(end_s) * self.fps / self.stride - half_window)
        for a, b in zip(np.clip(first, 0, snippets), np.clip(past, 0, snippets), strict=True):
            mask[int(a) : int(b)] = True
        return mask


def _frames(name: str, value: object) -> int:
    frames = as_whole(value)
    if frames is None or not 1 <= frames <= _MOST_FRAMES:
        raise InputError(f"{name}: expected a whole number of at least 1 frame, got {value!r:.40}")
    return frames
