"""Reading any of the formats, by the name and the content of the file."""

import json
import os
from pathlib import Path

from refineloc.runtime.annotations import read_annotations
from refineloc.runtime.detections import read_detections
from refineloc.runtime.errors import InputError
from refineloc.runtime.formats.tracks import Track, tracks_of_annotations, tracks_of_detections
from refineloc.runtime.formats.wtalc import is_wtalc_folder, read_wtalc

__all__ = ["read_tracks"]


def read_tracks(path: str | os.PathLike[str], *, allow_pickle: bool = False, subset: str | None = None) -> list[Track]:
    """Read detections (.json, .csv, .jsonl) or annotations (released CSV, ActivityNet JSON, a folder of W-TALC's).

    Args:
        path: the file or folder.
        allow_pickle: read object arrays of W-TALC's folders (`refineloc.runtime.formats.wtalc`).
        subset: of annotations that have subsets, keep this one.

    Raises:
        InputError: missing, none of these forms, or damaged; the message names the file, and the video or line.
    """
    source = Path(path)
    if source.is_dir():
        if not is_wtalc_folder(source):
            raise InputError(f"{source}: a folder without W-TALC's videoname.npy and segments.npy; give a file")
        return tracks_of_annotations(read_wtalc(source, allow_pickle=allow_pickle, subset=subset))
    if _has_scores(source):
        if subset is not None:
            raise InputError(f"{source}: detections have no subsets; leave --subset out")
        return tracks_of_detections(read_detections(source))
    return tracks_of_annotations(read_annotations(source, subset=subset))


def _has_scores(source: Path) -> bool:
    """Whether a file holds detections. What cannot be read is left to the reader of annotations, which says why."""
    if source.suffix.lower() == ".jsonl":
        return True
    try:
        text = source.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return False
    if source.suffix.lower() == ".csv":
        return "score" in [name.strip() for name in text.partition("\n")[0].split(",")]
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and "database" not in document
