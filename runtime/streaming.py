"""Detection while the video is still running: push snippets, get segments as soon as their times are settled.

When each part of the method is known (docs/explanation/method.md):

- Class activations C̄ and foreground Ā^bf of a snippet: at once, as they do not depend on other snippets. This holds for
  the base model refineloc. Other base models are refused: with convolutions over time (BaS-Net) a snippet depends on
  snippets that come later, and a ŷ that is not a sum of attention times C̄ (W-TALC, BaS-Net) has no running form.
- Class, start and end of a segment: once enough removed snippets follow that no later snippet can join it, and widening
  has room.
- Attention Ā^time and video scores ŷ: never, as their softmax is over the whole video. The running form is the same
  softmax over the snippets so far. It selects the top k classes, and enters the scores.

So a segment is yielded with its offline times and a preliminary score. If its class enters the top k later, it is
yielded then. A class may also leave the top k after a segment of it was yielded. By the end, all segments of the
offline result have been yielded, and `detections()` gives the offline result with its final scores.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from refineloc._ext.segments import segment_score
from refineloc.runtime.detections import Detection, Detections
from refineloc.runtime.detector import Detector
from refineloc.runtime.errors import ConfigError
from refineloc.runtime.model.metadata import SUMMED_BASE, WHOLE_CONTEXT
from refineloc.runtime.scalars import as_whole
from refineloc.runtime.segments.postprocess import segments
from refineloc.runtime.segments.rules import OneThreshold, needs_whole_video
from refineloc.runtime.segments.values import Scores, Segments

if TYPE_CHECKING:
    from refineloc.runtime.video.backbone import Backbone
    from refineloc.runtime.video.frames import FrameSnippets

__all__ = ["StreamingDetector"]

# The smallest share of attention that the exact sum can represent (training/models/layers/activations.py).
_LEAST_SHARE = 2.0**-33


class StreamingDetector:
    """Finds actions in one running video. Make one for each video; they may share the `Detector`::

        stream = StreamingDetector(detector, fps=25.0)
        for snippets in camera:                       # [k, D], k >= 0, in the order of time
            for start, end, label, score in stream.push(snippets):
                ...
        rest = stream.finish()

    Not thread-safe, unlike a `Detector`. It keeps the scores of the snippets of open segments.

    It follows the detector's settings where a running video can, else the rule that the model file has for streaming.

    Args:
        detector: scores the snippets, and has the settings of detection.
        fps: frames a second of the video.
        snippet_frames, stride_frames: frames in a snippet and from one to the next, if they differ from the model's
            (`Detector.detect`).
        max_open_snippets: after a push, cut open segments that are longer, so that memory and time stay bounded in an
            action of days. If no segment is cut, the times are those of the offline result.

    Raises:
        ConfigError: the model has no running form (see above); or the detector has a suppression, a least score, a cap
            or the profile "multi-threshold", which need the whole video, and its model file has no rule for streaming.
        InputError: fps or snippet frames that are not positive numbers.
    """

    def __init__(
        self,
        detector: Detector,
        *,
        fps: float,
        snippet_frames: int | None = None,
        stride_frames: int | None = None,
        max_open_snippets: int = 20_000,
    ) -> None:
        _check_streamable(detector)
        self._settings = _followed(detector)
        longest = as_whole(max_open_snippets)
        if longest is None or longest < 1:
            raise ConfigError(
                f"max_open_snippets: expected a whole number of at least 1, got {max_open_snippets!r:.40}"
            )
        self._detector = detector
        self._grid = detector._video_grid(fps, None, snippet_frames, stride_frames)
        self._max_open = longest
        classes = len(detector.classes)
        # The runs of all classes, not widened: the top k classes and the end of the video are known later.
        self._rules = replace(self._settings, top_k=classes, widen=0)
        # Removed snippets after which nothing joins a run any more; 2 for the dilation of "release".
        joined = self._settings.max_gap + 1 if self._settings.profile == "paper" else 2
        self._settled_after = max(joined, self._settings.widen)
        self._attention = _RunningAttention(classes)
        self._begin = 0  # snippet of the video at which the window below begins
        self._class_scores = np.empty((0, classes), dtype=np.float32)
        self._open = self._class_scores  # the same, but -1 (below every threshold) in settled segments
        self._foreground = np.empty(0, dtype=np.float32)
        self._weight = np.empty(0, dtype=np.float64)
        self._settled: list[_Run] = []
        # By class: settled but not yielded, as the class was not in the top k.
        self._waiting: dict[int, list[_Run]] = {}
        self._finished = False
        self._frames: FrameSnippets | None = None

    @property
    def settings(self) -> OneThreshold:
        """How scores become segments here."""
        return self._settings

    @property
    def snippets(self) -> int:
        """Number of snippets pushed so far."""
        return self._begin + len(self._foreground)

    def push(self, features: npt.ArrayLike) -> list[Detection]:
        """Add the next snippets of the video; gives the segments that can no longer change, in the order of their ends.

        Args:
            features: [k, D], as for `Detector.scores`; k may be 0.

        Raises:
            FeatureError: see `Detector.scores`.
            ConfigError: `finish` was called.
        """
        if self._finished:
            raise ConfigError("streaming: the video was finished; make a StreamingDetector for the next one")
        array = self._detector._checked(features, "features", least=0)
        if not len(array):
            return []
        anchor = self._attention.anchor
        # The anchor goes last, so that errors have the caller's snippet numbers.
        scores = self._detector.scores(array if anchor is None else np.concatenate([array, anchor[None]]))
        new = len(array)
        self._weight = np.concatenate([self._weight, self._attention.add(array, scores)])
        self._class_scores = np.concatenate([self._class_scores, scores.class_scores[:new]])
        self._open = np.concatenate([self._open, scores.class_scores[:new]])
        self._foreground = np.concatenate([self._foreground, scores.foreground[:new]])
        self._settle()
        if len(self._foreground) > self._max_open:
            self._settle(longest=self._max_open)
        return self._yield()

    def push_frames(self, frames: npt.NDArray[Any], backbone: "Backbone") -> list[Detection]:
        """Add the next frames of the video instead of its snippets; a backbone makes snippets of them.

        All of a video is pushed either as frames or as snippets. The last snippet, which the video's end cuts, comes
        with `finish`.

        Args:
            frames: RGB, uint8 [k, H, W, 3] of any k, at the backbone's rate (`backbone.metadata.fps`), scaled as its
                `size` says; for a backbone of sound samples, float32 [k]. They are copied: a buffer may be used again.
            backbone: of the features that the model learnt from.

        Raises:
            ModelError, FeatureError: the model learnt from features of another backbone.
            ConfigError: another backbone or rate than before, or `finish` was called.
            VideoError: frames of another shape.
        """
        if self._frames is None:
            from refineloc.runtime.video.frames import FrameSnippets  # features need none of it

            self._frames = FrameSnippets(self._detector.metadata, backbone, self._grid)
        return self.push(self._frames.push(frames, backbone))

    def finish(self) -> list[Detection]:
        """End the video; gives the segments that were not yielded yet."""
        last: list[Detection] = []
        if self._frames is not None and not self._finished:
            last = self.push(self._frames.finish())
        if not self._finished:
            self._settle(longest=0)
            self._finished = True
        return last + self._yield()

    def detections(self) -> Detections:
        """All detections so far, best first, with their current scores; after `finish`, the offline ones by `settings`.

        Of several networks the scores and the order of ŷ are near those offline: the mean of their attention has no
        running form, and the shares of each call are put together as if it had.
        """
        top = self._top_classes()
        rank = {label: index for index, label in enumerate(top)}
        kept = sorted((run for run in self._settled if run.label in rank), key=lambda run: (rank[run.label], run.first))
        bounds = np.array([self._widened(run) for run in kept], dtype=np.float64).reshape(-1, 2)
        settled = Segments(
            video=np.zeros(len(kept), dtype=np.int64),
            label=np.array([run.label for run in kept], dtype=np.int64),
            first=bounds[:, 0],
            last=bounds[:, 1],
            score=np.array([self._score(run) for run in kept], dtype=np.float64),
        )
        return Detections.from_segments(self._grid, settled, self._detector.classes, self._detector.provider)

    def _settle(self, longest: int | None = None) -> None:
        """Move the runs that can no longer change out of the window, and drop the snippets that no open run needs.

        Args:
            longest: cut and move open runs that began more than this many snippets ago, too.
        """
        size = len(self._foreground)
        if not size:
            return
        none = np.zeros(size, dtype=np.float32)
        video = np.zeros((1, self._open.shape[1]), dtype=np.float32)
        runs = segments(
            Scores(self._open, self._foreground, none, video), np.array([size], dtype=np.int64), self._rules
        )
        settled = runs.last + self._settled_after < size
        if longest is not None:
            settled |= size - runs.first > longest
        # No suppression: the bounds are whole snippets.
        firsts, lasts = runs.first.astype(np.int64), runs.last.astype(np.int64)
        for label, first, last in zip(runs.label[settled], firsts[settled], lasts[settled], strict=True):
            inside = slice(first, last + 1)
            run = _Run(
                label=int(label),
                first=self._begin + int(first),
                last=self._begin + int(last),
                # Not `_open`: after a cut, the dilation of "release" extends the next run back into settled snippets.
                class_mean=float(self._class_scores[inside, label].mean(dtype=np.float64)),
                foreground_mean=float(self._foreground[inside].mean(dtype=np.float64)),
                weight_mean=float(self._weight[inside].mean()),
            )
            self._settled.append(run)
            self._waiting.setdefault(run.label, []).append(run)
            self._open[inside, label] = -1.0  # not detected again
        # One snippet more, as the dilation of "release" extends a later run back by one.
        needed = max(0, min([size - self._settled_after - 1, *firsts[~settled].tolist()]))
        self._begin += needed
        self._class_scores = self._class_scores[needed:].copy()
        self._open = self._open[needed:].copy()
        self._foreground = self._foreground[needed:].copy()
        self._weight = self._weight[needed:].copy()

    def _yield(self) -> list[Detection]:
        # By class index, then a stable sort: segments that end at the same snippet have a fixed order.
        ready = [run for label in sorted(self._top_classes()) for run in self._waiting.pop(label, [])]
        return [self._record(run) for run in sorted(ready, key=lambda run: (run.last, run.first))]

    def _record(self, run: "_Run") -> Detection:
        first, last = self._widened(run)
        start, end = self._grid.seconds(np.array([first]), np.array([last]))
        return Detection(float(start[0]), float(end[0]), self._detector.classes[run.label], self._score(run))

    def _top_classes(self) -> list[int]:
        best = np.argsort(-self._attention.video_scores(), kind="stable")
        return [int(label) for label in best[: self._settings.top_k]]

    def _widened(self, run: "_Run") -> tuple[int, int]:
        widen = self._settings.widen
        return max(run.first - widen, 0), min(run.last + widen, self.snippets - 1)

    def _score(self, run: "_Run") -> float:
        """The score of a run by the running attention and the running ŷ."""
        return segment_score(
            self._settings.profile,
            run.class_mean,
            run.foreground_mean,
            run.weight_mean / self._attention.total,
            float(self._attention.video_scores()[run.label]),
        )


def _check_streamable(detector: Detector) -> None:
    """Refuse detectors that need the whole video; first for reasons that no setting can change."""
    if not isinstance(detector, Detector):
        raise ConfigError(f"detector: expected a Detector, got {detector!r:.40}; give Detector(MODEL)")
    base, context = detector.metadata.base, detector.metadata.context_snippets
    if context > 0:
        others = "all others" if context == WHOLE_CONTEXT else f"the {context} before and after it"
        raise ConfigError(
            f"streaming: with the base model {base!r} the scores of a snippet depend on {others}; use Detector on the "
            "whole video"
        )
    if base != SUMMED_BASE:
        raise ConfigError(
            f"streaming: the video scores of the base model {base!r} have no running form; use Detector on the whole "
            f"video, or a model of the base {SUMMED_BASE!r}"
        )


def _followed(detector: Detector) -> OneThreshold:
    """The settings that a running video can follow: the detector's, else those that the file has for streaming."""
    settings, streaming = detector.settings, detector.metadata.streaming
    name = needs_whole_video(settings)
    if not name:
        assert isinstance(settings, OneThreshold)  # for the type checker: the other kind needs the whole video
        return settings
    if streaming is not None:
        return streaming
    if name == "profile":
        raise ConfigError(
            f"streaming: the profile {settings.profile!r} needs the least and largest activation of the whole video, "
            "and the model file has no rule for streaming; use Detector on the whole video, or give "
            "Detector(..., profile='paper')"
        )
    off = f"Detector(..., {name}={getattr(OneThreshold(), name)!r})"
    raise ConfigError(
        f"streaming: {name} needs the whole video, and the model file has no rule for streaming; give {off}, or use "
        "Detector alone"
    )


@dataclass(frozen=True, slots=True)
class _Run:
    """A segment before it is widened: snippets of the video, and means over them.

    The attention of a snippet is its weight over the sum of all weights.
    """

    label: int
    first: int
    last: int
    class_mean: float
    foreground_mean: float
    weight_mean: float


class _RunningAttention:
    """Ā^time and ŷ over the snippets so far, from the attention of single calls.

    The graph gives the attention of each call as shares of that call. One snippet that is in every call, the anchor,
    makes them comparable: the weight of a snippet is its share over the anchor's share, times the anchor's weight. The
    formula of the weights stays in the graph. The anchor is the snippet with the largest weight so far, so that its
    share does not vanish.
    """

    def __init__(self, classes: int) -> None:
        self.anchor: npt.NDArray[np.float32] | None = None  # its features, [D]
        self._anchor_weight = 1.0
        self.total = 0.0
        self._sum = np.zeros(classes)  # of weight times C̄

    def add(self, array: npt.NDArray[np.float32], scores: Scores) -> npt.NDArray[np.float64]:
        """The weights of new snippets.

        Args:
            array: features [k, D].
            scores: of these snippets and, if there is an anchor, of the anchor after them.
        """
        share = scores.attention.astype(np.float64)
        new = len(array)
        unit = share[-1] if self.anchor is not None else share.max()
        weight: npt.NDArray[np.float64] = share[:new] / max(unit, _LEAST_SHARE) * self._anchor_weight
        best = int(weight.argmax())
        if self.anchor is None or weight[best] > self._anchor_weight:
            self.anchor, self._anchor_weight = array[best].copy(), float(weight[best])
        self.total += float(weight.sum())
        self._sum += weight @ scores.class_scores[:new]
        return weight

    def video_scores(self) -> npt.NDArray[np.float64]:
        """ŷ over the snippets so far, [N]; zeros before the first."""
        return self._sum / self.total if self.total else self._sum
