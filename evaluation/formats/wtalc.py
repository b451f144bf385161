"""W-TALC's annotation folders: a .npy for each property, a row a video.

    videoname, subset          byte strings [V]
    segments, labels           object arrays [V]: lists of [start, end] in seconds, and byte strings, of each instance
    labels_all                 object array [V]: the video's labels
    duration                   seconds [V, 1] or [V]
    original_fps               frames a second [V] (extracted_fps is the rate that W-TALC's features were taken at)

Object arrays are pickles, and unpickling can run any program that the file's author chose. They are read only when the
caller allows it, and even then with a reader that knows arrays, lists, numbers and strings and nothing else
(`plain_pickle`).
"""

import io
import reprlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from refineloc.evaluation.formats.plain_pickle import load_plain
from refineloc.runtime.annotations import Annotations, VideoAnnotation
from refineloc.runtime.errors import AnnotationError
from refineloc.runtime.files import is_text

__all__ = ["is_wtalc_folder", "read_wtalc"]


def is_wtalc_folder(path: Path) -> bool:
    """Whether a folder has the files of this form."""
    return (path / "videoname.npy").is_file() and (path / "segments.npy").is_file()


def read_wtalc(folder: Path, *, allow_pickle: bool = False, subset: str | None = None) -> Annotations:
    """Read a folder of annotation arrays.

    Args:
        folder: with videoname.npy, segments.npy and labels.npy.
        allow_pickle: read object arrays, which this form cannot do without.
        subset: keep only this subset ("validation", "test").

    Raises:
        AnnotationError: a missing file, object arrays without `allow_pickle`, one that holds anything but plain values,
            or rows that do not fit together.
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
    for at, name in enumerate(names):
        if subset is not None and subsets[at] != subset:
            continue
        where = f"{folder}: video {name!r}"
        if name in videos:
            raise AnnotationError(f"{where}: is there twice")
        own_labels = tuple(_text(label, where) for label in _list(labels[at], where))
        spans = _list(segments[at], where)
        if len(spans) != len(own_labels):
            raise AnnotationError(f"{where}: {len(spans)} segments and {len(own_labels)} labels")
        try:
            bounds = np.array([[float(start), float(end)] for start, end in spans], dtype=np.float64).reshape(-1, 2)
        except (TypeError, ValueError, OverflowError):
            # Not the whole list: nested ones can hold themselves, or each other a million times.
            raise AnnotationError(f"{where}: expected segments [start, end], got {reprlib.repr(spans)}") from None
        if not np.isfinite(bounds).all():
            raise AnnotationError(f"{where}: a segment's bound is not a finite number")
        every = {*own_labels, *(_text(label, where) for label in _list(known[at], where))}
        videos[name] = VideoAnnotation(
            name=name,
            labels=tuple(sorted(every)),
            duration_s=durations[at] if durations and durations[at] > 0 else None,
            fps=rates[at] if rates and rates[at] > 0 else None,
            subset=subsets[at],
            start=bounds[:, 0].copy(),
            end=bounds[:, 1].copy(),
            segment_labels=own_labels,
        )
    if not videos:
        which = f" of subset {subset!r}" if subset else ""
        raise AnnotationError(f"{folder}: holds no video{which}")
    return Annotations(videos, folder)


def _objects(path: Path, allow_pickle: bool, count: int) -> list[Any]:
    """The rows of an object array (or of a plain one, which needs no permission)."""
    plain = _open(path)
    array: Any = None if plain is None else plain.tolist()
    if array is None:
        if not allow_pickle:
            raise AnnotationError(
                f"{path}: holds Python objects (a pickle, which can be harmful); "
                "if you trust where it is from, --allow-pickle reads it"
            )
        try:
            handle = io.BytesIO(path.read_bytes())
            _skip_header(handle)
            array = load_plain(handle.read())
        except Exception as error:  # a hostile or cut pickle can raise anything
            reason = str(error) or type(error).__name__
            raise AnnotationError(f"{path}: not a pickle of plain values: {reason}") from error
    if not isinstance(array, list) or len(array) != count:
        raise AnnotationError(f"{path}: expected {count} rows, as videoname.npy has")
    return array


def _skip_header(handle: io.BytesIO) -> None:
    if np.lib.format.read_magic(handle) == (1, 0):
        np.lib.format.read_array_header_1_0(handle)
    else:
        np.lib.format.read_array_header_2_0(handle)


def _open(path: Path) -> npt.NDArray[Any] | None:
    """A plain array; None for one of objects."""
    try:
        with path.open("rb") as handle:
            size = path.stat().st_size
            array: npt.NDArray[Any] = np.lib.format.read_array(handle, allow_pickle=False)
    except FileNotFoundError:
        raise AnnotationError(f"{path}: no such file; expected the .npy files of W-TALC's annotations") from None
    except ValueError as error:
        if "Object arrays" in str(error):
            return None
        raise AnnotationError(f"{path}: not a .npy file: {error}") from error
    except MemoryError:
        raise AnnotationError(f"{path}: not a .npy file: it states more values than it holds") from None
    except (OSError, EOFError) as error:
        raise AnnotationError(f"{path}: cannot be read: {error}") from error
    if array.dtype.kind not in "SUbiuf" or max(array.nbytes, array.size) > size:
        # Values of no size at all could be any number of them.
        raise AnnotationError(f"{path}: expected strings or numbers, got {array.size} values of type {array.dtype}")
    return array


def _strings(path: Path, count: int | None = None) -> list[Any]:
    array = _open(path)
    if array is None or array.ndim != 1 or array.dtype.kind not in "SU" or (count is not None and len(array) != count):
        raise AnnotationError(f"{path}: expected one string a video")
    return [_text(value, str(path)) for value in array.tolist()]


def _numbers(path: Path, count: int) -> list[float]:
    """One a video; none where the file is absent."""
    if not path.is_file():
        return []
    array = _open(path)
    if array is None or array.dtype.kind not in "fiu" or array.size != count:
        raise AnnotationError(f"{path}: expected one number a video")
    return [float(value) for value in array.ravel()]


def _list(value: Any, where: str) -> list[Any]:
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
