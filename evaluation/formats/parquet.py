"""Parquet: one row for each segment, for pandas, DuckDB or Spark (install `refineloc[formats]`)."""

import os
from collections.abc import Iterable

import numpy as np

from refineloc.evaluation.formats.tracks import Track
from refineloc.runtime.errors import MissingExtraError
from refineloc.runtime.files import atomic_path

__all__ = ["write_parquet"]


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
        raise MissingExtraError("Parquet needs pyarrow: pip install 'refineloc[formats]'") from error

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
