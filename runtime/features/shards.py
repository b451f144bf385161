"""Features of many videos in shards: HDF5 files of a stated size, and an index of all videos as Parquet.

    FOLDER/index.parquet      video, shard, offset, snippets, width, dtype, fps, duration, snippet_frames, ...
    FOLDER/shard-00000.h5     a dataset a video, contiguous; a file of features by itself

The index says where the values of each video lie, so a video is one read, or one request of a store, and HDF5 is not
opened. The index is written last: without it a folder is none of shards.
"""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from refineloc.runtime.addresses import Ranges, open_here_and_there
from refineloc.runtime.errors import FeatureError, OutputError, RefineLocError, first_line
from refineloc.runtime.features.checks import CHANGED, check_names
from refineloc.runtime.features.store import FeatureInfo, FeatureStore
from refineloc.runtime.files import atomic_path, claim_folder
from refineloc.runtime.parquet import read_columns, writing_rows

__all__ = ["INDEX", "ShardWriter", "Shards", "add_video", "paged_file"]

INDEX = "index.parquet"
PAGE = 2**16  # bytes; datasets smaller than a page share one, and a reader takes whole pages
_COLUMNS = {
    "video": "string",
    "shard": "string",
    "shard_bytes": "int64",
    "offset": "int64",
    "snippets": "int64",
    "width": "int64",
    "dtype": "string",
    "fps": "float64",
    "duration": "float64",
    "snippet_frames": "int64",
    "stride_frames": "int64",
    "backbone": "string",
}
_SHARD = re.compile(r"shard-[0-9]{5,}\.h5")
_DTYPES = ("float16", "float32", "float64")
_MOST = 2**48  # of any number of the index: keeps products small


@contextlib.contextmanager
def paged_file(path: Path, size: int) -> Iterator[Any]:
    """Write an HDF5 file in pages, of which a reader of ranges needs few; it is there when the block ends well.

    Args:
        path: of the file.
        size: bytes that it may take, roughly. A full disk is noticed at once: HDF5 cannot close a file that it cannot
            write. They are given back, and HDF5 takes them again.

    Raises:
        OutputError: it cannot be written.
    """
    import h5py  # takes 0.1 s to load

    with atomic_path(path) as aside:
        if hasattr(os, "posix_fallocate"):
            with aside.open("wb") as empty:
                os.posix_fallocate(empty.fileno(), 0, size + 2 * PAGE)
        try:
            # No lock, which some file systems refuse: nobody else knows the temporary file.
            with h5py.File(aside, "w", fs_strategy="page", fs_page_size=PAGE, locking=False) as file:
                yield file
        except RefineLocError:
            raise
        except (OSError, RuntimeError) as error:  # h5py's are of either kind
            match = re.search(r"error message = '([^']+)'", str(error))  # what the system says
            why = match[1].lower() if match else first_line(error)
            raise OutputError(f"{path}: cannot be written: {why}") from error


def add_video(file: Any, video: str, features: npt.NDArray[Any], attributes: Mapping[str, Any]) -> Any:
    """Add a video to an open HDF5 file: a dataset with those attributes that say something; gives the dataset."""
    dataset = file.create_dataset(video, data=features)
    dataset.attrs.update({key: value for key, value in attributes.items() if value})
    return dataset


class ShardWriter:
    """Writes a folder of shards; a context manager, at whose good end the index is there.

    Args:
        folder: new, empty, or with an earlier index and shards, which are replaced.
        limit: bytes of features in a shard; a larger video is one by itself.

    Attributes:
        count: number of shards so far.

    Raises:
        OutputError: the folder holds something else, or cannot be written.
        MissingExtraError: pyarrow is not installed.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = claim_folder(folder, lambda name: name == INDEX or bool(_SHARD.fullmatch(name)), "features")
        self._limit = limit
        self._stack = contextlib.ExitStack()  # of the shard that is open
        self._file: Any = None
        self._size = self.count = 0
        self._rows: list[dict[str, Any]] = []  # of the open shard

    def __enter__(self) -> Self:
        (self._folder / INDEX).unlink(missing_ok=True)  # it does not hold for new shards
        self._index = contextlib.ExitStack()
        self._take = self._index.enter_context(writing_rows(self._folder / INDEX, _COLUMNS))
        return self

    def __exit__(self, *error: Any) -> None:
        with self._index:
            if error[1] is not None:
                self._stack.__exit__(*error)
                raise error[1]
            self._close()
            for path in list(self._folder.glob("shard-*.h5")):
                if int(path.stem.removeprefix("shard-")) >= self.count:  # of an earlier time
                    path.unlink()

    def add(self, video: str, features: npt.NDArray[Any], attributes: Mapping[str, Any]) -> None:
        """Write the features of a video, [T, D], and its attributes, which are those of a file of features."""
        if self._file is not None and self._size + features.nbytes > self._limit:
            self._close()
        if self._file is None:
            self._path = self._folder / f"shard-{self.count:05}.h5"
            size = max(self._limit, features.nbytes)
            self._file = self._stack.enter_context(paged_file(self._path, size))
            self.count += 1
        dataset = add_video(self._file, video, features, attributes)
        self._size += features.nbytes
        self._rows.append(
            {
                "video": video,
                "shard": self._path.name,
                "offset": dataset.id.get_offset() or 0,  # of no values
                "snippets": features.shape[0],
                "width": features.shape[1],
                "dtype": features.dtype.name,
                "backbone": str(attributes.get("backbone", "")),
                **{key: attributes.get(key) or 0 for key in ("fps", "duration", "snippet_frames", "stride_frames")},
            }
        )

    def _close(self) -> None:
        if self._file is None:
            return
        self._stack.close()
        size = self._path.stat().st_size
        self._take({name: [{"shard_bytes": size, **row}[name] for row in self._rows] for name in _COLUMNS})
        self._file, self._size, self._rows = None, 0, []


class Shards(FeatureStore):
    """A folder of shards, on a disk or in a store."""

    def __init__(self, path: Path, max_video_bytes: int) -> None:
        self.path = path
        self._max_video_bytes = max_video_bytes
        index = path / INDEX
        self._columns = read_columns(index, _COLUMNS, FeatureError, "write the shards again")
        self._check(index)
        self.names = check_names(self._columns["video"], index)
        self._rows = {name: row for row, name in enumerate(self._columns["video"])}
        self._open: tuple[str, Any] | None = None  # the shard that was read last

    def close(self) -> None:
        if self._open is not None:
            self._open[1].close()

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def info(self, name: str) -> FeatureInfo:
        row = self._rows.get(name)
        if row is None:
            raise FeatureError(f"{self.path}: video {name!r}: not in the index, which has {len(self.names)} videos")
        value = {key: column[row] for key, column in self._columns.items()}
        return FeatureInfo(
            name=name,
            snippets=int(value["snippets"]),
            width=int(value["width"]),
            dtype=np.dtype(value["dtype"]),
            fps=float(value["fps"]) or None,
            duration_s=float(value["duration"]) or None,
            snippet_frames=int(value["snippet_frames"]) or None,
            stride_frames=int(value["stride_frames"]) or None,
            backbone=value["backbone"],
        )

    def _read(self, name: str, out: npt.NDArray[Any], columns: slice) -> None:
        row = self._rows[name]
        info = self.info(name)
        shard = self._columns["shard"][row]
        file = self._shard(shard, int(self._columns["shard_bytes"][row]), name)
        size = info.snippets * info.width * info.dtype.itemsize
        begin = int(self._columns["offset"][row])
        if isinstance(file, Ranges):
            data = file.read_at(begin, size)
        else:
            file.seek(begin)
            data = file.read(size)
        if len(data) != size:
            raise FeatureError(f"{self.path / shard}: video {name!r}: lies behind the end of the shard; {CHANGED}")
        out[...] = np.frombuffer(data, info.dtype).reshape(info.snippets, info.width)[:, columns]

    def _shard(self, name: str, size: int, video: str) -> Any:
        """The open file of a shard; the one before is closed."""
        if self._open is not None and self._open[0] == name:
            return self._open[1]
        self.close()
        self._open = None
        path = self.path / name
        try:
            file: Any = open_here_and_there(path)
        except FileNotFoundError:
            raise FeatureError(f"{path}: no such shard, and video {video!r} lies in it") from None
        there = file.size if isinstance(file, Ranges) else path.stat().st_size
        if there != size:
            file.close()
            raise FeatureError(f"{path}: has {there} bytes, and the index says {size}; {CHANGED}")
        self._open = name, file
        return file

    def _check(self, index: Path) -> None:
        """The index may be a stranger's: shards have names of shards, and numbers stay small."""
        columns = self._columns
        bad = next((name for name in set(columns["shard"]) if not _SHARD.fullmatch(name)), None)
        if bad is not None:
            raise FeatureError(f"{index}: {bad!r:.80} is no name of a shard (shard-00000.h5, ...)")
        bad = next((name for name in set(columns["dtype"]) if name not in _DTYPES), None)
        if bad is not None:
            raise FeatureError(f"{index}: expected float32 or float16 features, got dtype {bad!r:.80}")
        least = {"snippets": 0, "width": 1}
        for key, kind in _COLUMNS.items():
            if kind == "string":
                continue
            values = columns[key]
            # Written so that NaN is refused, too.
            good = (values >= least.get(key, 0)) & (values <= _MOST)
            if not good.all():
                video = columns["video"][int(np.argmin(good))]
                raise FeatureError(f"{index}: video {video!r}: its {key} is {values[int(np.argmin(good))]}")
