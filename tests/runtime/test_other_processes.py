"""A detector in other processes: pickled, copied, forked; and models that have no path."""

import copy
import io
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.resources import files
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_backbone import write_backbone
from waiting import LAST_RESORT_S

import refineloc.runtime.model.session as session_module
from refineloc.runtime import ConfigError, Detector, EngineError, ModelError, StreamingDetector

FEATURES = np.random.default_rng(0).standard_normal((120, 24)).cumsum(axis=0).astype(np.float16) / 8


def found(detector: Detector) -> list[Any]:
    detections = list(detector.detect(FEATURES, fps=25.0))
    assert len(detections) > 3, "a test on nothing"
    return detections


@pytest.mark.parametrize("copied", [lambda it: pickle.loads(pickle.dumps(it)), copy.deepcopy, copy.copy])
def test_a_copy_finds_the_same(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copied: Callable[[Any], Any]
) -> None:
    monkeypatch.chdir(model_path.parent)
    for model in (model_path.name, model_path.read_bytes(), [model_path.name, model_path.read_bytes()]):
        detector = Detector(model, provider="cpu", threads=2, top_k=1, batch_snippets=64, spin=True)
        expected = found(detector)  # and float16's converter is made
        monkeypatch.chdir(tmp_path)  # a relative path is that of the first process
        other = copied(detector)
        assert found(other) == expected
        assert (other.settings, other.metadata) == (detector.settings, detector.metadata)
        assert other._batch_snippets == 64
        for session in getattr(other._session, "sessions", [other._session]):
            assert (session._threads, session._spin) == (2, True)
        monkeypatch.chdir(model_path.parent)


def test_a_pickle_has_the_path_or_the_bytes(model_path: Path) -> None:
    size = model_path.stat().st_size
    assert len(pickle.dumps(Detector(model_path, provider="cpu"))) < 2000
    assert len(pickle.dumps(Detector(model_path.read_bytes(), provider="cpu"))) > size


def test_a_file_that_was_replaced_makes_no_other_detector(make_model: Callable[..., Path], tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    shutil.copy(make_model(), path)
    pickled = pickle.dumps(Detector(path, provider="cpu"))
    shutil.copy(make_model(iteration=2), path)
    with pytest.raises(ModelError, match=r"model\.onnx: was replaced"):
        pickle.loads(pickled)
    path.unlink()
    with pytest.raises(ModelError, match=r"model\.onnx: no such file"):
        pickle.loads(pickled)


def test_a_stream_goes_on_in_a_copy(model_path: Path) -> None:
    stream = StreamingDetector(Detector(model_path, provider="cpu", threads=1), fps=25.0)
    first = stream.push(FEATURES[:70])
    other = pickle.loads(pickle.dumps(stream))
    assert other.push(FEATURES[70:]) + other.finish() == stream.push(FEATURES[70:]) + stream.finish()
    assert list(other.detections()) == list(stream.detections())
    assert len(first) > 0


def test_a_spawned_worker_takes_it(model_path: Path) -> None:
    detector = Detector(model_path, provider="cpu", threads=1)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        assert pool.submit(found, detector).result(LAST_RESORT_S) == found(detector)


FORK = """
import os, sys
import numpy as np
from refineloc.runtime import Detector
from refineloc.runtime.video.backbone import Backbone
detector = Detector(sys.argv[1], provider="cpu", threads=int(sys.argv[2]))
backbone = Backbone(sys.argv[3], provider="cpu", threads=int(sys.argv[2]))
frames = np.full((3, 5, 16, 16, 3), 51, dtype=np.uint8)
assert np.allclose(backbone.features(frames), 0.2)
features = np.random.default_rng(0).standard_normal((300, 24)).astype(np.float32)
detections = list(detector.detect(features, fps=25.0))
for used in (False, True):
    child = os.fork()
    if child == 0:
        if used:
            assert list(detector.detect(features, fps=25.0)) == detections
            assert list(dict(detector.detect_many({"v": features}, fps=25.0))["v"]) == detections
            assert np.allclose(backbone.features(frames), 0.2)
        sys.exit(7)  # the ordinary way, which ends what a process has
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert list(detector.detect(features, fps=25.0)) == detections
print(len(detections))
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_a_forked_child_detects_and_ends(model_path: Path, tmp_path: Path, threads: int) -> None:
    backbone = write_backbone(tmp_path / "b.onnx")
    command = [sys.executable, "-W", "ignore", "-c", FORK, str(model_path), str(threads), str(backbone)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LAST_RESORT_S)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 3


def test_a_forked_child_has_no_gpu(model_path: Path) -> None:
    detector = Detector(model_path, provider="cpu", threads=1)
    detector._session.provider = "cuda"  # stands for a session that runs there
    detector._session._leave_behind()
    with pytest.raises(EngineError, match="'cuda' cannot run in a forked process; start it with 'spawn'"):
        detector.scores(FEATURES)


def test_a_forked_child_takes_no_other_model(make_model: Callable[..., Path], tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    shutil.copy(make_model(), path)
    detector = Detector(path, provider="cpu", threads=2)
    shutil.copy(make_model(iteration=2), path)
    detector._session._leave_behind()
    with pytest.raises(ModelError, match="was replaced"):
        detector.scores(FEATURES)


def test_models_without_a_path(model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = model_path.read_bytes()
    with zipfile.ZipFile(tmp_path / "app.zip", "w") as archive:
        archive.writestr("app/__init__.py", "")
        archive.writestr("app/model.onnx", content)
    monkeypatch.syspath_prepend(str(tmp_path / "app.zip"))
    expected = found(Detector(model_path, provider="cpu"))

    class Trickle(io.RawIOBase):
        """Gives a few bytes at a time, as a socket does."""

        def __init__(self) -> None:
            self._rest = content

        def read(self, size: int = -1) -> bytes:
            part, self._rest = self._rest[: min(size, 1000)], self._rest[min(size, 1000) :]
            return part

    with model_path.open("rb") as file, model_path.open("rb", buffering=0) as raw:
        for model in (
            *(content, bytearray(content), memoryview(content), io.BytesIO(content), file, raw, Trickle()),
            zipfile.Path(tmp_path / "app.zip", "app/model.onnx"),
            files("app") / "model.onnx",
        ):
            assert found(Detector(model, provider="cpu")) == expected


def damaged_zip(tmp_path: Path) -> zipfile.Path:
    path = tmp_path / "damaged.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.onnx", b"abc" * 100)
    path.write_bytes(path.read_bytes().replace(b"abcabc", b"abcabd", 1))
    return zipfile.Path(path, "model.onnx")


def closed() -> io.BytesIO:
    file = io.BytesIO(b"x")
    file.close()
    return file


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (None, ConfigError, "model: expected a path, bytes or a binary file, got None"),
        (7, ConfigError, "got 7"),
        ({"model.onnx"}, ConfigError, r"got \{'model.onnx'\}"),
        (b"model.onnx", ModelError, "model given as bytes: not an ONNX file"),
        (b"", ModelError, "model given as bytes: empty"),
        (io.StringIO("text"), ModelError, "gives text; open it in binary mode"),
        (io.BytesIO(b""), ModelError, r"empty; .*seek\(0\)"),
        (closed(), ModelError, "cannot be read: I/O operation on closed file"),
        (damaged_zip, ModelError, r"damaged\.zip/model\.onnx: cannot be read: Bad CRC"),
        (lambda folder: damaged_zip(folder).parent / "none.onnx", ModelError, "none.onnx: cannot be read"),
        (lambda folder: damaged_zip(folder).parent, ModelError, "cannot be read"),
        ("", ModelError, "is a folder"),
        ("model\0.onnx", ModelError, "cannot be read"),
    ],
)
def test_what_is_no_model_is_one_line(tmp_path: Path, model: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        Detector(model(tmp_path) if callable(model) else model, provider="cpu")
    assert "\n" not in str(caught.value)


def test_a_file_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refineloc.runtime.model.onnx_guard._MAX_BYTES", 5 * 2**20)
    with open("/dev/zero", "rb") as endless, pytest.raises(ModelError, match="/dev/zero: larger than"):
        Detector(endless, provider="cpu")


def test_threads_do_not_spin_unless_asked(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spinning threads take a core each after every call: 0.5 s of CPU for 40 calls that need 0.2 s."""
    entries: list[str] = []
    real = session_module.load_engine()

    class Engine:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def InferenceSession(self, *arguments: Any, sess_options: Any, **more: Any) -> Any:
            entries.append(sess_options.get_session_config_entry("session.intra_op.allow_spinning"))
            return real.InferenceSession(*arguments, sess_options=sess_options, **more)

    monkeypatch.setattr(session_module, "load_engine", Engine)
    Detector(model_path, provider="cpu")
    Detector(model_path, provider="cpu", spin=True)
    assert entries == ["0", "1"]
