"""A film -> the features of its snippets: decoding in one thread, the backbone in another."""

import os
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from refineloc.runtime.errors import VideoError
from refineloc.runtime.segments.grid import SnippetGrid
from refineloc.runtime.video.backbone import Backbone
from refineloc.runtime.video.decode import Film
from refineloc.runtime.video.snippets import windows_of

__all__ = ["FilmFeatures", "film_features"]

_BATCH = 8  # snippets a call of the backbone
_AHEAD = 2  # batches that are decoded before they are wanted


@dataclass(frozen=True, slots=True)
class FilmFeatures:
    """The features of a film.

    Attributes:
        features: float32 [T, D].
        grid: the times of the snippets, and the film's duration.
        backbone: the identity of the backbone.
        notes: what a user should know of the film, one line each.
    """

    features: npt.NDArray[np.float32]
    grid: SnippetGrid
    backbone: str
    notes: tuple[str, ...]


def film_features(
    path: str | os.PathLike[str],
    backbone: Backbone,
    *,
    threads: int = 0,
    progress: Callable[[float], None] | None = None,
) -> FilmFeatures:
    """Decode a film and run the backbone over it. Beside the features, memory does not grow with the film's length.

    Args:
        path: of the film.
        backbone: of frames or of sound.
        threads: for decoding; 0 leaves it to FFmpeg.
        progress: is told the seconds of film that were decoded, now and then.

    Raises:
        VideoError: see `Film`.
        EngineError, ModelError: see `Backbone.features`.
    """
    metadata = backbone.metadata
    with Film(path, threads=threads) as film:
        if metadata.kind == "video":
            fps = metadata.fps or film.info().fps
            size = metadata.size
            frames = film.frames(
                fps,
                short_side=size[0] if len(size) == 1 else None,
                size=(size[0], size[1]) if len(size) == 2 else None,
            )
            parts: Iterator[npt.NDArray[Any]] = (frame[None] for frame in frames)
        else:
            fps = metadata.fps
            parts = film.samples(round(fps))
        windows = windows_of(parts, metadata.snippet_frames, metadata.stride_frames)
        features = []
        with closing(_ahead(_batches(windows))) as coming:
            for batch in coming:
                features.append(backbone.features(batch))
                if progress is not None:
                    progress(film.duration_s)
        if not features:
            raise VideoError(f"{path}: no snippets")
        grid = SnippetGrid(
            fps, metadata.snippet_frames, duration_s=film.duration_s or None, stride_frames=metadata.stride_frames
        )
        return FilmFeatures(np.concatenate(features), grid, metadata.identity, tuple(film.notes()))


def _batches(windows: Iterable[npt.NDArray[Any]]) -> Iterator[npt.NDArray[Any]]:
    batch: list[npt.NDArray[Any]] = []
    for window in windows:
        batch.append(window)
        if len(batch) == _BATCH:
            yield np.stack(batch)
            batch = []
    if batch:
        yield np.stack(batch)


def _ahead(items: Iterator[npt.NDArray[Any]]) -> Generator[npt.NDArray[Any]]:
    """The items, of which the next ones are made in another thread; errors come where their item would."""
    made: queue.Queue[tuple[npt.NDArray[Any] | None, BaseException | None]] = queue.Queue(_AHEAD)
    stopped = threading.Event()

    def put(item: npt.NDArray[Any] | None, error: BaseException | None = None) -> None:
        while not stopped.is_set():
            try:
                made.put((item, error), timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put(item)
                if stopped.is_set():
                    return
            put(None)
        except BaseException as error:
            put(None, error)

    thread = threading.Thread(target=work, name="refineloc-decode", daemon=True)
    thread.start()
    try:
        while True:
            item, error = made.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
    finally:
        stopped.set()
        thread.join()  # the film is closed after it
