"""Subtitles (SubRip .srt, WebVTT .vtt): detections shown by any player. One file for each video."""

import html
import os
import re
from pathlib import Path
from typing import Literal

from refineloc.evaluation.formats.tracks import Track, track_of_rows
from refineloc.runtime.errors import InputError
from refineloc.runtime.files import atomic_write

__all__ = ["read_subtitles", "write_subtitles"]

_STAMP = r"(?:(\d+):)?(\d{1,2}):(\d{1,2})[,.](\d{1,3})"
_TIMES = re.compile(rf"\s*{_STAMP}\s*-->\s*{_STAMP}(?:\s.*)?")  # WebVTT may have settings behind them
_SCORE = re.compile(r"(.*\S)  (-?\d+\.\d\d)")  # as `write_subtitles` puts it behind a label


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


def read_subtitles(source: Path, text: str, video: str) -> tuple[Track, int]:
    """The cues of a .srt or .vtt text as segments of one video. A cue's text is the label; its lines are joined.

    Returns:
        The track, with scores if every cue has one behind its label, as `write_subtitles` puts it; and how many scores
        there are otherwise, which are not read.

    Raises:
        InputError: a line of times of another form, a cue without a text, or a text without cues.
    """
    is_vtt = text.lstrip("\ufeff").startswith("WEBVTT")
    rows: list[tuple[float, float, str, float | None]] = []
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        line, number = lines[number], number + 1
        if is_vtt and re.match(r"(NOTE|STYLE|REGION)\b", line):
            while number < len(lines) and lines[number].strip():
                number += 1
            continue
        if "-->" not in line:
            if line.strip() and not rows and number > 3 and not is_vtt:
                raise InputError(f"{source}: line {number}: expected a line of times, 00:00:10,000 --> 00:00:20,000")
            continue
        where = f"{source}: line {number}"
        if not (times := _TIMES.fullmatch(line)):
            raise InputError(f"{where}: expected times such as 00:00:10,000 --> 00:00:20,000, got {line!r:.60}")
        words = []
        while number < len(lines) and lines[number].strip():
            words.append(lines[number].strip())
            number += 1
        label = " ".join(words)
        score = None
        if scored := _SCORE.fullmatch(label):
            label, score = scored[1], float(scored[2])
        if is_vtt:
            label = html.unescape(re.sub(r"<[^>]*>", "", label)).strip()
        if not label:
            raise InputError(f"{where}: a cue without a text, which would be its label")
        rows.append((_seconds(times.groups()[:4]), _seconds(times.groups()[4:]), label, score))
    if not rows and any(line.strip() for line in lines) and not is_vtt:
        raise InputError(f"{source}: holds no cue; expected lines such as 00:00:10,000 --> 00:00:20,000")
    return track_of_rows(video, rows)


def _seconds(stamp: tuple[str | None, ...]) -> float:
    hours, minutes, seconds, fraction = (part or "0" for part in stamp)
    # From whole milliseconds: a sum of fractions would be 9.999999.
    milliseconds = (int(hours) * 3600 + int(minutes) * 60 + int(seconds)) * 1000 + int(fraction.ljust(3, "0"))
    return milliseconds / 1000
