"""A real S3 server on this machine (moto's), which counts its requests and can be made to fail.

It answers what obstore asks of Google's store, too: Google's XML API is that of S3, but for who is asking.
"""

import contextlib
import datetime
import logging
import ssl
import threading
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

BUCKET = "films"
# A signature is not checked, but without one moto takes a request for one of a web site.
_SIGNATURE = "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request"
_SIGNED = {"Authorization": _SIGNATURE, "Content-Type": "application/octet-stream"}


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
            if not environ.get("HTTP_AUTHORIZATION", "").startswith("AWS4"):  # of Google's, and of a plain client
                environ["HTTP_AUTHORIZATION"] = _SIGNATURE
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
            "GOOGLE_BASE_URL": self.url,
            "GOOGLE_BEARER_TOKEN": "token",
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
    pytest.importorskip("obstore", reason="obstore is not installed")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    store = ObjectStore(server_module.DomainDispatcherApplication(server_module.create_backend_app))
    with _served(store) as store.url:
        store.empty()
        yield store


@contextlib.contextmanager
def over_tls(store: ObjectStore, folder: Path) -> Iterator[tuple[str, Path]]:
    """The same server over https://: its URL, and the file of the authority that vouches for its certificate."""
    pytest.importorskip("cryptography")
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    authority, key = generate_private_key(SECP256R1()), generate_private_key(SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority of a test")])
    now = datetime.datetime.now(datetime.UTC)
    for subject, of in (("authority", authority), ("server", key)):
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(of.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(subject == "authority", None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        )
        (folder / f"{subject}.pem").write_bytes(builder.sign(authority, SHA256()).public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "key.pem")
    with _served(store, ssl_context=context) as url:
        yield url.replace("http:", "https:"), folder / "authority.pem"


@contextlib.contextmanager
def _served(app: ObjectStore, **options: Any) -> Iterator[str]:
    """Serve in a thread; gives the URL."""
    from werkzeug.serving import make_server

    server = make_server("127.0.0.1", 0, app, threaded=True, **options)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
