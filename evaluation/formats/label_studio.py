"""Label Studio: detections as predictions of the TimelineLabels tag, for correction by hand. One task for each video.

The project's labelling configuration must have these tags. "$fps" is the frame rate that each task states:

    <View>
      <TimelineLabels name="actions" toName="video"><Label value="jump"/><Label value="run"/></TimelineLabels>
      <Video name="video" value="$video" framerate="$fps"/>
    </View>
"""

import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import unquote

from refineloc.evaluation.formats.media import media_address, video_of_file
from refineloc.evaluation.formats.tracks import Track, track_of_rows
from refineloc.runtime.errors import InputError
from refineloc.runtime.files import atomic_write
from refineloc.runtime.text import finite_seconds, not_a_text

__all__ = ["LabelStudioTasks", "is_label_studio", "read_label_studio", "write_label_studio"]

_TAG = "timelinelabels"
_Row = tuple[float, float, str, float | None]


def write_label_studio(path: str | os.PathLike[str], tracks: Iterable[Track], *, media: str = "") -> None:
    """Write a list of tasks: detections as "predictions", annotations as "annotations".

    A range is in frames counted from 1, both ends included: Label Studio's convention.

    Args:
        path: the .json file to import.
        tracks: each with its frame rate.
        media: put before each video's name to make its address ("/data/local-files/?d=videos/"). A name without the
            ending of a media file gets ".mp4".

    Raises:
        InputError: a video without a frame rate.
        OutputError: the file cannot be written.
    """
    tasks = []
    for track in tracks:
        if track.fps is None:
            raise InputError(
                f"video {track.video!r}: Label Studio counts frames, and its fps is not known; give the track's fps",
                parameter="fps",
            )
        results = [_result(track, index, track.fps) for index in range(len(track))]
        entry: dict[str, Any] = {"result": results}
        if track.score is not None:
            entry["model_version"] = "refineloc"
        kind = "annotations" if track.score is None else "predictions"
        # A whole number as one: Label Studio takes the text for its frame rate.
        fps = int(track.fps) if track.fps == int(track.fps) else track.fps
        data = {"video": media_address(media, track.video), "name": track.video, "fps": fps}
        tasks.append({"data": data, kind: [entry]})
    with atomic_write(path) as handle:
        json.dump(tasks, handle, indent=1, allow_nan=False)
        handle.write("\n")


def _result(track: Track, index: int, fps: float) -> dict[str, Any]:
    # Frame k is shown from (k - 1) / fps to k / fps. Rounding keeps a float error from adding a frame.
    first = math.floor(round(max(float(track.start[index]), 0.0) * fps, 6)) + 1
    last = max(math.ceil(round(float(track.end[index]) * fps, 6)), first)
    result: dict[str, Any] = {
        "id": f"segment-{index + 1}",
        "from_name": "actions",
        "to_name": "video",
        "type": "timelinelabels",
        "value": {"ranges": [{"start": first, "end": last}], "timelinelabels": [track.labels[index]]},
    }
    if track.score is not None:
        # In the region's notes, as Label Studio's scores must be in [0, 1] and these can be larger.
        result["meta"] = {"text": [f"score {track.score[index]:.4f}"]}
    return result


class LabelStudioTasks(NamedTuple):
    """An export of a project.

    Attributes:
        tracks: of the tasks that somebody worked on; of predictions alone, of all tasks.
        scored: whether they are predictions with scores, as `write_label_studio` writes detections.
        unread_scores: scores of predictions that a person has accepted or changed.
        untouched: videos of tasks without an annotation, in an export that has some; they have no track.
        several: videos of which there are several annotations; the last is read.
    """

    tracks: list[Track]
    scored: bool
    unread_scores: int
    untouched: list[str]
    several: list[str]


def is_label_studio(document: Any) -> bool:
    """Whether a JSON is an export of Label Studio: a list of tasks, or one task."""
    if isinstance(document, dict):
        return isinstance(document.get("data"), dict) and ("annotations" in document or "predictions" in document)
    return isinstance(document, list) and bool(document) and all(isinstance(task, dict) for task in document)


def read_label_studio(
    source: Path, document: Any, rates: Mapping[str, float | None] | None = None, fps: float | None = None
) -> LabelStudioTasks:
    """The timeline labels of an export, JSON or JSON-MIN. Other kinds of regions are passed over.

    A video's name is the task's "name", else the file's name in its "video", without the eight letters that an upload
    gets. Its frame rate is the first of: the task's "fps", `rates`, `fps`.

    Args:
        source: for messages.
        document: the file's JSON (see `is_label_studio`).
        rates: frames a second by video.
        fps: of all other videos.

    Raises:
        InputError: a task or region of another form, or a video without a frame rate.
    """
    tasks = [document] if isinstance(document, dict) else document
    by_video: dict[str, list[tuple[float | None, list[_Row], bool]]] = {}
    for number, task in enumerate(tasks, start=1):
        where = f"{source}: task {task.get('id', number)}"
        data = task["data"] if isinstance(task.get("data"), dict) else task
        name = _name_of(data, where)
        rate = data.get("fps") or (rates or {}).get(name) or fps
        entries = by_video.setdefault(name, [])
        if "data" in task:
            for kind in ("predictions", "annotations"):
                for entry in task.get(kind) or []:
                    if not isinstance(entry, dict) or not isinstance(entry.get("result", []), list):
                        raise InputError(f"{where}: expected {kind} with a list of results")
                    if not entry.get("was_cancelled"):
                        rows = _rows(entry.get("result", []), rate, f"{where} (video {name!r:.80})")
                        entries.append((rate, rows, kind == "annotations"))
        else:
            values = [value for field in task.values() if isinstance(field, list) for value in field]
            rows = _rows([{"value": value} for value in values], rate, f"{where} (video {name!r:.80})")
            entries.append((rate, rows, True))
    worked_on = any(is_annotation for entries in by_video.values() for _, _, is_annotation in entries)
    tracks, unread, untouched, several = [], 0, [], []
    for name, entries in by_video.items():
        kept = [entry for entry in entries if entry[2] == worked_on]
        if not kept:
            untouched.append(name)
            continue
        if len(kept) > 1:
            several.append(name)
        rate, rows, _ = kept[-1]
        if worked_on:
            unread += sum(row[3] is not None for row in rows)
            rows = [(*row[:3], None) for row in rows]
        else:
            rows = [(*row[:3], 1.0 if row[3] is None else row[3]) for row in rows]
        tracks.append(track_of_rows(name, rows, fps=None if rate is None else float(rate))[0])
    if not tracks:
        raise InputError(f"{source}: holds no annotation; is it an export of Label Studio's TimelineLabels?")
    return LabelStudioTasks(tracks, not worked_on, unread, untouched, several)


def _name_of(data: Mapping[str, Any], where: str) -> str:
    for key in ("name", "video"):
        value = data.get(key)
        if value is None:
            continue
        if not isinstance(value, str):
            raise InputError(f"{where}: its {key}: {not_a_text(value)}")
        if key == "name":
            return value
        file = PurePosixPath(unquote(value.split("?d=")[-1]))
        return (
            re.sub(r"^[0-9a-f]{8}-", "", video_of_file(file.name))
            if "upload" in file.parts
            else video_of_file(file.name)
        )
    raise InputError(f"{where}: has neither 'name' nor 'video' in its data, so its video is not known")


def _rows(results: list[Any], fps: Any, where: str) -> list[_Row]:
    """The segments of the timeline labels among results: start, end, label and score."""
    rows: list[_Row] = []
    for result in results:
        value = result.get("value") if isinstance(result, dict) else None
        if not isinstance(value, dict) or "ranges" not in value or _TAG not in value:
            continue
        try:
            rate = float(fps) if fps is not None else None
            ranges = [(float(each["start"]), float(each["end"])) for each in value["ranges"]]
            labels = list(value[_TAG])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{where}: expected 'ranges' of start and end, and {_TAG!r}: {error}") from error
        if rate is None or not rate > 0:
            raise InputError(
                f"{where}: Label Studio counts frames, and its fps is not known; give fps", parameter="fps"
            )
        notes = " ".join(map(str, (result.get("meta") or {}).get("text") or []))
        score = re.search(r"score (-?\d+(?:\.\d+)?)", notes)
        for label in labels:
            if not isinstance(label, str) or not label.strip():
                raise InputError(f"{where}: a label: {not_a_text(label)}")
            for first, last in ranges:
                bounds = [finite_seconds(frame / rate, where, InputError) for frame in (first - 1, last)]
                rows.append((bounds[0], bounds[1], label, float(score[1]) if score else None))
    return rows
