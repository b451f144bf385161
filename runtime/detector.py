"""The embedding interface: features of a video in, detections out."""

import contextlib
import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from refineloc.runtime.detections import Detections
from refineloc.runtime.errors import ConfigError, FeatureError, InputError
from refineloc.runtime.features import FeatureStore, check_finite, stream_slice
from refineloc.runtime.gpu import pinned_empty
from refineloc.runtime.grid import SnippetGrid
from refineloc.runtime.half import HalfToFloat
from refineloc.runtime.metadata import ModelMetadata
from refineloc.runtime.pipeline import Batch, Planned, ahead, read_batches
from refineloc.runtime.postprocess import PostProcess, Scores, segments
from refineloc.runtime.session import Provider, Session

__all__ = ["Detector"]

# Snippets a call: enough to fill the matrix products, few enough that the activations stay in the cache
# (on the CPU 2,000 a call ran about 25 % faster than 8,000; docs/performance.md).
BATCH_SNIPPETS = 2048

# VIDEO -> (fps, duration in seconds), None where not known.
Times = Mapping[str, tuple[float | None, float | None]]


class Detector:
    """Finds actions in untrimmed videos, from their snippet features.

        detector = Detector("model.onnx")
        for start, end, label, score in detector.detect(features, fps=25.0):
            ...

    One Detector serves many threads. It holds no state between calls.

    Args:
        model: an ONNX file that refineloc-export wrote.
        provider: "auto" (CUDA where it really runs, else the CPU), or "cuda", "tensorrt", "cpu": used, or an error.
        threads: of one call on the CPU; 0 takes one a physical core. In a service with several workers give 1.
        batch_snippets: `detect_many` packs videos until a call has this many snippets; a longer video runs alone.
        **settings: change how scores become segments: any field of `PostProcess`; what is left out is as the file says.

    Raises:
        ModelError, EngineError, MissingExtraError: see `Session`.
        ConfigError: an unknown setting, or a value out of range.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        provider: Provider = "auto",
        threads: int = 0,
        batch_snippets: int = BATCH_SNIPPETS,
        **settings: Any,
    ) -> None:
        if batch_snippets < 1:
            raise ConfigError(f"batch_snippets: expected at least 1, got {batch_snippets}")
        self._session = Session(model, provider, threads)
        self._half: HalfToFloat | None = None
        self._batch_snippets = batch_snippets
        self._settings = _post_process(self.metadata, settings)

    @property
    def metadata(self) -> ModelMetadata:
        """What the model file says of itself."""
        return self._session.metadata

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the score columns."""
        return self.metadata.classes

    @property
    def provider(self) -> str:
        """The execution provider that really runs: "cpu", "cuda" or "tensorrt"."""
        return self._session.provider

    @property
    def settings(self) -> PostProcess:
        """How scores become segments."""
        return self._settings

    def scores(self, features: npt.ArrayLike) -> Scores:
        """Class activations, foreground, attention and video scores of one video, before any threshold.

        Args:
            features: [T, D], T >= 1; D is the model's width, or twice that where the model takes one of two streams.

        Raises:
            FeatureError: another shape, no snippets, no numbers, NaN or infinite values.
        """
        packed = self._checked(features, "features")
        return self._session.run(packed, np.array([len(packed)], dtype=np.int64))

    def detect(
        self,
        features: npt.ArrayLike,
        *,
        fps: float,
        duration_s: float | None = None,
        snippet_frames: int | None = None,
    ) -> Detections:
        """The actions of one video, best first.

        Args:
            features: as for `scores`.
            fps: frames a second of the video.
            duration_s: its length in seconds, where known; segments are clipped to it.
            snippet_frames: frames a snippet, where it differs from the model's (`metadata.snippet_frames`).

        Raises:
            FeatureError: see `scores`.
            InputError: fps, duration or snippet frames that are not positive numbers.
        """
        grid = SnippetGrid(fps, snippet_frames or self.metadata.snippet_frames, duration_s)
        packed = self._checked(features, "features")
        lengths = np.array([len(packed)], dtype=np.int64)
        found = segments(self._session.run(packed, lengths), lengths, self._settings)
        return Detections.from_segments(grid, found, self.classes, self.provider)

    def detect_many(
        self,
        videos: FeatureStore | Mapping[str, npt.ArrayLike] | Iterable[tuple[str, npt.ArrayLike]],
        *,
        names: Sequence[str] | None = None,
        fps: float | None = None,
        times: Times | None = None,
    ) -> Iterator[tuple[str, Detections]]:
        """The actions of many videos, in their order, many videos a call.

        A store is read ahead in a thread of its own, and the model runs in another, while the caller works on what is
        given; leaving the loop early stops both. Detections do not depend on what a video is packed with.

        Args:
            videos: an open feature store, or features by name.
            names: of a store, only these videos, in this order.
            fps: of all videos whose own is not known from `times` or the store.
            times: fps and duration by video; goes before what the store says.

        Raises:
            FeatureError: as for `scores`; the message names the video.
            InputError: no fps is known for a video.
        """
        for batch in self.detect_batches(videos, names=names, fps=fps, times=times):
            yield from batch

    def detect_batches(
        self,
        videos: FeatureStore | Mapping[str, npt.ArrayLike] | Iterable[tuple[str, npt.ArrayLike]],
        *,
        names: Sequence[str] | None = None,
        fps: float | None = None,
        times: Times | None = None,
    ) -> Iterator[list[tuple[str, Detections]]]:
        """Like `detect_many`, a list of videos a call of the model."""
        if isinstance(videos, FeatureStore):
            # All videos are looked at before the first is read: an error in the last should not come after hours.
            planned = [
                self._planned(videos, name, fps, times or {}) for name in (videos.names if names is None else names)
            ]
            empty = pinned_empty if self.provider in ("cuda", "tensorrt") else _empty
            read = read_batches(videos, planned, self.metadata.width, self._batch_snippets, self._half_to_float, empty)
            scored = ahead(self._scored(ahead(read)))
        else:
            scored = self._scored(self._packed(videos, fps, times or {}))
        with contextlib.closing(scored):  # stops the threads before the caller goes on and closes the store
            for batch, scores in scored:
                found = segments(scores, batch.lengths, self._settings).by_video(len(batch.names))
                yield [
                    (name, Detections.from_segments(grid, own, self.classes, self.provider))
                    for name, grid, own in zip(batch.names, batch.grids, found, strict=True)
                ]

    def _scored(self, batches: Iterator[Batch]) -> Generator[tuple[Batch, Scores]]:
        for batch in batches:
            yield batch, self._session.run(batch.features, batch.lengths)

    def _planned(self, store: FeatureStore, name: str, fps: float | None, times: Times) -> Planned:
        info = store.info(name)
        where = f"{store.path}: video {name!r}"
        if not info.snippets:
            raise FeatureError(f"{where}: has no snippets; leave it out or extract its features again")
        frames = info.snippet_frames
        if frames is not None and frames != self.metadata.snippet_frames:
            raise FeatureError(
                f"{where}: its snippets have {frames} frames, the model's have {self.metadata.snippet_frames}; "
                "extract the features as for training"
            )
        listed_fps, listed_duration_s = times.get(name, (None, None))
        known = (listed_fps or info.fps or fps, listed_duration_s or info.duration_s)
        columns = self._columns(info.width, where)
        return Planned(name, info.snippets, info.dtype == np.float16, columns, self._grid(known, where))

    def _packed(
        self, videos: Mapping[str, npt.ArrayLike] | Iterable[tuple[str, npt.ArrayLike]], fps: float | None, times: Times
    ) -> Iterator[Batch]:
        """Arrays as batches; the caller's iterable is asked in the caller's thread, one batch at a time."""
        waiting: list[tuple[str, SnippetGrid, npt.NDArray[np.float32]]] = []
        size = 0
        for name, features in videos.items() if isinstance(videos, Mapping) else videos:
            where = f"video {name!r}"
            checked = self._checked(features, where)
            if waiting and size + len(checked) > self._batch_snippets:
                yield _batch(waiting)
                waiting, size = [], 0
            waiting.append((name, self._grid(times.get(name, (fps, None)), where), checked))
            size += len(checked)
        if waiting:
            yield _batch(waiting)

    def _grid(self, known: tuple[float | None, float | None], where: str) -> SnippetGrid:
        fps, duration_s = known
        if fps is None:
            raise InputError(
                f"{where}: its fps is not known, and seconds need it; give --fps X or --videos LABELS.csv "
                "(in Python: fps= or times=)"
            )
        return SnippetGrid(fps, self.metadata.snippet_frames, duration_s)

    def _columns(self, width: int, where: str) -> slice:
        """Which columns of the features the model takes: all, or its stream of two."""
        expected = self.metadata.width
        if width == expected:
            return slice(0, width)
        if self.metadata.stream != "both" and width == 2 * expected:
            return stream_slice(width, self.metadata.stream, self.metadata.stream_order)
        both = f" (or {2 * expected}, both streams)" if self.metadata.stream != "both" else ""
        raise FeatureError(f"{where}: features have width {width}, the model expects {expected}{both}")

    def _checked(self, features: npt.ArrayLike, where: str) -> npt.NDArray[np.float32]:
        array = np.asarray(features)
        if array.ndim != 2:
            raise FeatureError(f"{where}: expected features of shape T x D, got shape {array.shape}")
        if array.dtype.kind != "f":
            raise FeatureError(f"{where}: expected float32 or float16 features, got dtype {array.dtype}")
        if not len(array):
            raise FeatureError(f"{where}: has no snippets")
        taken = np.ascontiguousarray(array[:, self._columns(array.shape[1], where)])
        if taken.dtype == np.float16:
            packed = np.empty(taken.shape, dtype=np.float32)
            self._half_to_float()(taken, packed)
        else:
            packed = np.asarray(taken, dtype=np.float32)
        check_finite(packed, where)
        return packed

    def _half_to_float(self) -> HalfToFloat:
        if self._half is None:  # two threads may both make one; either serves
            self._half = HalfToFloat()
        return self._half


def _empty(shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    return np.empty(shape, dtype=np.float32)


def _batch(videos: list[tuple[str, SnippetGrid, npt.NDArray[np.float32]]]) -> Batch:
    names, grids, features = zip(*videos, strict=True)
    lengths = np.array([len(own) for own in features], dtype=np.int64)
    return Batch(list(names), list(grids), lengths, features[0] if len(features) == 1 else np.concatenate(features))


def _post_process(metadata: ModelMetadata, changes: dict[str, Any]) -> PostProcess:
    unknown = changes.keys() - PostProcess.__dataclass_fields__.keys()
    if unknown:
        raise ConfigError(
            f"unknown setting {sorted(unknown)[0]!r}; expected one of {', '.join(PostProcess.__dataclass_fields__)}"
        )
    return replace(metadata.post_process(), **{name: value for name, value in changes.items() if value is not None})
