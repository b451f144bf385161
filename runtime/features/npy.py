"""Arrays of numbers in .npy files, which are never unpickled.

Files are read, not mapped into memory: a program that maps a file which another one cuts short is killed (SIGBUS).
"""

import math
import tokenize
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from refineloc.runtime.addresses import open_here_and_there
from refineloc.runtime.errors import FeatureError, StoreError
from refineloc.runtime.features.checks import DAMAGED, check_array, check_stated, file_state

__all__ = ["UNREADABLE", "NpyArray", "NumbersFile", "is_one_video"]

# What NumPy raises on headers, which it reads with Python's parser.
UNREADABLE = (*DAMAGED, EOFError, SyntaxError, MemoryError, tokenize.TokenError)
# Versions 2 and 3 differ in the encoding of names, which arrays of numbers do not have.
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
    (3, 0): np.lib.format.read_array_header_2_0,
}
_LARGEST = 2**48  # numbers along an axis: keeps products small and prints short
_BLOCK = 1 << 19  # bytes at a time of what is converted while it is read


class NumbersFile(Protocol):
    """What is read of an open file."""

    def read(self, size: int, /) -> bytes: ...
    def readinto(self, room: Any, /) -> int | None: ...
    def seek(self, offset: int, /) -> int: ...
    def tell(self) -> int: ...


def is_one_video(path: Path) -> bool:
    """Whether a .npy file holds T x D numbers."""
    try:
        with open_here_and_there(path) as file:
            array = NpyArray.opened(file, objects=True)
    except StoreError:
        raise
    except UNREADABLE:
        return False
    return not array.dtype.hasobject and len(array.shape) == 2


class NpyArray:
    """An array of numbers in an open file, all of which the file has.

    Args:
        file: open for as long as the array is read.
        offset: of the first number.
        shape, dtype: of the array.
        by_columns: whether it lies in Fortran's order.
        size: bytes of the file; those of `file_state` if left out.

    Raises:
        ValueError, or another of `UNREADABLE`: it is none.
    """

    def __init__(
        self,
        file: NumbersFile,
        offset: int,
        shape: tuple[int, ...],
        by_columns: bool,
        dtype: np.dtype[Any],
        size: int | None = None,
    ) -> None:
        self._file = file
        self._state = file_state(file)
        self.offset, self.shape, self.by_columns, self.dtype = offset, shape, by_columns, dtype
        if not all(type(length) is int and 0 <= length < _LARGEST for length in self.shape):
            raise ValueError("its shape is none")
        available = self._state[0] if size is None else size
        if not dtype.hasobject and offset + math.prod(self.shape) * dtype.itemsize > available:
            raise ValueError("it is shorter than its header says")

    @classmethod
    def opened(cls, file: NumbersFile, *, objects: bool = False, size: int | None = None) -> "NpyArray":
        """The array of a .npy file; with `objects` also one of pickled objects, which are not read."""
        try:
            version = np.lib.format.read_magic(file)  # type: ignore[arg-type]
        except ValueError:
            file.seek(0)
            if file.read(2) == b"PK":
                raise ValueError("an archive of arrays (.npz); give its name that ending") from None
            raise
        if version not in _HEADERS:
            raise ValueError(f"version {version} of the format")
        shape, by_columns, dtype = _HEADERS[version](file)  # type: ignore[arg-type]
        if dtype.hasobject and not objects:
            raise ValueError(
                "pickled objects, which are not loaded (save each array alone; of W-TALC's, give the file itself)"
            )
        return cls(file, file.tell(), shape, by_columns, dtype, size)

    def as_features(self, where: str) -> Self:
        """The array as T x D, without axes of length 1 beside these.

        Raises:
            FeatureError: it cannot be features (see `check_array`).
        """
        axes = check_array(self.shape, self.dtype, where)
        self.shape = tuple(self.shape[axis] for axis in axes)  # the same numbers in the same order
        return self

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

    def number(self, key: str, what: str) -> float:
        """The only number of the array, which states `key` of a video (see `check_stated`)."""
        if math.prod(self.shape) != 1 or self.dtype.kind not in "iuf":
            raise FeatureError(f"{what} is not a number")
        room = np.empty(1, self.dtype)
        self._file.seek(self.offset)
        self._fill(room)
        return check_stated(key, float(room[0]), what)

    def has_changed(self) -> bool:
        """Whether another program has written to the file since it was opened."""
        return file_state(self._file) != self._state

    def _fill(self, array: npt.NDArray[Any]) -> None:
        if self._file.readinto(array.reshape(-1).view(np.uint8)) != array.nbytes:
            raise ValueError("it ends before its last number")
