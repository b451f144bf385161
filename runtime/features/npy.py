"""Features in a folder of .npy files, which are never unpickled.

Files are read, not mapped into memory: a program that maps a file which another one cuts short is killed (SIGBUS).
"""

import contextlib
import itertools
import math
import os
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from refineloc.runtime.errors import FeatureError, InputWarning, first_line
from refineloc.runtime.features.checks import CHANGED, DAMAGED, check_array, check_names, file_state
from refineloc.runtime.features.store import FeatureInfo, FeatureStore
from refineloc.runtime.files import is_folder, reason

__all__ = ["UNREADABLE", "NpyArray", "NpyFolder", "is_one_video"]

# What NumPy raises on headers, which it reads with Python's parser.
UNREADABLE = (*DAMAGED, EOFError, SyntaxError, MemoryError, tokenize.TokenError)
# Versions 2 and 3 differ in the encoding of names, which arrays of numbers do not have.
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
    (3, 0): np.lib.format.read_array_header_2_0,
}
_STREAMS = ("_flow", "_rgb")
_BESIDE = ("_fps", "_timestamps_ms")
_LARGEST = 2**48  # numbers along an axis: keeps products small and prints short
_BLOCK = 1 << 19  # bytes at a time of what is converted while it is read


def _names_in(folder: Path) -> Iterator[str]:
    """The arrays of a folder: names of files without the ending."""
    try:
        # Not glob, to which a folder that cannot be read is an empty one.
        yield from (name.removesuffix(".npy") for name in os.listdir(folder) if name.endswith(".npy"))
    except OSError as error:
        raise FeatureError(f"{folder}: cannot be read: {reason(error)}") from error


def _videos_in(names: set[str], path: Path) -> tuple[set[str], tuple[str, ...]]:
    """The videos of a folder, and what its files have after their names: nothing, or the pair of streams."""
    # Extractors put a video's rate and times beside its features.
    names = {
        name
        for name in names
        if not any(name.endswith(end) and {name.removesuffix(end) + s for s in _STREAMS} & names for end in _BESIDE)
    }
    pairs = {end: {name.removesuffix(end) for name in names if name.endswith(end)} for end in _STREAMS}
    flow, rgb = pairs.values()
    if flow and flow == rgb and 2 * len(flow) == len(names):
        warnings.warn(
            f"{path}: NAME_flow.npy and NAME_rgb.npy are joined, flow first, to the features of NAME",
            InputWarning,
            stacklevel=4,
        )
        return flow, _STREAMS
    if flow & rgb:
        alone = min(names - {name + end for name in flow & rgb for end in _STREAMS})
        raise FeatureError(
            f"{path}: holds pairs NAME_rgb.npy and NAME_flow.npy, and {alone!r} without such a pair; move it elsewhere"
        )
    return names, ("",)


def is_one_video(path: Path) -> bool:
    """Whether a .npy file holds T x D numbers."""
    try:
        with path.open("rb") as file:
            array = NpyArray.opened(file, objects=True)
    except UNREADABLE:
        return False
    return not array.dtype.hasobject and len(array.shape) == 2


class NpyFolder(FeatureStore):
    """A folder of VIDEO.npy, or of rgb/VIDEO.npy and flow/VIDEO.npy (joined flow first, as in RefineLoc's files).

    Pairs VIDEO_flow.npy and VIDEO_rgb.npy are joined in the same order. One file VIDEO.npy is one video.
    """

    def __init__(self, path: Path, max_video_bytes: int) -> None:
        self.path = path
        self._max_video_bytes = max_video_bytes
        self._ends: tuple[str, ...] = ("",)
        if path.suffix == ".npy" and not is_folder(path, FeatureError):
            self._folders = [path.parent]
            self.names = check_names([path.stem], path)
            self._known = frozenset(self.names)
            self.two_streams = False
            return
        streams = [path / "flow", path / "rgb"]
        self._folders = streams if all(is_folder(folder, FeatureError) for folder in streams) else [path]
        self.two_streams = len(self._folders) == 2
        names = [set(_names_in(folder)) for folder in self._folders]
        if len(names) == 2 and names[0] != names[1]:
            unpaired = sorted(names[0] ^ names[1])
            raise FeatureError(
                f"{path}: {len(unpaired)} videos have only one of rgb/ and flow/, the first is {unpaired[0]!r}"
            )
        if len(names) == 1:
            names[0], self._ends = _videos_in(names[0], path)
            self.two_streams = len(self._ends) == 2
        self.names = check_names(names[0], path)
        self._known = frozenset(self.names)  # for fast lookup among a hundred thousand files

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def info(self, name: str) -> FeatureInfo:
        with self._opened(name) as files:
            dtype = np.result_type(*[file.dtype for file in files])
            return FeatureInfo(name, files[0].shape[0], sum(file.shape[1] for file in files), dtype)

    def _read(self, name: str, out: npt.NDArray[Any], columns: slice) -> None:
        with self._opened(name) as files:
            wanted = range(*columns.indices(sum(file.shape[1] for file in files)))
            if out.shape != (files[0].shape[0], len(wanted)):  # another file since its shape was asked for
                raise FeatureError(f"{self.path}: video {name!r}: {CHANGED}")
            begin = 0
            for file in files:
                end = begin + file.shape[1]
                # Columns first..last - 1 of `out` are in this file.
                first, last = (max(0, -(-(bound - wanted.start) // wanted.step)) for bound in (begin, end))
                if own := wanted[first:last]:
                    file.read_into(out[:, first:last], slice(own.start - begin, own.stop - begin, own.step))
                begin = end
            if any(file.has_changed() for file in files):
                raise FeatureError(f"{self.path}: video {name!r}: {CHANGED}")

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[list["NpyArray"]]:
        """The files of a video, flow before rgb, of one length."""
        where = f"{self.path}: video {name!r}"
        if name not in self:
            raise FeatureError(f"{where}: not in the folder, which holds {len(self.names)} videos")
        with contextlib.ExitStack() as closing:
            files = []
            for folder, end in itertools.product(self._folders, self._ends):
                path = folder / f"{name}{end}.npy"
                try:
                    if not path.is_file():  # opening a pipe could wait forever
                        raise ValueError("not a file")
                    file = NpyArray.opened(closing.enter_context(path.open("rb")))
                except UNREADABLE as error:
                    raise FeatureError(f"{where}: not a readable .npy file of numbers: {first_line(error)}") from error
                axes = check_array(file.shape, file.dtype, where)
                file.shape = tuple(file.shape[axis] for axis in axes)  # the same numbers in the same order
                files.append(file)
            if len({file.shape[0] for file in files}) > 1:
                lengths = [file.shape[0] for file in files]
                raise FeatureError(f"{where}: rgb and flow differ in length: {lengths} snippets")
            yield files


class NpyArray:
    """An array of numbers in an open file, all of which the file has.

    Args:
        file: open for as long as the array is read.
        offset: of the first number.
        shape, dtype: of the array.
        by_columns: whether it lies in Fortran's order.

    Raises:
        ValueError, or another of `UNREADABLE`: it is none.
    """

    def __init__(
        self, file: BinaryIO, offset: int, shape: tuple[int, ...], by_columns: bool, dtype: np.dtype[Any]
    ) -> None:
        self._file = file
        self._state = file_state(file.fileno())
        self.offset, self.shape, self.by_columns, self.dtype = offset, shape, by_columns, dtype
        if not all(type(size) is int and 0 <= size < _LARGEST for size in self.shape):
            raise ValueError("its shape is none")
        if not dtype.hasobject and offset + math.prod(self.shape) * dtype.itemsize > self._state[0]:
            raise ValueError("it is shorter than its header says")

    @classmethod
    def opened(cls, file: BinaryIO, *, objects: bool = False) -> "NpyArray":
        """The array of a .npy file; with `objects` also one of pickled objects, which are not read."""
        if file.read(2) == b"PK":
            raise ValueError("an archive of several arrays (.npz); save each with numpy.save")
        file.seek(0)
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"version {version} of the format")
        shape, by_columns, dtype = _HEADERS[version](file)
        if dtype.hasobject and not objects:
            raise ValueError(
                "pickled objects, which are not loaded (save each array alone; of W-TALC's, give the file itself)"
            )
        return cls(file, file.tell(), shape, by_columns, dtype)

    def read_into(self, out: npt.NDArray[Any], columns: slice) -> None:
        """Fill `out` [T, columns], converted to its dtype.

        Raises:
            ValueError: the file ends before its last number.
        """
        rows, width = self.shape
        if self.by_columns:
            room = np.empty(rows, self.dtype)
            for index, column in enumerate(range(*columns.indices(width))):
                self._file.seek(self.offset + column * room.nbytes)
                self._fill(room)
                np.copyto(out[:, index], room, casting="same_kind")
            return
        self._file.seek(self.offset)
        if out.dtype == self.dtype and out.shape == self.shape and out.flags.c_contiguous:
            self._fill(out)
            return
        room = np.empty((max(1, min(rows, _BLOCK // (width * self.dtype.itemsize))), width), self.dtype)
        for begin in range(0, rows, len(room)):
            part = room[: rows - begin]
            self._fill(part)
            np.copyto(out[begin : begin + len(part)], part[:, columns], casting="same_kind")

    def has_changed(self) -> bool:
        """Whether another program has written to the file since it was opened."""
        return file_state(self._file.fileno()) != self._state

    def _fill(self, array: npt.NDArray[Any]) -> None:
        if self._file.readinto(array.reshape(-1).view(np.uint8)) != array.nbytes:  # type: ignore[attr-defined]
            raise ValueError("it ends before its last number")
