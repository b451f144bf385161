"""The examples, run as their readers would run them: a program and a service over loopback."""

import asyncio
import io
import json
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import h5py
import numpy as np
import numpy.typing as npt
import pytest
from waiting import LAST_RESORT_S

from refineloc.runtime import Detector, EngineError, ModelError

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
uvicorn = pytest.importorskip("uvicorn")

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LIMIT_MIB, LIMIT_SNIPPETS = 1, 1000


@pytest.fixture
def features(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    return rng.standard_normal((60, 24)).astype(np.float32)


def post(address: str, **request: Any) -> Any:
    return httpx.post(address, timeout=LAST_RESORT_S, **request)


def npy(array: npt.NDArray[np.generic]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_ten_lines(model_path: Path, tmp_path: Path, features: npt.NDArray[np.float32]) -> None:
    np.save(tmp_path / "f.npy", features)
    command = [sys.executable, str(EXAMPLES / "ten_lines.py"), str(model_path), str(tmp_path / "f.npy"), "25"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    expected = Detector(model_path, provider="cpu").detect(features, fps=25.0)
    assert len(done.stdout.splitlines()) == len(expected) > 0
    assert [line.split()[-1] for line in done.stdout.splitlines()] == expected.label.tolist()


def test_ten_lines_without_arguments_says_what_it_takes() -> None:
    for arguments in ([], ["model.onnx"], ["a", "b", "c", "d"]):
        command = [sys.executable, str(EXAMPLES / "ten_lines.py"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode != 0
        assert done.stderr == "usage: ten_lines.py MODEL.onnx FEATURES.npy FPS\n"


@pytest.fixture(scope="module")
def service(model_path: Path, load_example: Callable[[str], Any]) -> Iterator[str]:
    """The address of the running service, which waits long enough for every client."""
    module = load_example("service.py")
    module.FIRST_SECONDS = LAST_RESORT_S
    app = module.create_app(
        Detector(model_path, provider="cpu", threads=1),
        max_body_bytes=LIMIT_MIB * 2**20,
        max_snippets=LIMIT_SNIPPETS,
        body_seconds=LAST_RESORT_S,
    )
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as thread:
        running = thread.submit(server.run, [listening])
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        running.result()


def test_the_program_serves(model_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, str(EXAMPLES / "service.py"), str(model_path), "--port", str(port), "--provider", "cpu"]
    command += ["--body-seconds", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = iter(process.stderr.readline, "")
        assert any("Uvicorn running" in line for line in said)
        assert httpx.get(f"http://127.0.0.1:{port}/health", timeout=LAST_RESORT_S).json()["status"] == "ok"
        (client,) = half_requests(f"http://127.0.0.1:{port}", 1)
        assert b"408" in client.recv(4096)
        client.close()
        process.terminate()
        assert "Traceback" not in process.stderr.read()


def test_health_and_model(service: str, model_path: Path) -> None:
    assert httpx.get(f"{service}/health").json() == {"status": "ok", "provider": "cpu"}
    said = httpx.get(f"{service}/model").json()
    assert said["classes"] == list(Detector(model_path, provider="cpu").classes)
    assert (said["width"], said["detection"]["alpha_c"]) == (24, 0.3)


@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_gives_what_the_detector_gives(
    service: str, model_path: Path, features: npt.NDArray[np.float32], order: str
) -> None:
    body = npy(np.asarray(features, order=order))  # type: ignore[call-overload]
    answer = post(f"{service}/detect", params={"fps": 25, "duration": 37.5, "video": "mine"}, content=body)
    assert answer.status_code == 200, answer.text
    expected = Detector(model_path, provider="cpu").detect(features, fps=25.0, duration_s=37.5)
    records = answer.json()["results"]["mine"]
    assert [(*r["segment"], r["label"], r["score"]) for r in records] == list(expected)
    assert len(records) > 0
    assert answer.json()["external_data"]["provider"] == "cpu"


def test_a_file_of_many_videos(
    service: str, model_path: Path, tmp_path: Path, features: npt.NDArray[np.float32]
) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["a"], file["b"] = features, features[:20].astype(np.float16)
        file["a"].attrs["fps"] = 20.0
    body = (tmp_path / "f.h5").read_bytes()
    answer = post(f"{service}/detect", params={"fps": 25}, content=body)
    assert answer.status_code == 200, answer.text
    detector = Detector(model_path, provider="cpu")
    expected = {
        "a": detector.detect(features, fps=20.0),
        "b": detector.detect(features[:20].astype(np.float16), fps=25.0),
    }
    for name, detections in expected.items():
        assert [r["score"] for r in answer.json()["results"][name]] == detections.score.tolist()
    missing = post(f"{service}/detect", content=body)
    assert missing.status_code == 422
    assert "upload: video 'b': its fps is not known" in missing.json()["detail"]


def headed(descr: str, shape: str, content: bytes = b"") -> bytes:
    """A .npy file with this header, whatever it says."""
    return npy_of(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n", content)


def npy_of(header: str, content: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode("latin1") + content


F4 = "'<f4'"
NOT_READABLE = "not a readable .npy file"


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        (b"hello", 422, "neither a .npy array nor an HDF5 file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(500), 422, "upload: not an HDF5 file, or cut short"),
        (bytes(LIMIT_MIB * 2**20 + 1), 413, "the body may have 1048576 bytes"),
        (npy(np.zeros((2, 23), np.float32)), 422, "features have width 23, the model expects 24"),
        (npy(np.zeros((0, 24), np.float32)), 422, "no snippets"),
        (npy(np.full((2, 24), np.nan, np.float32)), 422, "snippet 0 holds nan"),
        (npy(np.zeros((2, 24), np.int32)), 422, "dtype int32"),
        (npy(np.zeros((LIMIT_SNIPPETS + 1, 24), np.float16)), 413, f"{LIMIT_SNIPPETS + 1} snippets"),
        # Headers that lie.
        (headed("'|O'", "(2, 24)", bytes(384)), 422, "dtype object"),
        (headed(F4, "(-1, -4)", bytes(16)), 422, r"expected features of shape T x D, got \(-1, -4\)"),
        (headed("'|S0'", "(2, 24)"), 422, "dtype |S0"),
        (headed(F4, f"({10**28}, 0)"), 422, "width 0"),
        (headed(F4, f"({10**28}, 24)"), 422, "and has 0 bytes"),
        (headed(F4, "(" + "9" * 4000 + ", 24)"), 422, r"says \(9{40,60}\.\.\.|" + NOT_READABLE),
        (headed(F4, "(" + "1, " * 70 + ")", bytes(4)), 422, "shape T x D, got .*\\.\\.\\.$"),
        (headed("('<f4', (12,))", "(2, 2)", bytes(192)), 422, "dtype"),
        (headed("{'a': 1}", "(2, 24)", bytes(192)), 422, NOT_READABLE),
        (headed(F4, "(2.5, 24)", bytes(192)), 422, NOT_READABLE),
        (headed(F4, "(True, True)", bytes(4)), 422, r"shape T x D, got \(True, True\)"),
        (npy(np.full((2, 24), 3e38, np.float32)), 422, "overflow in the fp32 model; extract"),
        (npy_of("{'descr': (\n"), 422, NOT_READABLE),  # tokenize.TokenError
        (npy_of("(" * 5000 + "\n"), 422, NOT_READABLE),
        (b"\x93NUMPY", 422, NOT_READABLE),
        (b"\x93NUMPY\x09\x09abc", 422, NOT_READABLE),
    ],
    ids=lambda value: value[10:60].decode("latin1").strip() if isinstance(value, bytes) else None,
)
def test_bad_requests_are_told_why(service: str, body: bytes, status: int, detail: str) -> None:
    answer = post(f"{service}/detect", params={"fps": 25}, content=body)
    assert answer.status_code == status, answer.text
    assert re.search(detail, answer.json()["detail"])
    assert len(answer.json()["detail"]) < 200
    assert "/tmp" not in answer.text
    assert "model.onnx" not in answer.text


def test_a_body_of_no_stated_length_is_counted(service: str) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(64):
            yield bytes(2**16)

    assert post(f"{service}/detect", params={"fps": 25}, content=parts()).status_code == 413


@pytest.mark.parametrize("size", [LIMIT_MIB * 2**20 + 1, 4 * LIMIT_MIB * 2**20])
@pytest.mark.parametrize("chunked", [False, True])
def test_clients_that_send_too_much_and_close_get_their_answer(service: str, size: int, chunked: bool) -> None:
    """Sixteen at a time, by urllib, which asks to close and reads no answer before it has sent all."""

    def ask(_: int) -> int:
        parts = iter([bytes(2**16)] * (size // 2**16) + [bytes(size % 2**16)])
        request = urllib.request.Request(
            f"{service}/detect?fps=25", data=parts if chunked else bytes(size), method="POST"
        )
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=LAST_RESORT_S)
        caught.value.close()
        return caught.value.code

    with ThreadPoolExecutor(16) as clients:
        codes = list(clients.map(ask, range(16)))
    # All bodies together are limited too: 8 times the limit of one.
    assert set(codes) <= {413, 503}
    assert chunked or set(codes) == {413}


def test_a_client_that_waits_for_100_continue_is_told_at_once(service: str) -> None:
    host, port = service.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), LAST_RESORT_S) as client:
        head = f"POST /detect HTTP/1.1\r\nHost: x\r\nContent-Length: {2**40}\r\nExpect: 100-continue\r\n\r\n"
        client.sendall(head.encode())
        assert client.recv(4096).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "error", [EngineError("/srv/secret/model.onnx: fails"), ModelError("/srv/secret/model.onnx: bad")]
)
def test_what_is_wrong_with_the_model_is_logged_and_not_told(
    model_path: Path,
    load_example: Callable[[str], Any],
    features: npt.NDArray[np.float32],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    detector = Detector(model_path, provider="cpu", threads=1)
    monkeypatch.setattr(detector, "detect", fail)
    app = load_example("service.py").create_app(detector)

    async def ask() -> Any:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.post("/detect", params={"fps": 25}, content=npy(features))

    answer = asyncio.run(ask())
    assert (answer.status_code, answer.json()) == (503, {"detail": "the service cannot run its model now"})
    assert "secret" in caplog.text


def test_no_fps_and_bad_fps(service: str, features: npt.NDArray[np.float32]) -> None:
    assert "give ?fps=X" in post(f"{service}/detect", content=npy(features)).json()["detail"]
    assert post(f"{service}/detect", params={"fps": -1}, content=npy(features)).status_code == 422


def test_many_clients_at_a_time(service: str, features: npt.NDArray[np.float32]) -> None:
    async def ask() -> list[str]:
        async with httpx.AsyncClient(timeout=LAST_RESORT_S) as client:
            jobs = [client.post(f"{service}/detect", params={"fps": 25}, content=npy(features)) for _ in range(24)]
            return [answer.text for answer in await asyncio.gather(*jobs)]

    answers = asyncio.run(ask())
    assert len(answers) == 24
    assert len(set(answers)) == 1
    assert json.loads(answers[0])["results"]["video"]


def half_requests(service: str, count: int) -> list[socket.socket]:
    host, port = service.removeprefix("http://").split(":")
    head = b"POST /detect?fps=25 HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n\x93NUMPY"
    clients = [socket.create_connection((host, int(port))) for _ in range(count)]
    for client in clients:
        client.sendall(head)
    return clients


def test_clients_that_go_away_leave_the_service_well(service: str) -> None:
    for client in half_requests(service, 4):
        client.close()
    answer = post(f"{service}/detect", params={"fps": 25}, content=b"hello")
    assert answer.status_code == 422


def test_clients_that_wait_delay_nobody(service: str, features: npt.NDArray[np.float32]) -> None:
    """Many more of them than workers, each with half a request."""
    clients = half_requests(service, 24)
    for _ in range(3):
        answer = post(f"{service}/detect", params={"fps": 25}, content=npy(features))
        assert answer.status_code == 200
    for client in clients:
        client.settimeout(0)
        with pytest.raises(BlockingIOError):  # every one of them is still waiting
            client.recv(1)
        client.close()


class _SkippingLoop(asyncio.SelectorEventLoop):
    """Its time is that of what was waited for, which takes no time."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        selector: Any = self._selector  # type: ignore[attr-defined]
        select = selector.select

        def skip(timeout: float | None = None) -> Any:
            self._now += timeout or 0.0
            return select(0)

        selector.select = skip

    def time(self) -> float:
        return self._now


def test_a_body_that_trickles_is_given_up(load_example: Callable[[str], Any]) -> None:
    service_module = load_example("service.py")

    class Request:
        headers: ClassVar[dict[str, str]] = {}

        def __init__(self, part: bytes) -> None:
            self._part = part

        async def stream(self) -> AsyncIterator[bytes]:
            for _ in range(40):
                await asyncio.sleep(0.2)
                yield self._part

    async def read(part: bytes) -> int:
        with service_module.Held(2**30).body() as body:
            await service_module._read(Request(part), body, 2**30, 30.0)
            return len(body.content)

    with asyncio.Runner(loop_factory=_SkippingLoop) as runner:
        assert runner.run(read(bytes(2**14))) == 40 * 2**14  # 80 KiB a second, and longer than the first seconds
        with pytest.raises(service_module.HTTPException, match="too slowly") as caught:
            runner.run(read(b"a"))
    assert caught.value.status_code == 408


@pytest.mark.parametrize(("all_bodies", "status"), [(2**30, 413), (2**15, 503)])
def test_an_endless_body_is_read_no_further_than_four_times_the_limit(
    load_example: Callable[[str], Any], all_bodies: int, status: int
) -> None:
    service_module = load_example("service.py")
    held = service_module.Held(all_bodies)
    parts = 0

    class Request:
        headers: ClassVar[dict[str, str]] = {}

        async def stream(self) -> AsyncIterator[bytes]:
            nonlocal parts
            while True:
                parts += 1
                yield bytes(2**14)
                assert held.left >= all_bodies - 2**16, "what is thrown away is given back"

    async def read() -> None:
        with held.body() as body:
            await service_module._read(Request(), body, 2**16, 30.0)

    with pytest.raises(service_module.HTTPException) as caught:
        asyncio.run(read())
    assert caught.value.status_code == status
    assert parts * 2**14 == 4 * 2**16 + 2**14
    assert held.left == all_bodies


def test_all_bodies_together_have_a_limit(load_example: Callable[[str], Any]) -> None:
    service_module = load_example("service.py")
    held = service_module.Held(10)
    with held.body() as one:
        one.add(b"123456")
        with held.body() as two:
            two.add(b"1234")
            with pytest.raises(service_module.HTTPException, match="try again") as caught:
                two.add(b"5")
            assert caught.value.status_code == 503
        one.add(b"7890")  # the other's are given back
    assert held.left == 10


def test_fiftyone_example_leaves_out_what_lies_outside_the_video(
    load_example: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for fiftyone, whose from_timestamps turns these into frame ranges that run backwards."""
    made = SimpleNamespace(from_timestamps=lambda bounds, sample, label, confidence: (bounds, label, confidence))
    stand_in = SimpleNamespace(Dataset=object, Sample=object, TemporalDetection=made)
    monkeypatch.setitem(sys.modules, "fiftyone", stand_in)
    example = load_example("fiftyone_import.py")
    sample = SimpleNamespace(metadata=SimpleNamespace(duration=10.0))
    rows = [
        (-1.0, 2.0, "x", None),
        (9.0, 14.0, "x", 0.5),
        (10.0, 12.0, "x", None),
        (11.0, 12.0, "x", None),
        (5.0, 5.0, "x", None),
    ]
    assert example.temporal(sample, rows) == [([0.0, 2.0], "x", None), ([9.0, 10.0], "x", 0.5)]
