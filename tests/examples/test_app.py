"""examples/app.py: its server over loopback, its page in a browser, and the way from detections to labels and back."""

import http.client
import json
import socket
import subprocess
import sys
import wave
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from small_model import write_features
from waiting import LAST_RESORT_S, wait_until

from refineloc.evaluation.formats.reading import read_source
from refineloc.runtime import Detector, InputError, open_features, read_annotations

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/app.py"
FPS = 25.0
DURATION_S = 60 * 16 / FPS  # of the videos
FILM = bytes(range(256)) * 40


@pytest.fixture(scope="module")
def app(load_example: Callable[[str], ModuleType]) -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLE.parent))
        yield load_example("app.py")


@pytest.fixture(scope="module")
def given(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, features of three videos, and something in the place of a film of "a"."""
    folder = tmp_path_factory.mktemp("app")
    rng = np.random.default_rng(7)
    videos = {name: rng.standard_normal((60, 24)).astype(np.float32) for name in ("a", "b", "c <i>")}
    write_features(folder / "f.h5", videos, fps=FPS)
    (folder / "model.onnx").write_bytes(model_path.read_bytes())
    (folder / "films").mkdir()
    (folder / "films" / "a.mp4").write_bytes(FILM)
    return folder


class Client:
    """Speaks to a running app."""

    def __init__(self, server: Any) -> None:
        self.server, self.folder = server, server.corrections.csv.parent

    def ask(
        self, method: str, place: str, body: bytes | None = None, *, below: str | None = None, **headers: str
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        """Status, content and headers of an answer; `below` takes the place of the secret."""
        line = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=LAST_RESORT_S)
        secret = self.server.secret if below is None else below
        line.request(
            method, f"/{secret}/{place}", body, {name.replace("_", "-"): text for name, text in headers.items()}
        )
        answer = line.getresponse()
        content = answer.read()
        line.close()
        return answer.status, content, answer.headers

    def json(self, method: str, place: str, body: Any = None) -> tuple[int, Any]:
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        status, answer, _ = self.ask(method, place, content)
        return status, json.loads(answer)

    def save(self, number: int, segments: Any) -> tuple[int, Any]:
        return self.json("POST", f"videos/{number}", {"segments": segments})


@pytest.fixture
def start(app: ModuleType, given: Path, tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """Starts the app with more arguments, in a thread."""
    servers = []
    with ThreadPoolExecutor() as threads:

        def started(*arguments: object, sources: tuple[object, ...] = (given / "f.h5",)) -> Client:
            common = ["--folder", tmp_path / "corrections", "--port", 0, "--provider", "cpu"]
            everything = [given / "model.onnx", *sources, *common, *arguments]
            server = app.create(app.parsed(list(map(str, everything))))
            servers.append(server)
            threads.submit(server.serve_forever, 0.01)
            return Client(server)

        yield started
        for server in servers:
            server.shutdown()
            server.server_close()


def test_what_is_found_is_what_the_detector_finds(start: Callable[..., Client], given: Path) -> None:
    client = start("--films", given / "films")
    status, state = client.json("GET", "state")
    assert status == 200
    assert [(video["name"], video["film"], video["corrected"]) for video in state["videos"]] == [
        ("a", True, False), ("b", False, False), ("c <i>", False, False),
    ]  # fmt: skip
    detector = Detector(given / "model.onnx", provider="cpu")
    assert state["classes"] == list(detector.classes)
    status, found = client.json("GET", "videos/1")
    with open_features(given / "f.h5") as store:
        expected = dict(detector.detect_many(store))["b"]
    assert [row[:3] for row in found["detections"]] == [[round(d.start, 2), round(d.end, 2), d.label] for d in expected]
    assert [row[3] for row in found["detections"]] == pytest.approx(expected.score.tolist(), rel=1e-3)
    assert (found["duration_s"], found["fps"], found["corrected"]) == (DURATION_S, FPS, None)
    assert set(found["curves"]) == {"foreground", *(d.label for d in expected[:10])}
    assert all(0 <= value <= 1 for _, values in found["curves"].values() for value in values)


def test_a_store_is_read_for_one_video_at_a_time(
    start: Callable[..., Client], app: ModuleType, given: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most stores cannot be read by two threads, and each request has one."""
    first, second, other = start(sources=(given / "f.h5",)).server.videos
    plan = app.Detector.scores_planned
    seen = []

    def watched(*arguments: Any) -> Any:
        seen.append([video.source._reading.locked() for video in (first, second, other)])
        return plan(*arguments)

    monkeypatch.setattr(app.Detector, "scores_planned", watched)
    first.source.found()
    second.source.found()
    assert seen == [[True] * 3] * 2


def test_saved_segments_are_labels_and_tasks_and_come_back(start: Callable[..., Client], given: Path) -> None:
    client = start()
    segments = [[12.5, 20.04, "run"], [0, 3.3333, "jump"], [1, 2, "=high jump"]]
    status, answer = client.save(0, segments)
    assert (status, answer["saved"][:64]) == (200, "corrected.csv, corrected.json and corrected_label_studio.json: 3")
    video = read_annotations(client.folder / "corrected.csv")["a"]
    assert list(zip(video.start.tolist(), video.end.tolist(), video.segment_labels, strict=True)) == [
        (0, 3.333, "jump"), (1, 2, "=high jump"), (12.5, 20.04, "run"),
    ]  # fmt: skip
    assert (video.duration_s, video.fps) == (DURATION_S, FPS)
    (track,) = read_source(client.folder / "corrected_label_studio.json").tracks
    assert track.start == pytest.approx([0, 1, 12.48], abs=1e-6)  # whole frames
    assert track.end == pytest.approx([3.36, 2, 20.04], abs=1e-6)

    # A video without an action is a correction, too; the table has no row of it.
    assert client.save(1, [])[0] == 200
    again = start()
    assert [video["corrected"] for video in again.json("GET", "state")[1]["videos"]] == [True, True, False]
    assert again.json("GET", "videos/0")[1]["corrected"] == [
        [0, 3.333, "jump"],
        [1, 2, "=high jump"],
        [12.5, 20.04, "run"],
    ]
    assert again.json("GET", "videos/1")[1]["corrected"] == []
    assert "=high jump" in again.json("GET", "state")[1]["classes"]
    # Nothing but empty videos: a table without rows would be no file of labels.
    assert again.save(0, [])[0] == 200
    assert not (client.folder / "corrected.csv").exists()
    assert [video["corrected"] for video in start().json("GET", "state")[1]["videos"]] == [True, True, False]
    # What training takes as videos in which nothing happens.
    empty = read_annotations(client.folder / "corrected.json")
    assert {name: (video.labels, video.fps, video.duration_s) for name, video in empty.items()} == {
        "a": ((), FPS, DURATION_S), "b": ((), FPS, DURATION_S),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("segments", "said"),
    [
        ([[3, 3, "run"]], "segment 1: expected 0 <= start < end, got 3 to 3"),
        ([[-1, 3, "run"]], "expected 0 <= start < end"),
        ([[0, 1, "run"], [float("nan"), 3, "run"]], "segment 2"),
        ([[0, 1e300, "run"]], "segment 1"),
        ([["x", 1, "run"]], "segment 1: expected a number"),
        ([[0, 1, " "]], "cannot be a class"),
        ([[0, 1, "x" * 201]], "cannot be a class"),
        ([[0, 1, "\ud800"]], "cannot be a class"),
        ([[0, 1, "Run"], [2, 3, "run"]], "differ in case alone"),
        ([[0, 1, "jump; run"], [2, 3, "run"], [4, 5, "jump"]], "reads otherwise"),
        ([[0, 1]], "expected start, end and class"),
        ([[0, 1, "run"]] * 10_001, "at most 10,000"),
        ({"a": 1}, "expected 'segments'"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*is read as 2 labels")
def test_what_no_table_can_hold_changes_nothing(start: Callable[..., Client], segments: Any, said: str) -> None:
    client = start()
    assert client.save(1, [[0, 1, "swim"]])[0] == 200
    before = {path.name: path.read_bytes() for path in client.folder.iterdir()}
    status, answer = client.save(0, segments)
    assert status == 422
    assert said in answer["error"]
    assert str(client.folder) not in answer["error"]
    assert {path.name: path.read_bytes() for path in client.folder.iterdir()} == before


def test_a_loaded_correction_is_read_as_refineloc_convert_reads_it(start: Callable[..., Client]) -> None:
    client = start()
    client.save(0, [[1, 2, "run"], [4.2, 8.08, "jump"]])
    client.save(2, [[0.04, 1, "walk"]])
    files = {"corrected.csv": 1e-9, "corrected.json": 1e-9, "corrected_label_studio.json": 0.04}
    for name, tolerance in files.items():
        status, answer = client.json("POST", f"load?name={name}", (client.folder / name).read_bytes())
        assert status == 200
        assert {video: [row[2] for row in rows] for video, rows in answer["videos"].items()} == {
            "a": ["run", "jump"], "c <i>": ["walk"],
        }  # fmt: skip
        assert answer["videos"]["a"][1][:2] == pytest.approx([4.2, 8.08], abs=tolerance)
    # Tasks that do not state their frames a second get those of the video.
    ranges = {"ranges": [{"start": 26, "end": 50}], "timelinelabels": ["run"]}
    task = [{"data": {"video": "a.mp4"}, "annotations": [{"result": [{"value": ranges}]}]}]
    assert client.json("POST", "load?name=tasks.json", task) == (200, {"videos": {"a": [[1, 2, "run"]]}})
    status, answer = client.json("POST", "load?name=x.srt", b"1\n00:00:01,000 --> 00:00:02,500\nrun\n")
    assert (status, answer) == (200, {"videos": {"x": [[1, 2.5, "run"]]}})
    for name, content in (("x.json", b"{"), ("x.csv", b"a,b\n1,2\n"), ("../x.csv", b""), ("", b"")):
        status, answer = client.json("POST", f"load?name={quote(name)}", content)
        assert status == 422
        assert str(client.folder) not in answer["error"]
    assert sorted(path.name for path in client.folder.iterdir()) == sorted(files)


def test_uploads_stay_in_their_folder(start: Callable[..., Client], given: Path, tmp_path: Path) -> None:
    client = start("--max-upload-mib", "1", sources=())
    content = (given / "f.h5").read_bytes()
    status, state = client.json("POST", "uploads?name=my%20videos.h5", content)
    assert status == 200
    assert [video["name"] for video in state["videos"]] == ["a", "b", "c <i>"]
    assert client.json("GET", "videos/2")[1]["detections"]
    npy = tmp_path / "d.npy"
    np.save(npy, np.random.default_rng(0).standard_normal((20, 24)).astype(np.float32))
    status, answer = client.json("POST", "uploads?name=d.npy", npy.read_bytes())
    assert (status, "fps is not known" in answer["error"]) == (422, True)
    assert client.json("POST", "uploads?name=d.npy&fps=-25", npy.read_bytes())[0] == 422
    assert client.json("POST", "uploads?name=d.npy&fps=25", npy.read_bytes())[0] == 200
    refused = {
        "my videos.h5": "is there already",
        "again.h5": "video 'a' is there twice",
        "../x.h5": "cannot be the name of a file",
        "/etc/x.h5": "cannot be the name of a file",
        "..": "cannot be the name of a file",
        ".hidden.h5": "cannot be the name of a file",
        "a\\b.h5": "cannot be the name of a file",
        "x\0.h5": "cannot be the name of a file",
        "x" * 300 + ".h5": "cannot be the name of a file",
        "film.mp4": "start with --backbone",
    }
    for name, said in refused.items():
        status, answer = client.json("POST", f"uploads?name={quote(name)}", content)
        assert (status, said in answer["error"]) == (422, True), (name, answer)
    for body in (b"no features", b""):
        assert client.json("POST", "uploads?name=x.h5", body)[0] == 422
    status, answer = client.json("POST", "uploads?name=x.h5", bytes(2**20 + 1))
    assert (status, answer["error"]) == (413, "x.h5: larger than 1 MiB; start with --max-upload-mib N")
    uploads = client.folder / "uploads"
    assert sorted(path.name for path in uploads.iterdir()) == ["d.npy", "d_fps.npy", "my videos.h5"]
    assert [path.name for path in client.folder.iterdir()] == ["uploads"]


def test_the_next_start_has_the_uploads_with_their_rates(
    start: Callable[..., Client], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client = start(sources=())
    features = np.random.default_rng(0).standard_normal((20, 24)).astype(np.float32)
    np.save(tmp_path / "d.npy", features)
    write_features(tmp_path / "two.h5", {"e": features, "f": features})
    for name, rate in (("d.npy", 20), ("two.h5", 30)):
        assert client.json("POST", f"uploads?name={name}&fps={rate}", (tmp_path / name).read_bytes())[0] == 200
    uploads = client.folder / "uploads"
    with open_features(uploads / "d.npy") as store:  # for the other programs, too
        assert store.info("d").fps == 20
    again = start("--fps", 50, sources=())
    assert [video["name"] for video in again.json("GET", "state")[1]["videos"]] == ["d", "e", "f"]
    assert [again.json("GET", f"videos/{number}")[1]["fps"] for number in range(3)] == [20, 30, 30]
    # A rate that is not there any more, or is none: the file is left out and told.
    (uploads / "d_fps.npy").unlink()
    (uploads / "two_fps.npy").write_bytes(b"30")
    assert start(sources=()).json("GET", "state")[1]["videos"] == []
    said = capsys.readouterr().err.splitlines()
    assert [line[:10] for line in said] == ["left out: "] * 2
    assert "d.npy: video 'd': its fps is not known" in said[0]
    assert said[1].endswith("two_fps.npy: expected a number of frames a second")


def test_films_are_served_in_parts(start: Callable[..., Client], given: Path) -> None:
    client = start("--films", given / "films")
    size = len(FILM)
    for asked, status, part in (
        ("", 200, FILM),
        ("bytes=0-", 200, FILM),
        ("bytes=5-9", 206, FILM[5:10]),
        ("bytes=10000-999999", 206, FILM[10000:]),
        ("bytes=-7", 206, FILM[-7:]),
        (f"bytes={size}-", 416, b""),
        ("bytes=9-5", 416, b""),
        ("bytes=-0", 416, b""),
        ("lines=1-2", 200, FILM),
        ("bytes=0-1,5-6", 200, FILM),
    ):
        got, content, headers = client.ask("GET", "films/0", Range=asked)
        assert (got, content) == (status, part), asked
        if status == 206:
            first = FILM.index(part) if asked != "bytes=10000-999999" else 10000
            first = size - 7 if asked == "bytes=-7" else first
            assert headers["Content-Range"] == f"bytes {first}-{first + len(part) - 1}/{size}"
    assert headers["Content-Type"] == "video/mp4"
    assert client.ask("GET", "films/1")[0] == 404


def test_nobody_else_is_answered(start: Callable[..., Client], given: Path) -> None:
    client = start("--films", given / "films")
    port = client.server.server_port
    assert client.server.server_address[0] == "127.0.0.1"
    assert len(client.server.secret) >= 32
    body = json.dumps({"segments": [[0, 1, "run"]]}).encode()
    # Without the secret there is nothing, not even which pages there are.
    for place in ("", "state", "videos/0", "films/0", "editor.js", "none"):
        for secret in ("", "x", client.server.secret[:-1], client.server.secret + "x"):
            assert client.ask("GET", place, below=secret)[0] == 403
    assert client.ask("POST", "videos/0", body, below="x")[0] == 403
    # A page of another site whose name was given our address.
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port}.evil.example", ""):
        assert client.ask("GET", "state", Host=host)[0] == 421
        assert client.ask("POST", "videos/0", body, Host=host)[0] == 421
    assert client.ask("GET", "state", Host=f"localhost:{port}")[0] == 200
    for place in ("../app.py", "editor.js/../../app.py", "films/../0", "videos/3", "videos/-1", "page.js", "app.py"):
        assert client.ask("GET", place)[0] == 404
    for line in (f"GET /{client.server.secret}/films/0", "GET http://[x/state"):
        request = f"{line} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
        with socket.create_connection(("127.0.0.1", port), LAST_RESORT_S) as connection:
            connection.sendall(request.encode())
            assert connection.recv(12) == (b"HTTP/1.1 400" if "[" in line else b"HTTP/1.1 200")
    for method in ("PUT", "DELETE", "OPTIONS"):
        assert client.ask(method, "videos/0", b"")[0] == 501
    assert not list(client.folder.iterdir())
    status, content, headers = client.ask("GET", "")
    assert (status, b"<script>" in content, b"onclick" in content) == (200, False, False)
    assert "default-src 'none'; script-src 'self'" in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "Access-Control-Allow-Origin" not in headers


def test_bodies_have_lengths_and_limits(start: Callable[..., Client]) -> None:
    client = start()
    place = f"/{client.server.secret}/videos/0"
    for headers in ({"Transfer-Encoding": "chunked"}, {"Content-Length": "x"}, {"Content-Length": "-1"}):
        line = http.client.HTTPConnection("127.0.0.1", client.server.server_port, timeout=LAST_RESORT_S)
        line.putrequest("POST", place)
        for name, text in headers.items():
            line.putheader(name, text)
        line.endheaders()
        assert line.getresponse().status == 411
        line.close()
    assert client.ask("POST", "videos/0", bytes(4 * 2**20 + 1))[0] == 413
    assert client.json("POST", "videos/0", b"{")[0] == 422
    assert client.ask("GET", "state", b"x")[0] == 400
    # A refused body is received, so that the connection serves the next request.
    line = http.client.HTTPConnection("127.0.0.1", client.server.server_port, timeout=LAST_RESORT_S)
    for expected in (403, 403):
        line.request("POST", "/x/videos/0", bytes(100_000))
        answer = line.getresponse()
        answer.read()
        assert answer.status == expected
    line.close()


def test_labels_say_the_classes_of_a_video(start: Callable[..., Client], tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("video-name,label,video-duration\na,swim,37\n")
    client = start("--labels", tmp_path / "labels.csv")
    _, found = client.json("GET", "videos/0")
    assert {row[2] for row in found["detections"]} == {"swim"}
    assert found["duration_s"] == 37
    assert len({row[2] for row in client.json("GET", "videos/1")[1]["detections"]}) > 1


def test_films_are_detected_in_the_background(start: Callable[..., Client], tmp_path: Path) -> None:
    from films import write_film
    from small_backbone import write_backbone

    write_backbone(tmp_path / "backbone.onnx", width=24, fps=25.0, snippet_frames=16, stride_frames=16)
    for name in ("one", "two"):
        write_film(tmp_path / f"{name}.mp4", range(0, 3000, 40))
    (tmp_path / "broken.mp4").write_bytes(b"no film")
    films = [tmp_path / f"{name}.mp4" for name in ("one", "two", "broken")]
    client = start("--backbone", tmp_path / "backbone.onnx", sources=tuple(films))
    wait_until(
        lambda: all(video["seconds"] is None for video in client.json("GET", "state")[1]["videos"]),
        "films are detected",
    )
    _, found = client.json("GET", "videos/0")
    assert found["duration_s"] == pytest.approx(3, abs=0.1)
    assert found["fps"] == 25
    assert set(found["curves"]) >= {"foreground"}
    status, answer = client.json("GET", "videos/2")
    assert (status, "broken.mp4" in answer["error"]) == (422, True)
    assert client.json("POST", "videos/2", {"segments": []})[0] == 422
    assert client.save(1, [[0, 1, "run"]])[0] == 200
    assert read_annotations(client.folder / "corrected.csv")["two"].fps == 25


def test_a_recording_in_which_nothing_is_stays_corrected(start: Callable[..., Client], tmp_path: Path) -> None:
    from films import write_sound
    from small_backbone import write_backbone

    of_sound = {"kind": "audio", "width": 24, "size": (), "fps": 16.0, "snippet_frames": 16, "stride_frames": 16}
    write_backbone(tmp_path / "ear.onnx", **of_sound)
    noise = np.random.default_rng(0).uniform(-1, 1, 8000 * 9).astype(np.float32)
    write_sound(tmp_path / "hum.wav", noise, 8000)

    def started() -> Client:
        client = start("--backbone", tmp_path / "ear.onnx", sources=(tmp_path / "hum.wav",))
        wait_until(lambda: not client.json("GET", "videos/0")[1].get("waiting"), "the recording is detected in")
        return client

    client = started()
    _, found = client.json("GET", "videos/0")
    assert (found["fps"], found["corrected"]) == (None, None)
    assert client.save(0, [])[0] == 200
    again = started()
    assert [video["corrected"] for video in again.json("GET", "state")[1]["videos"]] == [True]
    assert again.json("GET", "videos/0")[1]["corrected"] == []
    assert client.save(0, [[1, 2, "run"]])[0] == 200
    assert started().json("GET", "videos/0")[1]["corrected"] == [[1, 2, "run"]]


def test_mistakes_on_the_command_line_are_one_line(given: Path, tmp_path: Path, app: ModuleType) -> None:
    command = [sys.executable, str(EXAMPLE), "none.onnx", "--folder", str(tmp_path / "c")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: none.onnx: ")
    assert len(done.stderr.splitlines()) == 1
    model = [str(given / "model.onnx"), "--folder", str(tmp_path / "c"), "--provider", "cpu", "--port", "0"]
    for arguments, said in (
        ([str(given / "films/a.mp4")], "start with --backbone"),
        ([str(given / "f.h5"), str(given / "f.h5")], "video 'a' is there twice"),
        (["--films", str(tmp_path / "none")], "no such folder of films"),
    ):
        with pytest.raises(InputError, match=said):
            app.create(app.parsed([*model, *arguments]))
    for port in ("65536", "-1", "x"):
        with pytest.raises(SystemExit, match="2"):
            app.parsed([*model, f"--port={port}"])
    (tmp_path / "c/corrected.csv").write_text("no,labels\n1,2\n")
    with pytest.raises(InputError, match=r"corrected\.csv"):
        app.create(app.parsed(model))


# --- in a browser -------------------------------------------------------------------------------------------------


class Page:
    """The page of a running app, at a desktop's width."""

    def __init__(self, browser: Any, client: Client) -> None:
        self.browser, self.client = browser, client
        self.chains = pytest.importorskip("selenium.webdriver").ActionChains
        self.keys = pytest.importorskip("selenium.webdriver").Keys
        self.size(1200)
        browser.get(client.server.address)
        self.wait("return !document.getElementById('editor').hidden")

    def size(self, width: int) -> None:
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def run(self, script: str, *arguments: object) -> Any:
        return self.browser.execute_script(script, *arguments)

    def wait(self, script: str) -> None:
        wait_until(lambda: self.run(script), script)

    def all(self, selector: str) -> list[Any]:
        found: list[Any] = self.browser.find_elements("css selector", selector)
        return found

    def one(self, selector: str) -> Any:
        (found,) = self.all(selector)
        return found

    def texts(self, selector: str) -> list[str]:
        return [element.get_property("textContent") for element in self.all(selector)]

    def segments(self) -> list[tuple[float, float, str]]:
        """What Save would write."""
        return [(start, end, label) for start, end, label in json.loads(self.run("return payload()"))]

    def chosen(self) -> dict[str, Any]:
        each: dict[str, Any] = self.run("return chosen() ?? null")
        return each

    def press(self, *keys: str, held: str = "") -> None:
        chain = self.chains(self.browser)
        chain = chain.key_down(held) if held else chain
        for key in keys:
            chain = chain.send_keys(key)
        (chain.key_up(held) if held else chain).perform()

    def drag(self, element: Any, across: int, down: int = 0) -> None:
        self.chains(self.browser).click_and_hold(element).move_by_offset(across, down).release().perform()

    def seconds(self, pixels: float) -> float:
        """How long so many pixels of the time line are."""
        return float(pixels * DURATION_S / self.run("return document.getElementById('track').clientWidth"))

    def save(self) -> dict[str, Any]:
        """Save; what the table then has."""
        self.one("#save").click()
        self.wait("return document.getElementById('saved').textContent.includes('corrected.csv')")
        video = read_annotations(self.client.folder / "corrected.csv")["a"]
        return {"segments": sorted(zip(video.start.tolist(), video.end.tolist(), video.segment_labels, strict=True))}


@pytest.fixture
def page(browser: Any, start: Callable[..., Client], given: Path, tmp_path: Path) -> Iterator[Page]:
    """Of three videos, the first with a film of which one hears nothing."""
    with wave.open(str(tmp_path / "a.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(1)
        sound.setframerate(4000)
        sound.writeframes(bytes([128]) * round(4000 * DURATION_S))
    yield Page(browser, start("--films", tmp_path))
    complaints = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    browser.execute_script("videos = []")  # nothing that is not saved, which would ask before it goes
    assert complaints == []


def first(page: Page) -> Any:
    """Choose the bar of the longest segment, and give its element."""
    longest = page.run("return there().sort((a, b) => b.end - b.start - a.end + a.start)[0].id")
    page.run("focusOn(arguments[0])", longest)
    return page.one(".segment.chosen")


@pytest.mark.long
def test_an_end_that_is_dragged_is_in_the_table(page: Page) -> None:
    bar = first(page)
    before = page.chosen()
    assert before["kept"] is None
    page.drag(bar.find_element("css selector", ".end.stop"), -12)
    after = page.chosen()
    assert after["end"] == pytest.approx(before["end"] - page.seconds(12), abs=0.011)
    assert (after["start"], after["kept"]) == (before["start"], True)
    page.drag(page.one(".chosen .end.start"), 9)
    assert page.chosen()["start"] == pytest.approx(before["start"] + page.seconds(9), abs=0.011)
    assert page.run("return now") == pytest.approx(page.chosen()["start"])  # the film shows that frame
    page.wait("return Math.abs(film.video.currentTime - chosen().start) < 0.1")
    assert page.texts("#saved") == ["not saved"]
    assert page.save()["segments"] == sorted(page.segments())
    assert (page.chosen()["start"], page.chosen()["end"], page.chosen()["label"]) in page.segments()
    # An end stops short of the other end, and at the end of the video.
    page.run("chosen().start = 33; chosen().end = 35; render()")
    page.drag(page.one(".chosen .end.start"), 90)
    assert page.chosen()["end"] - page.chosen()["start"] == pytest.approx(0.05)
    page.run("chosen().end = 38.3; render()")
    page.drag(page.one(".chosen .end.stop"), 8)
    assert page.chosen()["end"] == DURATION_S


@pytest.mark.long
def test_segments_are_moved_relabelled_added_and_deleted(page: Page) -> None:
    bar = first(page)
    before, count = page.chosen(), len(page.segments())
    other = next(
        lane for lane in page.all(".lane[data-label]") if lane.get_dom_attribute("data-label") != before["label"]
    )
    label = other.get_dom_attribute("data-label")
    down = other.rect["y"] + other.rect["height"] / 2 - bar.rect["y"] - bar.rect["height"] / 2
    page.drag(bar, 7, round(down))
    moved = page.chosen()
    assert moved["label"] == label
    assert moved["end"] - moved["start"] == pytest.approx(before["end"] - before["start"], abs=0.011)
    assert moved["id"] == before["id"]

    # A drag where nothing is adds; a click there does not, and chooses nothing.
    lane = page.one(f'.lane[data-label="{moved["label"]}"] .of')
    page.drag(lane, 40)
    added = page.chosen()
    assert (added["label"], added["score"], len(page.segments())) == (moved["label"], None, count + 1)
    assert added["end"] - added["start"] == pytest.approx(page.seconds(40), abs=0.02)
    lane = page.one(f'.lane[data-label="{moved["label"]}"] .of')
    page.chains(page.browser).click(lane).perform()
    assert page.chosen() is None
    assert len(page.segments()) == count + 1

    first(page)
    field = page.one("#details input[name=label]")
    field.send_keys(page.keys.CONTROL + "a")
    field.send_keys("brand <b>new</b>", page.keys.ENTER)
    page.wait("return chosen().label === 'brand <b>new</b>'")
    assert "brand <b>new</b>" in page.texts(".lane .of")
    assert page.all(".lane b") == []
    next(button for button in page.all("#details button") if button.text == "Delete").click()
    assert len(page.segments()) == count
    for _ in range(3):
        page.one("#undo").click()
    assert len(page.segments()) == count  # relabelled no more, and not added
    assert (
        page.run("return edit().segments.find((each) => each.id === arguments[0]).label", moved["id"]) == moved["label"]
    )
    page.one("#redo").click()
    assert len(page.segments()) == count + 1
    assert page.save()["segments"] == sorted(page.segments())


@pytest.mark.long
def test_it_works_by_keyboard(page: Page) -> None:
    # From the field that filters, Tab leads to a segment, and from there to its ends.
    page.one("#scroller").send_keys("")
    page.press(page.keys.TAB)
    chosen = page.chosen()
    assert chosen is not None
    page.press(page.keys.ARROW_RIGHT, page.keys.ARROW_RIGHT)
    page.press(page.keys.ARROW_RIGHT, held=page.keys.SHIFT)
    moved = page.chosen()
    long = chosen["end"] - chosen["start"]
    assert moved["start"] == pytest.approx(min(chosen["start"] + 1.2, DURATION_S - long), abs=0.02)
    page.press(page.keys.TAB, page.keys.TAB)  # its start, its end
    page.press(page.keys.ARROW_LEFT)
    assert page.chosen()["end"] == pytest.approx(moved["end"] - 0.1, abs=0.011)
    assert page.run("return document.activeElement.getAttribute('aria-label')") == f"end of {moved['label']}"
    assert float(page.run("return document.activeElement.getAttribute('aria-valuenow')")) == page.chosen()["end"]
    page.press("z", held=page.keys.CONTROL)
    assert page.chosen()["end"] == moved["end"]
    page.run("seek(20)")
    page.press("n")
    added = page.chosen()
    assert (added["start"], added["kept"]) == (20, True)
    page.run("seek(25)")
    page.press("]")
    assert page.chosen()["end"] == 25
    labels = page.run("return lanes()")
    turn = page.keys.ARROW_UP if labels.index(added["label"]) else page.keys.ARROW_DOWN
    page.press(turn)
    assert page.chosen()["label"] == labels[labels.index(added["label"]) + (-1 if turn == page.keys.ARROW_UP else 1)]
    page.press("s", held=page.keys.CONTROL)
    page.wait("return document.getElementById('saved').textContent.includes('corrected.csv')")
    video = read_annotations(page.client.folder / "corrected.csv")["a"]
    assert (20, 25) in zip(video.start.tolist(), video.end.tolist(), strict=True)
    page.run("focusOn(arguments[0])", added["id"])
    page.press(page.keys.DELETE)
    assert page.chosen() is None
    assert (20, 25) not in [segment[:2] for segment in page.segments()]


@pytest.mark.long
def test_the_least_score_chooses_what_nobody_touched(page: Page) -> None:
    everything = page.run("return edit().segments.length")
    page.run("const s = document.getElementById('least'); s.value = 0; s.dispatchEvent(new Event('input'))")
    assert len(page.segments()) == len(page.all(".segment")) == everything > 4
    first(page)
    page.press(page.keys.ARROW_LEFT, page.keys.ARROW_RIGHT, page.keys.ARROW_RIGHT)
    kept = page.chosen()
    page.run("const s = document.getElementById('least'); s.value = 1000; s.dispatchEvent(new Event('input'))")
    assert page.segments() == [(kept["start"], kept["end"], kept["label"])]
    page.press(page.keys.DELETE)
    page.run("const s = document.getElementById('least'); s.value = 0; s.dispatchEvent(new Event('input'))")
    assert len(page.segments()) == everything - 1  # what was deleted stays so
    page.run("const s = document.getElementById('least'); s.value = 999; s.dispatchEvent(new Event('input'))")
    assert len(page.segments()) >= 1
    assert page.texts("#least-text")[0].endswith(f"of {everything}")


@pytest.mark.long
def test_corrections_come_back_into_the_page(page: Page, tmp_path: Path) -> None:
    first(page)
    page.press(page.keys.ARROW_LEFT)
    saved = page.save()["segments"]
    page.browser.get(page.client.server.address)
    page.wait("return !document.getElementById('editor').hidden")
    assert page.texts("#saved") == ["saved"]
    assert sorted(page.segments()) == saved
    assert page.texts("#videos .mark") == ["✓", "", ""]
    # A file of corrections, of a video that is shown, one that is not, and one that is not here.
    (tmp_path / "mine.csv").write_text("video-name,t-start,t-end,label\na,1,2,run\nb,3,4,jump\nz,5,6,run\n")
    page.one("#load").send_keys(str(tmp_path / "mine.csv"))
    page.wait(
        "return document.getElementById('message').textContent.startsWith('mine.csv: read for 2 videos; not here: z')"
    )
    assert page.segments() == [(1, 2, "run")]
    assert page.texts("#saved") == ["not saved"]
    page.all("#videos button")[1].click()
    page.wait("return video().name === 'b' && !document.getElementById('editor').hidden")
    assert page.segments() == [(3, 4, "jump")]
    page.one("#save").click()
    page.wait("return document.getElementById('saved').textContent.includes('corrected.csv')")
    assert read_annotations(page.client.folder / "corrected.csv")["b"].start.tolist() == [3]
    # A label that the table cannot hold is told, and stays in the page.
    page.run("change(() => add('JUMP', 10, 11))")
    page.one("#save").click()
    page.wait("return document.getElementById('message').textContent.includes('differ in case alone')")
    assert (10, 11, "JUMP") in page.segments()
    page.browser.get_log("browser")  # has the refusal, as an error


@pytest.mark.long
def test_a_file_is_dropped_onto_the_page(page: Page, given: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "late.npy", np.random.default_rng(0).standard_normal((20, 24)).astype(np.float32))
    page.one("#fps").send_keys("25")
    page.one("#file").send_keys(str(tmp_path / "late.npy"))
    page.wait("return document.getElementById('name').textContent === 'late'")
    page.wait("return !document.getElementById('editor').hidden")
    assert page.texts("#videos button span:nth-child(2)") == ["a", "b", "c <i>", "late"]
    assert page.run("return length()") == pytest.approx(20 * 16 / 25)
    assert (page.client.folder / "uploads/late.npy").is_file()


@pytest.mark.long
@pytest.mark.parametrize("width", [390, 1400])
def test_it_fits_the_screen(page: Page, width: int) -> None:
    page.size(width)
    first(page)
    assert page.run("return document.documentElement.scrollWidth") <= width
    page.one("#wide").click()
    assert page.run("return document.getElementById('track').clientWidth") > 1.5 * page.one("#scroller").rect["width"]
    assert page.run("return document.documentElement.scrollWidth") <= width
