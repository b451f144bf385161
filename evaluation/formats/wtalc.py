"""W-TALC's annotation folders: a .npy file for each property, with a row for each video.

    videoname, subset          byte strings [V]
    segments, labels           object arrays [V]: a list of [start, end] in seconds, and one of byte strings
    labels_all                 object array [V]: lists of the video's labels
    duration                   seconds [V, 1] or [V]
    original_fps               frames a second [V] (extracted_fps, not read, is the rate of W-TALC's features)

Object arrays are pickles, and reading a pickle can run any program. They are read only if the caller allows it.
"""

import reprlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from refineloc.runtime.annotations import Annotations, VideoAnnotation
from refineloc.runtime.errors import AnnotationError
from refineloc.runtime.files import is_text

__all__ = ["is_wtalc_folder", "read_wtalc"]


def is_wtalc_folder(path: Path) -> bool:
    """Whether a folder has videoname.npy and segments.npy."""
    return (path / "videoname.npy").is_file() and (path / "segments.npy").is_file()


def read_wtalc(folder: Path, *, allow_pickle: bool = False, subset: str | None = None) -> Annotations:
    """Read a folder of annotation arrays.

    Args:
        folder: with videoname.npy, segments.npy and labels.npy.
        allow_pickle: read object arrays, which W-TALC's files need. Trusted files only: a pickle can run any program.
        subset: keep only this subset ("validation", "test").

    Raises:
        AnnotationError: a missing or damaged file, object arrays without `allow_pickle`, or rows that do not match.
    """
    names = _strings(folder / "videoname.npy")
    count = len(names)
    segments = _objects(folder / "segments.npy", allow_pickle, count)
    labels = _objects(folder / "labels.npy", allow_pickle, count)
    subsets = _strings(folder / "subset.npy", count) if (folder / "subset.npy").is_file() else [None] * count
    durations = _numbers(folder / "duration.npy", count)
    rates = _numbers(folder / "original_fps.npy", count)
    known = (
        _objects(folder / "labels_all.npy", allow_pickle, count) if (folder / "labels_all.npy").is_file() else labels
    )
    videos = {}
    for index, name in enumerate(names):
        if subset is not None and subsets[index] != subset:
            continue
        where = f"{folder}: video {name!r}"
        if name in videos:
            raise AnnotationError(f"{where}: is there twice")
        segment_labels = tuple(_text(label, where) for label in _list(labels[index], where))
        spans = _list(segments[index], where)
        if len(spans) != len(segment_labels):
            raise AnnotationError(f"{where}: {len(spans)} segments and {len(segment_labels)} labels")
        try:
            bounds = np.array([[float(start), float(end)] for start, end in spans], dtype=np.float64).reshape(-1, 2)
        except (TypeError, ValueError, OverflowError):
            # reprlib, not repr: nested lists can contain themselves, or each other a million times.
            raise AnnotationError(f"{where}: expected segments [start, end], got {reprlib.repr(spans)}") from None
        if not np.isfinite(bounds).all():
            raise AnnotationError(f"{where}: a segment's bound is not a finite number")
        all_labels = {*segment_labels, *(_text(label, where) for label in _list(known[index], where))}
        videos[name] = VideoAnnotation(
            name=name,
            labels=tuple(sorted(all_labels)),
            duration_s=durations[index] if durations and durations[index] > 0 else None,
            fps=rates[index] if rates and rates[index] > 0 else None,
            subset=subsets[index],
            start=bounds[:, 0].copy(),
            end=bounds[:, 1].copy(),
            segment_labels=segment_labels,
        )
    if not videos:
        which = f" of subset {subset!r}" if subset else ""
        raise AnnotationError(f"{folder}: holds no video{which}")
    return Annotations(videos, folder)


def _objects(path: Path, allow_pickle: bool, count: int) -> list[Any]:
    """The rows of an object array, or of a plain array, which needs no permission."""
    array = _open(path, allow_pickle)
    if array is None:
        raise AnnotationError(
            f"{path}: holds Python objects (a pickle, which can be harmful); "
            "if you trust where it is from, allow_pickle reads it",
            parameter="allow_pickle",
        )
    if array.ndim == 0 or len(array) != count:
        raise AnnotationError(f"{path}: expected {count} rows, as videoname.npy has")
    rows: list[Any] = array.tolist()
    return rows


def _open(path: Path, allow_pickle: bool = False) -> npt.NDArray[Any] | None:
    """The array of a file; None for an object array that may not be read."""
    try:
        with path.open("rb") as handle:
            size = path.stat().st_size
            array = _read_array(handle, path, allow_pickle)
    except FileNotFoundError:
        raise AnnotationError(f"{path}: no such file; expected the .npy files of W-TALC's annotations") from None
    except MemoryError:
        raise AnnotationError(f"{path}: not a .npy file: it states more values than it holds") from None
    except (OSError, EOFError) as error:
        raise AnnotationError(f"{path}: cannot be read: {error}") from error
    if array is None or array.dtype.kind == "O":
        return array
    if array.dtype.kind not in "SUbiuf" or max(array.nbytes, array.size) > size:
        # The number of values counts too: zero-byte strings could state any number of them.
        raise AnnotationError(f"{path}: expected strings or numbers, got {array.size} values of type {array.dtype}")
    return array


def _read_array(handle: BinaryIO, path: Path, allow_pickle: bool) -> npt.NDArray[Any] | None:
    """The array of an open file; None for an object array that may not be read."""
    array: npt.NDArray[Any]
    try:
        array = np.lib.format.read_array(handle, allow_pickle=False)
        return array
    except ValueError as error:
        if "Object arrays" not in str(error):
            raise AnnotationError(f"{path}: not a .npy file: {error}") from error
    if not allow_pickle:
        return None
    handle.seek(0)
    try:  # bytes: Python 2 wrote the files that W-TALC's authors released
        array = np.lib.format.read_array(handle, allow_pickle=True, pickle_kwargs={"encoding": "bytes"})
        return array
    except Exception as error:  # a damaged pickle can raise anything
        reason = str(error) or type(error).__name__
        raise AnnotationError(f"{path}: its Python objects cannot be read: {reason}") from error


def _strings(path: Path, count: int | None = None) -> list[Any]:
    array = _open(path)
    if array is None or array.ndim != 1 or array.dtype.kind not in "SU" or (count is not None and len(array) != count):
        raise AnnotationError(f"{path}: expected one string a video")
    return [_text(value, str(path)) for value in array.tolist()]


def _numbers(path: Path, count: int) -> list[float]:
    """One number for each video; an empty list if there is no such file."""
    if not path.is_file():
        return []
    array = _open(path)
    if array is None or array.dtype.kind not in "fiu" or array.size != count:
        raise AnnotationError(f"{path}: expected one number a video")
    return [float(value) for value in array.ravel()]


def _list(value: Any, where: str) -> list[Any]:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple):
        raise AnnotationError(f"{where}: expected a list, got {type(value).__name__}")
    return list(value)


def _text(value: Any, where: str) -> str:
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            raise AnnotationError(f"{where}: a name is not UTF-8: {reprlib.repr(value)}") from None
    if not isinstance(value, str):
        raise AnnotationError(f"{where}: expected a string, got {type(value).__name__}")
    if not is_text(value):
        raise AnnotationError(f"{where}: a name is not UTF-8: {reprlib.repr(value)}")
    return value
