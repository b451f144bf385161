"""Two evaluators as usual in the field, written for the comparison: with pandas, and with NumPy."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from refineloc.runtime.annotations import Annotations

Floats = npt.NDArray[np.float64]


def truth_table(annotations: Annotations) -> pd.DataFrame:
    """The annotated segments as rows, without empty ones."""
    rows = [
        (video.name, start, end, label)
        for video in annotations.values()
        for start, end, label in zip(video.start, video.end, video.segment_labels, strict=True)
        if end > start
    ]
    return pd.DataFrame(rows, columns=["video", "start", "end", "label"])


def interpolated(hits: npt.NDArray[np.bool_], positives: int) -> float:
    """VOC 2011 interpolated AP of detections by falling score."""
    true = np.cumsum(hits)
    recall = np.concatenate([[0.0], true / positives, [1.0]])
    precision = np.concatenate([[0.0], true / np.arange(1, len(hits) + 1), [0.0]])
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.flatnonzero(np.diff(recall)) + 1
    return float(((recall[steps] - recall[steps - 1]) * precision[steps]).sum())


def overlap(start: float, end: float, starts: Any, ends: Any) -> Any:
    """tIoU of one segment with many."""
    inside = np.clip(np.minimum(end, ends) - np.maximum(start, starts), 0, None)
    return inside / ((ends - starts) + (end - start) - inside)


def by_pandas(detections: pd.DataFrame, truth: pd.DataFrame, tious: Floats) -> Floats:
    """In the manner of ActivityNet's kit: a group for each class, whose rows look up the annotations of their video."""
    predicted = detections.groupby("label")
    result = []
    for label, annotations in truth.groupby("label"):
        if label not in predicted.groups:
            result.append(np.zeros(len(tious)))
            continue
        ranked = predicted.get_group(label).reset_index(drop=True)
        annotations = annotations.reset_index(drop=True)
        videos = annotations.groupby("video")
        ranked = ranked.loc[ranked["score"].values.argsort()[::-1]].reset_index(drop=True)
        locked = np.full((len(tious), len(annotations)), -1)
        hits = np.zeros((len(tious), len(ranked)), dtype=bool)
        for index, row in ranked.iterrows():
            try:
                candidates = videos.get_group(row["video"]).reset_index()
            except KeyError:
                continue
            tiou = overlap(row["start"], row["end"], candidates["start"].values, candidates["end"].values)
            by_overlap = tiou.argsort()[::-1]
            for k, threshold in enumerate(tious):
                for candidate in by_overlap:
                    if tiou[candidate] < threshold:
                        break
                    annotation = candidates.loc[candidate]["index"]
                    if locked[k, annotation] >= 0:
                        continue
                    hits[k, index] = True
                    locked[k, annotation] = index
                    break
        result.append(np.array([interpolated(hits_at_tiou, len(annotations)) for hits_at_tiou in hits]))
    return np.array(result).T


def by_numpy(detections: pd.DataFrame, truth: pd.DataFrame, tious: Floats) -> Floats:
    """The same with arrays and dictionaries: grouped once, all thresholds of a detection together."""
    columns = [detections[name].to_numpy() for name in ("label", "video", "start", "end", "score")]
    groups: dict[tuple[str, str], tuple[Floats, Floats]] = {}
    positives: dict[str, int] = {}
    for (label, video), part in _grouped(truth).items():
        groups[label, video] = (part[:, 0], part[:, 1])
        positives[label] = positives.get(label, 0) + len(part)
    label, video, start, end, score = columns
    order = np.argsort(score)[::-1]
    members: dict[str, list[int]] = {name: [] for name in positives}
    for index in order.tolist():
        if label[index] in members:
            members[label[index]].append(index)
    result = []
    for name in sorted(positives):
        taken: dict[str, npt.NDArray[np.bool_]] = {}
        hits = np.zeros((len(tious), len(members[name])), dtype=bool)
        for rank, index in enumerate(members[name]):
            annotations = groups.get((name, video[index]))
            if annotations is None:
                continue
            tiou = overlap(start[index], end[index], *annotations)
            if tiou.max() < tious[0]:
                continue
            free = ~taken.setdefault(video[index], np.zeros((len(tious), len(tiou)), dtype=bool))
            allowed = np.where(free & (tiou >= tious[:, None]), tiou, -1.0)
            # Of equal overlaps the last, as by the kit's reversed sort.
            best = len(tiou) - 1 - allowed[:, ::-1].argmax(axis=1)
            hit = allowed[np.arange(len(tious)), best] >= 0
            taken[video[index]][hit, best[hit]] = True
            hits[:, rank] = hit
        result.append([interpolated(hits_at_tiou, positives[name]) for hits_at_tiou in hits])
    return np.array(result).T


def _grouped(truth: pd.DataFrame) -> Mapping[tuple[str, str], Floats]:
    groups: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for label, video, start, end in truth[["label", "video", "start", "end"]].itertuples(index=False):
        groups.setdefault((label, video), []).append((start, end))
    return {key: np.array(part) for key, part in groups.items()}
