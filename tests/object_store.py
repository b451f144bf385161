"""A real S3 server on this machine (moto's), which counts its requests and can be made to fail."""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.request import Request, urlopen

import pytest

BUCKET = "films"
# A signature is not checked, but without one moto takes a request for one of a web site.
_SIGNED = {
    "Authorization": "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request",
    "Content-Type": "application/octet-stream",
    "x-amz-acl": "public-read",  # for http://
}


class ObjectStore:
    """The server.

    Attributes:
        url: of the server.
        requests: method, path with query, and range of each.
        fault: is asked for each request; what it returns is the status of the answer, None is the server's own.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self.url = ""
        self.requests: list[tuple[str, str, str]] = []
        self.fault: Callable[[str, str], int | None] = lambda method, path: None

    def __call__(self, environ: dict[str, Any], start: Any) -> Any:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append((method, f"{path}?{environ['QUERY_STRING']}", environ.get("HTTP_RANGE", "")))
        status = self.fault(method, path)
        if status is None:
            return self._app(environ, start)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start(f"{status} Fault", [("Content-Length", "0")])
        return [b""]

    @property
    def env(self) -> dict[str, str]:
        """The variables with which programs find it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }

    def put(self, key: str, content: bytes) -> str:
        """Store an object; gives its address."""
        with urlopen(Request(f"{self.url}/{BUCKET}/{key}", content, _SIGNED, method="PUT")) as answer:
            answer.read()
        return f"s3://{BUCKET}/{key}"

    def get(self, key: str) -> bytes:
        with urlopen(Request(f"{self.url}/{BUCKET}/{key}", headers=_SIGNED)) as answer:
            return bytes(answer.read())

    def names(self) -> list[str]:
        """Of all objects."""
        from moto.s3.models import s3_backends

        (backend,) = (account["aws"] for account in s3_backends.values())
        return sorted(backend.buckets[BUCKET].keys)

    def empty(self) -> None:
        """Forget all objects, requests and faults."""
        self.fault = lambda method, path: None
        for path, method in (("moto-api/reset", "POST"), (BUCKET, "PUT")):
            with urlopen(Request(f"{self.url}/{path}", b"", _SIGNED, method=method)) as answer:
                answer.read()
        self.requests.clear()


@contextlib.contextmanager
def serving() -> Iterator[ObjectStore]:
    """Start the server; it ends with the block."""
    server_module = pytest.importorskip("moto.server", reason="moto, a server of S3, is not installed")
    serving_module = pytest.importorskip("werkzeug.serving")
    pytest.importorskip("obstore", reason="obstore is not installed")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    store = ObjectStore(server_module.DomainDispatcherApplication(server_module.create_backend_app))
    server = serving_module.make_server("127.0.0.1", 0, store, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    store.url = f"http://127.0.0.1:{server.port}"
    store.empty()
    try:
        yield store
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
