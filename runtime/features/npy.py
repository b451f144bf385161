"""Features in a folder of .npy files, which are never unpickled."""

import tokenize
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from refineloc.runtime.errors import FeatureError, first_line
from refineloc.runtime.features.checks import DAMAGED, check_array
from refineloc.runtime.features.store import FeatureInfo, FeatureStore

__all__ = ["NpyFolder"]


class NpyFolder(FeatureStore):
    """A folder of VIDEO.npy, or of rgb/VIDEO.npy and flow/VIDEO.npy (joined flow first, as in RefineLoc's files)."""

    def __init__(self, path: Path, max_video_bytes: int) -> None:
        self.path = path
        self._max_video_bytes = max_video_bytes
        streams = [path / "flow", path / "rgb"]
        self._folders = streams if all(folder.is_dir() for folder in streams) else [path]
        names = [{file.stem for file in folder.glob("*.npy")} for folder in self._folders]
        if len(names) == 2 and names[0] != names[1]:
            unpaired = sorted(names[0] ^ names[1])
            raise FeatureError(
                f"{path}: {len(unpaired)} videos have only one of rgb/ and flow/, the first is {unpaired[0]!r}"
            )
        self.names = tuple(sorted(names[0]))
        self._known = frozenset(self.names)  # for fast lookup among a hundred thousand files

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def info(self, name: str) -> FeatureInfo:
        parts = self._parts(name)
        return FeatureInfo(name, len(parts[0]), sum(part.shape[1] for part in parts), np.result_type(*parts))

    def _read(self, name: str, out: npt.NDArray[Any], columns: slice) -> None:
        parts = self._parts(name)
        features = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        np.copyto(out, features[:, columns], casting="same_kind")

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
            except (*DAMAGED, EOFError, SyntaxError, MemoryError, tokenize.TokenError, zipfile.BadZipFile) as error:
                raise FeatureError(f"{where}: not a readable .npy file of numbers: {first_line(error)}") from error
            check_array(part.shape, part.dtype, where)
            parts.append(part)
        if len({part.shape[0] for part in parts}) > 1:
            raise FeatureError(f"{where}: rgb and flow differ in length: {[p.shape[0] for p in parts]} snippets")
        return parts
