"""The embedding interface: features of a video in, detections out."""

import contextlib
import os
import warnings
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import EllipsisType
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from refineloc.runtime.addresses import as_path
from refineloc.runtime.batches import FeatureBatch, Planned, ahead, read_batches
from refineloc.runtime.cores import physical_cores
from refineloc.runtime.detections import Detections
from refineloc.runtime.errors import ConfigError, FeatureError, InputError, InputWarning, ModelError, counted
from refineloc.runtime.features.checks import as_array, check_backbone, check_finite, two_dimensional
from refineloc.runtime.features.store import FeatureInfo, FeatureStore
from refineloc.runtime.files import status_of
from refineloc.runtime.model.gpu import PinnedBuffers
from refineloc.runtime.model.limits import BATCH_SNIPPETS, GPU_BATCH_SNIPPETS, GPU_READERS, SHARED_BATCH_SNIPPETS
from refineloc.runtime.model.metadata import ModelMetadata
from refineloc.runtime.model.onnx_guard import ModelSource
from refineloc.runtime.model.session import Provider, Session
from refineloc.runtime.model.several import SeveralSessions
from refineloc.runtime.segments.agreement import TimedVideo, check_times
from refineloc.runtime.segments.grid import SnippetGrid
from refineloc.runtime.segments.postprocess import segments
from refineloc.runtime.segments.rules import (
    Boundaries,
    Curve,
    Profile,
    Rules,
    ScoredOn,
    Scoring,
    Suppression,
    VideoTerm,
    changed,
    unused,
)
from refineloc.runtime.segments.times import StatesTimes, VideoTimes, video_times
from refineloc.runtime.segments.values import Scores

if TYPE_CHECKING:
    from refineloc.runtime.model.half import HalfToFloat
    from refineloc.runtime.video.backbone import Backbone

__all__ = ["Detector"]

_LONG = 4  # calls: a video of as many snippets is a long one

# VIDEO -> (fps, duration in seconds), None if not known; or labels, which state them.
Times = Mapping[str, tuple[float | None, float | None] | StatesTimes]


class Detector:
    """Finds actions in untrimmed videos, from their snippet features::

        detector = Detector("model.onnx")
        for start, end, label, score in detector.detect(features, fps=25.0):
            ...

    Thread-safe: calls share no state. It can be pickled and copied: another process makes it anew from the model's path
    or bytes, and the settings. In a forked process it goes on, except on a GPU.

    Args:
        model: what refineloc-export wrote: a path, bytes, a binary file, or what opens one (a `zipfile.Path`, a
            resource of `importlib.resources`). Or a list of models of the same classes and features, whose mean scores
            are taken and the settings of the first.
        provider: "auto" (CUDA if it really runs, else the CPU), or "cuda", "tensorrt", "cpu": used, or an error.
        threads: CPU threads of one call, up to 1,024; 0 takes one for each physical core. Give 1 in a service with
            several workers. With more than one, `detect_many` shares them out among several calls of an int8 model.
        batch_snippets: `detect_many` packs videos into calls of at most this many snippets (at most 2^20); a longer
            video is a call of its own. None: 2,048 on the CPU, 1,024 of an int8 model with several threads, 8,192 on a
            GPU.
        engine_cache: a folder where TensorRT keeps its engines for the next start; made if it is missing. Engines are
            code: trust the folder as you trust the program.
        spin: whether threads wait for work by spinning, which takes a core each for some time after every call.
        profile: rules of detection: "paper", "release", "multi-threshold" or, of a student, "boundaries". None, here
            and below, takes the value of the model file. If `profile` is of another kind of rule than the file's, the
            settings that only that kind has get the defaults of `OneThreshold`, `ManyThresholds` or `Boundaries`.
        alpha_a: α_A, the most background that a kept snippet may have, 0 to 1 ("paper", "release").
        alpha_c: α_C, the least class activation that a kept snippet must have, 0 to 1 ("paper", "release").
        top_k: number of classes for each video, by ŷ.
        max_gap: how many removed snippets a segment may have between kept ones ("paper", "multi-threshold").
        widen: snippets added at both ends of a segment, within the video (all but "boundaries").
        suppression: what becomes of overlapping segments of a class: "none" keeps all, "hard" keeps the best, "vote"
            adds the others' scores to it, "fuse" takes the mean of their times, "soft" lowers the others' scores,
            "soft-vote" fuses, joins their scores to 1 - product of (1 - score), then lowers as "soft".
        tiou: tIoU above which segments overlap, 0 to 1 ("hard", "vote", "fuse", "soft-vote").
        soft_sigma: width of the Gaussian that lowers scores ("soft", "soft-vote").
        fuse_temperature: the lower, the more the best of those that are fused counts ("fuse", "soft-vote").
        min_score: least score of a segment, after suppression. None keeps all; left out, it is the model file's. A text
            such as "precision 0.9" takes an operating point of the file, which was chosen for the file's rule, so that
            no setting but `max_detections` can be given beside it.
        max_detections: how many segments of a video are kept, the best first, after suppression; 0 keeps all.
        thresholds: of the normalised curve, 1 to 1,000 numbers from 0 to 1 ("multi-threshold").
        curve: whose runs are segments: "class" activation, "foreground", or "both" ("multi-threshold").
        scoring: "contrast", inside against outside, or "peak" ("multi-threshold").
        scored_on: what is inside and outside: "class" activation, or its "product" with the foreground
            ("multi-threshold").
        outer: width of the outside at each side, as a share of the segment's length ("multi-threshold").
        length_power: contrast or peak is multiplied by the segment's length in snippets to this power, 0 to 1; 0 leaves
            it ("multi-threshold").
        video_term: how ŷ enters a segment's score: "add" or "multiply" ("multi-threshold").
        video_weight: of ŷ in a segment's score, where it is added ("multi-threshold").
        video_share: ŷ is the mean over this share of a video's snippets, those of the highest foreground; 0 takes the
            model's own ŷ ("multi-threshold").
        class_threshold: least ŷ of a class, as a share of the best class's; 0 keeps all of the `top_k`
            ("multi-threshold", "boundaries").
        point_score: least score of a segment before suppression ("boundaries").

    Raises:
        ModelError: not a file that refineloc-export wrote, or one that needs a newer ONNX Runtime or refineloc.
        EngineError: the given provider cannot run here.
        MissingExtraError: no ONNX Runtime is installed.
        ConfigError: a value out of range, a model of another kind, or a setting that the profile does not have.
        OutputError: the engine cache cannot be made.
    """

    def __init__(
        self,
        model: ModelSource | Sequence[ModelSource],
        *,
        provider: Provider = "auto",
        threads: int = 0,
        batch_snippets: int | None = None,
        engine_cache: str | os.PathLike[str] | None = None,
        spin: bool = False,
        profile: Profile | None = None,
        alpha_a: float | None = None,
        alpha_c: float | None = None,
        top_k: int | None = None,
        max_gap: int | None = None,
        widen: int | None = None,
        suppression: Suppression | None = None,
        tiou: float | None = None,
        soft_sigma: float | None = None,
        fuse_temperature: float | None = None,
        min_score: float | str | EllipsisType | None = ...,
        max_detections: int | None = None,
        thresholds: Sequence[float] | None = None,
        curve: Curve | None = None,
        scoring: Scoring | None = None,
        scored_on: ScoredOn | None = None,
        outer: float | None = None,
        length_power: float | None = None,
        video_term: VideoTerm | None = None,
        video_weight: float | None = None,
        video_share: float | None = None,
        class_threshold: float | None = None,
        point_score: float | None = None,
    ) -> None:
        settings: dict[str, Any] = {
            "profile": profile,
            "alpha_a": alpha_a,
            "alpha_c": alpha_c,
            "top_k": top_k,
            "max_gap": max_gap,
            "widen": widen,
            "suppression": suppression,
            "tiou": tiou,
            "soft_sigma": soft_sigma,
            "fuse_temperature": fuse_temperature,
            "max_detections": max_detections,
            "thresholds": thresholds,
            "curve": curve,
            "scoring": scoring,
            "scored_on": scored_on,
            "outer": outer,
            "length_power": length_power,
            "video_term": video_term,
            "video_weight": video_weight,
            "video_share": video_share,
            "class_threshold": class_threshold,
            "point_score": point_score,
        }
        changes = {name: value for name, value in settings.items() if value is not None}
        options: dict[str, Any] = {
            "batch_snippets": GPU_BATCH_SNIPPETS if batch_snippets is None else batch_snippets,
            "engine_cache": engine_cache,
            "spin": spin,
        }
        given: Any = model  # a str and bytes are sequences too, which types cannot tell apart
        self._session: Session | SeveralSessions
        if isinstance(model, (list, tuple)):
            self._session = SeveralSessions(given, provider, threads, **options)
        else:
            self._session = Session(given, provider, threads, **options)
        self._half: HalfToFloat | None = None
        self._buffers = PinnedBuffers()
        self._backbone: tuple[Any, Backbone] | None = None  # of `detect_video`, after the file that it is of
        on_gpu = self.provider != "cpu"
        on_cpu = BATCH_SNIPPETS if self._session.calls == 1 else SHARED_BATCH_SNIPPETS
        self._batch_snippets = batch_snippets or (GPU_BATCH_SNIPPETS if on_gpu else on_cpu)
        self._readers = min(GPU_READERS, physical_cores()) if on_gpu else 1
        if isinstance(min_score, str):
            changes["min_score"] = self._operating_score(min_score, changes.keys() - {"max_detections"})
        elif min_score is not ...:
            changes["min_score"] = min_score
        self._settings = changed(self.metadata.detection, changes)
        if isinstance(self._settings, Boundaries) and not self._session.has_points:
            raise ConfigError("profile: 'boundaries' takes the segments of a student, and this model finds none itself")
        if problem := unused(self._settings, changes):
            raise ConfigError(problem)

    @classmethod
    def from_hub(
        cls,
        repo: str,
        *,
        filename: str = "model.onnx",
        revision: str = "main",
        sha256: str | None = None,
        update: bool = False,
        **settings: Any,
    ) -> "Detector":
        """A detector of a model on Hugging Face's hub, or on another that HF_ENDPOINT names.

        A copy in huggingface_hub's cache is used without the network. Else the file is fetched, and its content is
        compared with the hash that the hub states. It passes the same checks as every model file.

        Args:
            repo: OWNER/NAME of the repository.
            filename: path of the model in it.
            revision: a branch, tag or commit. A branch is what it was when it was fetched, until `update`.
            sha256: what the file's SHA-256 has to be, as its card states it; None takes the hub's word.
            update: ask the hub for what the revision is now.
            settings: of the detector, see `Detector`.

        Raises:
            MissingExtraError: huggingface_hub is not installed.
            ConfigError: a repo, revision, filename or sha256 of another form.
            ModelError: there is no such repository, revision or file, or its content is not what its hash says.
            StoreError: there is no copy, and the hub does not answer.
        """
        from refineloc.runtime.hub import fetch_model

        return cls(fetch_model(repo, filename, revision, sha256, update), **settings)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_backbone": None}  # loaded anew by whom it is asked of

    def _operating_score(self, name: str, others: Collection[str]) -> float:
        """The score of an operating point, where the scores are those for which it was chosen."""
        score = self.metadata.score_of(name)
        if others or isinstance(self._session, SeveralSessions):
            what = f"{min(others)}: scores by another rule" if others else "several models: their mean scores"
            raise ConfigError(f"min_score: {name!r} was chosen for the model file alone, not for {what}; give a number")
        return score

    @property
    def metadata(self) -> ModelMetadata:
        """The metadata of the model file, of several of the first."""
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

    def __repr__(self) -> str:
        metadata, session = self.metadata, self._session
        if isinstance(session, SeveralSessions):
            what = f"{len(session.sessions)} models: {metadata.base}"
        else:
            what = f"{session.name}: {metadata.base} iteration {metadata.iteration}"
        return (
            f"<Detector {what}, {counted(len(self.classes), 'class')}, {metadata.width} features, "
            f"profile {self.settings.profile}, on {self.provider}>"
        )

    def scores(self, features: npt.ArrayLike) -> Scores:
        """Class activations, foreground, attention and video scores of one video, before any threshold.

        Args:
            features: [T, D], T >= 1; D is the model's width, or twice that if the model takes one of two streams.

        Raises:
            FeatureError: another shape or dtype, no snippets, values that are NaN, infinite or so large that the model
                overflows.
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
        stride_frames: int | None = None,
        labels: Sequence[str] | None = None,
        min_score: float | EllipsisType | None = ...,
    ) -> Detections:
        """The actions of one video, best first.

        Args:
            features: as for `scores`.
            fps: frames a second of the video.
            duration_s: its length in seconds, if known; segments are clipped to it.
            snippet_frames: frames in a snippet, if it differs from the model's (`metadata.snippet_frames`).
            stride_frames: frames from one snippet to the next, if it differs from `snippet_frames` where that is given,
                and from the model's where it is not.
            labels: its classes, if known: segments of all of these and of no others, whatever `top_k`.
            min_score: least score of a detection, None for all; the detector's if left out.

        Raises:
            FeatureError: see `scores`.
            InputError: fps, duration, snippet or stride frames that are not positive numbers (see `SnippetGrid`) or
                contradict each other, no label, or one that is no class of the model.
        """
        grid = self._video_grid(fps, duration_s, snippet_frames, stride_frames)
        known = None if labels is None else self._known(labels, "labels")[None]
        settings = self._with(min_score)
        packed = self._checked(features, "features")
        _check_one("", packed, grid, "duration_s")
        lengths = np.array([len(packed)], dtype=np.int64)
        detected = segments(self._session.run(packed, lengths, ["features"]), lengths, settings, known)
        return Detections.from_batch([grid], detected, self.classes, self.provider)[0]

    def detect_video(
        self,
        path: str | os.PathLike[str],
        backbone: "Backbone | str | os.PathLike[str]",
        *,
        labels: Sequence[str] | None = None,
    ) -> Detections:
        """The actions of a film, best first. Decoding and the backbone overlap; features are not written.

        What a user should know of the film, such as damaged parts, is an `InputWarning`.

        Args:
            path: of the film.
            backbone: what turns films into features (docs/how-to/videos.md): its ONNX file, or the loaded
                `refineloc.runtime.video.backbone.Backbone`. A file runs on the detector's provider. It stays loaded for
                the next film, until it changes or another one is given.
            labels: see `detect`.

        Raises:
            VideoError: the film cannot be decoded.
            ModelError, FeatureError: the model learnt from features of another backbone.
            MissingExtraError: PyAV is not installed.
        """
        # Imported here, as detection from features needs none of it.
        from refineloc.runtime.video.backbone import Backbone
        from refineloc.runtime.video.detection import check_fits, detect_film
        from refineloc.runtime.video.features import film_features

        loaded = backbone if isinstance(backbone, Backbone) else self._loaded(backbone)
        check_fits(self.metadata, loaded)
        film = film_features(path, loaded)
        for line in film.notes:
            warnings.warn(line, InputWarning, stacklevel=2)
        return detect_film(self, film, labels)

    def _loaded(self, model: ModelSource) -> "Backbone":
        """The backbone of a file, once as long as the file stays as it is: TensorRT takes minutes for it."""
        from refineloc.runtime.video.backbone import Backbone

        if not isinstance(model, (str, os.PathLike)):
            return Backbone(model, cast(Provider, self.provider))
        status = status_of(model, ModelError)
        state = as_path(model).absolute(), status and (status.st_size, status.st_mtime_ns)
        kept = self._backbone
        if kept is None or kept[0] != state:  # two threads may both load it, which does no harm
            kept = self._backbone = state, Backbone(model, cast(Provider, self.provider))
        return kept[1]

    def detect_many(
        self,
        videos: FeatureStore | Mapping[str, npt.ArrayLike] | Iterable[tuple[str, npt.ArrayLike]],
        *,
        names: Sequence[str] | None = None,
        fps: float | None = None,
        stride_frames: int | None = None,
        times: Times | None = None,
        labels: Mapping[str, Sequence[str]] | None = None,
        min_score: float | EllipsisType | None = ...,
    ) -> Iterator[tuple[str, Detections]]:
        """The actions of many videos, in their order; a call of the model takes many videos.

        One thread reads a store ahead and another runs the model, while the caller works on the results; of an int8
        model several threads do both. Leaving the loop early stops them. Detections of a video do not depend on the
        other videos of the call.

        Args:
            videos: an open feature store, a mapping of features by name, or pairs of name and features.
            names: only these videos of a store or mapping, in this order.
            fps: of videos for which neither the store nor `times` states it.
            stride_frames: frames from one snippet to the next, of videos for which the store does not state it; the
                model's where it is left out.
            times: fps and duration by video, None if not known, or labels that state them; used if the store does not.
            labels: the classes of each video, if known: see `detect`.
            min_score: see `detect`.

        Raises:
            FeatureError: as for `scores`; the message names the video.
            InputError: the fps of a video is not known, its times are invalid or contradict each other, a video
                of `names` does not exist, or `labels` has none of a video, or one that is no class of the model.
            ConfigError: `names` together with pairs.
        """
        for batch in self.detect_batches(
            videos,
            names=names,
            fps=fps,
            stride_frames=stride_frames,
            times=times,
            labels=labels,
            min_score=min_score,
        ):
            yield from batch

    def detect_batches(
        self,
        videos: FeatureStore | Mapping[str, npt.ArrayLike] | Iterable[tuple[str, npt.ArrayLike]],
        *,
        names: Sequence[str] | None = None,
        fps: float | None = None,
        stride_frames: int | None = None,
        times: Times | None = None,
        labels: Mapping[str, Sequence[str]] | None = None,
        min_score: float | EllipsisType | None = ...,
    ) -> Iterator[list[tuple[str, Detections]]]:
        """Like `detect_many`, with a list of videos for each call of the model."""
        settings = self._with(min_score)
        if isinstance(videos, FeatureStore):
            # All videos are checked before the first is read, so that no error comes after hours.
            wanted = videos.names if names is None else names
            planned = self.plan(videos, wanted, fps=fps, stride_frames=stride_frames, times=times, labels=labels)
            yield from self.detect_planned(videos, planned, labels=labels, min_score=min_score)
        else:
            packed = self._packed(_pairs(videos, names), fps, stride_frames, times or {}, labels)
            yield from self._detected((self._scored(batch) for batch in packed), labels, settings)

    def plan(
        self,
        store: FeatureStore,
        names: Sequence[str],
        *,
        fps: float | None = None,
        stride_frames: int | None = None,
        times: Times | None = None,
        labels: Mapping[str, Sequence[str]] | None = None,
        together: bool = True,
    ) -> list[Planned]:
        """Check videos of a store against the model, for `detect_planned`; reads no features.

        Args and errors are those of `detect_many`. With `together=False` these are some of many videos, whose times
        `check_times` takes together.
        """
        self._known_of(names, labels)
        planned = [self._planned(store, name, fps, stride_frames, times or {}) for name in names]
        if together:
            self.check_times(store, planned, times)
        return planned

    def check_times(self, store: FeatureStore, planned: Sequence[Planned], times: Times | None = None) -> None:
        """Refuse videos that `plan` has checked one by one where their times contradict their snippets.

        Raises:
            InputError: see `refineloc.runtime.segments.agreement`.
        """
        check_times([each.timed for each in planned if each.timed], store.path, _name_of(times))

    def detect_planned(
        self,
        store: FeatureStore,
        planned: Sequence[Planned],
        *,
        labels: Mapping[str, Sequence[str]] | None = None,
        min_score: float | EllipsisType | None = ...,
    ) -> Iterator[list[tuple[str, Detections]]]:
        """Like `detect_batches`, for videos that `plan` has checked with the same labels."""
        settings = self._with(min_score)
        with contextlib.ExitStack() as stack:
            yield from self._detected(self._scored_planned(store, planned, stack), labels, settings)

    def scores_planned(
        self, store: FeatureStore, planned: Sequence[Planned]
    ) -> Iterator[tuple[str, SnippetGrid, Scores]]:
        """Name, snippets in seconds, and scores before any threshold of videos that `plan` has checked."""
        with (
            contextlib.ExitStack() as stack,
            contextlib.closing(self._scored_planned(store, planned, stack)) as scored,
        ):
            for batch, scores in scored:
                begin = 0
                lengths = batch.lengths.tolist()
                for index, (name, grid, length) in enumerate(zip(batch.names, batch.grids, lengths, strict=True)):
                    rows = slice(begin, begin := begin + length)
                    # Copies: those of a GPU lie in memory that the next call takes.
                    alone = Scores(
                        class_scores=scores.class_scores[rows].copy(),
                        foreground=scores.foreground[rows].copy(),
                        attention=scores.attention[rows].copy(),
                        video_scores=scores.video_scores[index : index + 1].copy(),
                        points=None if scores.points is None else scores.points.of_video(batch.lengths, index),
                    )
                    yield name, grid, alone

    def _scored_planned(
        self, store: FeatureStore, planned: Sequence[Planned], stack: contextlib.ExitStack
    ) -> Generator[tuple[FeatureBatch, Scores]]:
        """Each call of the model, its scores in memory that the stack gives back."""
        empty = _empty if self.provider == "cpu" else stack.enter_context(self._buffers.lent())
        limit, width, calls = self._batch_snippets, self.metadata.width, self._session.calls
        read = read_batches(store, planned, width, limit, self._half_to_float, empty, self._readers, calls)
        # Threads that read for themselves have one buffer each, which stays in the cache. On a GPU one thread runs the
        # model, as the engine takes memory there for each that does.
        return ahead(ahead(read) if calls == 1 else read, partial(self._scored, where=f"{store.path}: "), calls)

    def _detected(
        self,
        scored: Generator[tuple[FeatureBatch, Scores]],
        labels: Mapping[str, Sequence[str]] | None,
        settings: Rules,
    ) -> Iterator[list[tuple[str, Detections]]]:
        with contextlib.closing(scored):  # stops the threads before the caller closes the store
            for batch, scores in scored:
                known = self._known_of(batch.names, labels)
                detected = segments(scores, batch.lengths, settings, known)
                detections = Detections.from_batch(batch.grids, detected, self.classes, self.provider)
                yield list(zip(batch.names, detections, strict=True))

    def _with(self, min_score: float | EllipsisType | None) -> Rules:
        """The settings, with another least score where one is given."""
        return self._settings if min_score is ... else changed(self._settings, {"min_score": min_score})

    def _scored(self, batch: FeatureBatch, where: str = "") -> tuple[FeatureBatch, Scores]:
        names = [f"{where}video {name!r}" for name in batch.names]
        # The last calls and long ones take all threads: the others may have nothing left to do.
        beside = batch.left >= self._session.calls > 1 and len(batch.features) <= _LONG * self._batch_snippets
        return batch, self._session.run(batch.features, batch.lengths, names, beside=beside)

    def _planned(
        self, store: FeatureStore, name: str, fps: float | None, stride_frames: int | None, times: Times
    ) -> Planned:
        info = store.info(name)
        where = f"{store.path}: video {name!r}"
        if not info.snippets:
            raise FeatureError(f"{where}: has no snippets; leave it out or extract its features again")
        check_backbone(info.backbone, self.metadata.backbone, where, "the model is")
        frames = info.snippet_frames
        if frames is not None and frames != self.metadata.snippet_frames:
            raise FeatureError(
                f"{where}: its snippets have {counted(frames, 'frame')}, the model's have "
                f"{self.metadata.snippet_frames}; "
                "extract the features as for training"
            )
        stride = info.stride_frames
        if stride is not None and stride_frames not in (None, stride):
            raise FeatureError(
                f"{where}: states a stride of {counted(stride, 'frame')}, and stride_frames={stride_frames} was "
                "given; leave "
                "stride_frames out, or correct the attribute"
            )
        stated = _stated(times, name)
        grid = self._grid(video_times(info, stated, fps=fps), stride or stride_frames, where)
        columns = self.metadata.columns(info.width, where, info.snippets)
        timed = TimedVideo(info, stated, grid)
        return Planned(name, info.snippets, info.dtype == np.float16, columns, grid, timed)

    def _packed(
        self,
        videos: Iterable[tuple[str, npt.ArrayLike]],
        fps: float | None,
        stride_frames: int | None,
        times: Times,
        labels: Mapping[str, Sequence[str]] | None,
    ) -> Generator[FeatureBatch]:
        """Arrays as batches. The caller's iterable runs in the caller's thread, one batch at a time."""
        waiting: list[tuple[str, SnippetGrid, npt.NDArray[np.float32]]] = []
        size = 0
        for video in videos:
            try:
                name, features = video
            except (TypeError, ValueError):
                raise InputError(
                    f"videos: expected pairs of name and features, got {type(video).__name__}; give these, a mapping, "
                    "or the store of open_features(PATH)"
                ) from None
            where = f"video {name!r}"
            self._known_of([name], labels)
            checked = self._checked(features, where)
            if waiting and size + len(checked) > self._batch_snippets:
                yield _batch(waiting)
                waiting, size = [], 0
            grid = self._grid(video_times(None, _stated(times, name), fps=fps), stride_frames, where)
            _check_one(name, checked, grid, _name_of(times))
            waiting.append((name, grid, checked))
            size += len(checked)
        if waiting:
            yield _batch(waiting)

    def _known_of(
        self, names: Sequence[str], labels: Mapping[str, Sequence[str]] | None
    ) -> npt.NDArray[np.bool_] | None:
        """The known classes of videos, [V, N]; None where they are not known."""
        if labels is None:
            return None
        known = np.zeros((len(names), len(self.classes)), dtype=np.bool_)
        for row, name in zip(known, names, strict=True):
            row[:] = self._known(labels.get(name, ()), f"labels of video {name!r}")
        return known

    def _known(self, labels: Sequence[str], where: str) -> npt.NDArray[np.bool_]:
        if isinstance(labels, str) or not len(labels):
            got = repr(labels) if isinstance(labels, str) else "none"
            raise InputError(f"{where}: expected a list of at least one class, got {got}", parameter="labels")
        known = np.array([name in labels for name in self.classes])
        for label in labels:
            if label not in self.classes:
                shown = ", ".join(self.classes[:3]) + (", ..." if len(self.classes) > 3 else "")
                raise InputError(f"{where}: {label!r} is no class of the model, which has {shown}", parameter="labels")
        return known

    def _grid(self, times: VideoTimes, stride_frames: int | None, where: str) -> SnippetGrid:
        if times.fps is None:
            raise InputError(f"{where}: its fps is not known, and seconds need it; give fps or times", parameter="fps")
        try:
            return self._video_grid(times.fps, times.duration_s, None, stride_frames)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error

    def _video_grid(
        self, fps: float, duration_s: float | None, snippet_frames: int | None, stride_frames: int | None
    ) -> SnippetGrid:
        """The snippets of a video in seconds; the model's window and stride where neither is given."""
        if snippet_frames is None:
            snippet_frames = self.metadata.snippet_frames
            stride_frames = self.metadata.stride_frames if stride_frames is None else stride_frames
        return SnippetGrid(fps, snippet_frames, duration_s, stride_frames)

    def _checked(self, features: npt.ArrayLike, where: str, *, least: int = 1) -> npt.NDArray[np.float32]:
        """What the model takes of features [T, D], T >= `least`: its columns, float32 and finite."""
        array = two_dimensional(as_array(features, where), where)
        if len(array) < least:
            raise FeatureError(f"{where}: has no snippets")
        columns = np.ascontiguousarray(array[:, self.metadata.columns(array.shape[1], where, len(array))])
        if columns.dtype == np.float16 and len(columns):
            packed = np.empty(columns.shape, dtype=np.float32)
            self._half_to_float()(columns, packed)
        else:
            with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, and is found below
                packed = np.asarray(columns, dtype=np.float32)
        check_finite(packed, where)
        return packed

    def _half_to_float(self) -> "HalfToFloat":
        if self._half is None:  # two threads may both make one, which does no harm
            from refineloc.runtime.model.half import HalfToFloat

            self._half = HalfToFloat()
        return self._half


def _empty(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    return np.empty(shape, dtype=np.float32)


def _stated(times: Times, name: str) -> VideoTimes:
    stated: Any = times.get(name, ())
    if hasattr(stated, "duration_s"):
        return VideoTimes(stated.fps, stated.duration_s)
    if not isinstance(stated, Sequence) or isinstance(stated, str) or len(stated) > 2:
        raise InputError(f"times: video {name!r}: expected (fps, duration in seconds), got {stated!r:.40}")
    return VideoTimes(*stated)


def _name_of(times: Times | None) -> str | Path:
    """What states the times, for messages."""
    return getattr(times, "path", "times")


def _check_one(name: str, features: npt.NDArray[np.float32], grid: SnippetGrid, stated_by: str | Path) -> None:
    """Refuse an array [T, D] that contradicts its times; the other videos are not known."""
    info = FeatureInfo(name, len(features), features.shape[1], features.dtype)
    check_times([TimedVideo(info, None, grid)], None, stated_by)


def _pairs(
    videos: Mapping[str, npt.ArrayLike] | Iterable[tuple[str, npt.ArrayLike]], names: Sequence[str] | None
) -> Iterable[tuple[str, npt.ArrayLike]]:
    if isinstance(videos, (str, bytes, os.PathLike)) or not isinstance(videos, (Mapping, Iterable)):
        raise InputError(f"videos: expected features, got {videos!r:.40}; open a file with open_features(PATH)")
    if not isinstance(videos, Mapping):
        if names is not None:
            raise ConfigError("names: goes with a feature store or a mapping; leave videos out of the iterable itself")
        return videos
    if names is None:
        return videos.items()
    missing = [name for name in names if name not in videos]
    if missing:
        raise InputError(f"video {missing[0]!r}: is not in the mapping, which holds {counted(len(videos), 'video')}")
    return ((name, videos[name]) for name in names)


def _batch(videos: list[tuple[str, SnippetGrid, npt.NDArray[np.float32]]]) -> FeatureBatch:
    names, grids, features = zip(*videos, strict=True)
    lengths = np.array([len(array) for array in features], dtype=np.int64)
    return FeatureBatch(
        list(names), list(grids), lengths, features[0] if len(features) == 1 else np.concatenate(features)
    )
