"""`refineloc-convert --clips FILMS`: the segments cut out of their films, into a folder of clips and a list of them."""

import csv
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from refineloc.evaluation.formats.tracks import Track
from refineloc.runtime.cli.common import note, progress
from refineloc.runtime.errors import ConfigError, InputError, VideoError, counted
from refineloc.runtime.files import atomic_write, claim_folder, is_folder
from refineloc.runtime.names import nothing_shared
from refineloc.runtime.text import no_formula
from refineloc.runtime.video.clips import CLIP_SUFFIXES, cut_clip
from refineloc.runtime.video.films import films_below

__all__ = ["write_clips"]

_LIST = "clips.csv"
_HEADER = ("video-name", "label", "t-start", "t-end", "score", "clip", "made")
_SHOWN = 20  # errors of films


def write_clips(source: Path, out: Path, tracks: Sequence[Track], films: Path, safe: Callable[[str, str], str]) -> str:
    """Write a clip of each segment; gives the line that says how many, and how they were made.

    `tracks` are of `source`. `safe(text, ending)` makes a text part of a file's name. A film that cannot be decoded
    does not stop the others.

    Raises:
        ConfigError: `films` is no folder, or the one to write into.
        InputError: no video has a film there, or a name could mean several films.
        VideoError: at the end, films that cannot be decoded.
        OutputError: a clip cannot be written.
    """
    tracks = [track for track in tracks if len(track)]
    if not is_folder(films, InputError):
        raise ConfigError(f"--clips: {films} is no folder; give that of the films, and OUT a folder for the clips")
    if is_folder(out, InputError) and os.path.samefile(out, films):
        raise ConfigError(f"--clips: {out} is the folder of the films; give another one for the clips")
    found = films_below(films, [track.video for track in tracks])
    if not found:
        there = films_below(films)
        raise InputError(nothing_shared("video", source, [track.video for track in tracks], films, list(there)))
    claim_folder(out, lambda name: name == _LIST or Path(name).suffix.lower() in CLIP_SUFFIXES, "clips")
    rows: list[tuple[str, ...]] = []
    errors: list[str] = []
    written: set[str] = set()
    with_film = [track.by_time() for track in tracks if track.video in found]
    with progress("cutting", sum(map(len, with_film)), "clips") as advance:
        for track in with_film:
            for start_s, end_s, label, score in _segments(track):
                start_s = max(start_s, 0.0)
                stem = f"{track.video}_{start_s:07.2f}-{end_s:07.2f}_{label}"
                name = _new_name(stem, safe, written)
                advance(1)
                try:
                    clip = cut_clip(found[track.video], start_s, end_s, out / name)
                except VideoError as error:
                    errors.append(str(error))
                    continue
                times = (f"{start_s:.3f}", f"{end_s:.3f}", "" if score is None else f"{score:.4f}")
                rows.append((no_formula(track.video), no_formula(label), *times, clip.path.name, clip.made))
    with atomic_write(out / _LIST) as handle:
        csv.writer(handle, lineterminator="\n").writerows([_HEADER, *rows])
    if without := [track.video for track in tracks if track.video not in found]:
        all_of = f"{len(without)} of {len(tracks)} videos, which have no film in {films}"
        note(f"left out: {all_of}; the first is {without[0]!r}")
    copied = sum(row[-1] == "copied" for row in rows)
    how = f"{copied} copied and {len(rows) - copied} re-encoded"
    line = f"{out}: {counted(len(rows), 'clip')}, {how} ({out / _LIST})"
    if errors:
        for text in errors[:_SHOWN] if len(errors) > 1 else ():
            note(f"warning: {text}")
        several = f"{len(errors)} clips could not be cut, the first: " if len(errors) > 1 else ""
        raise VideoError(f"{several}{errors[0]}; {line}")
    return line


def _new_name(stem: str, safe: Callable[[str, str], str], written: set[str]) -> str:
    """The name of a clip without its ending; numbered where another has it, as of segments that nearly coincide."""
    ending = max(CLIP_SUFFIXES, key=len)
    name, count = safe(stem, ending), 1
    while name in written:
        count += 1
        name = safe(stem, f"_{count}{ending}") + f"_{count}"
    written.add(name)
    return name


def _segments(track: Track) -> list[tuple[float, float, str, float | None]]:
    scores = [None] * len(track) if track.score is None else track.score.tolist()
    return list(zip(track.start.tolist(), track.end.tolist(), track.labels, scores, strict=True))
