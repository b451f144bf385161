"""A detection service over HTTP: features in, detections out, as JSON.

    pip install 'refineloc[cpu]' fastapi uvicorn
    python examples/service.py model.onnx --port 8000

    curl --data-binary @features.npy 'http://localhost:8000/detect?fps=25&video=my_video'
    curl --data-binary @features.h5  'http://localhost:8000/detect'

    GET  /health   200 as long as it serves, with the provider that really runs
    GET  /model    what the model file says of itself
    POST /detect   a .npy array [T, D], or an HDF5 file of many videos; gives ActivityNet's JSON

What comes over the network is not trusted: the body's size, the number of snippets and how many requests are worked on
at a time are bounded, arrays are looked at before any memory is taken for them, nothing is unpickled, and HDF5 files
cannot lead to other files. HDF5 is a large C library all the same: for strangers' files run this in a container.
"""

import argparse
import asyncio
import contextlib
import io
import math
import tempfile
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

from refineloc.runtime import Detections, Detector, EngineError, FeatureError, InputError, open_features

MEBIBYTE = 2**20


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
        detector: made with threads=1 where several workers share the cores.
        max_body_bytes: of one request; a larger one gets 413 before it is read to its end.
        max_snippets: of all videos of one request.
        body_seconds: that a client may take to send the body, from when its turn comes.
        workers: requests that are held and worked on at a time; others wait.
    """
    app = FastAPI(title="refineloc", summary="Finds actions in untrimmed videos, from their snippet features.")
    free = asyncio.Semaphore(workers)  # also bounds memory: no request is read before it has a place

    @app.exception_handler(InputError)
    async def bad_input(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 422)

    @app.exception_handler(EngineError)
    async def no_engine(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 503)

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
        async with free:
            body = await _body(request, max_body_bytes, body_seconds)
            found = await run_in_threadpool(_detect, detector, body, fps, duration, video, max_snippets)
        results = {name: [_record(one) for one in own] for name, own in found.items()}
        return {"version": "VERSION 1.3", "results": results, "external_data": {"provider": detector.provider}}

    return app


async def _body(request: Request, limit: int, seconds: float) -> bytes:
    # The stated length may be missing or wrong, so what comes is counted too.
    stated = request.headers.get("content-length", "0")
    if stated.isdigit() and int(stated) > limit:
        raise HTTPException(413, f"the body may have {limit} bytes")
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                body += part
                if len(body) > limit:
                    raise HTTPException(413, f"the body may have {limit} bytes")
    except TimeoutError:
        raise HTTPException(408, f"the body took longer than {seconds:g} seconds") from None
    except ClientDisconnect:
        raise HTTPException(400, "the client went away") from None
    return bytes(body)


def _detect(
    detector: Detector, body: bytes, fps: float | None, duration: float | None, video: str, max_snippets: int
) -> dict[str, Detections]:
    if body.startswith(b"\x93NUMPY"):
        if fps is None:
            raise InputError("fps: seconds need it; give ?fps=X")
        features = read_npy(body)
        _check_length(len(features), max_snippets)
        return {video: detector.detect(features, fps=fps, duration_s=duration)}
    if body.startswith(b"\x89HDF\r\n\x1a\n"):
        with _as_file(body) as path, open_features(path, max_video_bytes=256 * MEBIBYTE) as store:
            _check_length(sum(store.info(name).snippets for name in store.names), max_snippets)
            return dict(detector.detect_many(store, fps=fps))
    raise FeatureError("the body is neither a .npy array nor an HDF5 file")


def read_npy(body: bytes) -> npt.NDArray[Any]:
    """The array of a .npy file, as a view of its bytes: nothing is allocated for what a header may claim.

    Raises:
        FeatureError: not a .npy file of numbers, or of fewer or more bytes than its header says.
    """
    file = io.BytesIO(body)
    try:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[
            version
        ]
        shape, fortran, dtype = read_header(file)
    except (ValueError, KeyError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise FeatureError("the body is not a readable .npy file") from error
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(body) - file.tell():
        raise FeatureError(f"the .npy file says {shape} {dtype}, and has {len(body) - file.tell()} bytes of numbers")
    return np.frombuffer(body, dtype, offset=file.tell()).reshape(shape, order="F" if fortran else "C")


def _check_length(snippets: int, limit: int) -> None:
    if snippets > limit:
        raise HTTPException(413, f"{snippets} snippets; one request may have {limit}")


@contextlib.contextmanager
def _as_file(body: bytes) -> Iterator[Path]:
    """The body as a file, for HDF5; messages must not tell strangers where it lies."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "upload.h5"
        path.write_bytes(body)
        try:
            yield path
        except InputError as error:
            raise InputError(str(error).replace(str(path), "upload")) from error


def _record(one: Any) -> dict[str, Any]:
    return {"label": one.label, "score": one.score, "segment": [one.start, one.end]}


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
