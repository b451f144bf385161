"""Read any of the formats. The name and the content of the file say which it is."""

import json
import os
from pathlib import Path
from typing import NamedTuple

from refineloc.evaluation.formats.tracks import Track, tracks_of_annotations, tracks_of_detections
from refineloc.evaluation.formats.wtalc_arrays import holds_wtalc_arrays, read_wtalc_arrays
from refineloc.runtime.annotations import is_bsn_database, parse_annotations
from refineloc.runtime.detections import detection_ending, parse_detections, read_detections
from refineloc.runtime.errors import InputError
from refineloc.runtime.files import is_folder
from refineloc.runtime.jobs.parts import holds_parts
from refineloc.runtime.text import csv_header, read_text

__all__ = ["Source", "read_source"]


class Source(NamedTuple):
    """The content of a file.

    Attributes:
        tracks: one for each video.
        scored: whether the file holds detections (true for a file of detections without any).
        unread_scores: how many annotations have a score, as those of `write_training_data`; it is not read.
    """

    tracks: list[Track]
    scored: bool
    unread_scores: int = 0


def read_source(path: str | os.PathLike[str], *, allow_pickle: bool = False, subset: str | None = None) -> Source:
    """Read detections (.json, .csv, .jsonl, a folder of parts) or annotations (released CSV, ActivityNet JSON, a folder
    of W-TALC's).

    A JSON with a "database" holds annotations even if they have scores: pseudo labels to train on.

    Args:
        path: the file or folder.
        allow_pickle: read object arrays of W-TALC's folders, which can run any program: trusted files only.
        subset: keep the videos of this subset only; for annotations that have subsets.

    Raises:
        InputError: the file is missing, of another form or damaged; the message names the file and the video or line.
    """
    source = Path(path)
    if is_folder(source, InputError):
        if holds_parts(source):
            if subset is not None:
                raise _no_subsets(source)
            return Source(tracks_of_detections(read_detections(source)), True)
        if not holds_wtalc_arrays(source):
            raise InputError(
                f"{source}: a folder without W-TALC's videoname.npy and segments.npy, and without parts; give a file"
            )
        return Source(tracks_of_annotations(read_wtalc_arrays(source, allow_pickle=allow_pickle, subset=subset)), False)
    text = read_text(source, InputError, "give detections or annotations")  # once: a pipe has it once
    scored, unread = _scores_of(source, text)
    if scored:
        if subset is not None:
            raise _no_subsets(source)
        return Source(tracks_of_detections(parse_detections(source, text)), True)
    return Source(tracks_of_annotations(parse_annotations(source, text, subset=subset)), False, unread)


def _no_subsets(source: Path) -> InputError:
    return InputError(f"{source}: detections have no subsets; leave subset out", parameter="subset")


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
