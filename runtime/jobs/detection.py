"""Detection as the work of a job: a row has the detections of a video as columns, or the reason why there are none."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from refineloc.runtime.detections import Detections, as_written
from refineloc.runtime.errors import EngineError, FeatureError, InputError, counted
from refineloc.runtime.features.store import FeatureStore
from refineloc.runtime.jobs.blocks import Block, Row
from refineloc.runtime.jobs.parts import damaged, merge

if TYPE_CHECKING:
    from refineloc.runtime.batches import Planned
    from refineloc.runtime.detector import Detector

__all__ = ["DetectionWork", "MergedDetections", "check_provider", "check_row", "row_of"]

_COLUMNS = ("start", "end", "score", "label_index")


def row_of(name: str, video: Detections) -> Row:
    """The row of a video's detections."""
    short = as_written(video)  # so that a folder of parts is what the merged file is
    return {"video": name, **{key: getattr(short, key).tolist() for key in _COLUMNS}}


def check_row(row: Row, where: str, classes: tuple[str, ...]) -> None:
    """Raise an InputError that begins with `where` if a row is none that `row_of` gives."""
    _detections(row, where, classes)


def check_provider(detector: "Detector", expected: str) -> None:
    """Refuse to go on, in another process, with another provider than where the job began: its results differ.

    Raises:
        EngineError: it is another, as on a machine without a GPU.
    """
    if detector.provider != expected:
        raise EngineError(
            f"the model runs on {detector.provider} here, and on {expected} where the job began; give provider",
            parameter="provider",
        )


class DetectionWork:
    """Detection in the videos of a block (`blocks.Work`).

    Args:
        detector: the model and its settings.
        store: the open features.
        reopen: opens them in another process; can be pickled.
        options: of `Detector.plan`: fps, stride_frames, times, labels.
        planned: videos that it has checked already, by name.
    """

    def __init__(
        self,
        detector: "Detector",
        store: FeatureStore,
        reopen: Callable[[], FeatureStore],
        options: Mapping[str, Any],
        planned: "Mapping[str, Planned]",
    ) -> None:
        self._detector = detector
        self._store: FeatureStore | None = store
        self._reopen = reopen
        self._options = options
        self._planned = planned
        self._provider = detector.provider

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_store": None, "_planned": {}}

    def process(self, block: Block) -> Iterator[Row]:
        """See `Work`. A video whose features cannot be used is an error; the engine's errors end the job."""
        check_provider(self._detector, self._provider)
        if self._store is None:
            self._store = self._reopen()
        return self._rows(self._store, block.names)

    def check(self, row: Row, where: str) -> None:
        """See `Work`."""
        check_row(row, where, self._detector.classes)

    def _rows(self, store: FeatureStore, names: Sequence[str]) -> Iterator[Row]:
        count = 0
        try:
            planned = [self._planned.get(name) or self._plan(store, name) for name in names]
            for batch in self._detector.detect_planned(store, planned, labels=self._options["labels"]):
                for name, video in batch:
                    yield row_of(name, video)
                    count += 1
        except FeatureError as error:
            rest = names[count:]
            if len(rest) == 1:
                yield {"video": rest[0], "error": str(error)}
                return
            # Which video it was, halves tell. Detections of a video do not depend on the others of a call.
            half = len(rest) // 2
            yield from self._rows(store, rest[:half])
            yield from self._rows(store, rest[half:])

    def _plan(self, store: FeatureStore, name: str) -> "Planned":
        (planned,) = self._detector.plan(store, [name], together=False, **self._options)
        return planned


class MergedDetections:
    """The detections of all parts of a job, one video at a time; iterate over it once.

    Attributes:
        classes: of the model.
        external_data: ActivityNet's field of that name.
        count: number of the detections so far.
        errors: of the videos so far that have no detections, why.
        notes: of the films so far, what a user should know.

    Raises:
        InputError: a part is missing, damaged or of another job, also while it is iterated over.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        about, self._rows = merge(folder)
        classes, external_data = about.get("classes"), about.get("external_data")
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise InputError(f"{folder}: its parts are not of detections")
        self.classes = tuple(classes)
        self.external_data: dict[str, Any] = external_data if isinstance(external_data, dict) else {}
        self.count = 0
        self.errors: dict[str, str] = {}
        self.notes: list[str] = []

    def __iter__(self) -> Iterator[tuple[str, Detections]]:
        for where, row in self._rows:
            if "error" in row:
                self.errors[row["video"]] = row["error"]
                continue
            video = _detections(row, where, self.classes)
            self.count += len(video)
            notes = row.get("notes")
            self.notes += [note for note in notes if isinstance(note, str)] if isinstance(notes, list) else []
            yield row["video"], video

    def without(self) -> str:
        """A line that says how many of the videos have an error and no detections."""
        first = next(iter(self.errors.values()))
        return (
            f"{self._folder}: {counted(len(self.errors), 'video has', 'videos have')} an error and no detections, "
            f"the first: {first}"
        )


def _detections(row: Row, where: str, classes: tuple[str, ...]) -> Detections:
    """The detections that a row holds.

    Raises:
        InputError: it is none that `DetectionWork` writes.
    """
    columns: list[Any] = [row.get(key) for key in _COLUMNS]
    if not all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns):
        raise damaged(where)
    *numbers, labels = columns
    # The very types, as true is an integer and an integer no float.
    if not all(type(value) is float and math.isfinite(value) for column in numbers for value in column):
        raise damaged(where)
    if not all(type(label) is int and 0 <= label < len(classes) for label in labels):
        raise damaged(where)
    start, end, score = (np.array(column, dtype=np.float64) for column in numbers)
    return Detections(start, end, score, np.array(labels, dtype=np.int64), classes)
