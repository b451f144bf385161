"""The embedding interface: features of a video in, detections out."""

import contextlib
import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from types import EllipsisType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from refineloc.runtime.batches import FeatureBatch, Planned, ahead, read_batches
from refineloc.runtime.detections import Detections
from refineloc.runtime.errors import ConfigError, FeatureError, InputError
from refineloc.runtime.features.checks import check_finite
from refineloc.runtime.features.store import FeatureStore
from refineloc.runtime.model.gpu import PinnedBuffers
from refineloc.runtime.model.limits import BATCH_SNIPPETS
from refineloc.runtime.model.metadata import ModelMetadata
from refineloc.runtime.model.session import Provider, Session
from refineloc.runtime.segments.grid import SnippetGrid
from refineloc.runtime.segments.postprocess import segments
from refineloc.runtime.segments.rules import Profile, Rules, Scoring, changed
from refineloc.runtime.segments.times import VideoTimes, video_times
from refineloc.runtime.segments.values import Scores

if TYPE_CHECKING:
    from refineloc.runtime.model.half import HalfToFloat

__all__ = ["Detector"]

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
        threads: of one call on the CPU, up to 1,024; 0 takes one a physical core. In a service with several workers
            give 1.
        batch_snippets: `detect_many` packs videos until a call has this many snippets, at most 2^20; a longer video
            runs alone.
        engine_cache: a folder where TensorRT keeps its engines, see `Session`.
        profile: rules of detection: "paper", "release" or "multi-threshold". This and the settings below, where they
            are None, are as the model file says; where `profile` asks for another kind of rule than the file has, those
            of that kind alone have the defaults of `OneThreshold` or `ManyThresholds`.
        alpha_a: α_A, the most background a kept snippet may have, 0 to 1 ("paper", "release").
        alpha_c: α_C, the least class activation a kept snippet must have, 0 to 1 ("paper", "release").
        top_k: classes a video, by ŷ.
        max_gap: removed snippets that may separate kept ones of a segment ("paper", "multi-threshold").
        widen: snippets added at both ends of a segment, within the video.
        nms: tIoU above which the weaker of two segments of a class is dropped, 0 to 1; None keeps all; left out, it is
            as the file says.
        thresholds: of the normalised class activation, 1 to 1,000 numbers from 0 to 1 ("multi-threshold").
        scoring: "contrast", inside against outside, or "peak" ("multi-threshold").
        outer: width of the outside at each side, as a share of the segment's length ("multi-threshold").
        video_weight: of ŷ in a segment's score ("multi-threshold").

    Raises:
        ModelError, EngineError, MissingExtraError, OutputError: see `Session`.
        ConfigError: a value out of range, or a setting that the profile does not have.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        provider: Provider = "auto",
        threads: int = 0,
        batch_snippets: int = BATCH_SNIPPETS,
        engine_cache: str | os.PathLike[str] | None = None,
        profile: Profile | None = None,
        alpha_a: float | None = None,
        alpha_c: float | None = None,
        top_k: int | None = None,
        max_gap: int | None = None,
        widen: int | None = None,
        nms: float | EllipsisType | None = ...,
        thresholds: Sequence[float] | None = None,
        scoring: Scoring | None = None,
        outer: float | None = None,
        video_weight: float | None = None,
    ) -> None:
        settings: dict[str, Any] = {
            "profile": profile,
            "alpha_a": alpha_a,
            "alpha_c": alpha_c,
            "top_k": top_k,
            "max_gap": max_gap,
            "widen": widen,
            "thresholds": thresholds,
            "scoring": scoring,
            "outer": outer,
            "video_weight": video_weight,
        }
        given = {name: value for name, value in settings.items() if value is not None}
        if nms is not ...:
            given["nms"] = nms
        self._session = Session(model, provider, threads, batch_snippets=batch_snippets, engine_cache=engine_cache)
        self._half: HalfToFloat | None = None
        self._buffers = PinnedBuffers()
        self._batch_snippets = batch_snippets
        self._settings = changed(self.metadata.detection, given)

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
    def settings(self) -> Rules:
        """How scores become segments."""
        return self._settings

    def scores(self, features: npt.ArrayLike) -> Scores:
        """Class activations, foreground, attention and video scores of one video, before any threshold.

        Args:
            features: [T, D], T >= 1; D is the model's width, or twice that where the model takes one of two streams.

        Raises:
            FeatureError: another shape, no snippets, no numbers, NaN, infinite, or so large that the model overflows.
        """
        packed = self._checked(features, "features")
        return self._session.run(packed, np.array([len(packed)], dtype=np.int64), ["features"])

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
            InputError: fps, duration or snippet frames that are not positive numbers (see `SnippetGrid`).
        """
        frames = self.metadata.snippet_frames if snippet_frames is None else snippet_frames
        grid = SnippetGrid(fps, frames, duration_s)
        packed = self._checked(features, "features")
        lengths = np.array([len(packed)], dtype=np.int64)
        detected = segments(self._session.run(packed, lengths, ["features"]), lengths, self._settings)
        return Detections.from_segments(grid, detected, self.classes, self.provider)

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
            names: of a store or a mapping, only these videos, in this order.
            fps: of all videos whose own is not known from the store or `times`.
            times: fps and duration by video, None where not known; for what the store does not state.

        Raises:
            FeatureError: as for `scores`; the message names the video.
            InputError: no fps is known for a video, its times are none, or `names` has a video that is not there.
            ConfigError: `names` with an iterable of pairs, which is taken as it comes.
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
        with contextlib.ExitStack() as stack:
            if isinstance(videos, FeatureStore):
                where = f"{videos.path}: "
                # All videos are looked at before the first is read: an error in the last should not come after hours.
                planned = [
                    self._planned(videos, name, fps, times or {}) for name in (videos.names if names is None else names)
                ]
                empty = _empty if self.provider == "cpu" else stack.enter_context(self._buffers.lent())
                read = read_batches(
                    videos, planned, self.metadata.width, self._batch_snippets, self._half_to_float, empty
                )
                scored = ahead(self._scored(ahead(read), where))
            else:
                scored = self._scored(self._packed(_pairs(videos, names), fps, times or {}), "")
            stack.enter_context(contextlib.closing(scored))  # stops the threads before the caller closes the store
            for batch, scores in scored:
                detected = segments(scores, batch.lengths, self._settings).by_video(len(batch.names))
                yield [
                    (name, Detections.from_segments(grid, of_video, self.classes, self.provider))
                    for name, grid, of_video in zip(batch.names, batch.grids, detected, strict=True)
                ]

    def _scored(self, batches: Generator[FeatureBatch], where: str) -> Generator[tuple[FeatureBatch, Scores]]:
        with contextlib.closing(batches):  # an error here leaves no thread that reads on
            for batch in batches:
                names = [f"{where}video {name!r}" for name in batch.names]
                yield batch, self._session.run(batch.features, batch.lengths, names)

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
        grid = self._grid(video_times(info, VideoTimes(*times.get(name, ())), fps=fps), where)
        columns = self.metadata.columns(info.width, where)
        return Planned(name, info.snippets, info.dtype == np.float16, columns, grid)

    def _packed(
        self, videos: Iterable[tuple[str, npt.ArrayLike]], fps: float | None, times: Times
    ) -> Generator[FeatureBatch]:
        """Arrays as batches; the caller's iterable is asked in the caller's thread, one batch at a time."""
        waiting: list[tuple[str, SnippetGrid, npt.NDArray[np.float32]]] = []
        size = 0
        for name, features in videos:
            where = f"video {name!r}"
            checked = self._checked(features, where)
            if waiting and size + len(checked) > self._batch_snippets:
                yield _batch(waiting)
                waiting, size = [], 0
            grid = self._grid(video_times(None, VideoTimes(*times.get(name, ())), fps=fps), where)
            waiting.append((name, grid, checked))
            size += len(checked)
        if waiting:
            yield _batch(waiting)

    def _grid(self, times: VideoTimes, where: str) -> SnippetGrid:
        try:
            grid = times.grid(self.metadata.snippet_frames)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
        if grid is None:
            raise InputError(f"{where}: its fps is not known, and seconds need it; give fps or times", parameter="fps")
        return grid

    def _checked(self, features: npt.ArrayLike, where: str) -> npt.NDArray[np.float32]:
        array = np.asarray(features)
        if array.ndim != 2:
            raise FeatureError(f"{where}: expected features of shape T x D, got shape {array.shape}")
        if array.dtype.kind != "f":
            raise FeatureError(f"{where}: expected float32 or float16 features, got dtype {array.dtype}")
        if not len(array):
            raise FeatureError(f"{where}: has no snippets")
        taken = np.ascontiguousarray(array[:, self.metadata.columns(array.shape[1], where)])
        if taken.dtype == np.float16:
            packed = np.empty(taken.shape, dtype=np.float32)
            self._half_to_float()(taken, packed)
        else:
            packed = np.asarray(taken, dtype=np.float32)
        check_finite(packed, where)
        return packed

    def _half_to_float(self) -> "HalfToFloat":
        if self._half is None:  # two threads may both make one; either serves
            from refineloc.runtime.model.half import HalfToFloat

            self._half = HalfToFloat()
        return self._half


def _empty(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    return np.empty(shape, dtype=np.float32)


def _pairs(
    videos: Mapping[str, npt.ArrayLike] | Iterable[tuple[str, npt.ArrayLike]], names: Sequence[str] | None
) -> Iterable[tuple[str, npt.ArrayLike]]:
    if not isinstance(videos, Mapping):
        if names is not None:
            raise ConfigError("names: goes with a feature store or a mapping; leave videos out of the iterable itself")
        return videos
    if names is None:
        return videos.items()
    missing = [name for name in names if name not in videos]
    if missing:
        raise InputError(f"video {missing[0]!r}: is not in the mapping, which holds {len(videos)} videos")
    return ((name, videos[name]) for name in names)


def _batch(videos: list[tuple[str, SnippetGrid, npt.NDArray[np.float32]]]) -> FeatureBatch:
    names, grids, features = zip(*videos, strict=True)
    lengths = np.array([len(array) for array in features], dtype=np.int64)
    return FeatureBatch(
        list(names), list(grids), lengths, features[0] if len(features) == 1 else np.concatenate(features)
    )
