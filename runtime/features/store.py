"""The features of many videos, read one video at a time: what every form of storage has in common.

Files are not trusted: a shape that would take more memory than `max_video_bytes` is refused before any is taken.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from refineloc.runtime.errors import FeatureError, StoreError, first_line
from refineloc.runtime.features.checks import DAMAGED, check_finite

__all__ = ["FeatureInfo", "FeatureStore"]


@dataclass(frozen=True, slots=True)
class FeatureInfo:
    """What a feature file says about one video, before its features are read.

    Attributes:
        name: the video.
        snippets: T.
        width: D.
        dtype: as stored.
        fps, duration_s, snippet_frames, stride_frames: where the file states them (`SnippetGrid`).
        backbone: what they were extracted with, by its identity or any other name; "" where the file does not state it.
    """

    name: str
    snippets: int
    width: int
    dtype: np.dtype[Any]
    fps: float | None = None
    duration_s: float | None = None
    snippet_frames: int | None = None
    stride_frames: int | None = None
    backbone: str = ""

    @classmethod
    def stating(cls, name: str, snippets: int, width: int, dtype: np.dtype[Any], stated: Mapping[str, Any]) -> Self:
        """With what a file states, by the keys of `STATED` and `backbone`."""
        return cls(
            name,
            snippets,
            width,
            dtype,
            fps=stated.get("fps"),
            duration_s=stated.get("duration"),
            snippet_frames=stated.get("snippet_frames"),
            stride_frames=stated.get("stride_frames"),
            backbone=stated.get("backbone", ""),
        )


class FeatureStore(ABC):
    """The features of many videos, read one video at a time.

    Attributes:
        path: where they are.
        names: the videos, sorted.
        two_streams: whether the features are known to hold two streams, half of the columns each.
        concurrent: whether `read` and `read_into` may be called from several threads at a time.
    """

    path: Path
    names: tuple[str, ...]
    two_streams: bool = False
    concurrent: bool = False
    _max_video_bytes: int

    @abstractmethod
    def info(self, name: str) -> FeatureInfo:
        """Shape, dtype and stated times of one video; reads no features.

        Raises:
            FeatureError: no such video, or a dataset that cannot hold features.
        """

    @abstractmethod
    def _read(self, name: str, out: npt.NDArray[Any], columns: slice) -> None:
        """Fill `out` [T, columns] with the features of one video."""

    def close(self) -> None:  # noqa: B027 (a store that holds nothing open has nothing to give back)
        """Give back what the store holds open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def __contains__(self, name: object) -> bool:
        """Whether there is such a video."""

    def read(self, name: str, columns: slice | None = None) -> npt.NDArray[np.float32]:
        """The features of one video.

        Args:
            name: the video.
            columns: which columns (see `stream_slice`); all if left out.

        Returns:
            float32 [T, D], C-contiguous.

        Raises:
            FeatureError: no such video, wrong shape or dtype, more than `max_video_bytes`, or a value that is NaN or
                infinite.
        """
        info = self.info(name)
        wanted = columns if columns is not None else slice(0, info.width)
        shape = (info.snippets, len(range(*wanted.indices(info.width))))
        out = self.room(name, shape)
        self.read_into(name, out, wanted)
        return out

    def room(self, name: str, shape: tuple[int, int], dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
        """An empty array for the features of one video, shape [T, D], within the limit of memory a video.

        Raises:
            FeatureError: more than `max_video_bytes`, or than there is.
        """
        where = f"{self.path}: video {name!r}"
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size > self._max_video_bytes:
            raise FeatureError(
                f"{where}: its {shape[0]} x {shape[1]} features would take {_gib(size)} of memory, more than the limit "
                f"of {_gib(self._max_video_bytes)} a video; the file is damaged, or split the video, or raise "
                "max_video_bytes",
                parameter="max_video_bytes",
            )
        try:
            return np.empty(shape, dtype=dtype)
        except MemoryError as error:
            raise FeatureError(f"{where}: no memory for its features ({_gib(size)}); split the video") from error

    def read_into(self, name: str, out: npt.NDArray[Any], columns: slice | None = None) -> None:
        """Like `read`, into a C-contiguous part of a buffer that the caller owns, shape [T, D]."""
        wanted = columns if columns is not None else slice(0, self.info(name).width)
        if not len(out):
            return
        where = f"{self.path}: video {name!r}"
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # what does not fit becomes infinite, and is found below
                self._read(name, out, wanted)
        except (FeatureError, StoreError):
            raise
        except DAMAGED as error:
            raise FeatureError(
                f"{where}: the features cannot be read (the file may be cut short): {first_line(error)}"
            ) from error
        except MemoryError as error:
            raise FeatureError(f"{where}: no memory to read its features; split the video") from error
        try:
            check_finite(out, where)
        except FeatureError:
            # float64 is taken as float32; which of both it was, the value as it is now cannot tell.
            stored = self.info(name).dtype
            if stored.itemsize <= out.dtype.itemsize:
                raise
            first = int(np.argmin(np.isfinite(out).all(axis=1)))
            raise FeatureError(
                f"{where}: snippet {first} holds a value that is not finite, or is too large for {out.dtype} "
                f"(it is stored as {stored}); extract this video's features again or leave it out"
            ) from None


def _gib(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"
