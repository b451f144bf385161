"""Subtitles, SubRip (.srt) and WebVTT (.vtt): watch detections in any player, one file a video."""

import html
import os
from typing import Literal

from refineloc.evaluation.formats.tracks import Track
from refineloc.runtime.files import atomic_write

__all__ = ["write_subtitles"]


def write_subtitles(path: str | os.PathLike[str], track: Track, kind: Literal["srt", "vtt"]) -> None:
    """Write a cue a segment, in order of time: the label, and the score where there is one.

    Raises:
        OutputError: the file cannot be written.
    """
    separator = "," if kind == "srt" else "."
    ordered = track.by_time()
    with atomic_write(path) as handle:
        if kind == "vtt":
            handle.write("WEBVTT\n\n")
        for at, (start, end, label) in enumerate(zip(ordered.start, ordered.end, ordered.labels, strict=True)):
            # A cue lasts at least a millisecond, which is as fine as the format is.
            first = max(round(1000 * float(start)), 0)
            last = max(round(1000 * float(end)), first + 1)
            text = " ".join(label.split())
            # WebVTT has markup and so an escape for it; SubRip has no escape, but an arrow would look like a time line.
            text = html.escape(text, quote=False) if kind == "vtt" else text.replace("-->", "→")
            if ordered.score is not None:
                text += f"  {ordered.score[at]:.2f}"
            handle.write(f"{at + 1}\n{_time(first, separator)} --> {_time(last, separator)}\n{text}\n\n")


def _time(milliseconds: int, separator: str) -> str:
    seconds, fraction = divmod(milliseconds, 1000)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02d}:{minute:02d}:{second:02d}{separator}{fraction:03d}"
