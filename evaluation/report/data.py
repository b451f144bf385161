"""What the report shows, as plain values for JSON."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from refineloc.evaluation.average_precision import evaluate, video_scores
from refineloc.evaluation.bootstrap import bootstrap
from refineloc.evaluation.matching import Matching
from refineloc.evaluation.pictures.timeline import DRAWN, best_detections
from refineloc.runtime.annotations import Annotations
from refineloc.runtime.detections import Detections
from refineloc.runtime.errors import InputError
from refineloc.runtime.files import is_folder

__all__ = ["report_data"]

DRAWN_IN_ALL = 300_000  # with more, only the best and worst videos have a time line: the page would open too slowly
_ENDS = 50
_FILMS = (".mp4", ".webm", ".m4v", ".mov", ".mkv", ".ogv")


def report_data(
    matchings: Mapping[str, Matching],
    *,
    title: str,
    resamples: int = 1000,
    seed: int = 0,
    films: str | os.PathLike[str] | None = None,
    relative_to: str | os.PathLike[str] = ".",
) -> dict[str, Any]:
    """Evaluate detections, for `write_report`.

    Args:
        matchings: sets of detections by name, at least one, all matched with the same annotations at the same
            thresholds; the last is the one whose best and worst videos are shown.
        title: of the page.
        resamples: of the bootstrap; 0: no confidence intervals.
        seed: of the resamples.
        films: a folder of video files that are called as the videos are, those with "/" in folders below; links then
            open them at a segment.
        relative_to: the folder that the page will be in, from where those links start.

    Raises:
        InputError: nothing to show, or a folder of films that is not there.
    """
    if not matchings:
        raise InputError("report: expected at least one set of detections")
    files = {} if films is None else _film_addresses(Path(films), Path(relative_to))
    sets, scores, ap, class_intervals = [], [], [], []
    for name, matching in matchings.items():
        evaluation = evaluate(matching)
        entry = {
            "name": name,
            "detections": sum(map(len, matching.detections.values())),
            "average_mAP": evaluation.average_mAP,
            "mAP": evaluation.mAP.tolist(),
            "interval": None,
        }
        if resamples:
            intervals = bootstrap(matching, resamples=resamples, seed=seed)
            class_intervals.append(intervals.classes.T.tolist())
            entry["interval"] = {"average_mAP": list(intervals.average_mAP), "mAP": intervals.mAP.tolist()}
        sets.append(entry)
        scores.append(video_scores(matching))
        ap.append(evaluation.ap)
    annotations = matching.annotations
    return {
        "title": title,
        "ground_truth": annotations.path.name,
        "tious": matching.tious.tolist(),
        "resamples": resamples,
        "drawn": DRAWN,
        "sets": sets,
        "classes": [
            {
                "name": name,
                "instances": int(evaluation.instances[index]),
                "ap": [values[:, index].tolist() for values in ap],
                "intervals": [values[index] for values in class_intervals],
            }
            for index, name in enumerate(evaluation.classes)
        ],
        "videos": _videos([matching.detections for matching in matchings.values()], annotations, scores, files),
    }


def _videos(
    sets: Sequence[Mapping[str, Detections]],
    annotations: Annotations,
    scores: list[npt.NDArray[np.float64]],
    files: Mapping[str, str],
) -> list[dict[str, Any]]:
    """A row a video; segments as [start, end, label, score], which is compact."""
    total = sum(min(len(detections), DRAWN) for by_video in sets for detections in by_video.values())
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
            "scores": [None if np.isnan(value[index]) else round(float(value[index]), 4) for value in scores],
            "truth": [
                [round(start, 2), round(end, 2), label]
                for start, end, label in zip(
                    video.start.tolist(), video.end.tolist(), video.segment_labels, strict=True
                )
            ],
            "counts": [len(by_video.get(video.name, ())) for by_video in sets],
            "detections": [_rows(by_video.get(video.name)) for by_video in sets] if index in drawn else None,
        }
        if video.name in files:
            row["file"] = files[video.name]
        rows.append(row)
    return rows


def _rows(detections: Detections | None) -> list[list[Any]]:
    return [
        [round(start, 2), round(end, 2), label, float(f"{score:.4g}")]
        for start, end, label, score in (best_detections(detections) if detections is not None else ())
    ]


def _film_addresses(folder: Path, page_folder: Path) -> dict[str, str]:
    """Addresses of the films, relative to the page, by the name of the video; "a/b" for b in the folder a."""
    if not is_folder(folder, InputError):
        raise InputError(f"{folder}: no such folder of films")
    files: dict[str, str] = {}
    # Names of videos are looked up in what the folder holds and never made into paths: "../x" finds nothing.
    for parent, folders, names in os.walk(folder):  # which does not follow links
        folders.sort()
        for path in (Path(parent, name) for name in sorted(names)):
            if path.suffix.lower() in _FILMS:
                # "./" keeps a name with a colon from being read as another kind of address ("javascript:").
                address = "./" + quote(os.path.relpath(path, page_folder).replace(os.sep, "/"))
                files.setdefault(path.relative_to(folder).with_suffix("").as_posix(), address)
    return files
