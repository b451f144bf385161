"""Features of many films as the work of a job (`runtime/jobs`), and the file of features that it ends with.

A block is one film. Its features are a file beside the part, written before it, with a name that is the video's own:
where films are added between two starts, parts change their places (`parts.take_over`), and features stay.

    part-00003.jsonl                 {"video": "game", "snippets": 93, "width": 512, "fps": 25.0, "duration": 59.6, ...}
    part-51a3f0e2b6c9d8e7f001.npy    the features, as they are merged
"""

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.typing as npt

from refineloc.runtime.errors import InputError, RefineLocError, VideoError, first_line
from refineloc.runtime.features.shards import ShardWriter, add_video, paged_file
from refineloc.runtime.files import atomic_write, reason
from refineloc.runtime.jobs.blocks import Block, Row, plan_blocks
from refineloc.runtime.jobs.parts import damaged, merge
from refineloc.runtime.model.session import Provider
from refineloc.runtime.video.backbone import Backbone
from refineloc.runtime.video.features import FilmFeatures, film_features

if TYPE_CHECKING:
    from refineloc.runtime.jobs.actors import Actors

__all__ = [
    "PAYLOAD",
    "ExtractionWork",
    "Merging",
    "features_of",
    "film_blocks",
    "film_state",
    "seconds_counter",
    "seconds_shown",
]

PAYLOAD = ".npy"  # ends the name of what lies beside a part
_PAYLOAD_NAME = re.compile(r"part-[0-9a-f]{20}\.npy")
_NUMBERS: Mapping[str, type] = {
    **dict.fromkeys(("snippets", "width", "snippet_frames", "stride_frames", "bytes", "changed_ns"), int),
    **dict.fromkeys(("fps", "duration"), float),
}
_ATTRIBUTES = 2**11  # bytes of a dataset's name and attributes


def seconds_counter(workers: "int | Actors") -> Any:
    """A number, `.value`, which processes share where several work; it is for display. Actors leave it at 0.

    Without a lock: where two write at once it misses some seconds.
    """
    if workers == 1 or not isinstance(workers, int):
        return SimpleNamespace(value=0.0)
    import multiprocessing  # one process needs none, and it takes time to load

    return multiprocessing.get_context("spawn").Value("d", 0.0, lock=False)


def seconds_shown(counter: Any) -> str:
    """The seconds of a `seconds_counter` in a progress bar; "" where there are none."""
    return f"{counter.value:,.0f} s of film" if counter.value else ""


def film_blocks(
    folder: Path, films: Mapping[str, Path], job: Mapping[str, Any], about: Mapping[str, Any], **more: Any
) -> list[Block]:
    """Blocks of one film each, in the order of `films`; `more` as for `plan_blocks`."""
    return plan_blocks(folder, dict.fromkeys(films, 1), job, about, limit=1, **more)


def features_of(path: Path, backbone: Backbone, *, threads: int, seconds: Any) -> FilmFeatures | str:
    """The features of a film (`film_features`), or why it has none, where that is the film's fault.

    `seconds.value` goes up by the seconds of film that were decoded.
    """
    decoded = 0.0

    def advance(now: float) -> None:
        nonlocal decoded
        seconds.value += now - decoded
        decoded = now

    try:
        return film_features(path, backbone, threads=threads, progress=advance)
    except VideoError as error:
        return str(error)
    except OSError as error:
        if isinstance(error, RefineLocError):
            raise
        return f"{path}: cannot be read: {reason(error)}"


class ExtractionWork:
    """The features of the films of a block (`blocks.Work`).

    Args:
        films: by the name of the video.
        folder: of the parts.
        backbone: the loaded backbone, and in `model` its file, from which another process loads it.
        provider: of the backbone there: what really ran it here.
        threads: of the backbone there, and of decoding.
        dtype: of the features in files.
        seconds: a counter, `.value`; one that processes share, where several work.

    Attributes:
        seconds: the counter of the seconds of film that were decoded.
    """

    def __init__(
        self,
        films: Mapping[str, Path],
        folder: Path,
        backbone: Backbone,
        model: Path,
        *,
        provider: str,
        threads: int,
        dtype: Literal["float16", "float32"],
        seconds: Any,
    ) -> None:
        self._films, self._folder, self._model = films, folder, model
        self._backbone: Backbone | None = backbone
        self._provider, self._threads = provider, threads
        self._dtype = np.dtype(dtype)
        self.seconds = seconds

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_backbone": None}

    def process(self, block: Block) -> Iterator[Row]:
        """See `Work`. A film that cannot be decoded is an error; those of the backbone and the disk end the job."""
        if self._backbone is None:
            self._backbone = Backbone(self._model, cast(Provider, self._provider), self._threads)
        for name in block.names:
            payload = f"part-{hashlib.sha256(name.encode()).hexdigest()[:20]}{PAYLOAD}"
            row = self._row(self._films[name], self._backbone, self._folder / payload)
            yield {"video": name, **row}

    def check(self, row: Row, where: str) -> None:
        """See `Work`. The features must be there, and the film the one that they are of."""
        _check_row(row, where)
        state = film_state(self._films[row["video"]]) if row["video"] in self._films else {}
        if any(row[key] != value for key, value in state.items()) or not (self._folder / row["file"]).is_file():
            raise damaged(where)

    def _row(self, path: Path, backbone: Backbone, payload: Path) -> Row:
        before = film_state(path)  # a film that is replaced meanwhile is done again
        found = features_of(path, backbone, threads=self._threads, seconds=self.seconds)
        if isinstance(found, str):
            return {"error": found}
        with np.errstate(over="ignore"):
            features = found.features.astype(self._dtype)
        if not np.isfinite(features).all():
            largest = float(np.abs(found.features).max())
            return {"error": f"{path}: features up to {largest:.3g} are too large for float16; store float32"}
        with atomic_write(payload, "wb") as handle:
            np.save(handle, features)
        grid = found.grid
        return {
            "file": payload.name,
            "snippets": features.shape[0],
            "width": features.shape[1],
            "fps": float(grid.fps),
            "duration": float(grid.duration_s or 0.0),
            "snippet_frames": grid.snippet_frames,
            "stride_frames": grid.stride,
            "notes": list(found.notes),
            **before,
        }


class Merging:
    """Writes the file of features from the parts of a job.

    Attributes:
        videos, snippets: numbers of what was written.
        seconds: of film.
        notes: of the films, what a user should know.
        errors: of the films without features, why.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.videos = self.snippets = 0
        self.seconds = 0.0
        self.notes: list[str] = []
        self.errors: dict[str, str] = {}

    def write(self, path: Path, shard_bytes: int = 0) -> None:
        """Write an HDF5 file of all films that have features; none at all, and nothing is written.

        It has a dataset a video, with the attributes fps, duration, snippet_frames, stride_frames and backbone. With
        `shard_bytes` it is a folder of such files of that size, with an index (`features/shards.py`).

        Raises:
            InputError: a part is missing or damaged.
            OutputError: it cannot be written, such as on a full disk.
        """
        about, rows = merge(self._folder)
        with contextlib.ExitStack() as stack:
            add: Callable[..., Any]
            if shard_bytes:
                add = stack.enter_context(ShardWriter(path, shard_bytes)).add
            else:
                sizes = [payload.stat().st_size + _ATTRIBUTES for payload in self._folder.glob(f"part-*{PAYLOAD}")]
                add = partial(add_video, stack.enter_context(paged_file(path, sum(sizes))))
            for where, row in rows:
                if "error" in row:
                    self.errors[row["video"]] = row["error"]
                else:
                    self._add(add, row, where, str(about.get("backbone", "")))
            if not self.videos:
                raise VideoError(f"{path}: not written: {_several(list(self.errors.values()))}")

    def _add(self, add: Callable[..., Any], row: Row, where: str, backbone: str) -> None:
        _check_row(row, where)
        features = _read(self._folder / row["file"], where)
        if features.shape != (row["snippets"], row["width"]):
            raise damaged(where)
        times = {key: row[key] for key in ("fps", "duration", "snippet_frames", "stride_frames")}
        add(row["video"], features, {**times, "backbone": backbone})
        self.videos += 1
        self.snippets += len(features)
        self.seconds += row["duration"]
        self.notes += row["notes"]

    def without(self) -> str:
        """A line that says how many films have no features, and why the first has none."""
        return _several(list(self.errors.values()))


def _several(errors: list[str]) -> str:
    return errors[0] if len(errors) == 1 else f"{len(errors)} films have errors, the first: {errors[0]}"


def _read(path: Path, where: str) -> npt.NDArray[Any]:
    try:
        with path.open("rb") as file:
            features: npt.NDArray[Any] = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{path}: is missing or damaged ({first_line(error)}); remove {where}, and run again"
        ) from error
    return features


def _check_row(row: Row, where: str) -> None:
    good = all(type(row.get(key)) is kind and row[key] >= 0 for key, kind in _NUMBERS.items())
    named = isinstance(row.get("file"), str) and _PAYLOAD_NAME.fullmatch(row["file"])
    notes = row.get("notes")
    if not (good and named and isinstance(notes, list) and all(isinstance(note, str) for note in notes)):
        raise damaged(where)


def film_state(path: Path) -> dict[str, int]:
    """Size and time of change of a film; zeros where it cannot be looked at."""
    try:
        status = path.stat()
    except OSError:
        return {"bytes": 0, "changed_ns": 0}
    return {"bytes": status.st_size, "changed_ns": status.st_mtime_ns}
