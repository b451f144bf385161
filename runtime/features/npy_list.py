"""Features of all videos in one .npy file, in the order of a list of names: W-TALC's and CO2-Net's.

    FILE.npy                             an array (dtype object) of V arrays T x D, or numbers V x T x D
    FILE.txt                             their names, one a line; or
    videoname.npy                        beside it, or in the folder of W-TALC's annotations:
    Thumos14reduced-Annotations/videoname.npy beside Thumos14reduced-I3D-JOINTFeatures.npy

Arrays of objects are pickles, which are not unpickled (`runtime/features/pickled.py`).
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from refineloc.runtime.addresses import open_here_and_there
from refineloc.runtime.errors import FeatureError, StoreError, counted, first_line
from refineloc.runtime.features.checks import CHANGED, check_array, check_names, file_state
from refineloc.runtime.features.npy import UNREADABLE, NpyArray
from refineloc.runtime.features.pickled import PickledArray, read_structure
from refineloc.runtime.features.store import FeatureInfo, FeatureStore
from refineloc.runtime.files import is_file
from refineloc.runtime.text import read_names

__all__ = ["NpyList"]

_MOST_NAMES = 1 << 26  # bytes of a file of names


class NpyList(FeatureStore):
    """One .npy file of many videos, whose names a file beside it has."""

    def __init__(self, path: Path, max_video_bytes: int) -> None:
        self.path = path
        self._max_video_bytes = max_video_bytes
        with open_here_and_there(path) as file:
            self._state = file_state(file)
            try:
                arrays = _arrays(file)
            except StoreError:
                raise
            except UNREADABLE as error:
                raise FeatureError(f"{path}: cannot be read as arrays of T x D numbers: {first_line(error)}") from error
        source, names = _names_beside(path)
        if len(names) != len(arrays):
            raise FeatureError(
                f"{path}: holds {counted(len(arrays), 'array')}, and {source} has {counted(len(names), 'name')}"
            )
        self.names = check_names(names, source)
        self._arrays = dict(zip(names, arrays, strict=True))

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def info(self, name: str) -> FeatureInfo:
        array = self._array(name)
        return FeatureInfo(name, array.shape[0], array.shape[1], array.dtype)

    def _read(self, name: str, out: npt.NDArray[Any], columns: slice) -> None:
        array = self._array(name)
        with open_here_and_there(self.path) as file:
            changed = file_state(file) != self._state
            if not changed:
                NpyArray(file, array.offset, array.shape, array.by_columns, array.dtype).read_into(out, columns)
                changed = file_state(file) != self._state
        if changed:
            raise FeatureError(f"{self.path}: video {name!r}: {CHANGED}")

    def _array(self, name: str) -> PickledArray:
        where = f"{self.path}: video {name!r}"
        if name not in self:
            raise FeatureError(f"{where}: not in the file, which holds {counted(len(self.names), 'video')}")
        array = self._arrays[name]
        if not isinstance(array, PickledArray):
            raise FeatureError(f"{where}: expected an array of T x D numbers, got {type(array).__name__}")
        axes = check_array(array.shape, array.dtype, where)
        return PickledArray(tuple(array.shape[axis] for axis in axes), array.dtype, array.by_columns, array.offset)


def _arrays(file: Any) -> list[Any]:
    """The arrays of a file that was opened: their places, or what stands in their place."""
    whole = NpyArray.opened(file, objects=True)
    if whole.dtype.hasobject:
        if len(whole.shape) != 1:
            raise ValueError(f"an array of objects of {len(whole.shape)} dimensions")
        file.seek(whole.offset)
        arrays = read_structure(file)
        if not isinstance(arrays, list) or len(arrays) != whole.shape[0]:
            raise ValueError("a damaged pickle")
        return arrays
    if len(whole.shape) != 3 or whole.by_columns:
        raise ValueError(f"numbers of the shape {whole.shape}")
    videos, *shape = whole.shape
    size = shape[0] * shape[1] * whole.dtype.itemsize
    return [PickledArray(tuple(shape), whole.dtype, False, whole.offset + index * size) for index in range(videos)]


def _names_beside(path: Path) -> tuple[Path, list[str]]:
    """The file of the videos' names, and the names in their order."""
    text = path.with_suffix(".txt")
    arrays = [
        path.with_name("videoname.npy"),
        path.with_name(f"{path.stem.split('-')[0]}-Annotations") / "videoname.npy",
    ]
    if is_file(text, FeatureError):
        return text, list(read_names(text, FeatureError, "give the names of the videos, one a line"))
    for source in arrays:
        if is_file(source, FeatureError):
            return source, _names_of(source)
    raise FeatureError(
        f"{path}: holds the arrays of many videos, and their names are not known; write them beside it, one a line, as "
        f"{text.name}, or put W-TALC's videoname.npy there"
    )


def _names_of(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            if file_state(file)[0] > _MOST_NAMES:
                raise ValueError("too large")
            names = np.lib.format.read_array(file, allow_pickle=False)
            if names.ndim != 1 or names.dtype.kind not in "SU" or not names.dtype.itemsize:
                raise ValueError(f"an array of {names.dtype} and {names.ndim} dimensions")
            return [name.decode() if isinstance(name, bytes) else name for name in names.tolist()]
    except StoreError:
        raise
    except UNREADABLE as error:
        raise FeatureError(f"{path}: expected an array of names: {first_line(error)}") from error
