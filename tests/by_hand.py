"""Ground truth and detections written as rows, for time lines that a test computes by hand."""

from collections.abc import Sequence

import numpy as np

from refineloc.runtime.annotations import Annotations, VideoAnnotation
from refineloc.runtime.detections import Detections

Span = tuple[str, float, float, str]  # video, start, end, label
Row = tuple[str, float, float, str, float]  # and score


def annotations_of(rows: Sequence[Span], videos: tuple[str, ...] = (), duration_s: float | None = None) -> Annotations:
    """The rows by video, in their order; `videos` are there without any row too."""
    built = {}
    for name in dict.fromkeys([*(row[0] for row in rows), *videos]):
        spans = [row for row in rows if row[0] == name]
        built[name] = VideoAnnotation(
            name,
            tuple(sorted({row[3] for row in spans})),
            duration_s=duration_s,
            start=np.array([float(row[1]) for row in spans]),
            end=np.array([float(row[2]) for row in spans]),
            segment_labels=tuple(row[3] for row in spans),
        )
    return Annotations(built)


def detections_of(rows: Sequence[Row]) -> dict[str, Detections]:
    """The rows by video, in their order."""
    classes = tuple(sorted({row[3] for row in rows}))
    return {
        name: Detections(
            *(np.array([float(row[column]) for row in rows if row[0] == name]) for column in (1, 2, 4)),
            np.array([classes.index(row[3]) for row in rows if row[0] == name], dtype=np.int64),
            classes,
        )
        for name in dict.fromkeys(row[0] for row in rows)
    }
