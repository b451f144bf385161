"""What the report shows, as plain values for JSON."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from refineloc.evaluation.average_precision import evaluate, video_scores
from refineloc.evaluation.bootstrap import bootstrap, compare
from refineloc.evaluation.matching import Matching
from refineloc.evaluation.pictures.timeline import DRAWN, Curves, best_detections, mean_curve
from refineloc.runtime.annotations import Annotations
from refineloc.runtime.detections import Detections
from refineloc.runtime.errors import InputError
from refineloc.runtime.files import is_folder

__all__ = ["detections_data", "film_addresses", "report_data"]

DRAWN_IN_ALL = 300_000  # with more, only the best and worst videos have a time line: the page would open too slowly
_ENDS = 50
_CURVE_POINTS = 250  # of a curve
_LEAST_SCORES = 101  # of the chart that counts detections by score
_FILMS = (".mp4", ".webm", ".m4v", ".mov", ".mkv", ".ogv")


def report_data(
    matchings: Mapping[str, Matching],
    *,
    title: str,
    resamples: int = 1000,
    seed: int = 0,
    films: str | os.PathLike[str] | None = None,
    relative_to: str | os.PathLike[str] = ".",
    curves: Mapping[str, Curves] = MappingProxyType({}),
    footer: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """Evaluate detections, for `write_report`.

    Args:
        matchings: sets of detections by name, at least one, all matched with the same annotations at the same
            thresholds; the last is the one whose best and worst videos are shown.
        title: of the page.
        resamples: of the bootstrap; 0: no confidence intervals.
        seed: of the resamples.
        films: a folder of video files that are called as the videos are, those with "/" in folders below; the page then
            plays them from a segment on.
        relative_to: the folder that the page will be in, from where the addresses of films start.
        curves: by video, of `score_curves`; drawn below its time line.
        footer: lines of name and text: what the page was made of.

    Raises:
        InputError: nothing to show, or a folder of films that is not there.
    """
    if not matchings:
        raise InputError("report: expected at least one set of detections")
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
    difference = None
    if resamples and len(matchings) > 1:
        first = next(iter(matchings.values()))
        difference = compare(matching, first, resamples=resamples, seed=seed).average_mAP_interval
    by_set = [matching.detections for matching in matchings.values()]
    shown = _ends(scores[-1]) if _too_many(by_set) else None
    rows = _videos(by_set, annotations, shown, film_addresses(films, relative_to), curves)
    for row, values in zip(rows, np.array(scores).T.tolist(), strict=True):
        row["scores"] = [None if math.isnan(value) else round(value, 4) for value in values]
    return {
        "title": title,
        "ground_truth": annotations.path.name,
        "tious": matching.tious.tolist(),
        "resamples": resamples,
        "drawn": DRAWN,
        "sets": sets,
        "difference": difference,  # low and high, of the last set's average mAP to the first's
        "classes": [
            {
                "name": name,
                "instances": int(evaluation.instances[index]),
                "ap": [values[:, index].tolist() for values in ap],
                "intervals": [values[index] for values in class_intervals],
            }
            for index, name in enumerate(evaluation.classes)
        ],
        "videos": rows,
        "footer": list(footer),
    }


def detections_data(
    sets: Mapping[str, Mapping[str, Detections]],
    videos: Annotations,
    *,
    title: str,
    films: str | os.PathLike[str] | None = None,
    relative_to: str | os.PathLike[str] = ".",
    curves: Mapping[str, Curves] = MappingProxyType({}),
    footer: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """What detections are, where there is no ground truth: counts and scores by class and video, for `write_report`.

    Args:
        sets: detections of each video, by name of the set, at least one; the last is the main one.
        videos: of `videos_of_detections`: the videos to show, with the classes that have a lane.
        title, films, relative_to, curves, footer: as for `report_data`.

    Raises:
        InputError: nothing to show, or a folder of films that is not there.
    """
    if not sets:
        raise InputError("report: expected at least one set of detections")
    by_set = list(sets.values())
    best = [[_best(by_video.get(name)) for by_video in by_set] for name in videos]
    known = [np.nan if values[-1] is None else values[-1] for values in best]
    shown = _ends(np.array(known)) if _too_many(by_set) else None
    rows = _videos(by_set, videos, shown, film_addresses(films, relative_to), curves)
    for row, scores in zip(rows, best, strict=True):
        row["scores"] = scores
    by_class = [_by_class(by_video) for by_video in by_set]
    scores_of = [
        np.sort(np.concatenate([np.empty(0), *(scores for scores, _, _ in classes.values())])) for classes in by_class
    ]
    every = np.concatenate(scores_of)
    least = np.linspace(every.min(), every.max(), _LEAST_SCORES) if len(every) else np.zeros(1)
    return {
        "title": title,
        "ground_truth": None,
        "least": [_four(value) for value in least.tolist()],
        "drawn": DRAWN,
        "sets": [
            {
                "name": name,
                "detections": len(scores),
                "videos": sum(len(detections) > 0 for detections in by_video.values()),
                "median": _four(np.median(scores)) if len(scores) else None,
                "best": _four(scores[-1]) if len(scores) else None,
                # A video has so many detections with at least each of the scores `least`, on the mean.
                "above": ((len(scores) - np.searchsorted(scores, least)) / max(len(videos), 1)).round(3).tolist(),
            }
            for (name, by_video), scores in zip(sets.items(), scores_of, strict=True)
        ],
        "classes": [
            {
                "name": name,
                "detections": [len(classes[name][0]) if name in classes else 0 for classes in by_class],
                "best": _four(by_class[-1][name][0].max()) if name in by_class[-1] else None,
                "median": _four(np.median(by_class[-1][name][0])) if name in by_class[-1] else None,
                "seconds": _four(np.median(by_class[-1][name][1])) if name in by_class[-1] else None,
                "videos": by_class[-1][name][2] if name in by_class[-1] else 0,
            }
            for name in sorted({name for classes in by_class for name in classes})
        ],
        "videos": rows,
        "footer": list(footer),
    }


def _by_class(
    by_video: Mapping[str, Detections],
) -> dict[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], int]]:
    """Scores, lengths in seconds, and number of videos, of each class that has detections."""
    parts: dict[str, list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]] = {}
    for detections in by_video.values():
        for index in np.unique(detections.label_index).tolist():
            chosen = detections.label_index == index
            lengths = detections.end[chosen] - detections.start[chosen]
            parts.setdefault(detections.classes[index], []).append((detections.score[chosen], lengths))
    return {
        name: (np.concatenate([scores for scores, _ in each]), np.concatenate([some for _, some in each]), len(each))
        for name, each in parts.items()
    }


def _best(detections: Detections | None) -> float | None:
    return _four(detections.score.max()) if detections is not None and len(detections) else None


def _four(value: float) -> float:
    """Four digits, which the page shows of a score."""
    return float(f"{value:.4g}")


def _too_many(by_set: Sequence[Mapping[str, Detections]]) -> bool:
    return sum(min(len(detections), DRAWN) for by_video in by_set for detections in by_video.values()) > DRAWN_IN_ALL


def _ends(scores: npt.NDArray[np.float64]) -> set[int]:
    """The indices of the videos with the lowest and the highest scores; NaN is none."""
    order = np.argsort(scores, kind="stable")
    order = order[~np.isnan(scores[order])]
    return {*order[:_ENDS].tolist(), *order[-_ENDS:].tolist()}


def _videos(
    sets: Sequence[Mapping[str, Detections]],
    annotations: Annotations,
    drawn: set[int] | None,
    files: Mapping[str, str],
    curves: Mapping[str, Curves],
) -> list[dict[str, Any]]:
    """A row a video; segments as [start, end, label, score], which is compact. `drawn`: indices; None is all."""
    rows = []
    for index, video in enumerate(annotations.values()):
        is_drawn = drawn is None or index in drawn
        row: dict[str, Any] = {
            "name": video.name,
            "labels": list(video.labels),
            "duration": video.duration_s,
            "truth": [
                [round(start, 2), round(end, 2), label]
                for start, end, label in zip(
                    video.start.tolist(), video.end.tolist(), video.segment_labels, strict=True
                )
            ],
            "counts": [len(by_video.get(video.name, ())) for by_video in sets],
            "detections": [_rows(by_video.get(video.name)) for by_video in sets] if is_drawn else None,
        }
        if is_drawn and video.name in curves:
            row["curves"] = [[name, *_points(*curve)] for name, curve in curves[video.name].items()]
        if video.name in files:
            row["file"] = files[video.name]
        rows.append(row)
    return rows


def _rows(detections: Detections | None) -> list[list[Any]]:
    return [
        [round(start, 2), round(end, 2), label, _four(score)]
        for start, end, label, score in (best_detections(detections) if detections is not None else ())
    ]


def _points(seconds: npt.NDArray[np.float64], values: npt.NDArray[np.float64]) -> tuple[list[float], list[float]]:
    seconds, values, _ = mean_curve(seconds, values, _CURVE_POINTS)
    return seconds.round(1).tolist(), values.round(2).tolist()


def film_addresses(films: str | os.PathLike[str] | None, page_folder: str | os.PathLike[str]) -> dict[str, str]:
    """Addresses of the films, relative to the page, by the name of the video; "a/b" for b in the folder a."""
    if films is None:
        return {}
    folder = Path(films)
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
