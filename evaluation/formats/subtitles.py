"""Subtitles (SubRip .srt, WebVTT .vtt): detections shown by any player. One file for each video."""

import html
import os
from typing import Literal

from refineloc.evaluation.formats.tracks import Track
from refineloc.runtime.files import atomic_write

__all__ = ["write_subtitles"]


def write_subtitles(path: str | os.PathLike[str], track: Track, kind: Literal["srt", "vtt"]) -> None:
    """Write one cue for each segment, in order of time: the label, followed by the score if there is one.

    Raises:
        OutputError: the file cannot be written.
    """
    separator = "," if kind == "srt" else "."
    ordered = track.by_time()
    with atomic_write(path) as handle:
        if kind == "vtt":
            handle.write("WEBVTT\n\n")
        for index, (start, end, label) in enumerate(zip(ordered.start, ordered.end, ordered.labels, strict=True)):
            # At least a millisecond, the format's resolution: a cue must not be empty.
            first = max(round(1000 * float(start)), 0)
            last = max(round(1000 * float(end)), first + 1)
            text = " ".join(label.split())
            # WebVTT has markup and escapes for it. SubRip has no escapes, and an arrow would look like a line of times.
            text = html.escape(text, quote=False) if kind == "vtt" else text.replace("-->", "→")
            if ordered.score is not None:
                text += f"  {ordered.score[index]:.2f}"
            handle.write(f"{index + 1}\n{_time(first, separator)} --> {_time(last, separator)}\n{text}\n\n")


def _time(milliseconds: int, separator: str) -> str:
    seconds, fraction = divmod(milliseconds, 1000)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02d}:{minute:02d}:{second:02d}{separator}{fraction:03d}"
