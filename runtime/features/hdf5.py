"""Features in an HDF5 file: a dataset for each video at the root, or a group for each with a dataset `features` inside.

A dataset of another name is read where it is the only one of a group that can hold features, and so is a file whose
videos all lie in one group (keys with slashes).

HDF5 reads for one thread at a time. Features that lie in one piece, as they are to be read, are read without it.

Links and storage that lead out of the file (external links, external storage, virtual datasets) are refused before they
are followed, and object dtypes before they are read. HDF5 unpacks compressed chunks. Those of an untrusted file are
unpacked by `runtime/features/hdf5_chunks.py`, each to its size and no further.
"""

import contextlib
import itertools
import math
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from h5py import h5t
from h5py.h5d import DatasetID
from h5py.h5g import GroupID

from refineloc.runtime.addresses import Address, Ranges
from refineloc.runtime.errors import FeatureError, MissingExtraError, StoreError, counted, first_line
from refineloc.runtime.features.checks import (
    CHANGED,
    DAMAGED,
    STATED,
    check_array,
    check_names,
    check_stated,
    file_state,
)
from refineloc.runtime.features.hdf5_chunks import (
    REPACK,
    check_chunks,
    check_filters,
    filters_of,
    read_packed,
    selection,
)
from refineloc.runtime.features.hdf5_virtual import is_virtual
from refineloc.runtime.features.store import FeatureInfo, FeatureStore
from refineloc.runtime.kinds import first_bytes, mistaken

__all__ = ["HDF5File"]

_LONGEST_NAME = 200  # of a backbone

_DEEPEST, _MOST_MEMBERS = 8, 64  # groups in groups, and members of a video's group, that are looked at

_MORE = 1 << 7 | 1 << 11  # messages of an object's header: of external files, and of filters

# Most numbers have one of these types. To find what any other is in NumPy takes as long as to open a dataset.
_TYPES = [(known, known.dtype) for known in (h5t.IEEE_F32LE, h5t.IEEE_F16LE, h5t.IEEE_F64LE, h5t.STD_I64LE)]


class HDF5File(FeatureStore):
    def __init__(self, path: Path, max_video_bytes: int, untrusted: bool) -> None:
        self.path = path
        self._max_video_bytes = max_video_bytes
        self._untrusted = untrusted
        # video -> path of its dataset, and the axes of snippets and columns, once it was checked
        self._checked: dict[str, tuple[bytes, tuple[int, int]]] = {}
        # video -> where its features lie in the file, and how, if in one piece
        self._pieces: dict[str, tuple[int, tuple[int, ...], np.dtype[Any]]] = {}
        self.names = ()
        # The object of an address, read by ranges; of a file, HDF5 has its descriptor.
        self._ranges = Ranges(path) if isinstance(path, Address) else None
        self._file = _open(path) if self._ranges is None else _open_ranges(self._ranges)
        self.concurrent = self._ranges is None
        self._raw = self._file.id.get_vfd_handle() if self._ranges is None else self._ranges
        self._state = file_state(self._raw)
        self._userblock = self._file.userblock_size
        try:
            self._videos = self._group_of_videos()
            self.names = check_names(map(_text, self._videos), path)
            self._known = frozenset(self.names)
        except (FeatureError, StoreError):
            self._file.close()
            raise
        except DAMAGED as error:
            self._file.close()
            raise FeatureError(f"{path}: damaged HDF5 file: {first_line(error)}") from error

    def close(self) -> None:
        self._file.close()
        if self._ranges is not None:
            self._ranges.close()

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def info(self, name: str) -> FeatureInfo:
        shape, dtype, attributes = self._dataset(name)
        self._check_unchanged(name)
        snippets, width = (shape[axis] for axis in self._checked[name][1])
        return FeatureInfo.stating(name, snippets, width, dtype, attributes)

    def _read(self, name: str, out: npt.NDArray[Any], columns: slice) -> None:
        if name not in self._checked:
            self._dataset(name)
        path, axes = self._checked[name]
        piece = self._pieces.get(name)
        if piece and self._ranges is not None:
            place, shape, dtype = piece
            # One request; HDF5 would make several of values that it converts, and of some columns one a row.
            data = self._ranges.read_at(place, math.prod(shape) * dtype.itemsize)
            out[...] = np.frombuffer(data, dtype).reshape(shape)[selection(len(shape), axes, columns)]
        elif (
            piece
            and (out.shape, out.dtype) == piece[1:]
            and columns.indices(out.shape[1]) == (0, out.shape[1], 1)
            and out.flags.c_contiguous
        ):
            _read_piece(self._file.id.get_vfd_handle(), out, piece[0])
        else:
            dataset = self._file[path]
            if self._untrusted and filters_of(dataset.id.get_create_plist()):
                read_packed(dataset, axes, out, columns, f"{self.path}: video {name!r}")
            else:
                dataset.read_direct(out, source_sel=selection(len(dataset.shape), axes, columns))
        self._check_unchanged(name)

    def _check_unchanged(self, name: str) -> None:
        """HDF5 keeps parts of the file in memory, and takes zeros for what lies behind its end."""
        if file_state(self._raw) != self._state:
            raise FeatureError(f"{self.path}: video {name!r}: {CHANGED}")

    def _dataset(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any], dict[str, Any]]:
        """Shape and dtype of a video's dataset, and its attributes and its group's. Opens nothing outside the file."""
        where = f"{self.path}: video {name!r}"
        try:
            item, attributes = self._look(name, where)
            # Many videos are looked at before the first is read, and each question takes HDF5 its time. The longest is
            # that for the property list, which tells nothing more of one piece with a plain header.
            place = item.get_offset()
            whole = place is not None and _is_plain(item)
            stated: Any = None if whole else item.get_create_plist()
            if not whole and (stated.get_layout() == h5py.h5d.VIRTUAL or stated.get_external_count()):
                raise FeatureError(f"{where}: its data lie in another file; copy them into this one (h5repack)")
            shape, (dtype, plain), stored = item.shape, _dtype(item.get_type()), item.get_storage_size()
            axes = check_array(shape, dtype, where)
            if not whole and name not in self._checked:
                check_chunks(item, stated, dtype, where, self._max_video_bytes)
                if self._untrusted:
                    check_filters(stated, dtype, plain, where)
                else:
                    _load_filters(stated, where)
        except (FeatureError, StoreError):
            raise
        except DAMAGED as error:
            raise FeatureError(f"{where}: damaged: {first_line(error)}") from error
        # HDF5 fills in values that were never written; written ones take some bytes, even compressed.
        if 0 not in shape and not stored:
            raise FeatureError(f"{where}: has a shape, {' x '.join(map(str, shape))}, and nothing is stored in it")
        if place is not None and plain and (self._ranges is not None or hasattr(os, "preadv")):
            self._pieces[name] = place, shape, dtype
        self._checked[name] = h5py.h5i.get_name(item), axes
        return shape, dtype, attributes

    def _look(self, name: str, where: str) -> tuple[Any, dict[str, Any]]:
        if name not in self._known:
            raise FeatureError(f"{where}: not in the file, which holds {counted(len(self.names), 'video')}")
        item = self._inside(self._videos, name, where)
        attributes = _attributes(item, where)
        if isinstance(item, GroupID):
            features = "features" if item.links.exists(b"features") else self._only_dataset(item, where)
            item = self._inside(item, features, where)
            attributes |= _attributes(item, where)
        if not isinstance(item, DatasetID):
            kind = "group" if isinstance(item, GroupID) else "datatype"
            raise FeatureError(f"{where}: expected a dataset, got a {kind}")
        return item, attributes

    def _only_dataset(self, group: Any, where: str) -> str:
        """The name of the only dataset of a group that can hold features."""
        members = self._members(group)
        fitting = [name for name, member in members.items() if _can_hold_features(member)]
        if len(fitting) == 1:
            return fitting[0]
        shown = [
            f"{name!r} ({' x '.join(map(str, member.shape or ())) if isinstance(member, DatasetID) else 'a group'})"
            for name, member in itertools.islice(members.items(), 3)
        ]
        raise FeatureError(
            f"{where}: expected a dataset, or a group with a dataset 'features' inside; got a group with "
            f"{', '.join([*shown, *(['...'] if len(members) > 3 else [])]) or 'nothing'}"
        )

    def _members(self, group: Any) -> dict[str, Any]:
        """The first members of a group; those that lead out of the file are none."""
        members = {}
        for name in map(_text, itertools.islice(group, _MOST_MEMBERS)):
            with contextlib.suppress(FeatureError):
                members[name] = self._inside(group, name, "")
        return members

    def _group_of_videos(self) -> Any:
        """The group of the videos: the root, unless it holds nothing but one group of them."""
        group = self._file.id
        for _ in range(_DEEPEST):
            if len(group) != 1:
                break
            try:
                (item,) = self._members(group).values()
                members = self._members(item) if isinstance(item, GroupID) else {}
            except StoreError:
                raise
            except DAMAGED:  # who reads the video is told
                break
            groups = [member for member in members.values() if isinstance(member, GroupID)]
            videos = len(groups) + sum(map(_can_hold_features, members.values()))
            # A group with one dataset is a video, and so is one with its streams.
            if {"features", "rgb", "flow"} & set(members) or not (videos > 1 or groups):
                break
            group = item
        return group

    def _inside(self, group: Any, name: str, where: str) -> Any:
        """A member of a group that has one of this name."""
        path = name in ("", ".") or "/" in name  # which could lead through a link
        link = None if path else group.links.get_info(name.encode())
        # Soft links are not followed, as they may lead through an external link.
        if link is None or link.type != h5py.h5l.TYPE_HARD:
            raise FeatureError(f"{where}: is a link; links are not followed, copy the data into the file (h5repack)")
        # By the address of the link: to ask the object would open it.
        if is_virtual(self._raw, link.u, base=self._userblock):
            raise FeatureError(f"{where}: its data lie in another file; copy them into this one (h5repack)")
        # `h5py.Dataset` and `h5py.Group` would ask HDF5 for more, at every video.
        return h5py.h5o.open(group, name.encode())


def _open(path: Path) -> h5py.File:
    """Open the file, without a lock where the file system has none: NFS and read-only media may refuse any lock."""
    try:
        try:
            return h5py.File(path, "r")
        except BlockingIOError as error:
            raise FeatureError(
                f"{path}: another program is writing it; wait until that has closed it, or set "
                "HDF5_USE_FILE_LOCKING=FALSE to read it as it is"
            ) from error
        except OSError:  # what is wrong with the file itself fails again
            return h5py.File(path, "r", locking=False)
    except FeatureError:
        raise
    except DAMAGED as error:
        if not os.access(path, os.R_OK):
            raise FeatureError(f"{path}: cannot be read") from error
        if "already open for write" in str(error):  # by a mark in the file, which stays if its writer is killed
            raise FeatureError(
                f"{path}: another program is writing it, or ended without closing it; wait for that program, and if "
                f"there is none any more: h5clear -s {path}"
            ) from error
        if other := mistaken(first_bytes(path), "expected an HDF5 file of features", own="an HDF5"):
            raise FeatureError(f"{path}: {other}") from error
        raise FeatureError(
            f"{path}: not an HDF5 file, or cut short while it was copied: {first_line(error)}"
        ) from error


def _open_ranges(ranges: Ranges) -> h5py.File:
    try:
        return h5py.File(ranges, "r")
    except StoreError:
        raise
    except DAMAGED as error:
        where = ranges.address
        if other := mistaken(first_bytes(where), "expected an HDF5 file of features", own="an HDF5"):
            raise FeatureError(f"{where}: {other}") from error
        raise FeatureError(f"{where}: not an HDF5 file, or its upload was cut short: {first_line(error)}") from error


def _is_plain(item: Any) -> bool:
    """Whether the header of an object has no message of `_MORE`, if h5py says so: HDF5 deprecates its way to ask."""
    header = getattr(h5py.h5o.get_info(item), "hdr", None)
    return header is not None and not header.mesg.present & _MORE


def _dtype(stored: Any) -> tuple[np.dtype[Any], bool]:
    """The dtype of numbers in a file, and whether it has them in memory just as they are stored."""
    for known, dtype in _TYPES:
        if stored == known:
            return dtype, True
    dtype = stored.dtype
    return dtype, dtype.kind in "iuf" and h5t.py_create(dtype) == stored


def _read_piece(descriptor: int, out: npt.NDArray[Any], offset: int) -> None:
    rest = out.data.cast("B")
    while rest:
        done = os.preadv(descriptor, [rest], offset)
        if not done:
            raise OSError("the file ends before its last number")
        rest, offset = rest[done:], offset + done


def _can_hold_features(item: Any) -> bool:
    return isinstance(item, DatasetID) and item.dtype.kind == "f" and len(item.shape or ()) > 1


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _attributes(item: Any, where: str) -> dict[str, Any]:
    """The attributes in `STATED`, and `backbone`; no others are read."""
    values: dict[str, Any] = {}
    count = h5py.h5a.get_num_attrs(item)
    for key in STATED:
        if len(values) == count:  # each question takes HDF5 its time
            return values
        if not h5py.h5a.exists(item, key.encode()):
            continue
        attribute = h5py.h5a.open(item, key.encode())
        stored, shape = attribute.get_type(), attribute.shape
        dtype, plain = _dtype(stored)
        if dtype.kind not in "iuf" or shape not in ((), (1,)):
            raise FeatureError(f"{where}: attribute {key!r} is not a number")
        room = np.empty(shape, dtype)
        attribute.read(room, stored if plain else None)
        values[key] = check_stated(key, float(room.item()), f"{where}: attribute {key!r}")
    if len(values) < count and h5py.h5a.exists(item, b"backbone"):
        values["backbone"] = _backbone(h5py.HLObject(item).attrs, where)
    return values


def _backbone(attributes: Any, where: str) -> str:
    attribute = attributes.get_id("backbone")
    value = attributes["backbone"] if attribute.shape == () and h5py.check_string_dtype(attribute.dtype) else None
    name = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    if not isinstance(name, str) or len(name) > _LONGEST_NAME or not name.isprintable():
        raise FeatureError(f"{where}: attribute 'backbone' is no text of at most {_LONGEST_NAME} printable characters")
    return name


def _load_filters(stated: Any, where: str) -> None:
    """Load the filters of hdf5plugin if HDF5 lacks one that a dataset needs, by its property list."""
    for number, _, name in filters_of(stated):
        if not h5py.h5z.filter_avail(number):
            packed = f"{where}: is packed with the filter {number} ({name!r}), which HDF5 lacks"
            try:
                import hdf5plugin  # noqa: F401 (registers its filters with HDF5)
            except ImportError:
                raise MissingExtraError(f"{packed}: pip install hdf5plugin") from None
            if not h5py.h5z.filter_avail(number):
                raise FeatureError(f"{packed} and hdf5plugin too; {REPACK}")
