"""Parquet: one row for each segment, for pandas, DuckDB or Spark (install `refineloc[formats]`)."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from refineloc.evaluation.formats.tracks import Track, track_of_rows
from refineloc.runtime.errors import InputError, MissingExtraError
from refineloc.runtime.files import atomic_path
from refineloc.runtime.text import finite_number, finite_seconds

__all__ = ["read_parquet", "write_parquet"]

_MISSING = "Parquet needs pyarrow: pip install 'refineloc[formats]'"


def write_parquet(path: str | os.PathLike[str], tracks: Iterable[Track]) -> None:
    """Write the columns video, start_s, end_s, label, score, duration_s, fps, subset; null for unknown.

    Raises:
        OutputError: the file cannot be written.
        MissingExtraError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(_MISSING) from error

    tracks = [track for track in tracks if len(track)]
    sizes = [len(track) for track in tracks]

    def column(values: Iterable[object], kind: object) -> object:
        """One value for each video, repeated for its segments."""
        repeated = [value for value, size in zip(values, sizes, strict=True) for _ in range(size)]
        return pyarrow.array(repeated, kind)

    text, number = pyarrow.string(), pyarrow.float64()
    scores = [[None] * len(t) if t.score is None else t.score.tolist() for t in tracks]
    table = pyarrow.table(
        {
            "video": column((t.video for t in tracks), text),
            "start_s": np.concatenate([np.empty(0), *(t.start for t in tracks)]),
            "end_s": np.concatenate([np.empty(0), *(t.end for t in tracks)]),
            "label": pyarrow.array([label for t in tracks for label in t.labels], text),
            "score": pyarrow.array([score for scores_of_video in scores for score in scores_of_video], number),
            "duration_s": column((t.duration_s for t in tracks), number),
            "fps": column((t.fps for t in tracks), number),
            "subset": column((t.subset for t in tracks), text),
        }
    )
    with atomic_path(path) as aside:
        pyarrow.parquet.write_table(table, aside)


def read_parquet(source: Path) -> list[Track]:
    """The segments of a file by `write_parquet`; of others the columns video, start_s, end_s and label are needed.

    Raises:
        InputError: no Parquet file, a column is missing, or a value is no name or no time.
        MissingExtraError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(_MISSING) from error
    try:
        records = pyarrow.parquet.read_table(source).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{source}: cannot be read as Parquet: {str(error).splitlines()[0]}") from error
    by_video: dict[str, list[tuple[float, float, str, float | None]]] = {}
    about: dict[str, dict[str, object]] = {}
    for number, record in enumerate(records, start=1):
        where = f"{source}: row {number}"
        video, label = record.get("video"), record.get("label")
        if not isinstance(video, str) or not video.strip() or not isinstance(label, str) or not label.strip():
            raise InputError(
                f"{where}: expected texts in the columns video and label, got {video!r:.60} and {label!r:.60}"
            )
        start, end = (finite_seconds(record.get(key), f"{where}: {key}", InputError) for key in ("start_s", "end_s"))
        score = record.get("score")
        score = None if score is None else finite_number(score, f"{where}: score", InputError)
        by_video.setdefault(video, []).append((start, end, label, score))
        about.setdefault(video, {key: record.get(key) for key in ("duration_s", "fps", "subset")})
    return [track_of_rows(video, rows, **about[video])[0] for video, rows in by_video.items()]
