"""A detection service over HTTP: features in, detections out, as JSON.

    pip install 'refineloc[cpu]' fastapi uvicorn
    python examples/service.py model.onnx --port 8000

    curl --data-binary @features.npy 'http://localhost:8000/detect?fps=25&video=my_video'
    curl --data-binary @features.h5  'http://localhost:8000/detect'

    GET  /health   200 while it serves, with the provider that really runs
    GET  /model    metadata of the model file
    POST /detect   a .npy array [T, D], or an HDF5 file of many videos; gives ActivityNet's JSON

Requests are not trusted. The size of a body, the number of snippets, the number of requests in work and the bytes of
all bodies together are limited, and a body that comes too slowly is refused. Arrays are checked before memory is
allocated for them, nothing is unpickled, and HDF5 files cannot lead to other files. A request that waits for its body
takes no worker. Still, HDF5 is a large C library: for files of strangers run this in a container, behind a proxy that
limits connections and their headers.
"""

import argparse
import asyncio
import contextlib
import io
import logging
import math
import tempfile
import tokenize
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from refineloc.runtime import Detections, Detector, EngineError, FeatureError, InputError, ModelError, open_features

MEBIBYTE = 2**20
SLOWEST = 64 * 1024  # bytes a second, the least rate of a body after its first seconds
FIRST_SECONDS = 5.0
DISCARDED = 4  # times the limit of a body: how much of a refused one is read
LOG = logging.getLogger("uvicorn.error")
HEADER_BYTES = 1 << 16  # of a .npy file; NumPy refuses more than 10,000
# What NumPy raises on headers, which it reads with Python's parser.
UNREADABLE: tuple[type[Exception], ...] = (
    *(ValueError, LookupError, TypeError, ArithmeticError, AttributeError, EOFError),
    *(SyntaxError, RecursionError, MemoryError, tokenize.TokenError),
)


def create_app(
    detector: Detector,
    *,
    max_body_bytes: int = 64 * MEBIBYTE,
    max_snippets: int = 50_000,
    body_seconds: float = 30.0,
    workers: int = 2,
) -> FastAPI:
    """The service of one detector.

    Args:
        detector: with threads=1 if several workers share the cores.
        max_body_bytes: limit for one request; a larger one gets 413. The rest of it is read and thrown away, up to
            four times the limit, as many clients read no answer before they have sent all.
        max_snippets: limit for all videos of one request.
        body_seconds: time that a client may take to send the body.
        workers: number of requests in work at the same time; others wait, once their body is complete. All bodies
            together, as far as received, may have 4 * workers * max_body_bytes; a request beyond that gets 503.
    """
    app = FastAPI(title="refineloc", summary="Finds actions in untrimmed videos, from their snippet features.")
    free = asyncio.Semaphore(workers)
    held = Held(4 * workers * max_body_bytes)

    @app.exception_handler(InputError)
    async def bad_input(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 422)

    # What is wrong with the model or the machine is for the log, not for strangers: it names files.
    @app.exception_handler(ModelError)
    @app.exception_handler(EngineError)
    async def no_model(_: Request, error: Exception) -> JSONResponse:
        LOG.error("%s", error)
        return JSONResponse({"detail": "the service cannot run its model now"}, 503)

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok", "provider": detector.provider}

    @app.get("/model")
    def model() -> dict[str, Any]:
        return asdict(detector.metadata)

    @app.post("/detect")
    async def detect(
        request: Request,
        fps: Annotated[float | None, Query(gt=0, description="Frames a second; needed for .npy.")] = None,
        duration: Annotated[float | None, Query(gt=0, description="Seconds, where known; for .npy.")] = None,
        video: Annotated[str, Query(max_length=200, description="Name of the video; for .npy.")] = "video",
    ) -> dict[str, Any]:
        with held.body() as body:  # takes no worker while it reads, as clients may be idle
            await _read(request, body, max_body_bytes, body_seconds)
            async with free:
                detections = await run_in_threadpool(
                    _detect, detector, body.content, fps, duration, video, max_snippets
                )
        results = {name: [_record(detection) for detection in by_score] for name, by_score in detections.items()}
        return {"version": "VERSION 1.3", "results": results, "external_data": {"provider": detector.provider}}

    return app


class Held:
    """Counts the bytes of all bodies that are held, to limit their sum."""

    def __init__(self, limit: int) -> None:
        self.left = limit

    @contextlib.contextmanager
    def body(self) -> Iterator["Body"]:
        """An empty body. The bytes that it then takes are released at the end."""
        body = Body(self)
        try:
            yield body
        finally:
            body.drop()


class Body:
    """The body of one request, as far as received."""

    def __init__(self, held: Held) -> None:
        self.content = bytearray()
        self._held = held

    def add(self, part: bytes) -> None:
        """Append a part.

        Raises:
            HTTPException: 503, all bodies together are at their limit.
        """
        if len(part) > self._held.left:
            raise HTTPException(503, "too many requests at a time; try again", {"Retry-After": "5"})
        self._held.left -= len(part)
        self.content += part

    def drop(self) -> None:
        """Give back what was received."""
        self._held.left += len(self.content)
        self.content = bytearray()


async def _read(request: Request, body: Body, limit: int, seconds: float) -> None:
    """Receive a body. A refused one is received too, and thrown away: a client that still sends would see a reset."""
    too_large = HTTPException(413, f"the body may have {limit} bytes")
    refusal: HTTPException | None = None
    # The stated length may be missing or wrong, so the received bytes are counted too.
    stated = request.headers.get("content-length", "0")
    if stated.isdigit() and int(stated) > limit:
        refusal = too_large
        if "expect" in request.headers:  # the client waits for the answer, or for "100 Continue", before it sends
            raise refusal
    begun = asyncio.get_running_loop().time()
    received = 0
    try:
        async with asyncio.timeout(min(seconds, FIRST_SECONDS)) as patience:
            async for part in request.stream():
                received += len(part)
                if refusal is None:
                    try:
                        body.add(part)
                    except HTTPException as error:
                        refusal = error
                    refusal = too_large if received > limit else refusal
                if refusal is not None:
                    body.drop()
                    if received > DISCARDED * limit:
                        break
                patience.reschedule(begun + min(seconds, FIRST_SECONDS + received / SLOWEST))
    except TimeoutError:
        slow = HTTPException(408, f"the body came too slowly, or took longer than {seconds:g} seconds")
        raise refusal or slow from None
    except ClientDisconnect:
        raise HTTPException(400, "the client went away") from None
    if refusal is not None:
        raise refusal


def _detect(
    detector: Detector, body: bytearray, fps: float | None, duration: float | None, video: str, max_snippets: int
) -> dict[str, Detections]:
    if body.startswith(b"\x93NUMPY"):
        if fps is None:
            raise InputError("fps: seconds need it; give ?fps=X")
        features = read_npy(body)
        _check_length(len(features), max_snippets)
        return {video: detector.detect(features, fps=fps, duration_s=duration)}
    if body.startswith(b"\x89HDF\r\n\x1a\n"):
        with _as_file(body) as path, open_features(path, max_video_bytes=256 * MEBIBYTE, untrusted=True) as store:
            _check_length(sum(store.info(name).snippets for name in store.names), max_snippets)
            return dict(detector.detect_many(store, fps=fps))
    raise FeatureError("the body is neither a .npy array nor an HDF5 file")


def read_npy(body: bytes | bytearray) -> npt.NDArray[Any]:
    """The array of a .npy file, as a view of its bytes: a header cannot make this allocate memory.

    Raises:
        FeatureError: not a .npy file of T x D numbers, or its size is not what the header says.
    """
    file = io.BytesIO(body[:HEADER_BYTES])
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        shape, fortran, dtype = readers[np.lib.format.read_magic(file)](file)
    except UNREADABLE as error:
        raise FeatureError("the body is not a readable .npy file") from error
    if len(shape) != 2 or any(type(size) is not int or size < 0 for size in shape):  # True is an int too
        raise FeatureError(f"expected features of shape T x D, got {_short(shape)}")
    if dtype.kind != "f" or dtype.subdtype is not None:
        raise FeatureError(f"expected float32 or float16 features, got dtype {_short(dtype)}")
    size = len(body) - file.tell()
    if math.prod(shape) * dtype.itemsize != size:
        raise FeatureError(f"the .npy file says {_short(shape)} {dtype}, and has {size} bytes of numbers")
    if not size:
        raise FeatureError("the .npy file has no snippets, or snippets of width 0")
    return np.frombuffer(body, dtype, offset=file.tell()).reshape(shape, order="F" if fortran else "C")


def _short(value: object) -> str:
    """A value of a header in at most 60 characters; it may be a number of thousands of digits."""
    try:
        text = str(value)
    except ValueError:  # Python refuses to print such numbers
        return "numbers of thousands of digits"
    return text if len(text) <= 60 else text[:60] + "..."


def _check_length(snippets: int, limit: int) -> None:
    if snippets > limit:
        raise HTTPException(413, f"{snippets} snippets; one request may have {limit}")


@contextlib.contextmanager
def _as_file(body: bytearray) -> Iterator[Path]:
    """The body as a file, for HDF5. Errors do not contain its path, which strangers must not learn."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "upload.h5"
        path.write_bytes(body)
        try:
            yield path
        except InputError as error:
            raise InputError(str(error).replace(str(path), "upload")) from error


def _record(detection: Any) -> dict[str, Any]:
    return {"label": detection.label, "score": detection.score, "segment": [detection.start, detection.end]}


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description="Serve a refineloc model over HTTP.")
    parser.add_argument("model", type=Path, help="ONNX file that refineloc-export wrote")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--provider", default="auto", choices=("auto", "cuda", "tensorrt", "cpu"))
    parser.add_argument("--workers", type=int, default=2, help="requests worked on at a time, one CPU thread each")
    parser.add_argument("--max-body-mib", type=int, default=64)
    parser.add_argument("--max-snippets", type=int, default=50_000)
    parser.add_argument("--body-seconds", type=float, default=30.0)
    options = parser.parse_args()
    detector = Detector(options.model, provider=options.provider, threads=1)
    app = create_app(
        detector,
        max_body_bytes=options.max_body_mib * MEBIBYTE,
        max_snippets=options.max_snippets,
        body_seconds=options.body_seconds,
        workers=options.workers,
    )
    uvicorn.run(app, host=options.host, port=options.port)


if __name__ == "__main__":
    main()
