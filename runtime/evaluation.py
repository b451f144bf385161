"""Mean average precision of detections, as ActivityNet's evaluation kit computes it (docs/evaluation.md)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from refineloc._ext.matching import average_precision, match
from refineloc.runtime.annotations import Annotations
from refineloc.runtime.detections import Detections
from refineloc.runtime.errors import AnnotationError, ConfigError

__all__ = ["DEFAULT_TIOUS", "Evaluation", "evaluate"]

DEFAULT_TIOUS: tuple[float, ...] = tuple(np.linspace(0.5, 0.95, 10).round(2).tolist())


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Average precision by tIoU threshold and class.

    Attributes:
        tious: thresholds, float64 [K].
        classes: names, N of them: those that the ground truth has.
        ap: float64 [K, N], fractions of 1.
        instances: annotations of each class, int64 [N].
        unknown_labels: detections whose class the ground truth does not have; they are left out, as the kit does.
        unknown_videos: videos of the detections that the ground truth does not have; theirs are false positives.
    """

    tious: npt.NDArray[np.float64]
    classes: tuple[str, ...]
    ap: npt.NDArray[np.float64]
    instances: npt.NDArray[np.int64]
    unknown_labels: int
    unknown_videos: int

    @property
    def mAP(self) -> npt.NDArray[np.float64]:
        """Mean over classes at each threshold, [K]."""
        means: npt.NDArray[np.float64] = self.ap.mean(axis=1)
        return means

    @property
    def average_mAP(self) -> float:
        """Mean over thresholds of the mAP."""
        return float(self.mAP.mean())

    def to_json(self) -> dict[str, Any]:
        """{"average_mAP", "mAP": {"0.50": ...}, "per_class": {label: {"average", "AP": {...}, "instances"}}}."""
        keys = [f"{tiou:.2f}" for tiou in self.tious]
        return {
            "average_mAP": self.average_mAP,
            "mAP": dict(zip(keys, self.mAP.tolist(), strict=True)),
            "per_class": {
                label: {
                    "average": float(self.ap[:, index].mean()),
                    "AP": dict(zip(keys, self.ap[:, index].tolist(), strict=True)),
                    "instances": int(self.instances[index]),
                }
                for index, label in enumerate(self.classes)
            },
        }


def evaluate(
    detections: Mapping[str, Detections],
    annotations: Annotations,
    tious: Sequence[float] = DEFAULT_TIOUS,
    *,
    drop_repeated: bool = False,
) -> Evaluation:
    """Average precision of detections against ground truth.

    Annotations of length zero are dropped, as the field does. Detections of equal score keep the order that the kit's
    sort gives small classes: the later row first.

    Args:
        detections: by video.
        annotations: with times.
        tious: thresholds in (0, 1].
        drop_repeated: drop annotations that repeat an earlier one of their class within 0.001 s, as OpenTAD and
            ActionFormer do.

    Raises:
        AnnotationError: no times in the ground truth.
        ConfigError: a threshold out of range.
    """
    thresholds = np.asarray(tious, dtype=np.float64)
    if not thresholds.size or not ((thresholds > 0) & (thresholds <= 1)).all():
        raise ConfigError(f"tIoU thresholds: expected numbers above 0 and at most 1, got {list(tious)}")
    truth = _truth_table(annotations, drop_repeated)
    classes = len(truth.classes)

    videos = {name: index for index, name in enumerate(annotations)}
    class_of = {label: index for index, label in enumerate(truth.classes)}
    parts: list[tuple[npt.NDArray[Any], ...]] = []
    unknown_labels = 0
    unknown_videos = sum(name not in videos for name in detections)
    for name, found in detections.items():
        if not len(found):
            continue
        to_class = np.array([class_of.get(label, -1) for label in found.classes], dtype=np.int64)
        label = to_class[found.label_index]
        video = np.full(len(found), videos.get(name, -1), dtype=np.int64)
        parts.append((found.start, found.end, found.score, label, video))
    if parts:
        start, end, score, label, video = (np.concatenate(column) for column in zip(*parts, strict=True))
        unknown_labels = int((label < 0).sum())
    else:
        start = end = score = np.empty(0)
        label = video = np.empty(0, dtype=np.int64)

    # By class, then by falling score, the later row first where scores are equal.
    order = np.lexsort((-np.arange(len(score)), -score, label))
    order = order[label[order] >= 0]
    group = np.where(video[order] >= 0, truth.group_of(video[order], label[order]), -1)
    hits = match(start[order], end[order], group, truth.start, truth.end, truth.bounds, thresholds)
    class_bounds = np.searchsorted(label[order], np.arange(classes + 1))
    ap = average_precision(hits, class_bounds, truth.instances)
    return Evaluation(thresholds, truth.classes, ap, truth.instances, unknown_labels, unknown_videos)


@dataclass(frozen=True, slots=True)
class _Truth:
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

    def group_of(self, video: npt.NDArray[np.int64], label: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The group of each (video, class), -1 where it has no annotations."""
        wanted = video * len(self.classes) + label
        at = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.where(self.keys[at] == wanted, at, -1)


def _truth_table(annotations: Annotations, drop_repeated: bool) -> _Truth:
    if not annotations.has_times:
        raise AnnotationError(f"{annotations.path}: has labels but no segments with times; evaluation needs them")
    starts, ends, videos = [], [], []
    labels: list[str] = []
    for index, video in enumerate(annotations.values()):
        starts.append(video.start)
        ends.append(video.end)
        labels += video.segment_labels
        videos.append(np.full(len(video.start), index, dtype=np.int64))
    start, end, of_video = np.concatenate(starts), np.concatenate(ends), np.concatenate(videos)
    label_names = np.array(labels)
    kept = end > start
    if drop_repeated:
        kept &= ~_repeated(start, end, label_names, of_video)
    start, end, of_video, label_names = start[kept], end[kept], of_video[kept], label_names[kept]
    if not len(start):
        raise AnnotationError(f"{annotations.path}: all segments have length zero")
    names, label = np.unique(label_names, return_inverse=True)
    key = of_video * len(names) + label
    order = np.argsort(key, kind="stable")
    keys, first = np.unique(key[order], return_index=True)
    return _Truth(
        classes=tuple(names.tolist()),
        start=start[order],
        end=end[order],
        keys=keys,
        bounds=np.append(first, len(order)).astype(np.int64),
        instances=np.bincount(label, minlength=len(names)).astype(np.int64),
    )


def _repeated(
    start: npt.NDArray[np.float64],
    end: npt.NDArray[np.float64],
    label: npt.NDArray[np.str_],
    video: npt.NDArray[np.int64],
    tolerance_s: float = 1e-3,
) -> npt.NDArray[np.bool_]:
    """Annotations that repeat an earlier one, which is kept, of the same video and class."""
    repeated = np.zeros(len(start), dtype=np.bool_)
    earlier: dict[tuple[int, str], list[int]] = {}
    for index, key in enumerate(zip(video.tolist(), label.tolist(), strict=True)):
        others = earlier.setdefault(key, [])
        repeated[index] = any(
            abs(start[index] - start[other]) <= tolerance_s and abs(end[index] - end[other]) <= tolerance_s
            for other in others
        )
        if not repeated[index]:
            others.append(index)
    return repeated
