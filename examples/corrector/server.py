"""The server of the page, for one person on one machine.

It listens on 127.0.0.1 alone. Its address holds a secret, without which nothing is answered: neither pages of other
sites nor other users of the machine know it. A Host header that is not ours is refused, as a site could give its own
name this address. Requests name videos by number, never files by path.
"""

import contextlib
import hmac
import json
import mimetypes
import re
import secrets
import sys
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO, ClassVar
from urllib.parse import parse_qs, urlsplit

from corrector.corrections import Corrections, Segment
from corrector.uploads import Uploads
from corrector.videos import OfFilm, Video, Videos
from refineloc.runtime import InputError, RefineLocError
from refineloc.runtime.text import finite_seconds, is_text, parse_json, plain_label

MEBIBYTE = 2**20
MOST_SEGMENTS = 10_000  # of a video that is saved
SAVE_BYTES, LOAD_BYTES = 4 * MEBIBYTE, 64 * MEBIBYTE
PAGE = {"": "index.html", "editor.js": "editor.js", "editor.css": "editor.css"}
SHARED = ("shared.js", "shared.css")  # of the report's page


class RefusedError(Exception):
    """A request that is answered with an error: its status, and a line for the user."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class App(ThreadingHTTPServer):
    """The server of one user."""

    daemon_threads = True

    def __init__(self, videos: Videos, corrections: Corrections, uploads: Uploads, port: int = 0) -> None:
        """Bind to 127.0.0.1.

        Args:
            videos, corrections, uploads: what is shown, saved and taken.
            port: 0 takes a free one.
        """
        super().__init__(("127.0.0.1", port), Handler)
        self.videos, self.corrections, self.uploads = videos, corrections, uploads
        self.secret = secrets.token_urlsafe(24)
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
                self._file((Path(__file__).with_name("page") / PAGE[place]).read_bytes(), PAGE[place])
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
            "max_upload_bytes": self.server.uploads.most_bytes,
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
        rate = finite_seconds(fps, "frames a second", InputError) if fps else None
        if self._unread > self.server.uploads.most_bytes:
            limit = self.server.uploads.most_bytes // MEBIBYTE
            raise RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"{name}: larger than {limit} MiB; start with --max-upload-mib N"
            )
        with self.server.uploads.taking(name, rate) as file:
            self._receive(file)

    def _receive(self, file: BinaryIO) -> None:
        while self._unread:
            part = self.rfile.read(min(self._unread, MEBIBYTE))
            if not part:
                raise ConnectionResetError("the client went away")
            self._unread -= len(part)
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
        # A client that still sends reads no answer: the rest of the body is received, but no more than an upload has.
        left = max(0, self._unread - self.server.uploads.most_bytes)
        with contextlib.suppress(OSError):  # the client may go away
            while self._unread > left and (part := self.rfile.read(min(self._unread - left, MEBIBYTE))):
                self._unread -= len(part)
        self.close_connection = self.close_connection or self._unread > 0
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
