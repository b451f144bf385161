"""Which annotation each detection finds: what average precision, intervals, diagnosis and report all rest on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from refineloc._ext.matching import match
from refineloc.runtime.annotations import Annotations
from refineloc.runtime.detections import Detections
from refineloc.runtime.errors import AnnotationError, ConfigError

__all__ = ["DEFAULT_TIOUS", "Matching", "Regions", "Truth", "match_detections"]

DEFAULT_TIOUS: tuple[float, ...] = tuple(np.linspace(0.5, 0.95, 10).round(2).tolist())


# Ambiguous regions by video: (start, end) in seconds.
Regions = Mapping[str, Sequence[tuple[float, float]]]


@dataclass(frozen=True, slots=True, eq=False)
class Matching:
    """All detections, and the annotations that they take, as arrays.

    Attributes:
        tious: thresholds, float64 [K].
        truth: the annotations, by video and class.
        class_bounds: class c has the detections class_bounds[c] .. class_bounds[c + 1] - 1, int64 [N + 1].
        video: index into the annotations' videos, -1 for one that they do not have, int64 [n].
        start, end, score: of each detection, float64 [n]; by class, and within a class by falling score.
        annotation: index of the annotation that each detection takes at each threshold, -1 for a false positive,
            int32 [K, n].
        unknown_labels, unknown_videos: as in `Evaluation`.
    """

    tious: npt.NDArray[np.float64]
    truth: "Truth"
    class_bounds: npt.NDArray[np.int64]
    video: npt.NDArray[np.int64]
    start: npt.NDArray[np.float64]
    end: npt.NDArray[np.float64]
    score: npt.NDArray[np.float64]
    annotation: npt.NDArray[np.int32]
    unknown_labels: int
    unknown_videos: int

    @property
    def label(self) -> npt.NDArray[np.int64]:
        """The class of each detection, [n]."""
        return np.repeat(np.arange(len(self.truth.classes)), np.diff(self.class_bounds))

    def hits(self, annotations: Annotations, ambiguous: Regions) -> npt.NDArray[np.int8]:
        """1 for a true positive, 0 for a false one, -1 for a false one in an ambiguous region, int8 [K, n]."""
        hits = (self.annotation >= 0).astype(np.int8)
        if ambiguous:
            inside = np.zeros(len(self.start), dtype=np.bool_)
            index = {name: position for position, name in enumerate(annotations)}
            for name, regions in ambiguous.items():
                own = np.flatnonzero(self.video == index.get(name, len(index)))
                for begin, end in regions:
                    inside[own] |= (self.start[own] < end) & (self.end[own] > begin)
            hits[(hits == 0) & inside] = -1
        return hits


def match_detections(
    detections: Mapping[str, Detections],
    annotations: Annotations,
    tious: Sequence[float] = DEFAULT_TIOUS,
    *,
    drop_repeated: bool = False,
) -> Matching:
    """Which annotation each detection finds: what average precision and the diagnosis both rest on.

    Arguments and errors are those of `evaluate`.
    """
    thresholds = np.asarray(tious, dtype=np.float64)
    if not thresholds.size or not ((thresholds > 0) & (thresholds <= 1)).all():
        raise ConfigError(f"tIoU thresholds: expected numbers above 0 and at most 1, got {list(tious)}")
    truth = _truth_table(annotations, drop_repeated)

    videos = {name: index for index, name in enumerate(annotations)}
    class_of = {label: index for index, label in enumerate(truth.classes)}
    unknown_videos = sum(name not in videos for name in detections)
    parts = list(detections.values())
    label = _classes_of(parts, class_of)
    video = np.repeat([videos.get(name, -1) for name in detections], [len(own.start) for own in parts]).astype(np.int64)
    start, end, score = (
        _joined([getattr(own, column) for own in parts], np.float64) for column in ("start", "end", "score")
    )
    unknown_labels = int((label < 0).sum())

    # By class, then by falling score, the later row first where scores are equal.
    by_score = _falling(score)
    by_score = by_score[label[by_score] >= 0]
    # A stable sort of small integers is a radix sort: linear.
    small = np.uint16 if len(truth.classes) <= 2**16 else np.int64
    order = by_score[np.argsort(label[by_score].astype(small), kind="stable")]
    group = np.where(video[order] >= 0, truth.group_of(video[order], label[order]), -1)
    found = match(start[order], end[order], group, truth.start, truth.end, truth.bounds, thresholds)
    class_bounds = np.searchsorted(label[order], np.arange(len(truth.classes) + 1))
    return Matching(
        tious=thresholds,
        truth=truth,
        class_bounds=class_bounds,
        video=video[order],
        start=start[order],
        end=end[order],
        score=score[order],
        annotation=found,
        unknown_labels=unknown_labels,
        unknown_videos=unknown_videos,
    )


def _classes_of(parts: list[Detections], class_of: Mapping[str, int]) -> npt.NDArray[np.int64]:
    """The ground truth's class of each detection, -1 where it has none."""

    def mapping(classes: tuple[str, ...]) -> npt.NDArray[np.int64]:
        return np.array([class_of.get(label, -1) for label in classes], dtype=np.int64)

    if parts and all(own.classes is parts[0].classes for own in parts):  # as read from one file
        classes = mapping(parts[0].classes)
        return classes[_joined([own.label_index for own in parts], np.int64)] if len(classes) else _joined([], np.int64)
    return _joined([mapping(own.classes)[own.label_index] for own in parts], np.int64)


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
class Truth:
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


def _truth_table(annotations: Annotations, drop_repeated: bool) -> Truth:
    if not annotations.has_times:
        raise AnnotationError(f"{annotations.path}: has labels but no segments with times; evaluation needs them")
    videos = list(annotations.values())
    start = np.concatenate([video.start for video in videos])
    end = np.concatenate([video.end for video in videos])
    of_video = np.repeat(np.arange(len(videos)), [len(video.start) for video in videos])
    position = {name: index for index, name in enumerate(annotations.classes)}
    label = np.array([position[name] for video in videos for name in video.segment_labels], dtype=np.int64)
    kept = end > start
    if drop_repeated:
        kept &= ~_repeated(start, end, label, of_video)
    start, end, of_video, label = start[kept], end[kept], of_video[kept], label[kept]
    if not len(start):
        raise AnnotationError(f"{annotations.path}: all segments have length zero")
    used, label = np.unique(label, return_inverse=True)  # a class may have segments of length zero only
    names = [annotations.classes[index] for index in used]
    key = of_video * len(names) + label
    order = np.argsort(key, kind="stable")
    keys, first = np.unique(key[order], return_index=True)
    return Truth(
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
    tolerance_s: float = 1e-3,
) -> npt.NDArray[np.bool_]:
    """Annotations that repeat an earlier one, which is kept, of the same video and class."""
    repeated = np.zeros(len(start), dtype=np.bool_)
    earlier: dict[tuple[int, int], list[int]] = {}
    for index, key in enumerate(zip(video.tolist(), label.tolist(), strict=True)):
        others = earlier.setdefault(key, [])
        repeated[index] = any(
            abs(start[index] - start[other]) <= tolerance_s and abs(end[index] - end[other]) <= tolerance_s
            for other in others
        )
        if not repeated[index]:
            others.append(index)
    return repeated
