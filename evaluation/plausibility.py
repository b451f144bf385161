"""What is odd in a ground truth and in detections, before they are compared: a line each (docs/evaluation.md).

Published files hold odd segments, so they are counted and named, and the evaluation goes on. Where detections cannot be
what they seem, and the figure would be wrong in silence, that is an error.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from refineloc.runtime.annotations import Annotations
from refineloc.runtime.detections import Detections
from refineloc.runtime.errors import AnnotationError, DetectionError, InputError

__all__ = ["Doubt", "OddSegments", "check_plausible", "odd_segments"]

Array = npt.NDArray[np.float64]
Kind = Literal["reversed", "empty", "negative", "beyond"]

_WORDS: dict[Kind, tuple[str, str]] = {
    "reversed": ("ends before its start", "end before their start"),
    "empty": ("has length 0", "have length 0"),
    "negative": ("begins before 0 s", "begin before 0 s"),
    "beyond": ("ends past its video's end", "end past their video's end"),
}
# A stated duration may be rounded, or a little short: real files have segments that end a second later.
_SLACK_S, _SLACK = 1.0, 0.01
_LONG_S = 10.0  # videos in which no detector finds actions in the first second alone
_LEAST = 3  # segments that are enough to tell their unit


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


def odd_segments(videos: Mapping[str, Timed], durations: Mapping[str, float | None]) -> list[OddSegments]:
    """The odd segments of videos, by kind; in those without a duration none is beyond it."""
    start, end, video = _rows(videos)
    duration = _by_row(videos, durations, video)
    kinds: dict[Kind, npt.NDArray[np.bool_]] = {
        "reversed": end < start,
        "empty": end == start,
        "negative": start < 0,
        "beyond": _beyond(end, duration),
    }
    names, seen, odd = list(videos), np.zeros(len(start), dtype=np.bool_), []
    for kind, rows in kinds.items():
        rows = rows & ~seen
        seen |= rows
        if rows.any():
            first = int(np.argmax(rows))
            odd.append(OddSegments(kind, int(rows.sum()), names[video[first]], float(start[first]), float(end[first])))
    return odd


class Doubt(NamedTuple):
    """Something a person should know before a figure is made.

    Attributes:
        text: one line.
        parameter: what would change it, where there is such a parameter ("subset", "ambiguous").
    """

    text: str
    parameter: str = ""


def check_plausible(
    detections: Mapping[str, Detections],
    annotations: Annotations,
    *,
    name: object = "detections",
    keep_empty: bool = False,
) -> list[Doubt]:
    """What is odd in these, or nothing.

    Args:
        detections: by video.
        annotations: with times.
        name: of the detections, for messages.
        keep_empty: as in `match_detections`.

    Raises:
        DetectionError: detections in frames, in milliseconds or in shares of their video.
        AnnotationError: annotations in such a unit; or of several subsets, with detections of some alone.
    """
    durations = {video.name: video.duration_s for video in annotations.values()}
    rates = {video.name: video.fps for video in annotations.values()}
    _check_units(annotations, durations, rates, detections, f"{annotations.path}: the annotations", AnnotationError)
    _check_units(detections, durations, rates, annotations, f"{name}: the detections", DetectionError)
    return [
        *_in_subsets(detections, annotations, name),
        *_in_annotations(annotations, durations, keep_empty),
        *_in_detections(detections, annotations, durations, name),
    ]


def _in_subsets(detections: Mapping[str, Detections], annotations: Annotations, name: object) -> Iterable[Doubt]:
    sizes = Counter(video.subset for video in annotations.values() if video.subset is not None and len(video.start))
    if len(sizes) < 2:
        return
    counted = ", ".join(f"{subset} ({size} videos)" for subset, size in sizes.items())
    covered = {annotations[video].subset for video in detections if video in annotations} & sizes.keys()
    if covered and covered != sizes.keys():
        which = " and ".join(repr(subset) for subset in sizes if subset in covered)
        raise AnnotationError(
            f"{annotations.path}: has annotations of several subsets: {counted}. {name} has videos of {which} alone, "
            "and those of the others would count as missed; choose the subset",
            parameter="subset",
        )
    yield Doubt(f"{annotations.path}: all subsets are evaluated together: {counted}; choose one", "subset")


def _in_annotations(
    annotations: Annotations, durations: Mapping[str, float | None], keep_empty: bool
) -> Iterable[Doubt]:
    total = sum(len(video.start) for video in annotations.values())
    for odd in odd_segments(annotations, durations):
        then = "kept as in the file"
        if odd.kind in ("reversed", "empty"):
            then = "kept, and found by no detection" if keep_empty else "left out"
        yield Doubt(f"{annotations.path}: {odd.line('annotation', total, then)}")
    without = [
        (video, label) for video in annotations.values() for label in video.labels if label not in video.segment_labels
    ]
    if without and total:
        video, label = without[0]
        yield Doubt(
            f"{annotations.path}: {len(without)} label{'s' * (len(without) != 1)} of a video without a segment, the "
            f"first is {label!r:.80} of video {video.name!r:.80}; detections of such a label count as false"
        )
    for label in annotations.classes:
        if label.casefold() == "ambiguous":
            yield Doubt(
                f"{annotations.path}: {label!r} is evaluated as a class. If no detection is wrong there, take it out "
                "of the file, and give its segments as ambiguous regions, lines VIDEO START END",
                "ambiguous",
            )


def _in_detections(
    detections: Mapping[str, Detections], annotations: Annotations, durations: Mapping[str, float | None], name: object
) -> Iterable[Doubt]:
    total = sum(map(len, detections.values()))
    if not total:
        yield Doubt(
            f"{name}: holds no detection, so every figure is 0; was it written to its end, and of these videos?"
        )
        return
    for odd in odd_segments(detections, durations):
        then = "kept as in the file"
        if odd.kind in ("reversed", "empty"):
            then = "false positives, which a diagnosis leaves out"
        yield Doubt(f"{name}: {odd.line('detection', total, then)}")
    annotated = [video.name for video in annotations.values() if len(video.start)]
    missing = [video for video in annotated if video not in detections]
    if len(missing) < len(annotated) <= 2 * len(missing):
        yield Doubt(
            f"{name}: lacks {len(missing)} of {len(annotated)} annotated videos, the first is {missing[0]!r:.80}; all "
            "that is in them counts as missed: detect in them, or leave them out of the ground truth"
        )


def _check_units(
    videos: Mapping[str, Timed],
    durations: Mapping[str, float | None],
    rates: Mapping[str, float | None],
    others: Mapping[str, Timed],
    what: str,
    error: type[InputError],
) -> None:
    """Raise an error where times are no seconds.

    Frames and milliseconds: most segments end after their video, and as far as such a unit would have it. Shares: all
    lie within the first second of long videos, and most do not begin at 0, as the first snippet does.
    """
    start, end, video = _rows(videos)
    if len(start) < _LEAST:
        return
    duration = _by_row(videos, durations, video)
    known = np.isfinite(duration)
    cure = "give seconds from the start of the video"
    if known.any() and _beyond(end, duration)[known].mean() > 0.5:
        rate = _by_row(videos, rates, video)
        frames = np.where(np.isfinite(rate), rate, 25.0)
        for unit, factors in (("frames", frames), ("frames", 60.0), ("milliseconds", 1e3)):
            furthest = np.quantile((end / (duration * factors))[known], 0.95)
            if 0.3 <= furthest <= 1.1:
                row = int(np.argmax(known & _beyond(end, duration)))
                raise error(
                    f"{what} seem to be in {unit}: most end past their video's end, such as {end[row]:.10g} s of "
                    f"{duration[row]:.10g} s in video {list(videos)[video[row]]!r:.80}; {cure}"
                )
    lengths = duration[known] if known.any() else _rows(others)[1]
    if (
        len(lengths)
        and np.median(lengths) >= _LONG_S
        and start.min() >= 0
        and end.max() <= 1
        and np.mean(start > 0) > 0.5
    ):
        raise error(f"{what} seem to be in shares of their video: none ends after 1 s; {cure}")


def _rows(videos: Mapping[str, Timed]) -> tuple[Array, Array, npt.NDArray[np.int64]]:
    """Start and end of all segments, and the index of the video of each."""
    start = np.concatenate([np.empty(0), *(video.start for video in videos.values())])
    end = np.concatenate([np.empty(0), *(video.end for video in videos.values())])
    return start, end, np.repeat(np.arange(len(videos)), [len(video.start) for video in videos.values()])


def _by_row(names: Collection[str], values: Mapping[str, float | None], video: npt.NDArray[np.int64]) -> Array:
    """The value of each segment's video, inf where it is not known."""
    by_video = [np.inf if (value := values.get(name)) is None else value for name in names]
    rows: Array = np.array(by_video, dtype=np.float64)[video]
    return rows


def _beyond(end: Array, duration: Array) -> npt.NDArray[np.bool_]:
    """Which segments end after their video, by more than a duration may be inexact."""
    with np.errstate(invalid="ignore"):
        beyond: npt.NDArray[np.bool_] = end > duration + np.maximum(_SLACK_S, _SLACK * duration)
    return beyond
