"""A stand-in of Hugging Face's hub on this machine: the requests that huggingface_hub makes to fetch and to push."""

import base64
import contextlib
import hashlib
import importlib
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest


class Hub:
    """The server.

    Attributes:
        url: of the server.
        files: by repository, revision and path; "main" is a revision like others.
        stored: contents of large-file storage (LFS), by their SHA-256.
        in_git: whether models lie in git, by its SHA-1, and not in large-file storage.
        private: repositories that are there and may not be seen; gated: those that ask for an agreement.
        requests: method and path of each.
        spoilt: whether contents arrive with another last byte.
        created, messages: repositories that were made, each whether private; and messages of commits.
    """

    def __init__(self) -> None:
        self.url = ""
        self.files: dict[tuple[str, str, str], bytes] = {}
        self.stored: dict[str, bytes] = {}
        self.private: set[str] = set()
        self.gated: set[str] = set()
        self.requests: list[tuple[str, str]] = []
        self.created: dict[str, bool] = {}
        self.messages: list[str] = []
        self.in_git = False
        self.spoilt = False

    def put(self, repo: str, path: str, content: bytes, revision: str = "main") -> str:
        """A file of a repository; gives the identity of the commit."""
        self.files[repo, revision, path] = content
        return self.commit(repo, revision)

    def commit(self, repo: str, revision: str) -> str:
        files = sorted((path, content) for (r, v, path), content in self.files.items() if (r, v) == (repo, revision))
        return hashlib.sha1(repr(files).encode()).hexdigest()

    def sent(self, content: bytes) -> bytes:
        """A content as it arrives."""
        return content[:-1] + b"?" if self.spoilt else content

    def found(self, repo: str, revision: str, path: str) -> tuple[str, bytes] | None:
        """Commit and content of a file, the revision by its name or commit."""
        for r, v, p in self.files:
            if (r, p) == (repo, path) and revision in (v, self.commit(repo, v)):
                return self.commit(repo, v), self.files[r, v, p]
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self._resolve()

    def do_GET(self) -> None:
        if self.path.startswith("/storage/"):  # what a link of the content network leads to
            content = self.hub.stored[self.path.rpartition("/")[2]]
            self._note()
            self._answer(200, self.hub.sent(content))
        elif "/resolve/" in self.path:
            self._resolve()
        else:  # /api/models/OWNER/NAME, after an empty commit
            self._note()
            self._answer(200, {"id": "x/y", "sha": "0" * 40})

    def do_PUT(self) -> None:
        self._note()
        self.hub.stored[self.path.rpartition("/")[2]] = self._body()
        self._answer(200, b"")

    def do_POST(self) -> None:
        self._note()
        body = self._body()
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if "Bearer" not in self.headers.get("authorization", ""):
                self._answer(401, {"error": "Invalid username or password."})
            elif name in self.hub.created:
                self._answer(409, {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"})
            else:
                self.hub.created[name] = asked.get("visibility") == "private" or bool(asked.get("private"))
                self._answer(200, {"url": f"{self.hub.url}/{name}"})
        elif self.path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            modes = [
                {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None}
                for file in json.loads(body)["files"]
                for mode in ["lfs" if file["path"].endswith(".onnx") else "regular"]
            ]
            self._answer(200, {"files": modes})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {
                    "oid": each["oid"],
                    "size": each["size"],
                    "actions": {"upload": {"href": f"{self.hub.url}/storage/{each['oid']}", "header": {}}},
                }
                for each in json.loads(body)["objects"]
            ]
            self._answer(200, {"transfer": "basic", "objects": objects})
        elif "/commit/" in self.path:
            self._commit([json.loads(line) for line in body.splitlines()])
        else:
            self._answer(404, {"error": "not in this stand-in"})

    def _commit(self, items: list[dict[str, dict[str, str]]]) -> None:
        _, _, _, owner, name, _, revision = self.path.split("/")
        repo, revision = f"{owner}/{name}", unquote(revision)
        for item in items:
            key, value = str(item["key"]), item["value"]
            if key == "header":
                self.hub.messages.append(value["summary"])
            elif key == "file":
                self.hub.put(repo, value["path"], base64.b64decode(value["content"]), revision)
            elif key == "lfsFile":
                self.hub.put(repo, value["path"], self.hub.stored[value["oid"]], revision)
        commit = self.hub.commit(repo, revision)
        self._answer(200, {"commitUrl": f"{self.hub.url}/{repo}/commit/{commit}", "commitOid": commit})

    def _resolve(self) -> None:
        self._note()
        repo, _, rest = unquote(self.path).lstrip("/").partition("/resolve/")
        revision, _, path = rest.partition("/")
        revisions = {v for r, v, _ in self.hub.files if r == repo} | {
            self.hub.commit(r, v) for r, v, _ in self.hub.files if r == repo
        }
        if repo in self.hub.gated:
            self._answer(403, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"})
        elif repo in self.hub.private or not revisions:
            self._answer(404, b"", {"X-Error-Code": "RepoNotFound"})  # the same for both
        elif revision not in revisions:
            self._answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif (found := self.hub.found(repo, revision, path)) is None:
            commit = {"X-Repo-Commit": self.hub.commit(repo, revision)}
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound", **commit})
        else:
            commit_id, content = found
            large = path.endswith(".onnx") and not self.hub.in_git
            of_git = hashlib.sha1(b"blob %d\0" % len(content) + content)
            etag = (hashlib.sha256(content) if large else of_git).hexdigest()
            headers = {"X-Repo-Commit": commit_id, "ETag": f'"{etag}"'}
            if large:
                self.hub.stored[etag] = content
                # Another host, as the hub's content network is one, so that its client takes the hash from here.
                place = f"{self.hub.url.replace('127.0.0.1', 'localhost')}/storage/{etag}"
                linked = {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(content)), "Location": place}
                self._answer(302, b"", {**headers, **linked})
            else:
                self._answer(200, self.hub.sent(content), headers)

    def _note(self) -> None:
        self.hub.requests.append((self.command, self.path))

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, status: int, body: bytes | dict[str, object], headers: dict[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


@contextlib.contextmanager
def hub_on_this_machine(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The server, with huggingface_hub imported anew: it reads where its hub is, and its cache, when it is imported."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    # Without Xet, a protocol of its own for large files, whose server this is not: LFS is what it falls back to.
    values = {"HF_ENDPOINT": hub.url, "HF_HOME": str(cache), "HF_TOKEN": "hf_of_the_test", "HF_HUB_DISABLE_XET": "1"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    for name in (
        "HF_HUB_CACHE",
        "HF_HUB_OFFLINE",
        "HF_TOKEN_PATH",
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
        "all_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
    _forget()
    importlib.import_module("huggingface_hub")
    try:
        yield hub
    finally:
        _forget()
        server.shutdown()
        server.server_close()


def _forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "huggingface_hub"]:
        del sys.modules[name]
