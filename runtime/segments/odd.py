"""Segments that cannot be meant: reversed, without length, before the video or after it. Published files have them."""

from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["OddSegments", "Rows", "Timed", "after_the_end", "by_row", "odd_segments", "rows_of"]

Array = npt.NDArray[np.float64]
Rows = tuple[Array, Array, npt.NDArray[np.int64]]
Kind = Literal["reversed", "empty", "negative", "beyond"]

_WORDS: dict[Kind, tuple[str, str]] = {
    "reversed": ("ends before its start", "end before their start"),
    "empty": ("has length 0", "have length 0"),
    "negative": ("begins before 0 s", "begin before 0 s"),
    "beyond": ("ends past its video's end", "end past their video's end"),
}
# A stated duration may be rounded, or a little short: real files have segments that end a second later.
_SLACK_S, _SLACK = 1.0, 0.01


class Timed(Protocol):
    """Segments of a video: `Detections`, `VideoAnnotation` and `Track`."""

    @property
    def start(self) -> Array: ...
    @property
    def end(self) -> Array: ...


class OddSegments(NamedTuple):
    """Segments that are odd in the same way.

    Attributes:
        kind: "reversed", "empty", "negative" (begin before 0), "beyond" (end more than 1 s, and more than 1 % of the
            duration, after the video). A segment is of the first kind that it fits.
        number: how many.
        video, start, end: of the first.
    """

    kind: Kind
    number: int
    video: str
    start: float
    end: float

    def line(self, noun: str, total: int, then: str) -> str:
        """ "2 of 9 annotations end before their start, the first in video 'v' (20 to 10 s); left out"."""
        words = _WORDS[self.kind][self.number != 1]
        return (
            f"{self.number} of {total} {noun}s {words}, the first in video {self.video!r:.80} "
            f"({self.start:.10g} to {self.end:.10g} s); {then}"
        )


def odd_segments(
    videos: Mapping[str, Timed], durations: Mapping[str, float | None], rows: Rows | None = None
) -> list[OddSegments]:
    """The odd segments of videos, by kind; in those without a duration none is beyond it.

    `rows` are those of the videos, for who has them.
    """
    start, end, video = rows_of(videos) if rows is None else rows
    duration = by_row(videos, durations, video)
    kinds: dict[Kind, npt.NDArray[np.bool_]] = {
        "reversed": end < start,
        "empty": end == start,
        "negative": start < 0,
        "beyond": after_the_end(end, duration),
    }
    names, seen, odd = list(videos), np.zeros(len(start), dtype=np.bool_), []
    for kind, fitting in kinds.items():
        of_kind = fitting & ~seen
        seen |= of_kind
        if of_kind.any():
            first = int(np.argmax(of_kind))
            number = int(of_kind.sum())
            odd.append(OddSegments(kind, number, names[video[first]], float(start[first]), float(end[first])))
    return odd


def rows_of(videos: Mapping[str, Timed]) -> Rows:
    """Start and end of all segments, and the index of the video of each."""
    start = np.concatenate([np.empty(0), *(video.start for video in videos.values())])
    end = np.concatenate([np.empty(0), *(video.end for video in videos.values())])
    return start, end, np.repeat(np.arange(len(videos)), [len(video.start) for video in videos.values()])


def by_row(names: Collection[str], values: Mapping[str, float | None], video: npt.NDArray[np.int64]) -> Array:
    """The value of each segment's video, inf where it is not known."""
    by_video = [np.inf if (value := values.get(name)) is None else value for name in names]
    rows: Array = np.array(by_video, dtype=np.float64)[video]
    return rows


def after_the_end(end: Array, duration: Array) -> npt.NDArray[np.bool_]:
    """Which segments end after their video, by more than a duration may be inexact."""
    with np.errstate(invalid="ignore"):
        beyond: npt.NDArray[np.bool_] = end > duration + np.maximum(_SLACK_S, _SLACK * duration)
    return beyond
