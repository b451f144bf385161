"""Read any of the formats. The name and the content of the file say which it is."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from refineloc.evaluation.formats.elan import read_elan
from refineloc.evaluation.formats.label_studio import LabelStudioTasks, is_label_studio, read_label_studio
from refineloc.evaluation.formats.parquet import read_parquet
from refineloc.evaluation.formats.subtitles import read_subtitles
from refineloc.evaluation.formats.tracks import Track, tracks_of_annotations, tracks_of_detections
from refineloc.evaluation.formats.wtalc_arrays import holds_wtalc_arrays, read_wtalc_arrays
from refineloc.runtime.annotations import is_bsn_database, parse_annotations
from refineloc.runtime.detections import DETECTION_ENDINGS, detection_ending, parse_detections, read_detections
from refineloc.runtime.errors import InputError, counted
from refineloc.runtime.files import is_folder, is_stream, reason
from refineloc.runtime.jobs.parts import holds_parts
from refineloc.runtime.text import csv_header, parse_json, read_text

__all__ = ["Source", "read_source"]


class Source(NamedTuple):
    """The content of a file.

    Attributes:
        tracks: one for each video.
        scored: whether the file holds detections (true for a file of detections without any).
        unread_scores: how many annotations have a score, as those of `write_training_data`; it is not read.
        remarks: what else was not read, a line each.
    """

    tracks: list[Track]
    scored: bool
    unread_scores: int = 0
    remarks: tuple[str, ...] = ()


# Files of one video, which is called as the file is.
_ONE_VIDEO = {".srt": read_subtitles, ".vtt": read_subtitles, ".eaf": read_elan}


def read_source(
    path: str | os.PathLike[str],
    *,
    allow_pickle: bool = False,
    subset: str | None = None,
    video: str | None = None,
    rates: Mapping[str, float | None] | None = None,
    fps: float | None = None,
) -> Source:
    """Read what our programs write, ActivityNet's and BSN's JSON, or a folder of W-TALC's arrays.

    A JSON with a "database" holds annotations even if they have scores: pseudo labels to train on. Subtitles, ELAN's
    and Parquet files hold detections if each segment has a score, else annotations; an export of Label Studio holds
    annotations if it has any. A folder may hold the subtitles or ELAN files of many videos.

    Args:
        path: the file or folder.
        allow_pickle: read object arrays of W-TALC's folders, which can run any program: trusted files only.
        subset: keep the videos of this subset only; for annotations that have subsets.
        video: what the video of a file is called that holds one; the file's name without its ending if left out.
        rates: frames a second by video, for Label Studio's, where a task states none.
        fps: of all other videos.

    Raises:
        InputError: the file is missing, of another form or damaged; the message names the file and the video or line.
        MissingExtraError: Parquet needs pyarrow, which is not installed.
    """
    source = Path(path)
    if is_folder(source, InputError):
        if holds_parts(source):
            if subset is not None:
                raise _no_subsets(source)
            return Source(tracks_of_detections(read_detections(source)), True)
        if holds_wtalc_arrays(source):
            arrays = read_wtalc_arrays(source, allow_pickle=allow_pickle, subset=subset)
            return Source(tracks_of_annotations(arrays), False)
        read = _folder(source)
    elif source.suffix.lower() == ".parquet":
        read = _joined([(track, 0) for track in read_parquet(source)])
    else:
        text = read_text(source, InputError, "give detections or annotations")  # once: a pipe has it once
        if (ending := _one_video_ending(source, text)) is not None:
            if video is None and is_stream(source):
                raise InputError(
                    f"{source}: a file of one video, whose name is not known; give video", parameter="video"
                )
            read = _joined([_ONE_VIDEO[ending](source, text, video or source.stem)])
        elif (tasks := _tasks_of(source, text)) is not None:
            read = _of_tasks(read_label_studio(source, tasks, rates, fps))
        else:
            return _of_text(source, text, subset)
    if subset is not None:
        raise _no_subsets(source)
    return read


def _of_text(source: Path, text: str, subset: str | None) -> Source:
    """Our detections, or annotations."""
    scored, unread = _scores_of(source, text)
    if scored:
        if subset is not None:
            raise _no_subsets(source)
        return Source(tracks_of_detections(parse_detections(source, text)), True)
    return Source(tracks_of_annotations(parse_annotations(source, text, subset=subset)), False, unread)


def _no_subsets(source: Path) -> InputError:
    return InputError(f"{source}: detections have no subsets; leave subset out", parameter="subset")


def _one_video_ending(source: Path, text: str) -> str | None:
    """Which format of one video a text has: by its name, or by its content where the name says nothing."""
    ending = source.suffix.lower()
    if ending in _ONE_VIDEO:
        return ending
    if ending in DETECTION_ENDINGS:
        return None
    if text.startswith("WEBVTT"):
        return ".vtt"
    if text.lstrip().startswith(("<?xml", "<ANNOTATION_DOCUMENT")):
        return ".eaf"
    return ".srt" if re.match(r"\s*\d+\s*\n[\d:, ]+-->", text) else None


def _tasks_of(source: Path, text: str) -> Any:
    """The JSON of an export of Label Studio, None if it is none."""
    begins = text.lstrip()[:1]
    if source.suffix.lower() in (".csv", ".jsonl") or (begins != "[" and not (begins == "{" and '"data"' in text)):
        return None
    document = parse_json(text, f"{source}", InputError, unique=True)
    return document if is_label_studio(document) else None


def _of_tasks(read: LabelStudioTasks) -> Source:
    remarks = []
    if read.untouched:
        remarks.append(
            f"left out: {counted(len(read.untouched), 'task')} without an annotation, the first of video "
            f"{read.untouched[0]!r:.80}"
        )
    if read.several:
        remarks.append(
            f"warning: {counted(len(read.several), 'video has', 'videos have')} several annotations, the first is "
            f"{read.several[0]!r:.80}; the "
            "last of each is read"
        )
    return Source(read.tracks, read.scored, read.unread_scores, tuple(remarks))


def _folder(folder: Path) -> Source:
    """The subtitles or ELAN files of a folder."""
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _ONE_VIDEO)
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {reason(error)}") from error
    if not files:
        raise InputError(
            f"{folder}: a folder without W-TALC's videoname.npy and segments.npy, and without parts, .srt, .vtt or "
            ".eaf files; give a file"
        )
    endings = sorted({path.suffix.lower() for path in files})
    if len(endings) > 1:
        raise InputError(f"{folder}: holds files of several formats ({', '.join(endings)}); give a folder of one")
    read = [(path, read_text(path, InputError, "give subtitles or ELAN files")) for path in files]
    return _joined([_ONE_VIDEO[endings[0]](path, text, path.stem) for path, text in read])


def _joined(read: list[tuple[Track, int]]) -> Source:
    """Detections if all segments have scores; else annotations, and how many scores those had."""
    tracks = [track for track, _ in read]
    filled = [track for track in tracks if len(track)]
    if filled and all(track.score is not None for track in filled):
        return Source(tracks, True)
    unread = sum(count for _, count in read) + sum(len(track) for track in tracks if track.score is not None)
    return Source(
        [
            replace(track, score=None, known_labels=tuple(sorted({*track.known_labels, *track.labels})))
            for track in tracks
        ],
        False,
        unread,
    )


def _scores_of(source: Path, text: str) -> tuple[bool, int]:
    """Whether a file holds detections; if not, how many of its annotations have a score.

    A text of neither form counts as annotations: their reader raises the error.
    """
    ending = detection_ending(source, text)
    if ending == ".jsonl":
        return True, 0
    if ending == ".csv":
        return "score" in csv_header(text, ("video-name", "label")), 0
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return False, 0
    if is_bsn_database(document):
        return False, 0
    if not isinstance(document, dict) or "database" not in document:
        return isinstance(document, dict), 0
    database = document["database"]
    entries = [entry for entry in database.values() if isinstance(entry, dict)] if isinstance(database, dict) else []
    lists = [entry["annotations"] for entry in entries if isinstance(entry.get("annotations"), list)]
    return False, sum(
        "score" in annotation for annotations in lists for annotation in annotations if isinstance(annotation, dict)
    )
