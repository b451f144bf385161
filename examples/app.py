"""Correct detections by hand, in a browser, and save them as labels.

    python examples/app.py model.onnx features.h5 --films films/ --folder corrections
    python examples/app.py model.onnx films/ --backbone backbone.onnx --folder corrections

It prints the address of its page. There one drags the ends of segments, moves, deletes, adds and relabels them, and
saves. `corrections/` then holds

    corrected.csv                  labels with times, which refineloc-train, -eval and -tune read
    corrected_label_studio.json    the same as tasks of Label Studio
    uploads/                       films and features that were dropped onto the page

and the next start goes on with them. docs/how-to/correct-and-retrain.md has what to do with the labels.

The page needs drawing, dragging and a film beside both, which no kit of forms has; so it is three small files in
app_page/, served by Python's own HTTP server, and nothing is to be installed.

One person uses it, on one machine. It listens on 127.0.0.1 alone. Its address holds a secret, without which nothing is
answered: neither pages of other sites nor other users of the machine know it. A Host header that is not ours is
refused, as a site could give its own name this address. Requests name videos by number, never files by path.
"""

import argparse
import contextlib
import errno
import hmac
import json
import mimetypes
import re
import secrets
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, ClassVar, NamedTuple
from urllib.parse import parse_qs, urlsplit

import numpy as np

from refineloc.evaluation.formats.label_studio import write_label_studio
from refineloc.evaluation.formats.reading import read_source
from refineloc.evaluation.formats.tracks import Track
from refineloc.evaluation.pictures.timeline import mean_curve, score_curves, videos_of_detections
from refineloc.runtime import Detections, Detector, InputError, OutputError, RefineLocError, open_features
from refineloc.runtime.annotations import Annotations, VideoAnnotation, read_annotations, write_annotations_csv
from refineloc.runtime.batches import Planned
from refineloc.runtime.cli.common import note, run_main
from refineloc.runtime.errors import counted
from refineloc.runtime.features.store import FeatureStore
from refineloc.runtime.files import atomic_path, make_folder, writing
from refineloc.runtime.segments.grid import SnippetGrid
from refineloc.runtime.segments.values import Scores
from refineloc.runtime.text import finite_seconds, is_text, parse_json, plain_label
from refineloc.runtime.video.films import films_below, find_films, is_film

MEBIBYTE = 2**20
MOST_SHOWN = 500  # detections of a video, the best
MOST_SEGMENTS = 10_000  # of a video that is saved
CURVE_POINTS = 400
SAVE_BYTES, LOAD_BYTES = 4 * MEBIBYTE, 64 * MEBIBYTE
PAGE = {"": "index.html", "editor.js": "editor.js", "editor.css": "editor.css"}
SHARED = ("shared.js", "shared.css")  # of the report's page

Segment = tuple[float, float, str]  # start and end in seconds, class


class Found(NamedTuple):
    """What the page shows of a video, beside its corrections.

    Attributes:
        detections: start and end in seconds, class, score; the best first.
        curves: seconds and values from 0 to 1, by class, and of the foreground.
        duration_s: of the video.
        fps: frames a second; None of a recording.
        notes: what is to know of the film.
    """

    detections: list[tuple[float, float, str, float]]
    curves: dict[str, tuple[list[float], list[float]]]
    duration_s: float
    fps: float | None
    notes: tuple[str, ...] = ()


class OfFeatures:
    """A video whose features are in a file. It is detected whenever the page opens it, which takes milliseconds."""

    def __init__(
        self,
        detector: Detector,
        store: FeatureStore,
        planned: Planned,
        known: Sequence[str] | None,
        reading: threading.Lock,
    ) -> None:
        self._detector, self._store, self._planned, self._known = detector, store, planned, known
        self._reading = reading  # of all videos of the store: not every one can be read by two threads at a time

    @property
    def fps(self) -> float | None:
        """Frames a second."""
        return self._planned.grid.fps

    def found(self) -> Found:
        """Detect."""
        name = self._planned.name
        labels = None if self._known is None else {name: self._known}
        with self._reading:
            ((_, detections),) = (
                pair
                for batch in self._detector.detect_planned(self._store, [self._planned], labels=labels)
                for pair in batch
            )
            ((_, grid, scores),) = self._detector.scores_planned(self._store, [self._planned])
        return _shown(self._detector, detections, grid, scores, grid.fps)


class OfFilm:
    """A film. A thread detects in one after another, as a film takes minutes; what was found stays."""

    def __init__(self, detector: Detector, film: Path, backbone: Any, known: Sequence[str] | None) -> None:
        self._detector, self._film, self._backbone, self._known = detector, film, backbone, known
        self._found: Found | RefineLocError | None = None
        self.seconds = 0.0  # of film that were decoded

    @property
    def is_done(self) -> bool:
        """Whether it was detected, or cannot be."""
        return self._found is not None

    @property
    def fps(self) -> float | None:
        """Frames a second; None before the film was detected, and of a recording."""
        return self._found.fps if isinstance(self._found, Found) else None

    def found(self) -> Found | None:
        """What was found; None before that."""
        if isinstance(self._found, RefineLocError):
            raise self._found
        return self._found

    def detect(self) -> None:
        """Decode, run the backbone and the model."""
        try:
            self._found = self._detect()
        except RefineLocError as error:
            self._found = error
        except Exception as error:  # one film must not end the thread of all
            self._found = InputError(f"{self._film}: {type(error).__name__}: {error}")

    def _detect(self) -> Found:
        from refineloc.runtime.video.decode import Film
        from refineloc.runtime.video.detection import detect_film
        from refineloc.runtime.video.features import film_features

        def advance(seconds: float) -> None:
            self.seconds = seconds

        film = film_features(self._film, self._backbone, progress=advance)
        detections = detect_film(self._detector, film, self._known)
        with Film(self._film) as opened:
            fps = opened.info().fps if opened.has_pictures else None
        scores = self._detector.scores(film.features)
        return _shown(self._detector, detections, film.grid, scores, fps)._replace(notes=film.notes)


def _shown(detector: Detector, detections: Detections, grid: SnippetGrid, scores: Scores, fps: float | None) -> Found:
    last = np.array([len(scores.foreground) - 1])
    leading = videos_of_detections([{"": detections}])[""]
    curves = {}
    for name, curve in score_curves(scores, grid, leading, detector.classes).items():
        seconds, values, _ = mean_curve(*curve, CURVE_POINTS)
        curves[name] = seconds.round(2).tolist(), values.clip(0, 1).round(3).tolist()
    best = [
        (round(start, 2), round(end, 2), label, float(f"{score:.4g}"))
        for start, end, label, score in detections[:MOST_SHOWN]
    ]
    duration = grid.duration_s or float(grid.seconds(last, last)[1][0])
    return Found(best, curves, round(duration, 3), fps)


class Video(NamedTuple):
    """A video of the page: its name, its film if there is one, and what says what was found in it."""

    name: str
    film: Path | None
    source: OfFeatures | OfFilm


class Videos:
    """The videos of the page, by number, in the order in which they came."""

    def __init__(
        self,
        detector: Detector,
        *,
        backbone: Any = None,
        films: Path | None = None,
        labels: Annotations | None = None,
        fps: float | None = None,
    ) -> None:
        """See the options of the command line."""
        self.detector, self.backbone = detector, backbone
        self._films, self._labels, self._fps = films, labels or Annotations({}), fps
        self._videos: list[Video] = []
        self._changed = threading.Condition()
        threading.Thread(target=self._work, name="films", daemon=True).start()

    def __iter__(self) -> Iterator[Video]:
        return iter(list(self._videos))

    def __getitem__(self, number: int) -> Video:
        return self._videos[number]

    def add(self, path: Path, *, fps: float | None = None, untrusted: bool = False) -> None:
        """Take a film, a folder of films, or a file or folder of features.

        Raises:
            InputError: it is neither, does not fit the model, or a video of that name is there.
        """
        if is_film(path, sound=True) or (self.backbone is not None and path.is_dir() and not _is_features(path)):
            self._append(self._of_films(path))
            return
        store = open_features(path, untrusted=untrusted)
        try:
            self._append(self._of_store(store, fps or self._fps))
        except BaseException:
            store.close()
            raise

    def _append(self, videos: list[Video]) -> None:
        with self._changed:
            names = {video.name for video in self._videos}
            for video in videos:
                if video.name in names:
                    raise InputError(f"video {video.name!r} is there twice; rename one of its files")
            self._videos += videos
            self._changed.notify()

    def _of_films(self, path: Path) -> list[Video]:
        if self.backbone is None:
            raise InputError(f"{path}: is a film, whose features need a backbone; start with --backbone BACKBONE.onnx")
        films = find_films([path], sound=self.backbone.metadata.kind == "audio")
        return [
            Video(name, film, OfFilm(self.detector, film, self.backbone, self._known(name)))
            for name, film in films.items()
        ]

    def _of_store(self, store: FeatureStore, fps: float | None) -> list[Video]:
        times = {
            name: (self._labels[name].fps, self._labels[name].duration_s)
            for name in store.names
            if name in self._labels
        }
        planned = self.detector.plan(store, store.names, fps=fps, times=times)
        films = films_below(self._films, store.names) if self._films is not None else {}
        reading = threading.Lock()
        return [
            Video(
                each.name,
                films.get(each.name),
                OfFeatures(self.detector, store, each, self._known(each.name), reading),
            )
            for each in planned
        ]

    def _known(self, name: str) -> Sequence[str] | None:
        return self._labels[name].labels if name in self._labels else None

    def _work(self) -> None:
        """Detect in the films, one after another."""
        while True:
            with self._changed:
                waiting = (video.source for video in self._videos if isinstance(video.source, OfFilm))
                film = next((source for source in waiting if not source.is_done), None)
                if film is None:
                    self._changed.wait()
                    continue
            film.detect()


def _is_features(folder: Path) -> bool:
    return (folder / "index.parquet").is_file() or any(folder.glob("**/*.np[yz]"))


class Corrections:
    """The corrected videos and their two files."""

    def __init__(self, folder: Path, media: str = "") -> None:
        """Read what an earlier start has saved.

        Args:
            folder: of the files; it is made.
            media: put before the names of films for Label Studio (`write_label_studio`).
        """
        self.csv = make_folder(folder) / "corrected.csv"
        self.tasks = folder / "corrected_label_studio.json"
        self._folder, self._media = folder, media
        self._lock = threading.Lock()
        self._videos: dict[str, VideoAnnotation] = {}
        if self.csv.exists():
            self._videos.update(read_annotations(self.csv))
        if self.tasks.exists():  # which has videos without a segment, too
            for track in read_source(self.tasks).tracks:
                if not len(track):
                    self._videos.setdefault(track.video, VideoAnnotation(track.video, (), fps=track.fps))

    def of(self, name: str) -> list[Segment] | None:
        """The segments of a corrected video; None where it was not corrected."""
        video = self._videos.get(name)
        return None if video is None else _segments(video)

    @property
    def names(self) -> set[str]:
        """The corrected videos."""
        return set(self._videos)

    @property
    def classes(self) -> set[str]:
        """That segments have."""
        return {label for video in list(self._videos.values()) for label in video.labels}

    def save(self, name: str, segments: Sequence[Segment], *, duration_s: float, fps: float | None) -> str:
        """Write the segments of a video beside those of the others; gives a line that says what was written.

        Raises:
            InputError: labels that the file could not hold, such as two that differ in case alone.
            OutputError: a file cannot be written. Neither changes then.
        """
        ordered = sorted(segments)
        video = VideoAnnotation(
            name,
            tuple(sorted({label for _, _, label in ordered})),
            duration_s=duration_s,
            fps=fps,
            start=np.array([start for start, _, _ in ordered], dtype=np.float64),
            end=np.array([end for _, end, _ in ordered], dtype=np.float64),
            segment_labels=tuple(label for _, _, label in ordered),
        )
        with self._lock:
            videos = {**self._videos, name: video}
            with atomic_path(self.csv) as table, atomic_path(self.tasks) as tasks:
                filled = {each: videos[each] for each in videos if videos[each].labels}
                write_annotations_csv(table, filled)
                self._read_back(table, filled)
                write_label_studio(tasks, [_track(each) for each in videos.values() if each.fps], media=self._media)
            self._videos = videos
        if not filled:  # a table without a row is no file of labels
            with writing(self.csv):
                self.csv.unlink()
        count = sum(len(each.start) for each in videos.values())
        what = f"{counted(count, 'segment')} of {counted(len(videos), 'corrected video')}"
        return f"{self.csv.name} and {self.tasks.name}: {what}"

    def _read_back(self, table: Path, videos: Mapping[str, VideoAnnotation]) -> None:
        """A table that our programs would refuse, or read as something else, must not take the place of a good one."""
        if not videos:
            return
        try:
            read = read_annotations(table)
        except InputError as error:
            raise InputError(str(error).replace(str(table), self.csv.name)) from error
        for name, video in videos.items():
            if name not in read or _segments(read[name]) != _segments(video):
                raise InputError(
                    f"{self.csv.name} cannot hold video {name!r}: its name or a label reads otherwise; rename"
                )

    def load(
        self, name: str, content: bytes, rates: Mapping[str, float | None] = MappingProxyType({})
    ) -> dict[str, list[Segment]]:
        """The segments by video of any file that refineloc-convert reads. Nothing is saved.

        Args:
            name: of the file.
            content: of the file.
            rates: frames a second by video, for tasks of Label Studio that do not state theirs.

        Raises:
            InputError: another file.
        """
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=".loaded-") as aside:
            path = Path(aside, safe_name(name))
            with writing(path):
                path.write_bytes(content)
            try:
                tracks = read_source(path, rates=rates).tracks
            except InputError as error:
                raise InputError(str(error).replace(str(path), path.name)) from error
        rows = {
            track.video: zip(track.start.tolist(), track.end.tolist(), track.labels, strict=True) for track in tracks
        }
        return {
            video: [(max(round(start, 3), 0.0), round(end, 3), label) for start, end, label in each]
            for video, each in rows.items()
        }


def _segments(video: VideoAnnotation) -> list[Segment]:
    return sorted(zip(video.start.tolist(), video.end.tolist(), video.segment_labels, strict=True))


def _track(video: VideoAnnotation) -> Track:
    return Track(video.name, video.start, video.end, video.segment_labels, fps=video.fps, known_labels=video.labels)


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


class RefusedError(Exception):
    """A request that is answered with an error: its status, and a line for the user."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class App(ThreadingHTTPServer):
    """The server of one user."""

    daemon_threads = True

    def __init__(
        self, videos: Videos, corrections: Corrections, *, folder: Path, port: int = 0, max_upload_bytes: int = 2**32
    ) -> None:
        """Bind to 127.0.0.1.

        Args:
            videos, corrections: what is shown and saved.
            folder: its `uploads` takes what is dropped onto the page.
            port: 0 takes a free one.
            max_upload_bytes: of one film or file of features.
        """
        super().__init__(("127.0.0.1", port), Handler)
        self.videos, self.corrections, self.max_upload_bytes = videos, corrections, max_upload_bytes
        self.uploads = folder / "uploads"
        self.secret = secrets.token_urlsafe(24)
        self.adding = threading.Lock()
        self.hosts = {f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost")}

    @property
    def address(self) -> str:
        """Of the page."""
        return f"http://127.0.0.1:{self.server_port}/{self.secret}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over clients that went away, as a browser does in the middle of a film."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds that a client may leave a request half sent
    server: App
    HEADERS: ClassVar = {
        "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; media-src 'self'; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "Referrer-Policy": "no-referrer",  # which would show the secret
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
    }

    def do_GET(self) -> None:
        """The page, its scripts, the videos, films."""
        with self._refusing():
            place, _ = self._checked()
            if self._unread:
                raise RefusedError(HTTPStatus.BAD_REQUEST, "a GET has no body")
            number = re.fullmatch(r"(videos|films)/(\d{1,9})", place)
            if place in PAGE:
                self._file((Path(__file__).with_name("app_page") / PAGE[place]).read_bytes(), PAGE[place])
            elif place in SHARED:
                self._file((resources.files("refineloc.evaluation.report") / place).read_bytes(), place)
            elif place == "state":
                self._json(self._state())
            elif number and number[1] == "videos":
                self._json(self._video(self._numbered(number[2])))
            elif number:
                self._film(self._numbered(number[2]))
            else:
                raise RefusedError(HTTPStatus.NOT_FOUND, "no such page")

    def do_POST(self) -> None:
        """Save a video, take an upload, read a file of corrections."""
        with self._refusing():
            place, query = self._checked()
            number = re.fullmatch(r"videos/(\d{1,9})", place)
            if number:
                video = self._numbered(number[1])
                self._json({"saved": self._save(video, self._body(SAVE_BYTES))})
            elif place == "load":
                rates = {video.name: video.source.fps for video in self.server.videos}
                loaded = self.server.corrections.load(query.get("name", ""), self._body(LOAD_BYTES), rates)
                self._json({"videos": loaded})
            elif place == "uploads":
                self._upload(query.get("name", ""), query.get("fps", ""))
                self._json(self._state())
            else:
                raise RefusedError(HTTPStatus.NOT_FOUND, "no such page")

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        """Answer with an error where the request, or what it brings, is wrong."""
        self._unread = 0  # bytes of the body that have not been received
        try:
            yield
        except RefusedError as error:
            self._error(error.status, str(error))
        except InputError as error:
            self._error(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
        except RefineLocError as error:
            self._error(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))

    def _checked(self) -> tuple[str, dict[str, str]]:
        """What is asked for, below the secret, and its query."""
        self._unread = self._length()
        if len(self.headers.get_all("Host", [])) != 1 or self.headers["Host"] not in self.server.hosts:
            raise RefusedError(HTTPStatus.MISDIRECTED_REQUEST, "this server is reached by its own address alone")
        try:
            parts = urlsplit(self.path)
        except ValueError:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "this is no address") from None
        secret, _, place = parts.path.removeprefix("/").partition("/")
        if not hmac.compare_digest(secret.encode(errors="replace"), self.server.secret.encode()):
            raise RefusedError(HTTPStatus.FORBIDDEN, "open the address that the program printed")
        return place, {name: values[-1] for name, values in parse_qs(parts.query).items()}

    def _length(self) -> int:
        """Of the body; without it the next request of the connection could not be told from the body."""
        stated = self.headers.get_all("Content-Length", ["0"])
        if "Transfer-Encoding" in self.headers or len(stated) != 1 or not re.fullmatch(r"\d{1,18}", stated[0]):
            self.close_connection = True
            raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "state the length of the body")
        return int(stated[0])

    def _numbered(self, number: str) -> tuple[int, Video]:
        try:
            return int(number), self.server.videos[int(number)]
        except IndexError:
            raise RefusedError(HTTPStatus.NOT_FOUND, "no such video") from None

    # --- what is asked for ---

    def _state(self) -> dict[str, Any]:
        corrections = self.server.corrections
        corrected = corrections.names
        videos = []
        for video in self.server.videos:
            film = video.source if isinstance(video.source, OfFilm) else None
            entry = {"name": video.name, "film": video.film is not None, "corrected": video.name in corrected}
            videos.append({**entry, "seconds": film.seconds if film and not film.is_done else None})
        detector = self.server.videos.detector
        return {
            "model": repr(detector).strip("<>"),
            "classes": list(dict.fromkeys([*detector.classes, *sorted(corrections.classes)])),
            "folder": str(corrections.csv.parent),
            "takes_films": self.server.videos.backbone is not None,
            "max_upload_bytes": self.server.max_upload_bytes,
            "videos": videos,
        }

    def _video(self, numbered: tuple[int, Video]) -> dict[str, Any]:
        _, video = numbered
        found = video.source.found()
        if found is None:
            return {"waiting": True}
        least = self.server.videos.detector.metadata.detection.min_score
        return {**found._asdict(), "least": least, "corrected": self.server.corrections.of(video.name)}

    def _save(self, numbered: tuple[int, Video], body: bytes) -> str:
        _, video = numbered
        found = video.source.found()
        if found is None:
            raise InputError(f"video {video.name!r}: is not detected yet")
        document = parse_json(body.decode("utf-8", "replace"), "the request", InputError)
        rows = document.get("segments") if isinstance(document, dict) else None
        if not isinstance(rows, list) or len(rows) > MOST_SEGMENTS:
            raise InputError(f"expected 'segments', a list of at most {MOST_SEGMENTS:,}")
        segments = [_segment(row, f"segment {index}") for index, row in enumerate(rows, start=1)]
        return self.server.corrections.save(video.name, segments, duration_s=found.duration_s, fps=found.fps)

    def _upload(self, name: str, fps: str) -> None:
        path = self.server.uploads / safe_name(name)
        rate = finite_seconds(fps, "frames a second", InputError) if fps else None
        if self._unread > self.server.max_upload_bytes:
            limit = self.server.max_upload_bytes // MEBIBYTE
            raise RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"{name}: larger than {limit} MiB; start with --max-upload-mib N"
            )
        with self.server.adding:
            make_folder(self.server.uploads)
            if path.exists() or path.is_symlink():
                raise InputError(f"{name}: is there already; rename the file")
            aside = self.server.uploads / f".{secrets.token_hex(8)}.part"
            try:
                with writing(path):
                    with aside.open("xb") as file:
                        self._receive(file)
                    aside.rename(path)
                self.server.videos.add(path, fps=rate, untrusted=True)
            except BaseException:
                aside.unlink(missing_ok=True)
                path.unlink(missing_ok=True)
                raise

    def _receive(self, file: BinaryIO | None) -> None:
        while self._unread:
            part = self.rfile.read(min(self._unread, MEBIBYTE))
            if not part:
                raise ConnectionResetError("the client went away")
            self._unread -= len(part)
            if file is not None:
                file.write(part)

    def _body(self, limit: int) -> bytes:
        if self._unread > limit:
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {limit // MEBIBYTE} MiB")
        body = self.rfile.read(self._unread)
        self._unread = 0
        return body

    # --- answers ---

    def _film(self, numbered: tuple[int, Video]) -> None:
        """A film, or the part of it that is asked for: a browser seeks by that."""
        _, video = numbered
        if video.film is None:
            raise RefusedError(HTTPStatus.NOT_FOUND, "this video has no film")
        try:
            film = video.film.open("rb")
        except OSError:
            raise RefusedError(HTTPStatus.NOT_FOUND, f"{video.film.name}: cannot be read") from None
        with film:
            size = film.seek(0, 2)
            first, last = _range(self.headers.get("Range", ""), size)
            if first > last and size:
                self._begin(
                    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "text/plain", 0, {"Content-Range": f"bytes */{size}"}
                )
                return
            whole = (first, last) == (0, size - 1)
            kind = mimetypes.guess_type(video.film.name)[0] or ""
            headers = {"Accept-Ranges": "bytes"} | ({} if whole else {"Content-Range": f"bytes {first}-{last}/{size}"})
            self._begin(
                HTTPStatus.OK if whole else HTTPStatus.PARTIAL_CONTENT,
                kind if kind.startswith(("video/", "audio/")) else "application/octet-stream",
                last + 1 - first,
                headers,
            )
            film.seek(first)
            left = last + 1 - first
            while left and (part := film.read(min(left, MEBIBYTE))):
                self.wfile.write(part)
                left -= len(part)

    def _json(self, value: Any) -> None:
        self._file(json.dumps(value, allow_nan=False).encode(), ".json")

    def _file(self, content: bytes, name: str) -> None:
        kinds = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".json": "application/json"}
        self._begin(HTTPStatus.OK, kinds["." + name.rpartition(".")[2]] + "; charset=utf-8", len(content))
        self.wfile.write(content)

    def _error(self, status: HTTPStatus, message: str) -> None:
        content = json.dumps({"error": message}).encode()
        # A client that still sends reads no answer: what is left of a body of allowed size is received.
        if self._unread > self.server.max_upload_bytes:
            self.close_connection = True
        else:
            try:
                self._receive(None)
            except OSError:  # it went away, or sends nothing more
                self.close_connection = True
        self._begin(status, "application/json; charset=utf-8", len(content))
        self.wfile.write(content)

    def _begin(self, status: HTTPStatus, kind: str, length: int, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {
            **self.HEADERS,
            "Content-Type": kind,
            "Content-Length": str(length),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing: a line of each request would hold the secret."""


def _segment(row: Any, where: str) -> Segment:
    """Start, end and class of what the page sends.

    Raises:
        InputError: something else.
    """
    if not isinstance(row, list) or len(row) != 3 or not isinstance(row[2], str):
        raise InputError(f"{where}: expected start, end and class")
    start, end = (round(finite_seconds(value, where, InputError), 3) for value in row[:2])
    label = plain_label(row[2])
    if not 0 <= start < end:
        raise InputError(f"{where}: expected 0 <= start < end, got {start:g} to {end:g}")
    if not label or len(label) > 200 or not is_text(label) or re.search(r"[\x00-\x1f\x7f]", label):
        raise InputError(f"{where}: {label!r:.40} cannot be a class; give it another name")
    return start, end, label


def _range(header: str, size: int) -> tuple[int, int]:
    """First and last byte of a range; all where none is understood; first > last where it lies outside."""
    asked = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", header.strip())
    if asked is None or not any(asked.groups()):
        return 0, size - 1
    if not asked[1]:
        return max(size - int(asked[2]), 0), size - 1 if int(asked[2]) else -1
    first, last = int(asked[1]), min(int(asked[2] or size - 1), size - 1)
    return first, last if first < size else -1


def _port(text: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) >= 2**16:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 65535, got {text!r:.40}")
    return int(text)


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description="Correct detections in a browser and save them as labels.")
    parser.add_argument("model", type=Path, help="ONNX file that refineloc-export wrote")
    parser.add_argument("sources", type=Path, nargs="*", help="films, folders of films, files or folders of features")
    parser.add_argument("--folder", type=Path, default=Path("corrections"), help="where labels and uploads go")
    parser.add_argument("--backbone", type=Path, help="for films: ONNX file of refineloc-export --backbone")
    parser.add_argument("--films", type=Path, help="folder of the films of videos whose features are given")
    parser.add_argument("--labels", type=Path, help="CSV or JSON that states classes, fps or durations of videos")
    parser.add_argument("--fps", type=float, help="frames a second of features that do not state it")
    parser.add_argument("--media", default="", help="for Label Studio: goes before the file of each video")
    parser.add_argument("--provider", default="auto", choices=("auto", "cuda", "tensorrt", "cpu"))
    parser.add_argument("--port", type=_port, default=8765, help="0 takes a free one")
    parser.add_argument("--max-upload-mib", type=int, default=4096)
    return parser.parse_intermixed_args(arguments)


def create(options: argparse.Namespace) -> App:
    """The server, with its videos.

    Raises:
        RefineLocError: a file that cannot be read, or does not fit the model.
    """
    # Without a least score: the page shows all, from the model's own on.
    detector = Detector(options.model, provider=options.provider, min_score=None)
    backbone = None
    if options.backbone is not None:
        from refineloc.runtime.video.backbone import Backbone
        from refineloc.runtime.video.detection import check_fits

        backbone = Backbone(options.backbone, options.provider)
        check_fits(detector.metadata, backbone)
    labels = None if options.labels is None else read_annotations(options.labels, times=False)
    if options.films is not None and not options.films.is_dir():
        raise InputError(f"{options.films}: no such folder of films")
    corrections = Corrections(options.folder, options.media)
    videos = Videos(detector, backbone=backbone, films=options.films, labels=labels, fps=options.fps)
    for source in options.sources:
        videos.add(source)
    earlier = options.folder / "uploads"
    for path in sorted(earlier.glob("[!.]*")) if earlier.is_dir() else ():
        try:
            videos.add(path, untrusted=True)
        except InputError as error:
            note(f"left out: {error}")
    limit = options.max_upload_mib * MEBIBYTE
    try:
        return App(videos, corrections, folder=options.folder, port=options.port, max_upload_bytes=limit)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise OutputError(f"port {options.port}: another program has it; give --port 0 for a free one") from error


def main() -> None:
    """Serve until stopped."""
    server = create(parsed())
    print(f"{counted(len(list(server.videos)), 'video')}; open {server.address}", flush=True)
    with server:
        server.serve_forever()


if __name__ == "__main__":
    run_main(main)
