"""The session: which provider really runs, and files that are not what they say."""

import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from refineloc.runtime.errors import ConfigError, EngineError, FeatureError, ModelError
from refineloc.runtime.model import session as module
from refineloc.runtime.model.session import EngineWarning, Session


def changed(path: Path, tmp_path: Path, change: Callable[[onnx.ModelProto], None]) -> Path:
    model = onnx.load(str(path))
    change(model)
    out = tmp_path / "changed.onnx"
    out.write_bytes(model.SerializeToString())
    return out


def test_runs_a_packed_batch(model_path: Path, rng: np.random.Generator) -> None:
    session = Session(model_path, "cpu")
    assert session.provider == "cpu"
    lengths = np.array([5, 1, 9], dtype=np.int64)
    scores = session.run(rng.standard_normal((15, 24)).astype(np.float32), lengths)
    assert scores.class_scores.shape == (15, 5)
    assert scores.video_scores.shape == (3, 5)
    np.testing.assert_allclose(scores.class_scores.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(np.add.reduceat(scores.attention, [0, 5, 6]), 1, atol=1e-6)


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_named_provider_that_cannot_run_is_an_error(
    model_path: Path, provider: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "cuda_problem", lambda engine: "no GPU in this test")
    with pytest.raises(EngineError, match=f"'{provider}' (cannot run here: no GPU|is not in the installed)"):
        Session(model_path, provider)


class _Engine:
    """Stands for an ONNX Runtime that lists CUDA; the session that it makes says what it really got."""

    __version__ = "test"

    def __init__(self, real: Any, got: str) -> None:
        self._real = real
        self._got = got
        self.SessionOptions = real.SessionOptions
        self.asked: list[list[str]] = []
        self.options: dict[str, dict[str, str]] = {}
        self.preloaded = 0
        self.called: list[list[int]] = []  # shapes of the features of ordinary calls
        self.bound: list[list[int]] = []  # and of calls by IO binding
        self.fails = False

    def preload_dlls(self) -> None:
        print("libcudnn.so.9 not found")  # ONNX Runtime does
        self.preloaded += 1
        time.sleep(0.01)

    def get_available_providers(self) -> list[str]:
        return ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]

    def InferenceSession(
        self, content: bytes, sess_options: Any, providers: list[tuple[str, Any]], enable_fallback: int
    ) -> Any:
        self.asked.append([name for name, _ in providers])
        self.options |= dict(providers)
        cpu = self._real.InferenceSession(content, sess_options, providers=["CPUExecutionProvider"])
        names = [self._got] if "CUDA" in providers[0][0] or "Tensorrt" in providers[0][0] else ["CPUExecutionProvider"]
        return SimpleNamespace(
            get_providers=lambda: names,
            get_inputs=cpu.get_inputs,
            get_outputs=cpu.get_outputs,
            get_modelmeta=cpu.get_modelmeta,
            run=lambda names, feed: self._run(feed["features"].shape, lambda: cpu.run(names, feed)),
            io_binding=lambda: _Binding(cpu.io_binding(), self),
            run_with_iobinding=lambda binding: cpu.run_with_iobinding(binding.real),
        )

    def _run(self, shape: tuple[int, ...], call: Callable[[], Any]) -> Any:
        if self.fails and self.asked[-1] != ["CPUExecutionProvider"]:
            raise RuntimeError("CUDA error: no kernel image is available for execution on the device")
        self.called.append(list(shape))
        return call()


class _Binding:
    """ONNX Runtime's own, which tells what was bound."""

    def __init__(self, real: Any, engine: _Engine) -> None:
        self.real = real
        self._engine = engine

    def bind_cpu_input(self, name: str, array: Any) -> None:
        if name == "features":
            self._engine.bound.append(list(array.shape))
        self.real.bind_cpu_input(name, array)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def engine_that_gets(got: str, monkeypatch: pytest.MonkeyPatch) -> _Engine:
    import onnxruntime

    engine = _Engine(onnxruntime, got)
    monkeypatch.setattr(module, "load_engine", lambda: engine)
    monkeypatch.setattr(module, "cuda_problem", lambda engine: None)
    monkeypatch.setattr(module, "_warned", set())
    return engine


def test_the_session_is_asked_not_the_list(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine_that_gets("CPUExecutionProvider", monkeypatch)
    with pytest.raises(EngineError, match="'cuda' cannot run here: its libraries do not load"):
        Session(model_path, "cuda")


def test_auto_takes_cuda_where_it_runs(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_that_gets("CUDAExecutionProvider", monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Session(model_path, "auto").provider == "cuda"
    assert engine.asked == [["CUDAExecutionProvider", "CPUExecutionProvider"]]


def test_auto_falls_back_and_says_so_once(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine_that_gets("CPUExecutionProvider", monkeypatch)
    with pytest.warns(EngineWarning, match="runs on the CPU"):
        assert Session(model_path, "auto").provider == "cpu"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Session(model_path, "auto").provider == "cpu"
        assert Session(model_path, "cpu").provider == "cpu"


def test_on_a_gpu_results_are_bound_and_the_same(
    model_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_that_gets("CUDAExecutionProvider", monkeypatch)
    lengths = np.array([5, 1, 9], dtype=np.int64)
    features = rng.standard_normal((15, 24)).astype(np.float32)
    expected = Session(model_path, "cpu").run(features, lengths)
    engine.called.clear()
    session = Session(model_path, "cuda")
    assert engine.called == [[1, 24]], "one snippet is run before it is called running"
    first, second = session.run(features, lengths), session.run(features[::-1], lengths)  # not contiguous
    assert engine.bound == [[15, 24], [15, 24]]
    for one, other, wanted in zip(first.arrays, second.arrays, expected.arrays, strict=True):
        np.testing.assert_array_equal(one, wanted)  # and the second call did not write into the first one's result
        assert not np.array_equal(one, other)
    assert engine.options["CUDAExecutionProvider"] == {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}


def test_a_provider_that_is_registered_and_cannot_run_is_told(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_that_gets("CUDAExecutionProvider", monkeypatch)
    engine.fails = True
    with pytest.raises(EngineError, match=r"'cuda' cannot run here: .*no kernel image"):
        Session(model_path, "cuda")
    with pytest.warns(EngineWarning, match="no kernel image"):
        assert Session(model_path, "auto").provider == "cpu"


def test_a_session_that_cannot_be_made_on_a_gpu_is_no_fault_of_the_file(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver older than CUDA's libraries, say: the CPU takes the file. One that it does not take is bad."""
    engine = engine_that_gets("CUDAExecutionProvider", monkeypatch)
    real = engine.InferenceSession

    def refuse(content: bytes, **options: Any) -> Any:
        if len(options["providers"]) > 1:
            raise RuntimeError("CUDA failure 35: driver version is insufficient")
        return real(content, **options)

    monkeypatch.setattr(engine, "InferenceSession", refuse)
    with pytest.warns(EngineWarning, match="runs on the CPU: .*CUDA failure 35"):
        assert Session(model_path, "auto").provider == "cpu"
    with pytest.raises(EngineError, match=r"'cuda' cannot run here: .*CUDA failure 35"):
        Session(model_path, "cuda")
    damaged = changed(model_path, tmp_path, lambda model: setattr(model.graph.node[0], "op_type", "NoSuchOperator"))
    for provider in ("auto", "cuda"):
        with pytest.raises(ModelError, match=r"changed\.onnx: ONNX Runtime cannot load it"):
            Session(damaged, provider)  # type: ignore[arg-type]


def test_tensorrt_has_cuda_behind_it_and_meets_both_ends_of_its_lengths(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_that_gets("TensorrtExecutionProvider", monkeypatch)
    cache = tmp_path / "engines"
    assert Session(model_path, "tensorrt", batch_snippets=64, engine_cache=cache).provider == "tensorrt"
    assert engine.asked[0] == ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    assert engine.called == [[1, 24], [64, 24]]
    assert engine.options["TensorrtExecutionProvider"]["trt_engine_cache_path"] == str(cache)
    assert cache.is_dir()
    with pytest.raises(ConfigError, match="goes with the provider 'tensorrt'"):
        Session(model_path, "cpu", engine_cache=cache)


def test_int8_products_have_no_gpu(model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def quantised(model: onnx.ModelProto) -> None:
        model.CopyFrom(onnx.load(str(model_path)))
        model.graph.node[0].doc_string = "MatMulInteger"

    engine_that_gets("CUDAExecutionProvider", monkeypatch)
    path = changed(model_path, tmp_path, quantised)
    with pytest.raises(EngineError, match="int8, whose products only the CPU has"):
        Session(path, "cuda")
    with pytest.warns(EngineWarning, match="int8"):
        assert Session(path, "auto").provider == "cpu"


@pytest.mark.parametrize(
    ("threads", "calls", "each"), [(1, 1, 1), (2, 2, 1), (3, 3, 1), (8, 8, 1), (9, 4, 2), (12, 6, 2), (16, 8, 2)]
)
def test_calls_of_an_int8_model_share_out_the_threads(
    make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, threads: int, calls: int, each: int
) -> None:
    made, create = [], module.create_session

    def noted(engine: Any, name: str, content: bytes, providers: list[str], threads: int, **options: Any) -> Any:
        made.append(threads)
        return create(engine, name, content, providers, 1, **options)

    monkeypatch.setattr(module, "create_session", noted)
    session = Session(make_model(precision="int8"), "cpu", threads)
    assert (session.calls, made) == (calls, [threads] if calls == 1 else [threads, each])
    features, lengths = np.ones((7, 24), np.float32), np.array([3, 4])
    one, beside = session.run(features, lengths), session.run(features, lengths, beside=True)
    assert all(np.array_equal(*both) for both in zip(one.arrays, beside.arrays, strict=True))
    assert len(made) == 1 + (calls > 1), "made when the model was loaded"
    session._leave_behind()  # as in a forked process
    assert list(session._sessions) == [1] * (each == 1)
    assert np.array_equal(session.run(features, lengths, beside=True).class_scores, one.class_scores)


def test_one_call_of_another_model_takes_all_threads(model_path: Path) -> None:
    assert Session(model_path, "cpu", 4).calls == 1


def test_libraries_are_looked_for_once_and_output_is_left_as_it_was(
    model_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = engine_that_gets("CUDAExecutionProvider", monkeypatch)
    before = sys.stdout
    with ThreadPoolExecutor(4) as pool:
        made = [pool.submit(Session, model_path, "cuda") for _ in range(8)]
        assert {one.result().provider for one in made} == {"cuda"}
    assert engine.preloaded == 1
    assert sys.stdout is before
    assert capsys.readouterr().out == ""


def test_features_that_overflow_are_the_video_s_fault(model_path: Path) -> None:
    session = Session(model_path, "cpu")
    features, lengths = np.ones((9, 24), np.float32), np.array([2, 4, 3], dtype=np.int64)
    features[2:6] = 3e38
    with pytest.raises(FeatureError, match=r"^f\.h5: video 'b': its features, as large as 3e\+38, overflow"):
        session.run(features, lengths, ["f.h5: video 'a'", "f.h5: video 'b'", "f.h5: video 'c'"])


@pytest.mark.parametrize("threads", [-1, 1025, 9_999_999_999, 1.5])
def test_wrong_options(model_path: Path, threads: Any) -> None:
    with pytest.raises(ConfigError, match="provider"):
        Session(model_path, "gpu")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="threads"):
        Session(model_path, "cpu", threads=threads)
    with pytest.raises(ConfigError, match="batch_snippets"):
        Session(model_path, "cpu", batch_snippets=2**20 + 1)


def test_weights_that_are_not_numbers_end_in_one_line(model_path: Path, tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            values = onnx.numpy_helper.to_array(tensor)
            if values.dtype == np.float32 and values.size > 1:
                tensor.CopyFrom(onnx.numpy_helper.from_array(np.full_like(values, np.nan), tensor.name))

    session = Session(changed(model_path, tmp_path, change), "cpu")
    with pytest.raises(ModelError, match=r"changed\.onnx: its .* have values not finite; the file is damaged"):
        session.run(np.ones((3, 24), np.float32), np.array([3]))


def of_a_later_ir(model: onnx.ModelProto) -> None:
    model.ir_version = 99


def of_a_later_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 99


@pytest.mark.parametrize("change", [of_a_later_ir, of_a_later_opset])
def test_a_file_that_needs_a_later_engine_says_so(
    model_path: Path, tmp_path: Path, change: Callable[[onnx.ModelProto], None]
) -> None:
    with pytest.raises(ModelError, match=r"is newer than the installed ONNX Runtime .*99.*: pip install -U") as caught:
        Session(changed(model_path, tmp_path, change), "cpu")
    assert "\n" not in str(caught.value)
    assert "onnxruntime_src" not in str(caught.value)


def test_a_file_of_a_later_format_needs_a_later_refineloc(model_path: Path, tmp_path: Path) -> None:
    """Also where the later format has other outputs."""

    def change(model: onnx.ModelProto) -> None:
        (entry,) = [entry for entry in model.metadata_props if entry.key == "refineloc.format_version"]
        entry.value = "99"
        del model.graph.output[-1]

    with pytest.raises(ModelError, match=r"changed\.onnx: metadata: format_version: .* got 99; update refineloc"):
        Session(changed(model_path, tmp_path, change), "cpu")


def test_a_call_that_the_engine_cannot_run_is_an_error_of_the_engine(model_path: Path) -> None:
    with pytest.raises(EngineError, match=r"model\.onnx: ONNX Runtime fails on 3 snippets") as caught:
        Session(model_path, "cpu").run(np.ones((3, 23), np.float32), np.array([3]))
    assert "\n" not in str(caught.value)
