"""The films and features that were dropped onto the page, in a folder of their own."""

import contextlib
import os
import re
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from corrector.videos import Videos
from refineloc.runtime import InputError
from refineloc.runtime.cli.common import note
from refineloc.runtime.features.npy import UNREADABLE
from refineloc.runtime.files import make_folder, writing
from refineloc.runtime.video.films import is_film


class Uploads:
    """The folder, and in it NAME_fps.npy, the rate that was given for NAME.npy: all our programs read it there."""

    def __init__(self, folder: Path, videos: Videos, most_bytes: int) -> None:
        """Take what is there from an earlier start; what cannot be read is left out and told.

        Args:
            folder: it is made when something comes.
            videos: of the page, to which uploads are added.
            most_bytes: of one film or file of features.
        """
        self._folder, self._videos, self.most_bytes = folder, videos, most_bytes
        self._adding = threading.Lock()
        earlier = sorted(folder.glob("[!.]*")) if folder.is_dir() else []
        rates = {_rate_file(path) for path in earlier}
        for path in earlier:
            if path not in rates:
                try:
                    videos.add(path, fps=_rate(path), untrusted=True)
                except InputError as error:
                    note(f"left out: {error}")

    @contextlib.contextmanager
    def taking(self, name: str, fps: float | None) -> Iterator[BinaryIO]:
        """Give a file for the content of an upload. When the block ends well, its videos are added; else nothing stays.

        Args:
            name: of the upload.
            fps: frames a second of features that do not state it, None where it is not given. A film states its own.

        Raises:
            InputError: a name that cannot be, or that is there; or what `Videos.add` refuses.
            OutputError: the folder cannot be written.
        """
        path = self._folder / safe_name(name)
        fps = None if is_film(path, sound=True) else fps
        aside = self._folder / f".{secrets.token_hex(8)}.part"
        made = [path] if fps is None else [path, _rate_file(path)]
        with self._adding:
            make_folder(self._folder)
            for each in made:
                if os.path.lexists(each):
                    raise InputError(f"{each.name}: is there already; rename the file")
            try:
                with writing(path):
                    with aside.open("xb") as file:
                        yield file
                    aside.rename(path)
                    if fps is not None:
                        np.save(_rate_file(path), fps)
                self._videos.add(path, fps=fps, untrusted=True)
            except BaseException:
                for each in (aside, *made):
                    each.unlink(missing_ok=True)
                raise


def _rate_file(path: Path) -> Path:
    return path.with_name(f"{path.stem}_fps.npy")


def _rate(path: Path) -> float | None:
    """Frames a second that were given for an upload; None if none were."""
    file = _rate_file(path)
    if not file.is_file():
        return None
    try:
        return float(np.load(file))
    except (*UNREADABLE, TypeError) as error:
        raise InputError(f"{file}: expected a number of frames a second") from error


def safe_name(name: str) -> str:
    """A file's name that cannot lead out of its folder.

    Raises:
        InputError: it could, or no file can have it.
    """
    if (
        not re.fullmatch(r"[^./\\\x00-\x1f\x7f:][^/\\\x00-\x1f\x7f:]*", name)
        or len(name.encode(errors="replace")) > 200
    ):
        raise InputError(f"{name!r:.80}: cannot be the name of a file here; rename it")
    return name
