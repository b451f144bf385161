"""The session: which provider really runs, and files that are not what they say."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from refineloc.runtime import session as module
from refineloc.runtime.errors import ConfigError, EngineError, ModelError
from refineloc.runtime.session import EngineWarning, Session


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

    def get_available_providers(self) -> list[str]:
        return ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]

    def InferenceSession(
        self, content: bytes, sess_options: Any, providers: list[tuple[str, Any]], enable_fallback: int
    ) -> Any:
        self.asked.append([name for name, _ in providers])
        cpu = self._real.InferenceSession(content, sess_options, providers=["CPUExecutionProvider"])
        names = [self._got] if "CUDA" in providers[0][0] or "Tensorrt" in providers[0][0] else ["CPUExecutionProvider"]
        return SimpleNamespace(
            get_providers=lambda: names,
            get_inputs=cpu.get_inputs,
            get_outputs=cpu.get_outputs,
            get_modelmeta=cpu.get_modelmeta,
            run=cpu.run,
        )


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


def test_wrong_options(model_path: Path) -> None:
    with pytest.raises(ConfigError, match="provider"):
        Session(model_path, "gpu")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="threads"):
        Session(model_path, "cpu", threads=-1)


def rename_output(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.output[:] = ["other" if name == "attention" else name for name in node.output]
        node.input[:] = ["other" if name == "attention" else name for name in node.input]
    for value in model.graph.output:
        if value.name == "attention":
            value.name = "other"


def drop_metadata(model: onnx.ModelProto) -> None:
    del model.metadata_props[:]


def lie_about(key: str, text: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        for prop in model.metadata_props:
            if prop.key == f"refineloc.{key}":
                prop.value = text

    return change


def external(location: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rename_output, "not a refineloc model: expected the inputs features, lengths"),
        (drop_metadata, "format_version is missing"),
        (lie_about("format_version", "99"), "format_version: expected 1, got 99; update refineloc"),
        (lie_about("width", "25"), "do not fit its graph: features"),
        (lie_about("classes", '["a", "b"]'), "do not fit its graph: class_scores"),
        (lie_about("classes", "[1]"), "classes"),
        (lie_about("alpha_c", "nan"), "alpha_c"),
        (external("weights.bin"), "external data"),
        (external("../../etc/passwd"), "external data"),
        (external("/etc/passwd"), "external data"),
    ],
)
def test_one_line_for_each_wrong_model(
    model_path: Path, tmp_path: Path, change: Callable[[onnx.ModelProto], None], message: str
) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        Session(changed(model_path, tmp_path, change), "cpu")
    assert "changed.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_external_data_inside_a_node_is_found(model_path: Path, tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        tensor = onnx.TensorProto(name="x", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value="weights.bin")
        model.graph.node.append(onnx.helper.make_node("Constant", [], ["unused"], value=tensor))

    with pytest.raises(ModelError, match="external data"):
        Session(changed(model_path, tmp_path, change), "cpu")


def test_files_that_are_no_models(model_path: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(model_path.read_bytes()[:-100])
    empty = tmp_path / "empty.onnx"
    empty.touch()
    text = tmp_path / "text.onnx"
    text.write_text("not a model, but long enough to look at")
    for path, message in (
        (tmp_path / "absent.onnx", "no such file"),
        (cut, "not an ONNX file, or cut short"),
        (empty, "empty file"),
        (text, "not an ONNX file|cannot load it"),
        (tmp_path, "is a folder"),
    ):
        with pytest.raises(ModelError, match=message):
            Session(path, "cpu")


def test_weights_that_are_not_numbers_end_in_one_line(model_path: Path, tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            values = onnx.numpy_helper.to_array(tensor)
            if values.dtype == np.float32 and values.size > 1:
                tensor.CopyFrom(onnx.numpy_helper.from_array(np.full_like(values, np.nan), tensor.name))

    session = Session(changed(model_path, tmp_path, change), "cpu")
    with pytest.raises(ModelError, match=r"changed\.onnx: its .* have values not finite; the file is damaged"):
        session.run(np.ones((3, 24), np.float32), np.array([3]))


def test_a_call_that_the_engine_cannot_run_is_an_error_of_the_engine(model_path: Path) -> None:
    with pytest.raises(EngineError, match=r"model\.onnx: ONNX Runtime fails on 3 snippets") as caught:
        Session(model_path, "cpu").run(np.ones((3, 23), np.float32), np.array([3]))
    assert "\n" not in str(caught.value)


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.onnx")
    with pytest.raises(ModelError, match="not a file"):
        Session(tmp_path / "model.onnx", "cpu")
