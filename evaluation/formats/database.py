"""ActivityNet's "database" JSON: as ground truth, and as training data for ActionFormer and OpenTAD.

    {"version": ..., "taxonomy": [], "database": {VIDEO: {
        "subset": "training", "duration": 171.57, "fps": 30.0, "frame": 5143,
        "annotations": [{"label": "Diving", "segment": [72.8, 76.4], "label_id": 7, "score": 1.2}]}}}

ActionFormer reads "fps" and "label_id". OpenTAD reads "frame" and has a list of class names of its own. Both ignore
other fields.
"""

import json
import os
from collections.abc import Iterable, Sequence
from typing import Any

from refineloc.evaluation.formats.tracks import Track
from refineloc.runtime.errors import InputError, counted
from refineloc.runtime.files import atomic_write

__all__ = ["write_activitynet", "write_training_data"]


def write_activitynet(path: str | os.PathLike[str], tracks: Iterable[Track]) -> None:
    """Write ground truth as ActivityNet's JSON, without scores. A label without times has no "segment".

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
        database[track.video] = {**_video_fields(track), "annotations": annotations}
    _write(path, database)


def write_training_data(path: str | os.PathLike[str], tracks: Iterable[Track], classes: Sequence[str]) -> list[str]:
    """Write segments as training data for fully supervised detectors; pseudo labels keep their scores.

    Segments are clipped to the video. A video of the subset "training" that is left without a segment is not written,
    as ActionFormer cannot train on it.

    Args:
        path: the .json file.
        tracks: each with duration and frame rate; those without a subset go to "training".
        classes: class names; the index of a class is its label_id.

    Returns:
        Names of the videos that were not written.

    Raises:
        InputError: a video without duration or frame rate, or a label that is not one of the classes.
        OutputError: the file cannot be written.
    """
    label_ids = {label: index for index, label in enumerate(classes)}
    database, left_out = {}, []
    for track in tracks:
        if track.duration_s is None or track.fps is None:
            name, parameter = ("duration", "duration_s") if track.duration_s is None else ("fps", "fps")
            raise InputError(
                f"video {track.video!r}: its {name} is not known, and training needs it; give the track's",
                parameter=parameter,
            )
        unknown = sorted(set(track.labels) - label_ids.keys())
        if unknown:
            raise InputError(
                f"video {track.video!r}: label {unknown[0]!r} is not one of the {counted(len(label_ids), 'class')}"
            )
        annotations = []
        for index, label in enumerate(track.labels):
            # Clipped to the video: loaders index features with the times.
            segment = [max(float(track.start[index]), 0.0), min(float(track.end[index]), track.duration_s)]
            if segment[0] >= segment[1]:
                continue
            entry = {"label": label, "label_id": label_ids[label], "segment": segment}
            if track.score is not None:
                entry["score"] = float(track.score[index])
            annotations.append(entry)
        fields = {"subset": "training", **_video_fields(track)}
        if not annotations and fields["subset"] == "training":
            left_out.append(track.video)
            continue
        fields.setdefault("frame", round(track.duration_s * track.fps))
        database[track.video] = {**fields, "annotations": annotations}
    _write(path, database)
    return left_out


def _video_fields(track: Track) -> dict[str, Any]:
    """The fields of a video whose values are known."""
    values = {"subset": track.subset, "duration": track.duration_s, "fps": track.fps, "frame": track.frames}
    return {key: value for key, value in values.items() if value is not None}


def _write(path: str | os.PathLike[str], database: dict[str, Any]) -> None:
    with atomic_write(path) as handle:
        json.dump({"version": "refineloc", "taxonomy": [], "database": database}, handle, allow_nan=False)
        handle.write("\n")
