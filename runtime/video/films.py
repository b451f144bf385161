"""Which films are meant: files, folders, patterns and lists -> the name of each video and its file."""

import glob
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from refineloc.runtime.addresses import Address, as_path
from refineloc.runtime.errors import VideoError
from refineloc.runtime.files import is_folder, reason, status_of
from refineloc.runtime.text import is_text, numbered_lines, read_text
from refineloc.runtime.video.decode import FILM_SUFFIXES, SOUND_SUFFIXES

__all__ = ["films_below", "find_films", "is_film", "listed_films"]

_WILD = frozenset("*?[")


def is_film(path: str | os.PathLike[str], *, sound: bool = False) -> bool:
    """Whether a name ends like that of a film, or with `sound` like that of a recording, whatever the file is."""
    return Path(path).suffix.lower() in FILM_SUFFIXES + (SOUND_SUFFIXES if sound else ())


def listed_films(path: str | os.PathLike[str]) -> list[Path]:
    """The films, folders and patterns in a text file, one a line, as on a command line.

    Raises:
        VideoError: it cannot be read, or has none.
    """
    hint = "give a text file with the path of a film in each line"
    sources = [as_path(line) for _, line in numbered_lines(read_text(path, VideoError, hint))]
    if not sources:
        raise VideoError(f"{path}: is empty; {hint}")
    return sources


def find_films(sources: Sequence[str | os.PathLike[str]], *, sound: bool = False) -> dict[str, Path]:
    """The films that `sources` name, by the name of the video, in the order of names. Opens no film.

    The name of a video is that of its file without the ending.

    Args:
        sources: files, whatever their ending; folders, of which all files with the ending of a film are taken, at any
            depth, and hidden ones are not; patterns such as `day*/cam?.mp4`, for what names no file itself.
        sound: take files with the ending of a recording (`SOUND_SUFFIXES`) too.

    Raises:
        VideoError: nothing has such a name, a folder or pattern has no film, or two films would be one video.
    """
    films: dict[str, Path] = {}
    for source in sources:
        for path in _films_of(as_path(source), sound):
            name = path.stem
            if not name.strip(". ") or not is_text(name):
                raise VideoError(f"{str(path)!r}: cannot be the name of a video; rename the file")
            other = films.setdefault(name, path)
            if other is not path and other.absolute() != path.absolute():
                raise VideoError(
                    f"{other} and {path}: would both be video {name!r}; rename one, or give them to two runs"
                )
    return dict(sorted(films.items()))


def films_below(folder: str | os.PathLike[str], videos: Collection[str] | None = None) -> dict[str, Path]:
    """The films in a folder and in those that it holds, by the name of the video.

    A video `a/b` is the film b in the folder a; one without a folder in its name lies anywhere.

    Args:
        folder: of the films, and of recordings.
        videos: those that are meant; None: all.

    Raises:
        VideoError: a video could be several films.
    """
    films: dict[str, list[Path]] = {}
    for path in _below(Path(folder), sound=True):
        place = path.relative_to(folder).with_suffix("").as_posix()
        for name in {place, path.stem}:
            films.setdefault(name, []).append(path)
    found = {}
    for name, paths in films.items():
        if videos is None or name in videos:
            if len(paths) > 1:
                raise VideoError(f"{paths[0]} and {paths[1]}: either could be video {name!r}; take one away")
            found[name] = paths[0]
    return found


def _films_of(source: Path, sound: bool) -> Iterable[Path]:
    status = status_of(source, VideoError)
    if status is None:
        if not _WILD & set(str(source)):
            raise VideoError(f"{source}: no such film or folder")
        films = list(_fitting(source, sound))
    elif stat.S_ISDIR(status.st_mode):
        films = list(_below(source, sound))
    else:
        return [source]
    if not films:
        what = "films or recordings" if sound else "films"
        raise VideoError(f"{source}: there are no {what}, files that end in .mp4, .mkv, ...; give the files themselves")
    return films


def _fitting(pattern: Path, sound: bool) -> Iterator[Path]:
    """The films that fit a pattern, and those in folders that fit it, in the order of names."""
    if isinstance(pattern, Address):
        yield from _fitting_objects(pattern, sound)
        return
    for match in sorted(map(Path, glob.glob(str(pattern), recursive=True))):
        if is_folder(match, VideoError):
            yield from _below(match, sound)
        elif is_film(match, sound=sound):
            yield match


def _fitting_objects(pattern: Address, sound: bool) -> Iterator[Path]:
    """Of a store, which has no patterns: of what lies in the last folder that is named plainly."""
    parts = pattern.parts
    plain = next(index for index, part in enumerate(parts) if _WILD & set(part))
    if plain < 2 or not pattern.has_folders():
        raise VideoError(f"{pattern}: patterns are for s3:// and gs://, after the name of the bucket")
    for path in _below(Address(*parts[:plain]), sound):
        rest = path.parts[plain:]
        if any(_fits(rest[:count], parts[plain:]) for count in range(1, len(rest) + 1)):
            yield path


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path fits a pattern, part by part; `**` stands for any number of them."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_fits(parts[skipped:], pattern[1:]) for skipped in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def _below(folder: Path, sound: bool) -> Iterator[Path]:
    """The films in a folder and in those that it holds, in the order of names."""

    if isinstance(folder, Address):
        yield from (path for path in folder.rglob("*") if is_film(path, sound=sound))
        return

    def unreadable(error: OSError) -> None:
        raise VideoError(f"{error.filename}: cannot be read: {reason(error)}") from error

    for root, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        # macOS leaves a hidden `._NAME.mp4` beside each film on foreign disks, which is none.
        yield from (
            Path(root, name) for name in sorted(files) if not name.startswith(".") and is_film(name, sound=sound)
        )
