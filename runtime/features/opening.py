"""Opening features, whatever form they have.

Accepted layouts:

    FILE.h5     one dataset a video at the root, T x D; or a group a video with a dataset `features` inside;
                optional attributes on either: fps, duration, snippet_frames, stride_frames, backbone
    DIR/        index.parquet and shard-00000.h5, ...: of refineloc-extract and refineloc-convert (`shards.py`)
    DIR/        one VIDEO.npy a video, T x D; VIDEO_fps.npy and VIDEO_duration.npy may state what attributes do
    FILE.npy    T x D of one video, called as the file is; or an array of all videos' T x D, or V x T x D, with their
                names in FILE.txt or W-TALC's videoname.npy
    DIR/        rgb/VIDEO.npy and flow/VIDEO.npy, or VIDEO_rgb.npy and VIDEO_flow.npy; joined as flow (temporal) first,
                rgb (spatial) second
    DIR/        VIDEO.npz instead of VIDEO.npy: the array `features`, or the only one that can be features
    FILE.npz    such an archive of one video; or an array a video, called as the video

Axes of length 1 beside T and D do not count. Other layouts are refused with a line that says how to save them.
"""

import os
import stat
from collections import Counter
from pathlib import Path

from refineloc.runtime.addresses import as_path
from refineloc.runtime.errors import FeatureError, counted
from refineloc.runtime.features.npy import is_one_video
from refineloc.runtime.features.npy_folder import NpyFolder
from refineloc.runtime.features.npz import NpzArchive, NpzFile
from refineloc.runtime.features.shards import INDEX, Shards
from refineloc.runtime.features.store import FeatureStore
from refineloc.runtime.files import status_of
from refineloc.runtime.kinds import first_bytes, mistaken
from refineloc.runtime.video.decode import FILM_SUFFIXES

__all__ = ["MAX_VIDEO_BYTES", "open_features"]

_OTHERS = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".pkl", ".pickle", ".pt", ".pth", ".mat", ".onnx")
_SAVE = "expected an HDF5 file with one dataset (T x D) a video, or a folder with one VIDEO.npy (T x D) a video"

# One video may take this much memory unless the caller says otherwise. A compressed file may state any shape in a few
# bytes, and its size says nothing of what it unpacks to, so only a limit on the result can be right for real files.
# 4 GiB are 524,288 snippets of 2,048 float32: 93 hours at 25 frames a second and 16 frames a snippet.
MAX_VIDEO_BYTES = 4 * 2**30


def open_features(
    path: str | os.PathLike[str], *, max_video_bytes: int = MAX_VIDEO_BYTES, untrusted: bool = False
) -> FeatureStore:
    """Open an HDF5 file, or a folder of .npy or .npz files, with snippet features.

    Args:
        path: the file or folder.
        max_video_bytes: refuse to read a video whose features would take more memory than this.
        untrusted: the file is from a stranger. Its compressed chunks are then unpacked here, none to more or less than
            its size, and filters other than gzip, LZF, shuffle and Fletcher's checksum are refused. Otherwise HDF5
            unpacks them, with the filters of hdf5plugin where that is installed.

    Raises:
        FeatureError: missing, not a feature file, cut short, or without any video.
    """
    source = as_path(path)
    status = status_of(source, FeatureError)
    if status is None:
        raise FeatureError(f"{source}: no such file or folder; give an HDF5 file or a folder of .npy or .npz files")
    if stat.S_ISDIR(status.st_mode) and (source / INDEX).is_file():
        return Shards(source, max_video_bytes)
    if stat.S_ISDIR(status.st_mode):
        store: FeatureStore = NpyFolder(source, max_video_bytes)
    elif stat.S_ISREG(status.st_mode) and source.suffix.lower() == ".npy":
        from refineloc.runtime.features.npy_list import NpyList

        store = NpyFolder(source, max_video_bytes) if is_one_video(source) else NpyList(source, max_video_bytes)
    elif stat.S_ISREG(status.st_mode) and source.suffix.lower() == ".npz":
        archive = NpzArchive(source)
        if archive.of_one_video() is None:
            store = NpzFile(archive, max_video_bytes)
        else:
            with archive:
                archive.features().as_features(f"{source}")  # before its name is looked for among the labels'
            store = NpyFolder(source, max_video_bytes)
    elif stat.S_ISREG(status.st_mode):
        if source.suffix.lower() in FILM_SUFFIXES:
            raise FeatureError(f"{source}: is a film; refineloc-extract makes its features ({_SAVE})")
        if source.suffix.lower() in _OTHERS:
            other = mistaken(first_bytes(source), _SAVE, own="NumPy arrays")
            raise FeatureError(f"{source}: {other or f'{source.suffix} files are not read; {_SAVE}'}")
        from refineloc.runtime.features.hdf5 import HDF5File  # HDF5 takes 0.1 s to load

        store = HDF5File(source, max_video_bytes, untrusted)
    else:  # opening a pipe or a device could wait forever
        raise FeatureError(f"{source}: neither a file nor a folder")
    if not store.names:
        store.close()
        instead, parameter = _instead(source)
        raise FeatureError(f"{source}: holds no video; {instead}{_SAVE}", parameter=parameter)
    return store


def _instead(source: Path) -> tuple[str, str]:
    """What a folder without features holds, and the parameter that takes it."""
    if not source.is_dir():
        return "", ""
    kinds = Counter(path.suffix.lower() or path.name for path in sorted(source.iterdir()))
    folders = [path for path in sorted(source.iterdir()) if path.is_dir()]
    within = next((folder for folder in folders if any(folder.glob("*.np[yz]"))), None)
    if within is not None:
        return f"its folder {within} does: give that; else: ", ""
    kind, count = kinds.most_common(1)[0] if kinds else ("", 0)
    if kind in FILM_SUFFIXES:
        return f"it holds films ({count} {kind}), whose features refineloc-extract makes; ", "backbone"
    if kind.startswith("."):
        return f"it holds {counted(count, f'{kind} file')}, which {'is' if count == 1 else 'are'} not read; ", ""
    return "", ""
