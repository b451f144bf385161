"""Labels of videos, and the segments of their actions if the file has them.

Formats:

    *.csv    video-name,t-start,t-end,label,video-duration,fps,video-num-frames    the released files: a segment a row
    *.csv    video-name,label[,fps][,video-duration]                               weak labels alone: a label a row
    *.json   {"database": {VIDEO: {"subset", "duration", "annotations": [{"label", "segment": [s, e]}]}}}   ActivityNet
    *.json   {VIDEO: {"duration_second", "duration_frame", "annotations": [...]}}                           BSN's

In a CSV, spaces around names and labels do not count, here and in detections: people type them ("clip, run"), and a
second class " run" would go unnoticed. Names in a JSON are not changed, as programs write them. What else is read as
it is meant: `runtime/text.py`. Several labels in one cell ("jump; run") are read where each is a label elsewhere too.

Weak means weak: with `times=False` no time is read, even if the file has it.
"""

import csv
import math
import os
import re
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from refineloc.runtime.addresses import as_path
from refineloc.runtime.errors import AnnotationError, InputWarning
from refineloc.runtime.files import atomic_write
from refineloc.runtime.text import (
    csv_rows,
    differing,
    finite_number,
    finite_seconds,
    is_text,
    not_a_text,
    numbered_lines,
    parse_json,
    plain_label,
    plain_number,
    read_text,
    spelling,
    write_csv_rows,
)

__all__ = ["Annotations", "VideoAnnotation", "read_annotations", "read_regions", "write_annotations_csv"]

_STATED_IN_CSV = ("video-duration", "fps", "video-num-frames")
_STATED = dict(zip(_STATED_IN_CSV, ("duration_s", "fps", "frames"), strict=True))  # of `_Builder`
_CSV_COLUMNS = ("video-name", "t-start", "t-end", "label", "video-duration", "fps", "video-num-frames")
_MOST_FPS = 1e6  # of a grid of snippets, too


def _no_times() -> npt.NDArray[np.float64]:
    return np.empty(0, dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class VideoAnnotation:
    """The labels of one video, and the segments of its actions if they are known.

    Attributes:
        name: of the video.
        labels: its classes, sorted, each once.
        duration_s, fps, frames, subset: None if the file does not state them.
        start, end: of the n annotated segments, seconds, float64 [n]; n = 0 for weak labels. The values are those of
            the file: real files have segments of length zero and segments past the end of the video.
        segment_labels: the class of each segment, n of them.
    """

    name: str
    labels: tuple[str, ...]
    duration_s: float | None = None
    fps: float | None = None
    frames: int | None = None
    subset: str | None = None
    start: npt.NDArray[np.float64] = field(default_factory=_no_times)
    end: npt.NDArray[np.float64] = field(default_factory=_no_times)
    segment_labels: tuple[str, ...] = ()


class Annotations(Mapping[str, VideoAnnotation]):
    """The annotations of many videos, by name, in the order of the file.

    Attributes:
        path: the file, for messages.
        classes: all labels, sorted.
        has_times: whether any video has segments.
    """

    def __init__(self, videos: Mapping[str, VideoAnnotation], path: str | os.PathLike[str] = "annotations") -> None:
        self._videos = dict(videos)
        self.path = as_path(path)
        self.classes: tuple[str, ...] = tuple(
            sorted({label for video in self._videos.values() for label in video.labels})
        )
        self.has_times: bool = any(len(video.start) for video in self._videos.values())

    def __getitem__(self, name: str) -> VideoAnnotation:
        return self._videos[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._videos)

    def __len__(self) -> int:
        return len(self._videos)

    @property
    def subsets(self) -> dict[str, int]:
        """How many videos each subset has, by name; those of no subset are "". Empty where no video states one."""
        return _count_subsets(video.subset for video in self._videos.values())

    def of_subset(self, subset: str) -> "Annotations":
        """The videos of a subset.

        Raises:
            AnnotationError: there is none; the message says which subsets there are.
        """
        videos = {name: video for name, video in self._videos.items() if video.subset == subset}
        if not videos:
            raise AnnotationError(_no_subset(self.path, subset, self.subsets))
        return Annotations(videos, self.path)

    def only(self, names: Collection[str]) -> "Annotations":
        """Those of these videos, in the order of the file."""
        return Annotations({name: video for name, video in self._videos.items() if name in names}, self.path)


def read_annotations(path: str | os.PathLike[str], *, times: bool = True, subset: str | None = None) -> Annotations:
    """Read labels, and segments if the file has them.

    Args:
        path: a CSV or JSON file (docs/reference/formats.md).
        times: False reads labels only, so that nothing can depend on times.
        subset: keep only the videos of this subset ("training", "validation", ...) of an ActivityNet JSON, whose other
            videos are not looked at.

    Raises:
        AnnotationError: the file is missing or of another form, or a value is not a number; the message names the line
            or the video.
    """
    source = as_path(path)
    return parse_annotations(source, annotation_text(source), times=times, subset=subset)


def annotation_text(path: str | os.PathLike[str]) -> str:
    """The text of a file or pipe of labels, for who parses it more than once: a pipe can be read once.

    Raises:
        AnnotationError: it is missing or cannot be read.
    """
    return read_text(path, AnnotationError, "give a CSV or ActivityNet JSON of labels")


def parse_annotations(source: Path, text: str, *, times: bool = True, subset: str | None = None) -> Annotations:
    """The labels in the text of a file (see `read_annotations`)."""
    is_json = source.suffix.lower() == ".json" or (source.suffix.lower() != ".csv" and text.lstrip().startswith("{"))
    videos = _from_json(source, text, times, subset) if is_json else _from_csv(source, text, times)
    if subset is not None and not is_json:
        raise AnnotationError(f"{source}: a CSV has no subsets; leave the subset out")
    if not videos:
        raise AnnotationError(f"{source}: holds no video")
    return Annotations(videos, source)


def write_annotations_csv(path: str | os.PathLike[str], annotations: Mapping[str, VideoAnnotation]) -> None:
    """Write the released CSV form: a row for each segment, and a row without times for each label without a segment.

    Raises:
        OutputError: the file cannot be written.
    """
    with atomic_write(path) as handle:
        csv.writer(handle, lineterminator="\n").writerow(_CSV_COLUMNS)
        for video in annotations.values():
            tail = ["" if value is None else value for value in (video.duration_s, video.fps, video.frames)]
            rows: Iterable[tuple[float | str, float | str, str]] = zip(
                video.start.tolist(), video.end.tolist(), video.segment_labels, strict=True
            )
            without = (label for label in video.labels if label not in video.segment_labels)
            rows = [*rows, *(("", "", label) for label in without)]
            write_csv_rows(handle, (video.name, *video.labels), ([video.name, *row, *tail] for row in rows))


def read_regions(path: str | os.PathLike[str]) -> dict[str, list[tuple[float, float]]]:
    """Regions by video, from a text file with lines VIDEO START END, in seconds (THUMOS14's list of ambiguous regions).

    Raises:
        AnnotationError: the file is missing, or a line has another form.
    """
    source = as_path(path)
    regions: dict[str, list[tuple[float, float]]] = {}
    for number, line in numbered_lines(read_text(source, AnnotationError, "give lines VIDEO START END")):
        words = line.split()
        where = f"{source}: line {number}"
        if len(words) != 3:
            raise AnnotationError(f"{where}: expected VIDEO START END, got {line!r}")
        start, end = (finite_seconds(word, where, AnnotationError) for word in words[1:])
        regions.setdefault(words[0], []).append((start, end))
    return regions


@dataclass(slots=True)
class _Builder:
    """Collects the labels and segments of one video."""

    duration_s: float | None
    fps: float | None
    frames: int | None
    subset: str | None = None
    labels: set[str] = field(default_factory=set)
    segments: list[tuple[float, float, str]] = field(default_factory=list)


def _built(builders: Mapping[str, _Builder]) -> dict[str, VideoAnnotation]:
    # One array of all times, and a view for each video: thousands of small arrays would take longer.
    start = np.array([start for builder in builders.values() for start, _, _ in builder.segments], dtype=np.float64)
    end = np.array([end for builder in builders.values() for _, end, _ in builder.segments], dtype=np.float64)
    videos = {}
    stop = 0
    for name, builder in builders.items():
        begin, stop = stop, stop + len(builder.segments)
        videos[name] = VideoAnnotation(
            name=name,
            labels=tuple(sorted(builder.labels)),
            duration_s=builder.duration_s,
            fps=builder.fps,
            frames=builder.frames,
            subset=builder.subset,
            start=start[begin:stop],
            end=end[begin:stop],
            segment_labels=tuple([label for _, _, label in builder.segments]),
        )
    return videos


def _from_csv(source: Path, text: str, times: bool) -> dict[str, VideoAnnotation]:
    rows = _CsvRows(source, times)
    cells: dict[str, str] = {}
    failure: AnnotationError | None = None
    for where, row in csv_rows(text, ("video-name", "label"), source, AnnotationError):
        cell = plain_label(row["label"])
        cells.setdefault(cell, where)
        if failure is None:
            try:
                rows.take(row, cell, where)
            except AnnotationError as error:  # what is wrong with the labels of all rows is told before it
                failure = error
    several = _several_labels(cells)
    _check_spellings({label: where for label, where in cells.items() if label not in several})
    if failure is not None:
        raise failure
    for builder in rows.builders.values() if several else ():
        builder.labels = {label for cell in builder.labels for label in several.get(cell, (cell,))}
        builder.segments = [
            (start, end, label) for start, end, cell in builder.segments for label in several.get(cell, (cell,))
        ]
    return _built(rows.builders)


class _CsvRows:
    """Collects the rows of a CSV, one at a time: together they would take ten times the memory of the file."""

    def __init__(self, source: Path, times: bool) -> None:
        self.builders: dict[str, _Builder] = {}
        self._source, self._times = source, times
        # Video -> where its first row is, and what that states of it.
        self._first: dict[str, tuple[str, list[str]]] = {}
        self._places: dict[tuple[str, str], str] = {}  # video and what a later row is the first to state of it -> where

    def take(self, row: Mapping[str, str], cell: str, where: str) -> None:
        """A row; its label may turn out to be several."""
        name = row["video-name"]
        if not name or not cell:
            raise AnnotationError(f"{where}: a video name or a label is empty")
        texts = [row.get(column, "") for column in _STATED]
        if name not in self.builders:
            self.builders[name] = _builder(_without_empty(row), _STATED_IN_CSV, where)
            self._first[name] = where, texts
        builder = self.builders[name]
        if texts != self._first[name][1]:  # most rows of a video state the same of it
            self._compare(name, builder, _builder(_without_empty(row), _STATED_IN_CSV, where), where)
        builder.labels.add(cell)
        if not self._times:
            return
        start, end = (_optional_s(row, column, where) if row.get(column) else None for column in ("t-start", "t-end"))
        if (start is None) != (end is None):
            raise AnnotationError(f"{where}: only one of t-start and t-end is given")
        if start is not None and end is not None:
            builder.segments.append((start, end, cell))

    def _compare(self, name: str, builder: _Builder, read: _Builder, where: str) -> None:
        """Take what another row states of a video; refuse what contradicts rows before it."""
        for column, attribute in _STATED.items():
            before, value = getattr(builder, attribute), getattr(read, attribute)
            if value is None:
                continue
            # Nearly equal is equal: programs round differently.
            if before is not None and not math.isclose(before, value, rel_tol=1e-4, abs_tol=1e-3):
                line = self._places.get((name, column), self._first[name][0]).removeprefix(f"{self._source}: ")
                raise AnnotationError(
                    f"{where}: {column} of video {name!r} is {value:g}, and {before:g} in {line}; correct one of them"
                )
            if before is None:
                setattr(builder, attribute, value)
                self._places[name, column] = where


def _without_empty(row: Mapping[str, str]) -> dict[str, str]:
    return {column: value for column, value in row.items() if value}


def _several_labels(cells: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """The cells that have several labels ("jump; run"), and these.

    Args:
        cells: the texts in the column of labels, and where each stands first.

    Raises:
        AnnotationError: a cell that may have several, or be one label with such a sign in it.
    """
    several: dict[str, tuple[str, ...]] = {}
    split = {cell: _parts(cell) for cell in cells}
    counts = Counter(part for parts in split.values() for part in set(parts))
    for cell, parts in split.items():
        if len(parts) > 1 and all(part in cells for part in parts):
            several[cell] = tuple(dict.fromkeys(parts))
        # Names of classes have commas in them, but hardly share what is between the commas with others.
        elif len(parts) > 1 and (re.search(r"[;|\[]", cell) or any(counts[part] > 1 for part in parts)):
            raise AnnotationError(
                f"{cells[cell]}: label {cell!r}: several labels in one cell? Give each a row of its own (a label that "
                "has such a sign in its name: another name, or a JSON)"
            )
    if several:
        cell, labels = next(iter(several.items()))
        more = f" (such cells: {len(several)})" if len(several) > 1 else ""
        warnings.warn(
            f"{cells[cell]}: label {cell!r} is read as {len(labels)} labels{more}", InputWarning, stacklevel=2
        )
    return several


def _parts(cell: str) -> list[str]:
    """The texts between the first of `;`, `|` and `,` that a cell has; one, where it cannot be a list."""
    inside = cell[1:-1] if cell[:1] == "[" and cell[-1:] == "]" else cell  # as Python writes a list
    sign = next((sign for sign in ";|," if sign in inside), "")
    parts = [plain_label(part) for part in inside.split(sign)] if sign else [cell]
    if inside is not cell:
        parts = [part.strip("'\"") for part in parts]
    whole = all(part.count("(") == part.count(")") for part in parts)  # not "talk to (self, others)"
    return [part for part in parts if part] if whole else [cell]


def _check_spellings(places: Mapping[str, str]) -> None:
    """Refuse classes that differ in case, in spaces or in the composition of letters alone: one of them is mistyped.

    Args:
        places: where each class is first.
    """
    known: dict[str, str] = {}
    for label, where in places.items():
        other = known.setdefault(spelling(label), label)
        if other != label:
            raise AnnotationError(
                f"{where}: class {label!r} and {other!r} ({places[other].rpartition(': ')[2]}) differ in "
                f"{differing(label, other)} alone; write them alike"
            )


def _from_json(source: Path, text: str, times: bool, subset: str | None) -> dict[str, VideoAnnotation]:
    document = parse_json(text, f"{source}", AnnotationError, unique=True)
    database, keys = _database_of(document)
    if database is None:
        got = _form_of(document)
        raise AnnotationError(
            f"{source}: expected ActivityNet's form, an object with a 'database' of videos; got {got}"
        )
    builders: dict[str, _Builder] = {}
    others: list[Any] = []
    places: dict[str, str] = {}
    for name, entry in database.items():
        where = f"{source}: video {name!r}"
        if not name.strip():
            raise AnnotationError(f"{where}: its name is empty")
        if not isinstance(entry, dict) or not isinstance(entry.get("annotations", []), list):
            raise AnnotationError(f"{where}: expected an object with a list of 'annotations'")
        if subset is not None and entry.get("subset") != subset:
            others.append(entry.get("subset"))
            continue
        stated_subset = entry.get("subset")
        if stated_subset is not None and not isinstance(stated_subset, str):
            raise AnnotationError(f"{where}: its subset: {not_a_text(stated_subset)}")
        builder = builders[name] = _builder(entry, keys, where, stated_subset)
        for number, annotation in enumerate(entry.get("annotations", []), start=1):
            if not isinstance(annotation, dict) or "label" not in annotation:
                raise AnnotationError(f"{where}: annotation {number} has no 'label'")
            label = annotation["label"]
            if not isinstance(label, str):
                raise AnnotationError(f"{where}: annotation {number}: its label: {not_a_text(label)}")
            if not label.strip():
                raise AnnotationError(f"{where}: annotation {number}: its label is empty")
            builder.labels.add(label)
            places.setdefault(label, where)
            segment = annotation.get("segment") if times else None
            if segment is None:
                continue
            if not isinstance(segment, list) or len(segment) != 2:
                raise AnnotationError(f"{where}: expected a segment [start, end], got {segment!r}")
            start, end = (finite_seconds(bound, f"{where}: segment", AnnotationError) for bound in segment)
            builder.segments.append((start, end, label))
        for kind, value in (
            ("name", name),
            ("subset", stated_subset or ""),
            *(("label", label) for label in builder.labels),
        ):
            if not is_text(value):
                raise AnnotationError(f"{where}: its {kind} {value!r} holds half a character (a lone surrogate)")
    if subset is not None and not builders:
        raise AnnotationError(_no_subset(source, subset, _count_subsets(map(str, filter(None, others)))))
    _check_spellings(places)
    return _built(builders)


def _database_of(document: Any) -> tuple[dict[str, Any] | None, tuple[str, str, str]]:
    """The entries by video, None if there are none; and the keys of their duration, fps and number of frames."""
    if isinstance(document, dict) and "database" in document:
        database = document["database"]
        return (database if isinstance(database, dict) else None), ("duration", "fps", "frame")
    return (document if is_bsn_database(document) else None), ("duration_second", "fps", "duration_frame")


def is_bsn_database(document: Any) -> bool:
    """Whether a JSON has the form of BSN's and MMAction2's annotations: entries by video, without a 'database'."""
    return (
        isinstance(document, dict)
        and bool(document)
        and all(isinstance(entry, dict) and isinstance(entry.get("annotations"), list) for entry in document.values())
    )


def _form_of(document: Any) -> str:
    """What a JSON is that holds no annotations, for a message."""
    if isinstance(document, dict):
        if isinstance(document.get("results"), dict):
            return "'results', which are detections"
        keys = ", ".join(f"{key!r:.40}" for key in list(document)[:3]) or "nothing"
        return f"an object with {keys}"
    return f"a {type(document).__name__}"


def listed_subsets(subsets: Mapping[str, int]) -> str:
    """Subsets and their sizes in words: "training (16 videos), validation (8 videos)"."""
    parts = (
        f"{name or 'none stated'} ({count} {'video' if count == 1 else 'videos'})" for name, count in subsets.items()
    )
    return ", ".join(parts)


def _count_subsets(subsets: Iterable[str | None]) -> dict[str, int]:
    counts = Counter(subset or "" for subset in subsets)
    return dict(sorted(counts.items())) if counts.keys() - {""} else {}


def _no_subset(source: Path, subset: str, subsets: Mapping[str, int]) -> str:
    there_are = f"there are {listed_subsets(subsets)}" if subsets else "it states no subsets; leave the subset out"
    return f"{source}: holds no video of subset {subset!r}; {there_are}"


def _builder(entry: Mapping[str, Any], keys: tuple[str, str, str], where: str, subset: str | None = None) -> _Builder:
    """A video without labels, of an entry that states duration, fps and number of frames under these keys."""
    duration_s, (fps, frames) = _optional_s(entry, keys[0], where), (_optional(entry, key, where) for key in keys[1:])
    for key, value in zip(keys, (duration_s, fps), strict=False):
        if value is not None and value <= 0:
            raise AnnotationError(f"{where}: {key}: expected a positive number, got {value}")
    if fps is not None and fps > _MOST_FPS:
        raise AnnotationError(f"{where}: {keys[1]}: expected frames a second, at most {_MOST_FPS:,.0f}, got {fps:g}")
    return _Builder(duration_s, fps, None if frames is None else int(frames), subset)


def _optional(entry: Mapping[str, Any], key: str, where: str) -> float | None:
    value = entry.get(key)
    number = plain_number(value)
    if number is None and value is not None:
        return finite_number(value, f"{where}: {key}", AnnotationError)
    return number


def _optional_s(entry: Mapping[str, Any], key: str, where: str) -> float | None:
    value = entry.get(key)
    number = plain_number(value)
    if number is None and value is not None:
        return finite_seconds(value, f"{where}: {key}", AnnotationError)
    return number
