"""Features in .npz archives, which numpy.savez and numpy.savez_compressed write: zip files of one NAME.npy an array.

    VIDEO.npz   one video: the array `features`, or the only one that can be features
    FILE.npz    an array a video, called as the video, all of one width

The arrays fps, duration, snippet_frames and stride_frames state what the attributes of an HDF5 file do.

Archives are not trusted. Nothing is unpacked into files, and nothing is unpickled. A member is unpacked a block at a
time, no further than it is asked for, and only where it is packed as NumPy packs: Python unpacks other methods without
a limit. Its checksum is compared at its end.
"""

import contextlib
import io
import itertools
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Self

import numpy.typing as npt

from refineloc.runtime.addresses import Address, Ranges
from refineloc.runtime.errors import FeatureError, StoreError, counted, first_line
from refineloc.runtime.features.checks import CHANGED, STATED, can_be_features, check_names, file_state
from refineloc.runtime.features.npy import UNREADABLE, NpyArray
from refineloc.runtime.features.store import FeatureInfo, FeatureStore
from refineloc.runtime.kinds import first_bytes, mistaken

__all__ = ["NpzArchive", "NpzFile"]

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1  # a flag of a member
_MOST_LISTED = 1 << 24  # bytes of the list of members: more than 100,000 videos take
_LONGEST_HEADER = 1 << 16  # bytes of an array's header; NumPy's own limit comes after it was read
_BLOCK = 1 << 19  # bytes that are unpacked at a time
_UNNAMED = re.compile(r"arr_\d+")  # what numpy.savez calls arrays without names
_SAVE = "numpy.savez(path, features=x) for each video, or numpy.savez(path, **{video: x, ...}) for all"


class NpzArchive:
    """The arrays of an archive, which is open until `close`.

    Raises:
        FeatureError: it is none, or holds what NumPy does not write.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():  # opening a pipe could wait forever
            raise FeatureError(f"{path}: not a file")
        self.path = path
        self._members: dict[str, zipfile.ZipInfo] = {}
        with contextlib.ExitStack() as closing:
            try:
                self._file = closing.enter_context(_bounded(path))
                with _as_value_errors():
                    self._zip = closing.enter_context(zipfile.ZipFile(self._file))
                for member in self._zip.infolist():
                    self._add(member)
            except StoreError:
                raise
            except UNREADABLE as error:
                other = mistaken(first_bytes(path), "expected NumPy arrays (.npz)", own="NumPy arrays")
                raise FeatureError(f"{path}: {other or f'not a readable .npz file: {first_line(error)}'}") from error
            self._closing = closing.pop_all()

    def close(self) -> None:
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def state(self) -> tuple[int, object]:
        """See `file_state`."""
        return file_state(self._file)

    def array(self, name: str, *, objects: bool = False) -> NpyArray:
        """An array, whose numbers can be read while the archive is open; `objects` as in `NpyArray.opened`.

        Raises:
            FeatureError: it cannot be read.
        """
        member = self._members[name]
        try:
            with _as_value_errors():
                unpacked = _Unpacked(self._zip.open(member), self._file)
            return NpyArray.opened(unpacked, objects=objects, size=member.file_size)
        except StoreError:
            raise
        except UNREADABLE as error:
            raise FeatureError(f"{self.path}: array {name!r}: cannot be read: {first_line(error)}") from error

    def stated(self) -> dict[str, float]:
        """What is stated of fps, duration, snippet_frames and stride_frames."""
        return {
            key: self.array(key).number(key, f"{self.path}: array {key!r}") for key in STATED if key in self._members
        }

    def of_one_video(self) -> str | None:
        """The name of the array that is the features of one video; None where none can be, or several."""
        names = [name for name in self if name not in STATED]
        if "features" in names:
            return "features"
        if len(names) == 1:  # where it cannot be features, its reader says why
            return names[0]
        arrays = ((name, self.array(name, objects=True)) for name in names)
        fitting = list(
            itertools.islice((name for name, array in arrays if can_be_features(array.shape, array.dtype)), 2)
        )
        return fitting[0] if len(fitting) == 1 else None

    def features(self) -> NpyArray:
        """The features of the archive's one video.

        Raises:
            FeatureError: none of its arrays can be, or several.
        """
        name = self.of_one_video()
        if name is None:
            shown = [f"{name!r} {self.array(name, objects=True).shape}" for name in itertools.islice(self, 3)]
            more = ["..."] if len(self._members) > 3 else []
            raise FeatureError(
                f"{self.path}: expected an array 'features', or one array alone that can be features, T x D of float32 "
                f"or float16; got {', '.join(shown + more) or 'none'}"
            )
        return self.array(name)

    def _add(self, member: zipfile.ZipInfo) -> None:
        name = member.filename.removesuffix(".npy")
        if "/" in name or "\\" in name:
            raise ValueError(f"its member {member.filename!r} is in a folder; save the arrays with plain names")
        if name == member.filename:
            raise ValueError(f"its member {name!r} is not an array of numpy.savez")
        if name in self._members:
            raise ValueError(f"the array {name!r} is there twice")
        if member.flag_bits & _ENCRYPTED:
            raise ValueError(f"the array {name!r} is encrypted; save it without a password")
        if member.compress_type not in _METHODS:
            raise ValueError(f"the array {name!r} is packed as NumPy does not; use numpy.savez_compressed")
        self._members[name] = member


class NpzFile(FeatureStore):
    """An archive of many videos: an array for each.

    Raises:
        FeatureError: an array is no features, has no name of its own, or another width than the others.
    """

    def __init__(self, archive: NpzArchive, max_video_bytes: int) -> None:
        self.path = archive.path
        self._max_video_bytes = max_video_bytes
        self._archive = archive
        self._state = archive.state()
        stated = archive.stated()
        self.names = check_names((name for name in archive if name not in STATED), self.path)
        self._infos: dict[str, FeatureInfo] = {}
        for name in self.names:
            array = archive.array(name, objects=True)
            shown = f"{self.path}: array {name!r} ({array.dtype}, {array.shape})"
            if not can_be_features(array.shape, array.dtype):
                raise FeatureError(f"{shown}: not T x D of float32 or float16; save features alone: {_SAVE}")
            if _UNNAMED.fullmatch(name):
                raise FeatureError(f"{shown}: of which video? Save the arrays with names: {_SAVE}")
            snippets, width = array.as_features(f"{self.path}: video {name!r}").shape
            info = FeatureInfo.stating(name, snippets, width, array.dtype, stated)
            first = next(iter(self._infos.values()), info)
            if info.width != first.width:
                raise FeatureError(
                    f"{shown}: another width than {first.name!r} ({first.snippets} x {first.width}); save features "
                    f"alone, all as T x D of one D: {_SAVE}"
                )
            self._infos[name] = info

    def close(self) -> None:
        self._archive.close()

    def __contains__(self, name: object) -> bool:
        return name in self._infos

    def info(self, name: str) -> FeatureInfo:
        where = f"{self.path}: video {name!r}"
        if name not in self:
            raise FeatureError(f"{where}: not in the archive, which holds {counted(len(self.names), 'video')}")
        if self._archive.state() != self._state:
            raise FeatureError(f"{where}: {CHANGED}")
        return self._infos[name]

    def _read(self, name: str, out: npt.NDArray[Any], columns: slice) -> None:
        self.info(name)  # an archive that has changed is refused before it is read, and after
        self._archive.array(name).as_features(f"{self.path}: video {name!r}").read_into(out, columns)
        self.info(name)


class _Bounded(io.BufferedReader):
    """An archive, of which no more is read at once than a list of members may have."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > _MOST_LISTED:
            raise ValueError(f"its list of members has {size:,} bytes, more than {_MOST_LISTED:,}")
        return super().read(size)


class _Unpacked:
    """A member of an archive as a file of its own."""

    def __init__(self, member: IO[bytes], archive: io.BufferedReader) -> None:
        self._member = member
        self.tell, self.raw = member.tell, archive.raw  # `file_state` asks the latter

    def read(self, size: int) -> bytes:
        if size > _LONGEST_HEADER:
            raise ValueError(f"a header of {size:,} bytes")
        with _as_value_errors():
            return self._member.read(size)

    def readinto(self, room: Any) -> int:
        view, end = memoryview(room), 0
        with _as_value_errors():
            while block := self._member.read(min(_BLOCK, len(view) - end)):
                view[end : end + len(block)] = block
                end += len(block)
        return end

    def seek(self, offset: int) -> int:
        with _as_value_errors():
            return self._member.seek(offset)


def _bounded(path: Path) -> _Bounded:
    # At an address each block is a request.
    return _Bounded(Ranges(path), _BLOCK) if isinstance(path, Address) else _Bounded(io.FileIO(path))


@contextlib.contextmanager
def _as_value_errors() -> Iterator[None]:
    """Python's errors of archives, which are of no common kind, as ValueError."""
    try:
        yield
    except (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, NotImplementedError, EOFError) as error:
        raise ValueError(first_line(error)) from error
