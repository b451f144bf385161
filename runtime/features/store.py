"""Reading snippet features: HDF5 files, and folders of .npy files.

Accepted layouts (DESIGN section 3):

    FILE.h5     one dataset a video at the root, T x D; or a group a video with a dataset `features` inside;
                optional attributes on either: fps, duration, snippet_frames
    DIR/        one VIDEO.npy a video, T x D
    DIR/        rgb/VIDEO.npy and flow/VIDEO.npy; joined as flow (temporal) first, rgb (spatial) second

Files are not trusted: links and storage that lead out of an HDF5 file (external links, external storage, virtual
datasets) are refused before they are followed, object dtypes are refused before they are read, .npy files are never
unpickled, a shape that would take more memory than `max_video_bytes` is refused before any is taken, and a chunk is
unpacked to its size and no further (`runtime/features/hdf5_chunks.py`).
"""

import contextlib
import math
import os
import tokenize
import zipfile
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from refineloc.runtime.errors import FeatureError, InputError
from refineloc.runtime.features.hdf5_chunks import check_chunks, is_packed, read_packed
from refineloc.runtime.features.hdf5_virtual import is_virtual

__all__ = [
    "FeatureInfo",
    "FeatureStore",
    "Stream",
    "StreamOrder",
    "check_finite",
    "open_features",
    "stream_slice",
]

Stream = Literal["both", "temporal", "spatial"]
StreamOrder = Literal["temporal-spatial", "spatial-temporal"]

# One video may take this much memory unless the caller says otherwise. A compressed file may state any shape in a few
# bytes, and its size says nothing of what it unpacks to, so only a limit on the result can be right for real files.
# 4 GiB are 524,288 snippets of 2,048 float32: 93 hours at 25 frames a second and 16 frames a snippet.
MAX_VIDEO_BYTES = 4 * 2**30

# The attributes that are read, and their bounds: far beyond any real value, and far within what arithmetic can hold.
_TIMES: dict[str, tuple[float, float]] = {
    "fps": (1e-3, 1e6),
    "duration": (1e-3, 1e9),
    "snippet_frames": (1, 2**24),
}
# What h5py raises on files that are damaged inside; a FeatureError is a ValueError too, and is let through first.
_DAMAGED = (OSError, RuntimeError, KeyError, TypeError, ValueError, OverflowError, AttributeError, IndexError)


def stream_slice(width: int, stream: Stream, order: StreamOrder) -> slice:
    """The columns of one stream in features that hold two, half of the width each.

    Args:
        width: D of the file.
        stream: which to take; "both" takes all columns.
        order: which stream stands first in the file. It differs between sources and cannot be seen in the data,
            so it is always given, never guessed.

    Raises:
        InputError: one stream of an odd width was asked for.
    """
    if stream == "both":
        return slice(0, width)
    if width % 2:
        raise InputError(f"width: expected an even number (two streams), got {width}")
    first_half = (stream == "temporal") == (order == "temporal-spatial")
    return slice(0, width // 2) if first_half else slice(width // 2, width)


@dataclass(frozen=True, slots=True)
class FeatureInfo:
    """What a feature file says about one video, before its features are read.

    Attributes:
        name: the video.
        snippets: T.
        width: D.
        dtype: as stored.
        fps, duration_s, snippet_frames: where the file states them.
    """

    name: str
    snippets: int
    width: int
    dtype: np.dtype[Any]
    fps: float | None = None
    duration_s: float | None = None
    snippet_frames: int | None = None


class FeatureStore(ABC):
    """The features of many videos, read one video at a time.

    Attributes:
        path: where they are.
        names: the videos, sorted.
    """

    path: Path
    names: tuple[str, ...]
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def __contains__(self, name: object) -> bool:
        """Whether there is such a video."""

    def read(self, name: str, columns: slice | None = None, dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
        """The features of one video.

        Args:
            name: the video.
            columns: which columns (see `stream_slice`); all if left out.
            dtype: of the result, float32 or float16.

        Returns:
            C-contiguous array, shape [T, D].

        Raises:
            FeatureError: no such video, wrong shape or dtype, more than `max_video_bytes`, or a value that is NaN or
                infinite.
        """
        info = self.info(name)
        wanted = columns if columns is not None else slice(0, info.width)
        shape = (info.snippets, len(range(*wanted.indices(info.width))))
        out = self.room(name, shape, dtype)
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
                f"of {_gib(self._max_video_bytes)} a video; the file is damaged, or split the video (in Python, "
                "open_features(max_video_bytes=...) raises the limit)"
            )
        try:
            return np.empty(shape, dtype=dtype)
        except MemoryError as error:
            raise FeatureError(f"{where}: no memory for its features ({_gib(size)}); split the video") from error

    def read_into(self, name: str, out: npt.NDArray[Any], columns: slice | None = None, *, finite: bool = True) -> None:
        """Like `read`, into a C-contiguous part of a buffer that the caller owns, shape [T, D].

        Args:
            name, columns: as for `read`.
            out: float32 or float16.
            finite: check for NaN and infinite values; a caller that converts float16 checks the result, in less time.
        """
        wanted = columns if columns is not None else slice(0, self.info(name).width)
        if not len(out):
            return
        where = f"{self.path}: video {name!r}"
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # what does not fit becomes infinite, and is found below
                self._read(name, out, wanted)
        except FeatureError:
            raise
        except _DAMAGED as error:
            raise FeatureError(
                f"{where}: the features cannot be read (the file may be cut short): {_first_line(error)}"
            ) from error
        except MemoryError as error:
            raise FeatureError(f"{where}: no memory to read its features; split the video") from error
        if not finite:
            return
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


def open_features(path: str | os.PathLike[str], *, max_video_bytes: int = MAX_VIDEO_BYTES) -> FeatureStore:
    """Open an HDF5 file, or a folder of .npy files, with snippet features.

    Args:
        path: the file or folder.
        max_video_bytes: refuse to read a video whose features would take more memory than this.

    Raises:
        FeatureError: missing, not a feature file, cut short, or without any video.
    """
    source = Path(path)
    if not source.exists():
        raise FeatureError(f"{source}: no such file or folder; give an HDF5 file or a folder of .npy files")
    if source.is_dir():
        store: FeatureStore = _NpyFolder(source, max_video_bytes)
    elif source.is_file():
        store = _HDF5File(source, max_video_bytes)
    else:  # opening a pipe or a device could wait forever
        raise FeatureError(f"{source}: neither a file nor a folder")
    if not store.names:
        store.close()
        raise FeatureError(f"{source}: holds no video; expected one dataset (T x D) a video")
    return store


def check_finite(features: npt.NDArray[Any], where: str) -> None:
    """Refuse features with NaN or infinite values; the message says which snippet.

    Args:
        features: shape [T, D].
        where: begins the message: the file and the video.

    Raises:
        FeatureError: a value is not finite.
    """
    # A sum is one fast pass without a temporary of the input's size, and is finite for all inputs met in practice;
    # only where it is not (a NaN, an infinity or an overflow) are the rows looked at one by one.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(features.sum(dtype=np.float32 if features.dtype == np.float16 else None)):
            return
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        first = int(np.argmax(bad))
        value = features[first][~np.isfinite(features[first])][0]
        raise FeatureError(
            f"{where}: snippet {first} holds {value} ({int(bad.sum())} of {len(bad)} snippets do); "
            "extract this video's features again or leave it out"
        )


class _HDF5File(FeatureStore):
    def __init__(self, path: Path, max_video_bytes: int) -> None:
        h5py = _h5py()
        self.path = path
        self._max_video_bytes = max_video_bytes
        self._checked: dict[str, str] = {}  # video -> path of its dataset, once that was looked at
        try:
            self._file = h5py.File(path, "r")
        except _DAMAGED as error:
            if not os.access(path, os.R_OK):
                raise FeatureError(f"{path}: cannot be read") from error
            raise FeatureError(
                f"{path}: not an HDF5 file, or cut short while it was copied: {_first_line(error)}"
            ) from error
        try:
            names = sorted(self._file)
            "".join(names).encode()
        except _DAMAGED as error:  # among them a UnicodeError: names that are not UTF-8
            self._file.close()
            raise FeatureError(f"{path}: damaged HDF5 file: {_first_line(error)}") from error
        self.names = tuple(names)

    def close(self) -> None:
        self._file.close()

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and "/" not in name and name in self._file

    def info(self, name: str) -> FeatureInfo:
        dataset, attributes = self._dataset(name)
        snippets, width = dataset.shape
        return FeatureInfo(
            name=name,
            snippets=snippets,
            width=width,
            dtype=dataset.dtype,
            fps=self._attribute(attributes, name, "fps"),
            duration_s=self._attribute(attributes, name, "duration"),
            snippet_frames=_as_int(self._attribute(attributes, name, "snippet_frames")),
        )

    def _read(self, name: str, out: npt.NDArray[Any], columns: slice) -> None:
        if name not in self._checked:
            self._dataset(name)
        dataset = self._file[self._checked[name]]
        if is_packed(dataset):
            read_packed(dataset, out, columns, f"{self.path}: video {name!r}")
        else:
            dataset.read_direct(out, source_sel=np.s_[:, columns])

    def _dataset(self, name: str) -> tuple[Any, dict[str, float | None]]:
        """The dataset of a video, and the attributes of it and of its group; nothing outside the file is touched."""
        where = f"{self.path}: video {name!r}"
        try:
            item, attributes = self._look(name, where)
            if item.is_virtual or item.external:
                raise FeatureError(f"{where}: its data lie in another file; copy them into this one (h5repack)")
            _check_array(item.shape, item.dtype, where)
            stored = item.id.get_storage_size()
            if name not in self._checked:
                check_chunks(item, where, self._max_video_bytes)
        except FeatureError:
            raise
        except _DAMAGED as error:
            raise FeatureError(f"{where}: damaged: {_first_line(error)}") from error
        # HDF5 fills in what was never written. Whatever is written takes some bytes, however well it is compressed.
        if item.shape[0] and not stored:
            raise FeatureError(f"{where}: has a shape, {item.shape[0]} x {item.shape[1]}, and nothing is stored in it")
        self._checked[name] = item.name
        return item, attributes

    def _look(self, name: str, where: str) -> tuple[Any, dict[str, float | None]]:
        h5py = _h5py()
        item = self._inside(self._file, name, where)
        attributes = _attributes(item)
        if isinstance(item, h5py.Group):
            if "features" not in item:
                raise FeatureError(f"{where}: expected a dataset, or a group with a dataset 'features' inside")
            item = self._inside(item, "features", where)
            attributes |= _attributes(item)
        if not isinstance(item, h5py.Dataset):
            raise FeatureError(f"{where}: expected a dataset, got a {type(item).__name__.lower()}")
        return item, attributes

    def _inside(self, group: Any, name: str, where: str) -> Any:
        h5py = _h5py()
        plain = bool(name) and name != "." and "/" not in name  # a path could lead through a link
        link = group.get(name, getlink=True) if plain and name in group else None
        if link is None:
            raise FeatureError(f"{where}: not in the file, which holds {len(self.names)} videos")
        # A soft link may pass through an external one on its way, so none is followed.
        if not isinstance(link, h5py.HardLink):
            raise FeatureError(f"{where}: is a link; links are not followed, copy the data into the file (h5repack)")
        address = group.id.links.get_info(name.encode()).u  # of the link: asking the object would open it
        if is_virtual(self._file.id.get_vfd_handle(), address, base=self._file.userblock_size):
            raise FeatureError(f"{where}: its data lie in another file; copy them into this one (h5repack)")
        return group[name]

    def _attribute(self, attributes: dict[str, float | None], name: str, key: str) -> float | None:
        if key not in attributes:
            return None
        value = attributes[key]
        if value is None:
            raise FeatureError(f"{self.path}: video {name!r}: attribute {key!r} is not a number")
        low, high = _TIMES[key]
        whole = key == "snippet_frames"
        if not low <= value <= high or (whole and value != round(value)):  # NaN fails the comparison, too
            raise FeatureError(
                f"{self.path}: video {name!r}: attribute {key!r} is {value:g}; expected a "
                f"{'whole ' if whole else ''}number from {low:g} to {high:,.0f}"
            )
        return value


def _attributes(item: Any) -> dict[str, float | None]:
    """The attributes that are read; None for one that is not a number. Others, and large ones, are not touched."""
    found: dict[str, float | None] = {}
    for key in _TIMES:
        if key in item.attrs:
            attribute = item.attrs.get_id(key)
            is_number = attribute.dtype.kind in "iuf" and attribute.shape in ((), (1,))
            found[key] = float(np.asarray(item.attrs[key]).reshape(())) if is_number else None
    return found


class _NpyFolder(FeatureStore):
    """A folder of VIDEO.npy, or of rgb/VIDEO.npy and flow/VIDEO.npy (joined flow first, as in RefineLoc's files)."""

    def __init__(self, path: Path, max_video_bytes: int) -> None:
        self.path = path
        self._max_video_bytes = max_video_bytes
        two = [path / "flow", path / "rgb"]
        self._folders = two if all(folder.is_dir() for folder in two) else [path]
        names = [{file.stem for file in folder.glob("*.npy")} for folder in self._folders]
        if len(names) == 2 and names[0] != names[1]:
            odd = sorted(names[0] ^ names[1])
            raise FeatureError(f"{path}: {len(odd)} videos have only one of rgb/ and flow/, the first is {odd[0]!r}")
        self.names = tuple(sorted(names[0]))
        self._known = frozenset(self.names)  # a folder may hold a hundred thousand files, each asked for by name

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def info(self, name: str) -> FeatureInfo:
        parts = self._parts(name)
        return FeatureInfo(name, len(parts[0]), sum(part.shape[1] for part in parts), np.result_type(*parts))

    def _read(self, name: str, out: npt.NDArray[Any], columns: slice) -> None:
        parts = self._parts(name)
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        np.copyto(out, whole[:, columns], casting="same_kind")

    def _parts(self, name: str) -> list[npt.NDArray[Any]]:
        where = f"{self.path}: video {name!r}"
        if name not in self:
            raise FeatureError(f"{where}: not in the folder, which holds {len(self.names)} videos")
        parts = []
        for folder in self._folders:
            path = folder / f"{name}.npy"
            try:
                if not path.is_file():  # opening a pipe could wait forever
                    raise ValueError("not a file")
                part = np.load(path, mmap_mode="r", allow_pickle=False)
                if not isinstance(part, np.ndarray):
                    part.close()
                    raise ValueError("an archive of several arrays (.npz)")
            # NumPy reads the header with Python's own parser, whose errors are many.
            except (*_DAMAGED, EOFError, SyntaxError, MemoryError, tokenize.TokenError, zipfile.BadZipFile) as error:
                raise FeatureError(f"{where}: not a readable .npy file of numbers: {_first_line(error)}") from error
            _check_array(part.shape, part.dtype, where)
            parts.append(part)
        if len({part.shape[0] for part in parts}) > 1:
            raise FeatureError(f"{where}: rgb and flow differ in length: {[p.shape[0] for p in parts]} snippets")
        return parts


def _check_array(shape: tuple[int, ...] | None, dtype: np.dtype[Any], where: str) -> None:
    if shape is None or len(shape) != 2:
        raise FeatureError(f"{where}: expected features of shape T x D, got shape {shape}")
    if dtype.kind != "f":
        raise FeatureError(f"{where}: expected float32 or float16 features, got dtype {dtype}")
    if shape[1] == 0:
        raise FeatureError(f"{where}: features have width 0")


def _as_int(value: float | None) -> int | None:
    return None if value is None else int(value)


def _gib(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"


def _first_line(error: BaseException) -> str:
    return (str(error).strip("'\"").splitlines() or [type(error).__name__])[0]


def _h5py() -> Any:
    # Imported here, not above: the embedding path (arrays in, detections out) does not pay for HDF5.
    with contextlib.suppress(ImportError):
        import h5py

        return h5py
    raise FeatureError("reading HDF5 needs h5py: pip install h5py")
