"""Opening features, whatever form they have.

Accepted layouts:

    FILE.h5     one dataset a video at the root, T x D; or a group a video with a dataset `features` inside;
                optional attributes on either: fps, duration, snippet_frames, stride_frames
    DIR/        one VIDEO.npy a video, T x D
    FILE.npy    an array of all videos' T x D, or V x T x D, with their names in FILE.txt or W-TALC's videoname.npy
    DIR/        rgb/VIDEO.npy and flow/VIDEO.npy; joined as flow (temporal) first, rgb (spatial) second
"""

import os
import stat
from pathlib import Path

from refineloc.runtime.errors import FeatureError
from refineloc.runtime.features.npy import NpyFolder
from refineloc.runtime.features.store import FeatureStore
from refineloc.runtime.files import status_of

__all__ = ["MAX_VIDEO_BYTES", "open_features"]

# One video may take this much memory unless the caller says otherwise. A compressed file may state any shape in a few
# bytes, and its size says nothing of what it unpacks to, so only a limit on the result can be right for real files.
# 4 GiB are 524,288 snippets of 2,048 float32: 93 hours at 25 frames a second and 16 frames a snippet.
MAX_VIDEO_BYTES = 4 * 2**30


def open_features(
    path: str | os.PathLike[str], *, max_video_bytes: int = MAX_VIDEO_BYTES, untrusted: bool = False
) -> FeatureStore:
    """Open an HDF5 file, or a folder of .npy files, with snippet features.

    Args:
        path: the file or folder.
        max_video_bytes: refuse to read a video whose features would take more memory than this.
        untrusted: the file is from a stranger. Its compressed chunks are then unpacked here, none to more or less than
            its size, and filters other than gzip, LZF, shuffle and Fletcher's checksum are refused. Otherwise HDF5
            unpacks them, with the filters of hdf5plugin where that is installed.

    Raises:
        FeatureError: missing, not a feature file, cut short, or without any video.
    """
    source = Path(path)
    status = status_of(source, FeatureError)
    if status is None:
        raise FeatureError(f"{source}: no such file or folder; give an HDF5 file or a folder of .npy files")
    if stat.S_ISDIR(status.st_mode):
        store: FeatureStore = NpyFolder(source, max_video_bytes)
    elif stat.S_ISREG(status.st_mode) and source.suffix.lower() == ".npy":
        from refineloc.runtime.features.npy_list import NpyList

        store = NpyList(source, max_video_bytes)
    elif stat.S_ISREG(status.st_mode):
        from refineloc.runtime.features.hdf5 import HDF5File  # HDF5 takes 0.1 s to load

        store = HDF5File(source, max_video_bytes, untrusted)
    else:  # opening a pipe or a device could wait forever
        raise FeatureError(f"{source}: neither a file nor a folder")
    if not store.names:
        store.close()
        raise FeatureError(f"{source}: holds no video; expected one dataset (T x D) a video")
    return store
