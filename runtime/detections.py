"""Detections: the value, and its files (ActivityNet JSON, CSV, JSON lines)."""

import itertools
import json
import operator
import os
import re
import warnings
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from refineloc._ext.times import best_first
from refineloc.runtime.addresses import as_path
from refineloc.runtime.errors import DetectionError, InputError, MissingExtraError, counted
from refineloc.runtime.files import atomic_write, is_folder, output_ending
from refineloc.runtime.parquet import read_columns, writing_rows
from refineloc.runtime.segments.grid import SnippetGrid
from refineloc.runtime.segments.values import Segments
from refineloc.runtime.text import (
    FURTHEST_S,
    csv_rows,
    finite_number,
    finite_seconds,
    is_text,
    not_a_text,
    parse_json,
    plain_label,
    read_text,
    too_far,
    write_csv_rows,
)

__all__ = ["DETECTION_ENDINGS", "Detection", "Detections", "as_written", "read_detections", "write_detections"]

DETECTION_ENDINGS = (".json", ".csv", ".jsonl", ".parquet")

_PARQUET_COLUMNS = {
    "video": "string",
    "start_s": "float64",
    "end_s": "float64",
    "label": "string",
    "score": "float64",
}
_CSV_COLUMNS = ("video-name", "t-start", "t-end", "label", "score")
_VERSION = "VERSION 1.3"  # of ActivityNet's submission format, which its evaluation kit expects


class Detection(NamedTuple):
    """One detected segment: start and end in seconds, class name, and score (higher is more certain)."""

    start: float
    end: float
    label: str
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """The detections of one video, as arrays; iterating gives `Detection` records.

    `detections[0]` is one record. A slice, an array of indices or a mask gives those detections:
    `detections[detections.score >= 0.5]`.

    >>> detections = Detections(
    ...     start=np.array([0.5, 20.0]),
    ...     end=np.array([6.0, 29.0]),
    ...     score=np.array([0.9, 0.4]),
    ...     label_index=np.array([0, 0]),
    ...     classes=("jump",),
    ... )
    >>> detections
    <2 detections: jump 0.5 to 6.0 s (0.9), jump 20.0 to 29.0 s (0.4)>
    >>> detections[0].end
    6.0
    >>> detections[detections.score >= 0.5]
    <1 detection: jump 0.5 to 6.0 s (0.9)>

    Attributes:
        start, end: seconds, float64 [n].
        score: float64 [n].
        label_index: index into `classes`, int64 [n].
        classes: class names.
        provider: the ONNX Runtime execution provider that computed them, "" if not known (read from a file).
    """

    start: npt.NDArray[np.float64]
    end: npt.NDArray[np.float64]
    score: npt.NDArray[np.float64]
    label_index: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    provider: str = ""

    @classmethod
    def from_segments(
        cls, grid: SnippetGrid, segments: Segments, classes: tuple[str, ...], provider: str = ""
    ) -> "Detections":
        """The segments of one video in seconds, best first, without those that lie past the end of the video."""
        alone = segments._replace(video=np.zeros_like(segments.video))
        return cls.from_batch([grid], alone, classes, provider)[0]

    @classmethod
    def from_batch(
        cls, grids: Sequence[SnippetGrid], segments: Segments, classes: tuple[str, ...], provider: str = ""
    ) -> "list[Detections]":
        """As `from_segments`, for a packed batch: the detections of each of its videos, given their grids.

        Their arrays are parts of one array for all.
        """
        rows = np.array([grid.row for grid in grids], dtype=np.float64).reshape(-1, 4)
        begins, start, end, score, label = best_first(*segments, rows)
        return [
            cls(start[begin:past], end[begin:past], score[begin:past], label[begin:past], classes, provider)
            for begin, past in itertools.pairwise(begins.tolist())
        ]

    @property
    def label(self) -> npt.NDArray[np.str_]:
        """Class names, [n]."""
        return np.array([self.classes[index] for index in self.label_index], dtype=np.str_)

    def __len__(self) -> int:
        return len(self.start)

    def __iter__(self) -> Iterator[Detection]:
        columns = (self.start.tolist(), self.end.tolist(), self.label_index.tolist(), self.score.tolist())
        for start, end, index, score in zip(*columns, strict=True):
            yield Detection(start, end, self.classes[index], score)

    @overload
    def __getitem__(self, key: int | np.integer[Any]) -> Detection: ...
    @overload
    def __getitem__(self, key: slice | npt.NDArray[Any] | list[Any]) -> "Detections": ...
    def __getitem__(self, key: Any) -> "Detection | Detections":
        if not isinstance(key, (slice, list, np.ndarray)):
            number = operator.index(key)  # a TypeError where it is none
            times = float(self.start[number]), float(self.end[number])
            return Detection(*times, self.classes[self.label_index[number]], float(self.score[number]))
        start, end, score, label_index = self.start[key], self.end[key], self.score[key], self.label_index[key]
        return Detections(start, end, score, label_index, self.classes, self.provider)

    def __repr__(self) -> str:
        shown = [f"{d.label} {d.start:.1f} to {d.end:.1f} s ({d.score:.3g})" for d in self[:3]]
        more = ["..."] if len(self) > 3 else []
        return f"<{counted(len(self), 'detection')}{': ' if len(self) else ''}{', '.join(shown + more)}>"

    def to_pandas(self) -> Any:
        """The detections as a pandas DataFrame with the columns start, end (seconds), label and score.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        try:
            pandas = import_module("pandas")
        except ImportError as error:
            raise MissingExtraError(f"to_pandas needs pandas: pip install pandas ({error})") from error
        return pandas.DataFrame({"start": self.start, "end": self.end, "label": self.label, "score": self.score})


def write_detections(
    path: str | os.PathLike[str],
    detections: Mapping[str, Detections] | Iterable[tuple[str, Detections]],
    external_data: Mapping[str, Any] | None = None,
) -> None:
    """Write the detections of many videos in the format of the file's extension.

    Args:
        path: which ends in `.json` (ActivityNet's), `.csv` (video-name,t-start,t-end,label,score), `.jsonl` (a line for
            each video) or `.parquet` (video, start_s, end_s, label, score; needs pyarrow). A stream without such an
            ending, as "-" is, gets JSON. Scores have the digits of float32, in which models compute: 7 to 9, which read
            back as the same float32.
        detections: by video; or pairs of a video's name and its detections, which are written one after another.
        external_data: ActivityNet's field of that name (model, provider, ...); not written to CSV and JSON lines.

    Raises:
        InputError: another extension.
        OutputError: the file cannot be written; nothing half-written remains.
        MissingExtraError: pyarrow is not installed.
    """
    kind = output_ending(path, DETECTION_ENDINGS)
    pairs = detections.items() if isinstance(detections, Mapping) else detections
    if kind == ".parquet":
        _write_parquet(path, pairs)
        return
    with atomic_write(path) as handle:
        if kind == ".csv":
            import csv  # it takes time to load

            csv.writer(handle, lineterminator="\n").writerow(_CSV_COLUMNS)
            for name, video in pairs:
                write_csv_rows(handle, (name, *video.classes), ((name, *record) for record in as_written(video)))
        elif kind == ".jsonl":
            for name, video in pairs:
                handle.write(json.dumps({"video": name, "detections": _records(video)}, allow_nan=False) + "\n")
        else:
            handle.writelines(_json_parts(pairs, external_data or {}))


def _write_parquet(path: str | os.PathLike[str], pairs: Iterable[tuple[str, Detections]]) -> None:
    with writing_rows(path, _PARQUET_COLUMNS) as take:
        for name, video in pairs:
            short = as_written(video)
            times = {"start_s": short.start, "end_s": short.end, "score": short.score}
            take({"video": [name] * len(short), "label": list(short.label), **times})


def _json_parts(pairs: Iterable[tuple[str, Detections]], external_data: Mapping[str, Any]) -> Iterator[str]:
    """ActivityNet's document, one video at a time: as a whole it would take several times its size in memory."""
    yield f'{{"version": {json.dumps(_VERSION)}, "results": {{'
    for index, (name, video) in enumerate(pairs):
        yield f"{', ' if index else ''}{json.dumps(name)}: {json.dumps(_records(video), allow_nan=False)}"
    yield f'}}, "external_data": {json.dumps(dict(external_data), allow_nan=False)}}}\n'


def read_detections(path: str | os.PathLike[str]) -> dict[str, Detections]:
    """Read detections: ActivityNet JSON (with or without "results" at the top), CSV, JSON lines, Parquet, or parts.

    The content says the format where the name does not, as that of a pipe (`runtime/files.py`).

    All videos have the same `classes` (sorted), so their `label_index` can be compared.

    Raises:
        DetectionError: the file or a part is missing or of another form, something is there twice, a time or score is
            not a finite number, or a time is further than 1e9 s from 0.
    """
    source = as_path(path)
    if is_folder(source, DetectionError):
        return _read_parts(source)
    if source.suffix.lower() == ".parquet":
        return _build(source, _Columns.of(_rows_of_parquet(source)))
    return parse_detections(source, read_text(source, DetectionError, "give detections as .json, .csv or .jsonl"))


def _read_parts(folder: Path) -> dict[str, Detections]:
    """The detections of a folder of parts; a warning says how many videos have an error instead."""
    from refineloc.runtime.jobs.detection import MergedDetections  # which imports this module

    try:
        merged = MergedDetections(folder)
        detections = _build(folder, _Columns.of({name: list(video) for name, video in merged}))
    except InputError as error:
        raise DetectionError(str(error)) from error
    if merged.errors:
        warnings.warn(merged.without(), stacklevel=3)
    return detections


def parse_detections(source: Path, text: str) -> dict[str, Detections]:
    """The detections in the text of a file (see `read_detections`)."""
    ending = detection_ending(source, text)
    if ending == ".json":
        return _build(source, _columns_of_json(source, text))
    readers = {".csv": _rows_of_csv, ".jsonl": _rows_of_jsonl}
    return _build(source, _Columns.of(readers[ending](source, text)))


def detection_ending(source: Path, text: str) -> str:
    """Which of `DETECTION_ENDINGS` a file of detections has, or should have."""
    ending = source.suffix.lower()
    if ending in DETECTION_ENDINGS:
        return ending
    if not text.lstrip().startswith("{"):
        return ".csv"
    return ".jsonl" if re.match(r'\s*\{\s*"video"\s*:\s*"', text) else ".json"


# A video's rows before the class indices are known: start, end, label, score.
_Row = tuple[float, float, str, float]


class _Columns:
    """The rows of a file, video by video, in as little memory as they take."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.start, self.end, self.score, self.label = array("d"), array("d"), array("d"), array("q")
        self.labels: dict[str, int] = {}  # of `label`

    @classmethod
    def of(cls, raw: Mapping[str, list[_Row]]) -> "_Columns":
        columns = cls()
        for name, rows in raw.items():
            start, end, label, score = zip(*rows, strict=True) if rows else ((), (), (), ())
            columns.add(name, start, end, label, score)
        return columns

    def add(
        self, name: str, start: Iterable[float], end: Iterable[float], labels: Iterable[str], score: Iterable[float]
    ) -> None:
        before = len(self.start)
        self.start.extend(start)
        self.end.extend(end)
        self.score.extend(score)
        known = self.labels
        self.label.extend([known.setdefault(label, len(known)) for label in labels])
        self.counts[name] = len(self.start) - before


def _build(source: Path, columns: _Columns) -> dict[str, Detections]:
    # One array of all rows, and a view for each video: thousands of small arrays would take longer than parsing.
    start, end, score = (np.frombuffer(each) for each in (columns.start, columns.end, columns.score))
    unsorted = np.frombuffer(columns.label, dtype=np.int64)
    names = list(columns.labels)
    classes = tuple(sorted(names))
    ranks = {label: rank for rank, label in enumerate(classes)}
    labels = np.array([ranks[label] for label in names], dtype=np.int64)[unsorted]
    bounds = {}
    begin = 0
    for name, count in columns.counts.items():
        bounds[name] = slice(begin, begin + count)
        begin += count
    for kind, texts in (("video", bounds), ("label", classes)):
        for text in texts:
            problem = "" if is_text(text) else "holds half a character (a lone surrogate)"
            if not text.strip():
                problem = "is empty; give it a name"
            if problem:
                of = labels == ranks[text] if kind == "label" else labels < 0
                place = next((f" of video {name!r}" for name, part in bounds.items() if of[part].any()), "")
                raise DetectionError(f"{source}: {kind} {text!r}{place}: {problem}")
    finite = np.isfinite(start) & np.isfinite(end) & np.isfinite(score)
    if not finite.all():
        bad = next(name for name, part in bounds.items() if not finite[part].all())
        raise DetectionError(f"{source}: video {bad!r}: a bound or a score is not a finite number")
    furthest = np.where(np.abs(start) > np.abs(end), start, end)
    for name, part in bounds.items() if (np.abs(furthest) > FURTHEST_S).any() else ():
        for seconds in furthest[part].tolist():
            if problem := too_far(seconds):
                raise DetectionError(f"{source}: video {name!r}: {problem}")
    return {
        name: Detections(start[part], end[part], score[part], labels[part], classes) for name, part in bounds.items()
    }


# How ActivityNet's form begins, and what stands before a video, whose name has nothing escaped, and after it.
_RESULTS = re.compile(
    r'[ \t\n\r]*\{[ \t\n\r]*(?:"version"[ \t\n\r]*:[ \t\n\r]*"[^"\\\x00-\x1f]*"[ \t\n\r]*,[ \t\n\r]*)?'
    r'"results"[ \t\n\r]*:[ \t\n\r]*\{'
)
_VIDEO = re.compile(r'[ \t\n\r]*"([^"\\\x00-\x1f]*)"[ \t\n\r]*:[ \t\n\r]*')
_NEXT = re.compile(r"[ \t\n\r]*([,}])")


def _columns_of_json(source: Path, text: str) -> _Columns:
    return _columns_of_plain_json(text) or _Columns.of(_rows_of_json(source, text))


def _columns_of_plain_json(text: str) -> _Columns | None:
    """The rows of ActivityNet's form, parsed one video at a time; None of another form, and where anything is wrong.

    The value of a whole JSON takes ten times the memory of its text. To get that from the system takes half as long as
    parsing.
    """
    begin = _RESULTS.match(text)
    if begin is None:
        return None
    columns, position, decode = _Columns(), begin.end(), json.JSONDecoder().raw_decode
    try:
        while True:
            video = _VIDEO.match(text, position)
            if video is None or video[1] in columns.counts:
                return None
            records, position = decode(text, video.end())
            segments = [record["segment"] for record in records]
            labels = [record["label"] for record in records]
            if type(records) is not list or not all(type(label) is str for label in labels):
                return None
            columns.add(
                video[1],
                [float(segment[0]) for segment in segments],
                [float(segment[1]) for segment in segments],
                labels,
                [float(record["score"]) for record in records],
            )
            after = _NEXT.match(text, position)
            if after is None:
                return None
            position = after.end()
            if after[1] == "}":
                break
        rest = json.loads('{"results": 0' + text[position:], object_pairs_hook=list)
    except (KeyError, IndexError, TypeError, ValueError, OverflowError, RecursionError):
        return None
    twice = sum(key == "results" for key, _ in rest) > 1
    return None if twice or _may_lack(text, columns.counts.values()) else columns


def _rows_of_json(source: Path, text: str) -> dict[str, list[_Row]]:
    document = parse_json(text, f"{source}", DetectionError)
    results = document.get("results", document) if isinstance(document, dict) else None
    if not isinstance(results, dict):
        raise DetectionError(f"{source}: expected ActivityNet's form, an object with 'results' by video")
    raw = {name: _rows_of_records(f"{source}: video {name!r}", records) for name, records in results.items()}
    if _may_lack(text, [*map(len, raw.values())]):
        parse_json(text, f"{source}", DetectionError, unique=True)
    return raw


def _may_lack(text: str, counts: Collection[int]) -> bool:
    """Whether the text may have something twice, of which Python's parser keeps the last alone.

    It then has more lists or more keys than the value that was made of it; or a name that looks like them. The slow
    way tells. To take it always would make reading a third slower.
    """
    rows = sum(counts)
    return text.count("[") > len(counts) + rows or any(text.count(f'"{key}"') > rows for key in ("label", "score"))


def _rows_of_jsonl(source: Path, text: str) -> dict[str, list[_Row]]:
    raw: dict[str, list[_Row]] = {}
    for number, line in enumerate(text.split("\n"), start=1):  # not splitlines: JSON texts may hold other line ends
        if not line.strip():
            continue
        where = f"{source}: line {number}"
        entry = parse_json(line, where, DetectionError)
        if not isinstance(entry, dict) or "video" not in entry:
            raise DetectionError(f"{where}: expected an object with 'video' and 'detections'")
        if not isinstance(entry["video"], str):
            raise DetectionError(f"{where}: 'video': {not_a_text(entry['video'])}")
        if entry["video"] in raw:
            raise DetectionError(f"{where}: video {entry['video']!r} is there twice")
        rows = raw[entry["video"]] = _rows_of_records(where, entry.get("detections"))
        if line.count('"video"') > 1 or _may_lack(line, [len(rows)]):
            parse_json(line, where, DetectionError, unique=True)
    return raw


def _rows_of_parquet(source: Path) -> dict[str, list[_Row]]:
    columns = read_columns(source, _PARQUET_COLUMNS, DetectionError, "give detections")
    rows = zip(
        columns["start_s"].tolist(), columns["end_s"].tolist(), columns["label"], columns["score"].tolist(), strict=True
    )
    raw: dict[str, list[_Row]] = {}
    for name, row in zip(columns["video"], rows, strict=True):
        raw.setdefault(name, []).append(row)
    return raw


def _rows_of_csv(source: Path, text: str) -> dict[str, list[_Row]]:
    raw: dict[str, list[_Row]] = {}
    for where, row in csv_rows(text, _CSV_COLUMNS, source, DetectionError):
        # Spaces around names do not count, as in annotations.
        name, label = row["video-name"], plain_label(row["label"])
        if not name or not label:
            raise DetectionError(f"{where}: a video name or a label is empty")
        start, end = (finite_seconds(row[key], where, DetectionError) for key in ("t-start", "t-end"))
        score = finite_number(row["score"], where, DetectionError)
        raw.setdefault(name, []).append((start, end, label, score))
    return raw


def _rows_of_records(where: str, records: Any) -> list[_Row]:
    if not isinstance(records, list):
        raise DetectionError(f"{where}: expected a list of detections, got {type(records).__name__}")
    try:
        # No function call for each field: this line takes most of the time of reading a large file.
        rows = [(float(r["segment"][0]), float(r["segment"][1]), r["label"], float(r["score"])) for r in records]
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise DetectionError(
            f"{where}: expected detections with 'label', 'score' and 'segment': [start, end] "
            f"({type(error).__name__}: {error})"
        ) from error
    for index, row in enumerate(rows):
        if not isinstance(row[2], str):
            raise DetectionError(f"{where}: detection {index + 1}: its label: {not_a_text(row[2])}")
    return rows


def _records(detections: Detections) -> list[dict[str, Any]]:
    return [{"label": d.label, "score": d.score, "segment": [d.start, d.end]} for d in as_written(detections)]


def as_written(detections: Detections) -> Detections:
    """Detections as files have them, with scores of few digits.

    float64 has the noise of its last nine, which triples the size of a score.
    """
    with np.errstate(over="ignore"):
        short = detections.score.astype(np.float32)
    scores = np.array([float(str(score)) for score in short], dtype=np.float64)
    # What float32 cannot hold is not the score of a model, and stays.
    return replace(detections, score=np.where(np.isfinite(short), scores, detections.score))
