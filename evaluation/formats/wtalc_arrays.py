"""W-TALC's annotation folders: a .npy file for each property, with a row for each video.

    videoname, subset          byte strings [V]
    segments, labels           object arrays [V]: a list of [start, end] in seconds, and one of byte strings
    labels_all                 object array [V]: lists of the video's labels
    duration                   seconds [V, 1] or [V]
    original_fps               frames a second [V] (extracted_fps, not read, is the rate of W-TALC's features)

Object arrays are pickles, and reading a pickle can run any program. They are read only if the caller allows it.
"""

import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from refineloc.runtime.annotations import Annotations, VideoAnnotation
from refineloc.runtime.errors import AnnotationError, counted
from refineloc.runtime.files import is_file, status_of
from refineloc.runtime.text import is_text, too_far

__all__ = ["holds_wtalc_arrays", "read_wtalc_arrays"]


def holds_wtalc_arrays(folder: Path) -> bool:
    """Whether a folder has videoname.npy and segments.npy."""
    return all(is_file(folder / name, AnnotationError) for name in ("videoname.npy", "segments.npy"))


def read_wtalc_arrays(folder: Path, *, allow_pickle: bool = False, subset: str | None = None) -> Annotations:
    """Read a folder of annotation arrays.

    Args:
        folder: with videoname.npy, segments.npy and labels.npy.
        allow_pickle: read object arrays, which W-TALC's files need. Trusted files only: a pickle can run any program.
        subset: keep only this subset ("validation", "test").

    Raises:
        AnnotationError: a missing or damaged file, object arrays without `allow_pickle`, or rows that do not match.
    """
    names = _rows(folder / "videoname.npy", allow_pickle)

    def column(name: str, default: list[Any] | None = None) -> list[Any]:
        """The rows of a file; a file with a default may be absent."""
        path = folder / f"{name}.npy"
        rows = (
            default if default is not None and status_of(path, AnnotationError) is None else _rows(path, allow_pickle)
        )
        if len(rows) != len(names):
            raise AnnotationError(f"{path}: expected {counted(len(names), 'row')}, as videoname.npy has")
        return rows

    segments, labels = column("segments"), column("labels")
    known_labels, subsets = column("labels_all", labels), column("subset", [""] * len(names))
    durations, rates = (column(name, [0.0] * len(names)) for name in ("duration", "original_fps"))
    videos = {}
    for index in range(len(names)):
        where = f"{folder / 'videoname.npy'}: row {index}"
        try:
            name, stated_subset = _text(names[index]), _text(subsets[index])
            where = f"{folder}: video {name!r}"
            if subset is not None and stated_subset != subset:
                continue
            segment_labels, bounds = _texts(labels[index]), _bounds(segments[index])
            duration_s, fps = float(np.squeeze(durations[index])), float(np.squeeze(rates[index]))
            if problem := too_far(duration_s):
                raise ValueError(f"duration: {problem}")
            video_labels = {*segment_labels, *_texts(known_labels[index])}
        except (TypeError, ValueError, OverflowError) as error:
            raise AnnotationError(f"{where}: expected segments [start, end] and their labels: {error}") from error
        if len(bounds) != len(segment_labels):
            raise AnnotationError(
                f"{where}: {counted(len(bounds), 'segment')} and {counted(len(segment_labels), 'label')}"
            )
        if not name.strip() or not all(label.strip() for label in video_labels):
            raise AnnotationError(f"{where}: a video name or a label is empty")
        if name in videos:
            raise AnnotationError(f"{where}: is there twice")
        videos[name] = VideoAnnotation(
            name=name,
            labels=tuple(sorted(video_labels)),
            duration_s=duration_s if duration_s > 0 else None,
            fps=fps if fps > 0 else None,
            subset=stated_subset or None,
            start=bounds[:, 0].copy(),
            end=bounds[:, 1].copy(),
            segment_labels=segment_labels,
        )
    if not videos:
        which = f" of subset {subset!r}" if subset else ""
        raise AnnotationError(f"{folder}: holds no video{which}")
    return Annotations(videos, folder)


def _rows(path: Path, allow_pickle: bool) -> list[Any]:
    if status_of(path, AnnotationError) is not None and not is_file(path, AnnotationError):
        raise AnnotationError(f"{path}: not a file")  # opening a pipe could wait forever
    try:
        with path.open("rb") as handle:  # bytes: Python 2 wrote the files that W-TALC's authors released
            array = np.lib.format.read_array(handle, allow_pickle=allow_pickle, pickle_kwargs={"encoding": "bytes"})
    except FileNotFoundError:
        raise AnnotationError(f"{path}: no such file; expected the .npy files of W-TALC's annotations") from None
    except Exception as error:  # a damaged header or pickle can raise anything
        if "Object arrays cannot be loaded" in str(error):
            raise AnnotationError(
                f"{path}: holds Python objects (a pickle, which can be harmful); "
                "if you trust where it is from, allow_pickle reads it",
                parameter="allow_pickle",
            ) from None
        raise AnnotationError(f"{path}: cannot be read as .npy: {str(error) or type(error).__name__}") from error
    # Values of zero bytes: a small file can state any number of them.
    if not array.ndim or (array.dtype.kind != "O" and array.size > path.stat().st_size):
        raise AnnotationError(f"{path}: expected a row for each video")
    rows: list[Any] = array.tolist()
    return rows


def _bounds(segments: Any) -> npt.NDArray[np.float64]:
    """Start and end in seconds, float64 [n, 2]."""
    bounds = np.array([(float(start), float(end)) for start, end in segments], dtype=np.float64).reshape(-1, 2)
    if not np.isfinite(bounds).all():
        raise ValueError("not a finite number")
    if problem := too_far(max(bounds.ravel().tolist(), key=abs, default=0.0)):
        raise ValueError(problem)
    return bounds


def _texts(values: Sequence[Any]) -> tuple[str, ...]:
    return tuple(map(_text, values))


def _text(value: Any) -> str:
    text = value.decode() if isinstance(value, bytes) else value
    if not isinstance(text, str) or not is_text(text):
        raise ValueError(f"expected a name in UTF-8, got {reprlib.repr(value)}")
    return text
