"""What the report shows, as plain values for JSON."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from refineloc._ext.matching import average_precision
from refineloc.evaluation.average_precision import evaluate
from refineloc.evaluation.bootstrap import bootstrap
from refineloc.evaluation.diagnosis import Bins, diagnose
from refineloc.evaluation.matching import DEFAULT_TIOUS, Matching, match_detections
from refineloc.runtime.annotations import Annotations
from refineloc.runtime.detections import Detections
from refineloc.runtime.errors import InputError

__all__ = ["Run", "report_data", "video_scores"]

DRAWN = 60  # detections of a video and run on its time line, the best ones
DRAWN_IN_ALL = 300_000  # beyond it, only the videos at both ends keep theirs: the page would take too long to open
_ENDS = 50
_VIDEO_FILES = (".mp4", ".webm", ".m4v", ".mov", ".mkv", ".ogv")


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One set of detections, such as those of an iteration.

    Attributes:
        name: as the report calls it.
        detections: by video.
    """

    name: str
    detections: Mapping[str, Detections]


def report_data(
    runs: Sequence[Run],
    annotations: Annotations,
    tious: Sequence[float] = DEFAULT_TIOUS,
    *,
    title: str,
    bins: Bins | None = None,
    resamples: int = 1000,
    seed: int = 0,
    drop_repeated: bool = False,
    videos: str | os.PathLike[str] | None = None,
    relative_to: str | os.PathLike[str] = ".",
) -> dict[str, Any]:
    """Evaluate and diagnose runs, for `write_report`.

    Args:
        runs: at least one; the last is the one whose best and worst videos are shown.
        annotations: with times.
        tious: thresholds in (0, 1].
        title: of the page.
        bins: groups of annotations (`refineloc.evaluation.diagnosis`).
        resamples: of the bootstrap; 0: no confidence intervals.
        seed: of the resamples.
        drop_repeated: as for `evaluate`.
        videos: a folder of video files that are called as the videos are, those with "/" in folders below; links then
            open them at a segment.
        relative_to: the folder that the page will be in, from where those links start.

    Raises:
        AnnotationError: no times in the ground truth.
        InputError: no runs, two of one name, or a folder of videos that is not there.
    """
    names = [run.name for run in runs]
    if not names or len(set(names)) != len(names):
        raise InputError(f"report: expected runs of different names, got {names}")
    files = {} if videos is None else _video_files(Path(videos), Path(relative_to))
    shown, scores, ap, class_intervals = [], [], [], []
    for run in runs:
        result = evaluate(run.detections, annotations, tious, drop_repeated=drop_repeated)
        matching = match_detections(run.detections, annotations, tious, drop_repeated=drop_repeated)
        diagnosis = diagnose(run.detections, annotations, tious, bins=bins, matching=matching)
        entry = {
            "name": run.name,
            "detections": sum(map(len, run.detections.values())),
            "videos": len(run.detections),
            "average_mAP": result.average_mAP,
            "mAP": result.mAP.tolist(),
            "diagnosis": diagnosis.to_json(),
            "interval": None,
        }
        if resamples:
            found = bootstrap(
                run.detections, annotations, tious, resamples=resamples, seed=seed, drop_repeated=drop_repeated
            )
            class_intervals.append(found.classes.T.tolist())
            entry["interval"] = {"average_mAP": list(found.average_mAP), "mAP": found.mAP.tolist()}
        shown.append(entry)
        scores.append(video_scores(matching, len(annotations)))
        ap.append(result.ap)
        classes, instances = result.classes, result.instances
    return {
        "title": title,
        "ground_truth": annotations.path.name,
        "tious": [float(value) for value in tious],
        "resamples": resamples,
        "drawn": DRAWN,
        "runs": shown,
        "classes": [
            {
                "name": name,
                "instances": int(instances[index]),
                "ap": [run_ap[:, index].tolist() for run_ap in ap],
                "intervals": [run_intervals[index] for run_intervals in class_intervals],
            }
            for index, name in enumerate(classes)
        ],
        "videos": _videos(runs, annotations, scores, files),
    }


def video_scores(matching: Matching, videos: int) -> npt.NDArray[np.float64]:
    """How well each video's annotations are found: AP within the video, mean over its classes and thresholds.

    Args:
        matching: of all videos.
        videos: how many the annotations have.

    Returns:
        float64 [videos]; NaN for a video without annotations.
    """
    truth = matching.truth
    group = np.where(matching.video >= 0, truth.group_of(matching.video, matching.label), -1)
    order = np.argsort(group, kind="stable")  # within a group still by falling score
    bounds = np.searchsorted(group[order], np.arange(len(truth.keys) + 1))
    hits = (matching.annotation[:, order] >= 0).astype(np.int8)
    ap = average_precision(hits, bounds, np.diff(truth.bounds).astype(np.float64)).mean(axis=0)
    of_video = truth.keys // len(truth.classes)
    count = np.bincount(of_video, minlength=videos)
    total = np.bincount(of_video, weights=ap, minlength=videos)
    scores = np.full(videos, np.nan)
    np.divide(total, count, out=scores, where=count > 0)
    return scores


def _videos(
    runs: Sequence[Run],
    annotations: Annotations,
    scores: list[npt.NDArray[np.float64]],
    files: Mapping[str, str],
) -> list[dict[str, Any]]:
    """A row a video; segments as [start, end, label, score], which is compact."""
    total = sum(min(len(found), DRAWN) for run in runs for found in run.detections.values())
    if total > DRAWN_IN_ALL:
        order = np.argsort(scores[-1], kind="stable")
        order = order[~np.isnan(scores[-1][order])]
        drawn = {*order[:_ENDS].tolist(), *order[-_ENDS:].tolist()}
    else:
        drawn = set(range(len(annotations)))
    rows = []
    for index, video in enumerate(annotations.values()):
        row: dict[str, Any] = {
            "name": video.name,
            "labels": list(video.labels),
            "duration": video.duration_s,
            "scores": [None if np.isnan(own[index]) else round(float(own[index]), 4) for own in scores],
            "truth": [
                [round(start, 2), round(end, 2), label]
                for start, end, label in zip(
                    video.start.tolist(), video.end.tolist(), video.segment_labels, strict=True
                )
            ],
            "counts": [len(run.detections.get(video.name, ())) for run in runs],
            "found": [_best(run.detections.get(video.name)) for run in runs] if index in drawn else None,
        }
        if video.name in files:
            row["file"] = files[video.name]
        rows.append(row)
    return rows


def _best(found: Detections | None) -> list[list[Any]]:
    if found is None:
        return []
    best = np.argsort(-found.score, kind="stable")[:DRAWN]
    return [
        [round(start, 2), round(end, 2), found.classes[label], float(f"{score:.4g}")]
        for start, end, label, score in zip(
            found.start[best].tolist(),
            found.end[best].tolist(),
            found.label_index[best].tolist(),
            found.score[best].tolist(),
            strict=True,
        )
    ]


def _video_files(folder: Path, page_folder: Path) -> dict[str, str]:
    """Addresses of the video files, relative to the page, by name; in a folder below, by that and the name ("a/b")."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of videos")
    files: dict[str, str] = {}
    # Names are looked up among what the folder holds, never made into paths: one such as "../x" finds nothing.
    for place, folders, names in os.walk(folder):  # which goes into no linked folder
        folders.sort()
        for path in (Path(place, name) for name in sorted(names)):
            if path.suffix.lower() in _VIDEO_FILES:
                # "./" keeps a name with a colon from being read as another kind of address ("javascript:").
                address = "./" + quote(os.path.relpath(path, page_folder).replace(os.sep, "/"))
                files.setdefault(path.relative_to(folder).with_suffix("").as_posix(), address)
    return files
