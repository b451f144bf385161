"""Features in a file a video: a folder of VIDEO.npy or VIDEO.npz, or one such file."""

import contextlib
import itertools
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from refineloc.runtime.addresses import Address, open_here_and_there
from refineloc.runtime.errors import FeatureError, InputWarning, StoreError, counted, first_line
from refineloc.runtime.features.checks import CHANGED, check_names
from refineloc.runtime.features.npy import UNREADABLE, NpyArray
from refineloc.runtime.features.npz import NpzArchive
from refineloc.runtime.features.store import FeatureInfo, FeatureStore
from refineloc.runtime.files import is_folder, reason

__all__ = ["NpyFolder"]

_STREAMS = ("_flow", "_rgb")
# What extractors put beside the features of a video, and which key of `STATED` it is; times of snippets are not read.
_BESIDE = {"_fps": "fps", "_duration": "duration", "_timestamps_ms": ""}


class NpyFolder(FeatureStore):
    """A folder of VIDEO.npy, or of rgb/VIDEO.npy and flow/VIDEO.npy (joined flow first, as in RefineLoc's files).

    Pairs VIDEO_flow.npy and VIDEO_rgb.npy are joined in the same order. VIDEO_fps.npy and VIDEO_duration.npy are
    numbers that state these of VIDEO. Instead of .npy files there may be .npz archives. One file is one video.
    """

    def __init__(self, path: Path, max_video_bytes: int) -> None:
        self.path = path
        self._max_video_bytes = max_video_bytes
        self._streams: tuple[str, ...] = ("",)  # what names of files have after those of videos
        if is_folder(path, FeatureError):
            streams = [path / "flow", path / "rgb"]
            self._folders = streams if all(is_folder(folder, FeatureError) for folder in streams) else [path]
            names = self._list()
        else:
            self._folders, self._suffix, names = [path.parent], path.suffix, {path.stem}
            self._beside = {name for name in _beside(path.stem) if (path.parent / f"{name}.npy").is_file()}
        self.two_streams = len(self._folders) == 2 or len(self._streams) == 2
        self.names = check_names(names, path)
        self._known = frozenset(self.names)  # for fast lookup among a hundred thousand files

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def info(self, name: str) -> FeatureInfo:
        with self._opened(name) as (arrays, stated):
            dtype = np.result_type(*[array.dtype for array in arrays])
            width = sum(array.shape[1] for array in arrays)
            return FeatureInfo.stating(name, arrays[0].shape[0], width, dtype, stated | self._stated_beside(name))

    def _read(self, name: str, out: npt.NDArray[Any], columns: slice) -> None:
        with self._opened(name) as (arrays, _):
            wanted = range(*columns.indices(sum(array.shape[1] for array in arrays)))
            if out.shape != (arrays[0].shape[0], len(wanted)):  # another file since its shape was asked for
                raise FeatureError(f"{self.path}: video {name!r}: {CHANGED}")
            begin = 0
            for array in arrays:
                end = begin + array.shape[1]
                # Columns first..last - 1 of `out` are in this array.
                first, last = (max(0, -(-(bound - wanted.start) // wanted.step)) for bound in (begin, end))
                if own := wanted[first:last]:
                    array.read_into(out[:, first:last], slice(own.start - begin, own.stop - begin, own.step))
                begin = end
            if any(array.has_changed() for array in arrays):
                raise FeatureError(f"{self.path}: video {name!r}: {CHANGED}")

    def _list(self) -> set[str]:
        """The videos of the folder; finds out how their files are called, and which others lie beside them."""
        files = [_files_in(folder) for folder in self._folders]
        # A folder of arrays may hold archives of something else.
        self._suffix = ".npy" if any(file.endswith(".npy") for each in files for file in each) else ".npz"
        names, *others = [
            {file.removesuffix(self._suffix) for file in each if file.endswith(self._suffix)} for each in files
        ]
        self._beside = set()
        if others:
            if names != others[0]:
                unpaired = sorted(names ^ others[0])
                raise FeatureError(
                    f"{self.path}: {counted(len(unpaired), 'video has', 'videos have')} only one of rgb/ and flow/, "
                    f"the first is {unpaired[0]!r}"
                )
            return names
        self._beside = {each for name in names for each in _beside(name)} & names
        names, self._streams = _videos_in(names - self._beside, self.path, self._suffix)
        return names

    def _stated_beside(self, name: str) -> dict[str, float]:
        """What the arrays beside a video state of it."""
        stated = {}
        for array, key in zip(_beside(name), itertools.cycle(_BESIDE.values()), strict=False):
            if key and array in self._beside:
                path = self._folders[0] / f"{array}.npy"
                with contextlib.ExitStack() as closing:
                    stated[key] = _array(path, f"{path}", closing).number(key, f"{path}: {key}")
        return stated

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[tuple[list[NpyArray], dict[str, float]]]:
        """The arrays of a video, flow before rgb and of one length, and what is stated in archives of them."""
        where = f"{self.path}: video {name!r}"
        if name not in self:
            raise FeatureError(f"{where}: not in the folder, which holds {counted(len(self.names), 'video')}")
        with contextlib.ExitStack() as closing:
            arrays: list[NpyArray] = []
            stated: dict[str, float] = {}
            for folder, stream in itertools.product(self._folders, self._streams):
                path = folder / f"{name}{stream}{self._suffix}"
                if self._suffix.lower() == ".npz":
                    archive = closing.enter_context(NpzArchive(path))
                    stated |= archive.stated()
                    arrays.append(archive.features().as_features(where))
                else:
                    arrays.append(_array(path, where, closing).as_features(where))
            if len({array.shape[0] for array in arrays}) > 1:
                lengths = [array.shape[0] for array in arrays]
                raise FeatureError(f"{where}: rgb and flow differ in length: {lengths} snippets")
            yield arrays, stated


def _array(path: Path, where: str, closing: contextlib.ExitStack) -> NpyArray:
    try:
        if not isinstance(path, Address) and not path.is_file():  # opening a pipe could wait forever
            raise ValueError("not a file")
        file = open_here_and_there(path)
        closing.callback(file.close)
        return NpyArray.opened(file)
    except StoreError:
        raise
    except UNREADABLE as error:
        raise FeatureError(f"{where}: not a readable .npy file of numbers: {first_line(error)}") from error


def _beside(name: str) -> list[str]:
    """The arrays that may lie beside those of a video, in the order of `_BESIDE`."""
    bases = dict.fromkeys([name, *map(name.removesuffix, _STREAMS)])
    return [f"{base}{end}" for base in bases for end in _BESIDE]


def _files_in(folder: Path) -> list[str]:
    try:
        if isinstance(folder, Address):
            return [path.name for path in folder.iterdir()]
        return os.listdir(folder)  # not glob, to which a folder that cannot be read is an empty one
    except OSError as error:
        raise FeatureError(f"{folder}: cannot be read: {reason(error)}") from error


def _videos_in(names: set[str], path: Path, suffix: str) -> tuple[set[str], tuple[str, ...]]:
    """The videos of a folder, and what its files have after their names: nothing, or the pair of streams."""
    pairs = {end: {name.removesuffix(end) for name in names if name.endswith(end)} for end in _STREAMS}
    flow, rgb = pairs.values()
    if flow and flow == rgb and 2 * len(flow) == len(names):
        warnings.warn(
            f"{path}: NAME_flow{suffix} and NAME_rgb{suffix} are joined, flow first, to the features of NAME",
            InputWarning,
            stacklevel=5,
        )
        return flow, _STREAMS
    if flow & rgb:
        alone = min(names - {name + end for name in flow & rgb for end in _STREAMS})
        raise FeatureError(
            f"{path}: holds pairs NAME_rgb{suffix} and NAME_flow{suffix}, and {alone!r} without such a pair; move it "
            "elsewhere"
        )
    return names, ("",)
