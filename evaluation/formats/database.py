"""ActivityNet's "database" JSON: as ground truth, and as training data for ActionFormer and OpenTAD.

    {"version": ..., "taxonomy": [], "database": {VIDEO: {
        "subset": "training", "duration": 171.57, "fps": 30.0, "frame": 5143,
        "annotations": [{"label": "Diving", "segment": [72.8, 76.4], "label_id": 7, "score": 1.2}]}}}

ActionFormer reads "fps" and "label_id"; OpenTAD reads "frame" and finds classes by name in a list of its own; both
leave other fields alone.
"""

import json
import os
from collections.abc import Iterable, Sequence
from typing import Any

from refineloc.evaluation.formats.tracks import Track
from refineloc.runtime.errors import InputError
from refineloc.runtime.files import atomic_write

__all__ = ["write_activitynet", "write_training_data"]

_VERSION = "refineloc"


def write_activitynet(path: str | os.PathLike[str], tracks: Iterable[Track]) -> None:
    """Write ground truth as ActivityNet's JSON; scores are left out, labels without times are kept as such.

    Raises:
        OutputError: the file cannot be written.
    """
    database = {}
    for track in tracks:
        annotations: list[dict[str, Any]] = [
            {"label": label, "segment": [start, end]}
            for label, start, end in zip(track.labels, track.start.tolist(), track.end.tolist(), strict=True)
        ]
        annotations += [{"label": label} for label in track.known_labels if label not in track.labels]
        database[track.video] = {**_about(track), "annotations": annotations}
    _write(path, database)


def write_training_data(
    path: str | os.PathLike[str], tracks: Iterable[Track], classes: Sequence[str], *, subset: str = "training"
) -> list[str]:
    """Write segments as the training data of fully supervised detectors, pseudo labels with their scores.

    Videos of the subset "training" that have no segment inside them are left out: ActionFormer cannot train on one.

    Args:
        path: the .json file.
        tracks: each with duration and frame rate; one that states a subset keeps it.
        classes: class names; a class's place is its label_id.
        subset: of the videos that state none.

    Returns:
        The videos left out.

    Raises:
        InputError: a video without duration or frame rate, or a label that is not one of the classes.
        OutputError: the file cannot be written.
    """
    index = {label: at for at, label in enumerate(classes)}
    database, left_out = {}, []
    for track in tracks:
        if track.duration_s is None or track.fps is None:
            missing = "duration" if track.duration_s is None else "fps"
            raise InputError(
                f"video {track.video!r}: its {missing} is not known, and training needs it; give the track's",
                parameter="duration_s" if track.duration_s is None else "fps",
            )
        unknown = sorted(set(track.labels) - index.keys())
        if unknown:
            raise InputError(f"video {track.video!r}: label {unknown[0]!r} is not one of the {len(index)} classes")
        annotations = []
        for at, label in enumerate(track.labels):
            # Segments are clipped to the video: loaders index features with them.
            segment = [max(float(track.start[at]), 0.0), min(float(track.end[at]), track.duration_s)]
            if segment[0] >= segment[1]:
                continue
            entry = {"label": label, "label_id": index[label], "segment": segment}
            if track.score is not None:
                entry["score"] = float(track.score[at])
            annotations.append(entry)
        about = {"subset": subset, **_about(track)}
        if not annotations and about["subset"] == "training":
            left_out.append(track.video)
            continue
        about.setdefault("frame", round(track.duration_s * track.fps))
        database[track.video] = {**about, "annotations": annotations}
    _write(path, database)
    return left_out


def _about(track: Track) -> dict[str, Any]:
    """What is known of a video."""
    values = {"subset": track.subset, "duration": track.duration_s, "fps": track.fps, "frame": track.frames}
    return {key: value for key, value in values.items() if value is not None}


def _write(path: str | os.PathLike[str], database: dict[str, Any]) -> None:
    with atomic_write(path) as handle:
        json.dump({"version": _VERSION, "taxonomy": [], "database": database}, handle, allow_nan=False)
        handle.write("\n")
