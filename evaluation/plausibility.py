"""What is odd in a ground truth and in detections, before they are compared: a line each (docs/how-to/evaluate.md).

Published files hold odd segments, so they are counted and named, and the evaluation goes on. Where detections cannot be
what they seem, and the figure would be wrong in silence, that is an error.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from refineloc.runtime.annotations import Annotations
from refineloc.runtime.detections import Detections
from refineloc.runtime.errors import AnnotationError, DetectionError, InputError, counted
from refineloc.runtime.segments.odd import Rows, Timed, after_the_end, by_row, odd_segments, rows_of

__all__ = ["Doubt", "check_plausible"]

Array = npt.NDArray[np.float64]

_LONG_S = 10.0  # videos in which no detector finds actions in the first second alone
_MOST_PERCENT = 101  # rounded up, or with half of a snippet after the end
_LEAST = 3  # segments that are enough to tell their unit


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
        DetectionError: detections in frames, in milliseconds or in shares of their video; most of them reversed.
        AnnotationError: annotations of these kinds; or of several subsets, with detections of some alone.
    """
    durations = {video.name: video.duration_s for video in annotations.values()}
    rates = {video.name: video.fps for video in annotations.values()}
    true, found = rows_of(annotations), rows_of(detections)
    whose = f"{annotations.path}: the annotations", f"{name}: the detections"
    _check_units(annotations, true, durations, rates, found, whose[0], AnnotationError)
    _check_units(detections, found, durations, rates, true, whose[1], DetectionError)
    return [
        *_in_minutes(annotations, true, durations, whose[0]),
        *_in_minutes(detections, found, durations, whose[1]),
        *_in_subsets(detections, annotations, name),
        *_in_annotations(annotations, true, durations, keep_empty),
        *_in_detections(detections, found, annotations, durations, name),
    ]


def _in_subsets(detections: Mapping[str, Detections], annotations: Annotations, name: object) -> Iterable[Doubt]:
    sizes = Counter(video.subset for video in annotations.values() if video.subset is not None and len(video.start))
    if len(sizes) < 2:
        return
    listed = ", ".join(f"{subset} ({counted(size, 'video')})" for subset, size in sizes.items())
    covered = {annotations[video].subset for video in detections if video in annotations} & sizes.keys()
    if covered and covered != sizes.keys():
        which = " and ".join(repr(subset) for subset in sizes if subset in covered)
        raise AnnotationError(
            f"{annotations.path}: has annotations of several subsets: {listed}. {name} has videos of {which} alone, "
            "and those of the others would count as missed; choose the subset",
            parameter="subset",
        )
    yield Doubt(f"{annotations.path}: all subsets are evaluated together: {listed}; choose one", "subset")


def _in_annotations(
    annotations: Annotations, rows: Rows, durations: Mapping[str, float | None], keep_empty: bool
) -> Iterable[Doubt]:
    total = sum(len(video.start) for video in annotations.values())
    for odd in odd_segments(annotations, durations, rows):
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
    detections: Mapping[str, Detections],
    rows: Rows,
    annotations: Annotations,
    durations: Mapping[str, float | None],
    name: object,
) -> Iterable[Doubt]:
    total = len(rows[0])
    if not total:
        yield Doubt(
            f"{name}: holds no detection, so every figure is 0; was it written to its end, and of these videos?"
        )
        return
    for odd in odd_segments(detections, durations, rows):
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


def _median(values: Array) -> float:
    """Of finite values. NumPy's own loads its masked arrays, which takes a tenth of what `import numpy` takes."""
    return float(np.quantile(values, 0.5))


def _in_minutes(
    videos: Mapping[str, Timed], rows: Rows, durations: Mapping[str, float | None], what: str
) -> Iterable[Doubt]:
    """Where all segments lie in the first sixtieth of their videos, which may be meant."""
    _, end, video = rows
    share = end / by_row(videos, durations, video)
    if len(end) >= _LEAST and 0.3 / 60 <= share.max() <= 1.1 / 60:
        yield Doubt(f"{what} end within the first {100 * share.max():.1f} % of their videos; are they in minutes?")


def _check_units(
    videos: Mapping[str, Timed],
    rows: Rows,
    durations: Mapping[str, float | None],
    rates: Mapping[str, float | None],
    others: Rows,
    what: str,
    error: type[InputError],
) -> None:
    """Raise an error where times are no seconds.

    Start and length: most end before their start. Frames, milliseconds and percent: most end after their video, and
    as far as such a unit would have it; as many frames as videos of a few seconds have could be percent, too.
    Shares: all lie within the first second of long videos, and most do not begin at 0, as the first snippet does.
    """
    start, end, video = rows
    if len(start) < _LEAST:
        return
    if (end < start).mean() > 0.5:
        row = int(np.argmax(end < start))
        raise error(
            f"{what} have their ends before their starts, such as {start[row]:.10g} to {end[row]:.10g} s in video "
            f"{list(videos)[video[row]]!r:.80}; are they start and length, or swapped? Give start and end"
        )
    duration = by_row(videos, durations, video)
    known = np.isfinite(duration)
    cure = "give seconds from the start of the video"
    if known.any() and after_the_end(end, duration)[known].mean() > 0.5:
        rate = by_row(videos, rates, video)
        frames = np.where(np.isfinite(rate), rate, 25.0)
        furthest_end = np.quantile(end[known], 0.95)
        percent = (
            furthest_end >= 0.9 * _MOST_PERCENT
            and end.max() <= _MOST_PERCENT
            and _median((duration * frames)[known]) > 2 * _MOST_PERCENT
        )
        units: list[tuple[str, Array | float]] = [("frames", frames), ("frames", 60.0), ("milliseconds", 1e3)]
        if percent:
            units.insert(0, ("percent of their video", 100 / duration))
        for unit, factors in units:
            furthest = np.quantile((end / (duration * factors))[known], 0.95)
            if 0.3 <= furthest <= 1.1:
                row = int(np.argmax(known & after_the_end(end, duration)))
                raise error(
                    f"{what} seem to be in {unit}: most end past their video's end, such as {end[row]:.10g} s of "
                    f"{duration[row]:.10g} s in video {list(videos)[video[row]]!r:.80}; {cure}"
                )
    lengths = duration[known] if known.any() else others[1]
    if (
        len(lengths)
        and _median(lengths) >= _LONG_S
        and start.min() >= 0
        and end.max() <= 1
        and np.mean(start > 0) > 0.5
    ):
        raise error(f"{what} seem to be in shares of their video: none ends after 1 s; {cure}")
