"""Features in an HDF5 file: a dataset for each video at the root, or a group for each with a dataset `features` inside.

Links and storage that lead out of the file (external links, external storage, virtual datasets) are refused before they
are followed, and object dtypes before they are read. HDF5 unpacks compressed chunks. Those of an untrusted file are
unpacked by `runtime/features/hdf5_chunks.py`, each to its size and no further.
"""

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from refineloc.runtime.errors import FeatureError, MissingExtraError, first_line
from refineloc.runtime.features.checks import CHANGED, DAMAGED, check_array, check_names, file_state
from refineloc.runtime.features.hdf5_chunks import REPACK, check_chunks, check_filters, filters_of, read_packed
from refineloc.runtime.features.hdf5_virtual import is_virtual
from refineloc.runtime.features.store import FeatureInfo, FeatureStore

__all__ = ["HDF5File"]

# The attributes that are read, and their bounds: wider than real values, and narrow enough for arithmetic.
_TIMES: dict[str, tuple[float, float]] = {
    "fps": (1e-3, 1e6),
    "duration": (1e-3, 1e9),
    "snippet_frames": (1, 2**24),
    "stride_frames": (1, 2**24),
}


class HDF5File(FeatureStore):
    def __init__(self, path: Path, max_video_bytes: int, untrusted: bool) -> None:
        self.path = path
        self._max_video_bytes = max_video_bytes
        self._untrusted = untrusted
        self._checked: dict[str, str] = {}  # video -> path of its dataset, once it was checked
        self._file = _open(path)
        self._state = self._state_now()
        try:
            self.names = check_names(map(_text, self._file), path)
        except FeatureError:
            self._file.close()
            raise
        except DAMAGED as error:
            self._file.close()
            raise FeatureError(f"{path}: damaged HDF5 file: {first_line(error)}") from error

    def close(self) -> None:
        self._file.close()

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and "/" not in name and name in self._file

    def info(self, name: str) -> FeatureInfo:
        dataset, attributes = self._dataset(name)
        self._check_unchanged(name)
        snippets, width = dataset.shape
        return FeatureInfo(
            name=name,
            snippets=snippets,
            width=width,
            dtype=dataset.dtype,
            fps=attributes.get("fps"),
            duration_s=attributes.get("duration"),
            snippet_frames=attributes.get("snippet_frames"),
            stride_frames=attributes.get("stride_frames"),
        )

    def _read(self, name: str, out: npt.NDArray[Any], columns: slice) -> None:
        if name not in self._checked:
            self._dataset(name)
        dataset = self._file[self._checked[name]]
        if self._untrusted and filters_of(dataset):
            read_packed(dataset, out, columns, f"{self.path}: video {name!r}")
        else:
            dataset.read_direct(out, source_sel=np.s_[:, columns])
        self._check_unchanged(name)

    def _state_now(self) -> tuple[int, int]:
        return file_state(self._file.id.get_vfd_handle())

    def _check_unchanged(self, name: str) -> None:
        """HDF5 keeps parts of the file in memory, and takes zeros for what lies behind its end."""
        if self._state_now() != self._state:
            raise FeatureError(f"{self.path}: video {name!r}: {CHANGED}")

    def _dataset(self, name: str) -> tuple[Any, dict[str, Any]]:
        """The dataset of a video, and the attributes of it and of its group. Opens nothing outside the file."""
        where = f"{self.path}: video {name!r}"
        try:
            item, attributes = self._look(name, where)
            if item.is_virtual or item.external:
                raise FeatureError(f"{where}: its data lie in another file; copy them into this one (h5repack)")
            check_array(item.shape, item.dtype, where)
            stored = item.id.get_storage_size()
            if name not in self._checked:
                check_chunks(item, where, self._max_video_bytes)
                if self._untrusted:
                    check_filters(item, where)
                else:
                    _load_filters(item, where)
        except FeatureError:
            raise
        except DAMAGED as error:
            raise FeatureError(f"{where}: damaged: {first_line(error)}") from error
        # HDF5 fills in values that were never written; written ones take some bytes, even compressed.
        if item.shape[0] and not stored:
            raise FeatureError(f"{where}: has a shape, {item.shape[0]} x {item.shape[1]}, and nothing is stored in it")
        self._checked[name] = item.name
        return item, attributes

    def _look(self, name: str, where: str) -> tuple[Any, dict[str, Any]]:
        item = self._inside(self._file, name, where)
        attributes = _attributes(item, where)
        if isinstance(item, h5py.Group):
            if "features" not in item:
                raise FeatureError(f"{where}: expected a dataset, or a group with a dataset 'features' inside")
            item = self._inside(item, "features", where)
            attributes |= _attributes(item, where)
        if not isinstance(item, h5py.Dataset):
            raise FeatureError(f"{where}: expected a dataset, got a {type(item).__name__.lower()}")
        return item, attributes

    def _inside(self, group: Any, name: str, where: str) -> Any:
        plain = bool(name) and name != "." and "/" not in name  # no path, which could lead through a link
        link = group.get(name, getlink=True) if plain and name in group else None
        if link is None:
            raise FeatureError(f"{where}: not in the file, which holds {len(self.names)} videos")
        # Soft links are not followed, as they may lead through an external link.
        if not isinstance(link, h5py.HardLink):
            raise FeatureError(f"{where}: is a link; links are not followed, copy the data into the file (h5repack)")
        address = group.id.links.get_info(name.encode()).u  # of the link, as the object's would open the object
        if is_virtual(self._file.id.get_vfd_handle(), address, base=self._file.userblock_size):
            raise FeatureError(f"{where}: its data lie in another file; copy them into this one (h5repack)")
        return group[name]


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
        raise FeatureError(
            f"{path}: not an HDF5 file, or cut short while it was copied: {first_line(error)}"
        ) from error


def _text(name: str | bytes) -> str:
    """A name; h5py gives one that is not UTF-8 as bytes."""
    return name if isinstance(name, str) else name.decode("utf-8", "surrogateescape")


def _attributes(item: Any, where: str) -> dict[str, Any]:
    """The attributes in `_TIMES`; no others are read."""
    values: dict[str, Any] = {}
    for key, (low, high) in _TIMES.items():
        if key not in item.attrs:
            continue
        attribute = item.attrs.get_id(key)
        if attribute.dtype.kind not in "iuf" or attribute.shape not in ((), (1,)):
            raise FeatureError(f"{where}: attribute {key!r} is not a number")
        value = float(np.asarray(item.attrs[key]).reshape(()))
        whole = key.endswith("_frames")
        if not low <= value <= high or (whole and value != round(value)):  # refuses NaN, too
            raise FeatureError(
                f"{where}: attribute {key!r} is {value:g}; expected a "
                f"{'whole ' if whole else ''}number from {low:g} to {high:,.0f}"
            )
        values[key] = int(value) if whole else value
    return values


def _load_filters(dataset: Any, where: str) -> None:
    """Load the filters of hdf5plugin if HDF5 lacks one that the dataset needs."""
    for number, _, name in filters_of(dataset):
        if not h5py.h5z.filter_avail(number):
            packed = f"{where}: is packed with the filter {number} ({name!r}), which HDF5 lacks"
            try:
                import hdf5plugin  # noqa: F401 (registers its filters with HDF5)
            except ImportError:
                raise MissingExtraError(f"{packed}: pip install hdf5plugin") from None
            if not h5py.h5z.filter_avail(number):
                raise FeatureError(f"{packed} and hdf5plugin too; {REPACK}")
