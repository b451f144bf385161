"""Which annotation each detection takes: average precision, intervals, diagnosis and report all start from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from refineloc._ext.matching import match
from refineloc.runtime.annotations import Annotations
from refineloc.runtime.detections import Detections
from refineloc.runtime.errors import AnnotationError, ConfigError

__all__ = ["DEFAULT_TIOUS", "AmbiguousRule", "Matching", "Regions", "TruthTable", "match_detections"]

DEFAULT_TIOUS: tuple[float, ...] = tuple(np.linspace(0.5, 0.95, 10).round(2).tolist())

_REPEATED_S = 1e-3  # annotations whose bounds differ by no more repeat each other

# Ambiguous regions by video: (start, end) in seconds.
Regions = Mapping[str, Sequence[tuple[float, float]]]

# Of the detections that overlap an ambiguous region: spare the false positives, or drop all of them before matching.
AmbiguousRule = Literal["spare", "drop"]


@dataclass(frozen=True, slots=True, eq=False)
class Matching:
    """Detections, the ground truth, and which annotation each detection takes: what every measure starts from.

    Attributes:
        detections: as given, by video; without those that the rule "drop" of ambiguous regions took away.
        annotations: as given.
        tious: thresholds, float64 [K].
        truth: the annotations that count, by video and class.
        class_bounds: class c has the detections class_bounds[c] .. class_bounds[c + 1] - 1, int64 [N + 1].
        video: index into the annotations' videos, -1 for one that they do not have, int64 [n].
        start, end, score: of each detection, float64 [n]; by class, and within a class by falling score.
        annotation: index into `truth` of the annotation that each detection takes at each threshold, -1 for a false
            positive, int32 [K, n].
        ambiguous: whether each detection overlaps an ambiguous region and is spared for it, bool [n].
        unknown_labels: detections whose class the ground truth does not have; they are left out, as the kit does.
        unknown_videos: videos of the detections that the ground truth does not have; theirs are false positives.
    """

    detections: Mapping[str, Detections]
    annotations: Annotations
    tious: npt.NDArray[np.float64]
    truth: "TruthTable"
    class_bounds: npt.NDArray[np.int64]
    video: npt.NDArray[np.int64]
    start: npt.NDArray[np.float64]
    end: npt.NDArray[np.float64]
    score: npt.NDArray[np.float64]
    annotation: npt.NDArray[np.int32]
    ambiguous: npt.NDArray[np.bool_]
    unknown_labels: int
    unknown_videos: int

    @property
    def label(self) -> npt.NDArray[np.int64]:
        """The class of each detection, [n]."""
        return np.repeat(np.arange(len(self.truth.classes)), np.diff(self.class_bounds))

    def usable(self) -> "Matching":
        """Without detections whose end is not after their start; they take no annotation."""
        kept = self.end > self.start
        if kept.all():
            return self
        before = np.append(0, np.cumsum(kept))  # how many are kept of the first 0, 1, 2, ...
        return replace(
            self,
            class_bounds=before[self.class_bounds],
            video=self.video[kept],
            start=self.start[kept],
            end=self.end[kept],
            score=self.score[kept],
            annotation=np.ascontiguousarray(self.annotation[:, kept]),
            ambiguous=self.ambiguous[kept],
        )

    @property
    def hits(self) -> npt.NDArray[np.int8]:
        """1 for a true positive, 0 for a false one, -1 for a false one in an ambiguous region, int8 [K, n]."""
        hits = (self.annotation >= 0).astype(np.int8)
        if self.ambiguous.any():
            hits[(hits == 0) & self.ambiguous] = -1
        return hits


def match_detections(
    detections: Mapping[str, Detections],
    annotations: Annotations,
    tious: Sequence[float] = DEFAULT_TIOUS,
    *,
    drop_repeated: bool = False,
    keep_empty: bool = False,
    ambiguous: Regions | None = None,
    ambiguous_rule: AmbiguousRule = "spare",
) -> Matching:
    """Match detections with ground truth, as ActivityNet's evaluation kit does (docs/explanation/evaluation.md).

    Two things are ours. Annotations whose end is not after their start are dropped, as no detection can match them; the
    kit keeps them. Of equal scores the later row comes first, always; the kit's sort leaves their order to NumPy and
    the processor.

    >>> from refineloc.evaluation import evaluate
    >>> from refineloc.runtime import VideoAnnotation
    >>> truth = VideoAnnotation(
    ...     "game",
    ...     labels=("jump",),
    ...     start=np.array([0.0, 40.0]),
    ...     end=np.array([6.0, 50.0]),
    ...     segment_labels=("jump", "jump"),
    ... )
    >>> detections = Detections(
    ...     start=np.array([0.5, 20.0]),
    ...     end=np.array([6.0, 29.0]),
    ...     score=np.array([0.9, 0.4]),
    ...     label_index=np.array([0, 0]),
    ...     classes=("jump",),
    ... )
    >>> matching = match_detections({"game": detections}, Annotations({"game": truth}))
    >>> float(evaluate(matching).mAP[0])  # at tIoU 0.5 one of the two actions is found
    0.5

    Args:
        detections: by video.
        annotations: with times.
        tious: thresholds in (0, 1].
        drop_repeated: drop annotations that repeat an earlier one of their class within 0.001 s, as OpenTAD and
            ActionFormer do.
        keep_empty: keep annotations whose end is not after their start, as the kit does: each counts as missed.
        ambiguous: regions by video, as of THUMOS14's Ambiguous list.
        ambiguous_rule: what becomes of detections that overlap one. "spare": a false positive counts neither way in
            `evaluate` and `bootstrap`; the diagnosis counts it, as DETAD has no such regions. "drop": all go before
            matching, right ones too, as in the codes that build on W-TALC's.

    Raises:
        AnnotationError: no times in the ground truth.
        ConfigError: a threshold out of range, or no such rule.
    """
    if ambiguous_rule not in get_args(AmbiguousRule):
        raise ConfigError(f"ambiguous_rule: expected 'spare' or 'drop', got {ambiguous_rule!r}")
    thresholds = np.asarray(tious, dtype=np.float64)
    if not thresholds.size or not ((thresholds > 0) & (thresholds <= 1)).all():
        raise ConfigError(f"tIoU thresholds: expected numbers above 0 and at most 1, got {list(tious)}")
    truth = _truth_table(annotations, drop_repeated, keep_empty)
    if ambiguous and ambiguous_rule == "drop":
        detections = {name: _outside(ambiguous.get(name, ()), video) for name, video in detections.items()}
        ambiguous = None

    video_index = {name: index for index, name in enumerate(annotations)}
    class_index = {label: index for index, label in enumerate(truth.classes)}
    unknown_videos = sum(name not in video_index for name in detections)
    parts = list(detections.values())
    label = _classes_of(parts, class_index)
    video = np.repeat([video_index.get(name, -1) for name in detections], [len(part) for part in parts])
    start, end, score = (
        _joined([getattr(part, column) for part in parts], np.float64) for column in ("start", "end", "score")
    )

    # By class, then by falling score, the later row first where scores are equal.
    by_score = _falling(score)
    by_score = by_score[label[by_score] >= 0]
    # A stable sort of small integers is a radix sort: linear.
    small = np.uint16 if len(truth.classes) <= 2**16 else np.int64
    order = by_score[np.argsort(label[by_score].astype(small), kind="stable")]
    video, label = video[order].astype(np.int64), label[order]
    start, end, score = start[order], end[order], score[order]
    group = np.where(video >= 0, truth.group_of(video, label), -1)
    return Matching(
        detections=detections,
        annotations=annotations,
        tious=thresholds,
        truth=truth,
        class_bounds=np.searchsorted(label, np.arange(len(truth.classes) + 1)),
        video=video,
        start=start,
        end=end,
        score=score,
        annotation=match(start, end, group, truth.start, truth.end, truth.bounds, thresholds),
        ambiguous=_overlapping(ambiguous or {}, video_index, video, start, end),
        unknown_labels=sum(map(len, parts)) - len(order),
        unknown_videos=unknown_videos,
    )


def _overlapping(
    regions: Regions,
    video_index: Mapping[str, int],
    video: npt.NDArray[np.int64],
    start: npt.NDArray[np.float64],
    end: npt.NDArray[np.float64],
) -> npt.NDArray[np.bool_]:
    """Which detections overlap a region of their video."""
    overlapping = np.zeros(len(start), dtype=np.bool_)
    for name in regions.keys() & video_index.keys():
        rows = np.flatnonzero(video == video_index[name])
        overlapping[rows] = _overlap_one_of(regions[name], start[rows], end[rows])
    return overlapping


def _overlap_one_of(
    regions: Sequence[tuple[float, float]], start: npt.NDArray[np.float64], end: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    """Which segments overlap one of the regions; touching is not overlapping."""
    overlapping = np.zeros(len(start), dtype=np.bool_)
    for begin, stop in regions:
        overlapping |= (start < stop) & (end > begin)
    return overlapping


def _outside(regions: Sequence[tuple[float, float]], detections: Detections) -> Detections:
    """The detections of a video that overlap none of its regions."""
    kept = ~_overlap_one_of(regions, detections.start, detections.end)
    if kept.all():
        return detections
    return replace(
        detections,
        start=detections.start[kept],
        end=detections.end[kept],
        score=detections.score[kept],
        label_index=detections.label_index[kept],
    )


def _classes_of(parts: list[Detections], class_index: Mapping[str, int]) -> npt.NDArray[np.int64]:
    """The ground truth's class of each detection, -1 where it has none."""

    def mapping(classes: tuple[str, ...]) -> npt.NDArray[np.int64]:
        return np.array([class_index.get(label, -1) for label in classes], dtype=np.int64)

    if parts and all(part.classes is parts[0].classes for part in parts):  # as read from one file: a third faster
        label: npt.NDArray[np.int64] = mapping(parts[0].classes)[
            _joined([part.label_index for part in parts], np.int64)
        ]
        return label
    return _joined([mapping(part.classes)[part.label_index] for part in parts], np.int64)


def _falling(score: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Positions by falling score, the later first where scores are equal.

    NumPy's default sort is several times faster than its stable one; only positions of equal scores need a second look.
    """
    order = np.argsort(-score)
    equal = score[order[1:]] == score[order[:-1]]
    tied = np.flatnonzero(np.append(equal, False) | np.append(False, equal))
    order[tied] = order[tied][np.lexsort((-order[tied], -score[order[tied]]))]
    return order


def _joined(parts: list[npt.NDArray[Any]], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0, dtype=dtype)


@dataclass(frozen=True, slots=True)
class TruthTable:
    """All annotations, grouped by video and class.

    Attributes:
        classes: names.
        start, end: float64 [m], by group.
        keys: video * N + class of each group, rising, int64 [groups].
        bounds: of each group among the annotations, int64 [groups + 1].
        instances: of each class, int64 [N].
    """

    classes: tuple[str, ...]
    start: npt.NDArray[np.float64]
    end: npt.NDArray[np.float64]
    keys: npt.NDArray[np.int64]
    bounds: npt.NDArray[np.int64]
    instances: npt.NDArray[np.int64]

    @property
    def video(self) -> npt.NDArray[np.int64]:
        """The video of each annotation, an index into the annotations' videos, rising, [m]."""
        return np.repeat(self.keys // len(self.classes), np.diff(self.bounds))

    @property
    def label(self) -> npt.NDArray[np.int64]:
        """The class of each annotation, [m]."""
        return np.repeat(self.keys % len(self.classes), np.diff(self.bounds))

    def group_of(self, video: npt.NDArray[np.int64], label: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The group of each (video, class), -1 where it has no annotations."""
        size = int(self.keys[-1]) + 1
        table = np.full(size, -1, dtype=np.int32)
        table[self.keys] = np.arange(len(self.keys))
        wanted = video * len(self.classes) + label
        inside = (wanted >= 0) & (wanted < size)
        return np.where(inside, table[np.where(inside, wanted, 0)], -1)


def _truth_table(annotations: Annotations, drop_repeated: bool, keep_empty: bool) -> TruthTable:
    if not annotations.has_times:
        raise AnnotationError(f"{annotations.path}: has labels but no segments with times; evaluation needs them")
    videos = list(annotations.values())
    start = np.concatenate([video.start for video in videos])
    end = np.concatenate([video.end for video in videos])
    row_video = np.repeat(np.arange(len(videos)), [len(video.start) for video in videos])
    position = {name: index for index, name in enumerate(annotations.classes)}
    label = np.array([position[name] for video in videos for name in video.segment_labels], dtype=np.int64)
    kept = (end > start) | keep_empty
    if drop_repeated:
        kept &= ~_repeated(start, end, label, row_video)
    start, end, row_video, label = start[kept], end[kept], row_video[kept], label[kept]
    if not len(start):
        raise AnnotationError(f"{annotations.path}: no segment ends after its start")
    used, label = np.unique(label, return_inverse=True)  # a class may have dropped segments only
    names = [annotations.classes[index] for index in used]
    key = row_video * len(names) + label
    order = np.argsort(key, kind="stable")
    keys, first = np.unique(key[order], return_index=True)
    return TruthTable(
        classes=tuple(names),
        start=start[order],
        end=end[order],
        keys=keys,
        bounds=np.append(first, len(order)).astype(np.int64),
        instances=np.bincount(label, minlength=len(names)).astype(np.int64),
    )


def _repeated(
    start: npt.NDArray[np.float64],
    end: npt.NDArray[np.float64],
    label: npt.NDArray[np.int64],
    video: npt.NDArray[np.int64],
) -> npt.NDArray[np.bool_]:
    """Annotations that repeat an earlier one, which is kept, of the same video and class."""
    repeated = np.zeros(len(start), dtype=np.bool_)
    earlier: dict[tuple[int, int], list[int]] = {}
    for index, key in enumerate(zip(video.tolist(), label.tolist(), strict=True)):
        others = earlier.setdefault(key, [])
        repeated[index] = any(
            abs(start[index] - start[other]) <= _REPEATED_S and abs(end[index] - end[other]) <= _REPEATED_S
            for other in others
        )
        if not repeated[index]:
            others.append(index)
    return repeated
