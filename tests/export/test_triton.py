"""The Triton model repository: files, configuration, and a model that runs from there."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from refineloc.export.graph import build_graph, save_graph
from refineloc.export.triton import triton_config, write_triton
from refineloc.runtime.errors import ConfigError, ModelError, OutputError
from refineloc.runtime.model.metadata import ModelMetadata
from refineloc.runtime.model.session import Session
from refineloc.training.models.bases.refineloc import RefineLoc


@pytest.fixture(scope="module")
def graph() -> bytes:
    return build_graph(RefineLoc(24, 5), 24).SerializeToString()


@pytest.fixture
def model(tmp_path: Path, graph: bytes, metadata: ModelMetadata) -> Path:
    path = tmp_path / "exported.onnx"
    save_graph(path, onnx.ModelProto.FromString(graph), metadata)
    return path


def tensors(config: str, kind: str) -> dict[str, tuple[str, list[int]]]:
    found = re.findall(rf'^{kind} \[ {{ name: "(\w+)" data_type: (\w+) dims: (\[.*?\])', config, re.MULTILINE)
    return {name: (element, json.loads(dims)) for name, element, dims in found}


def test_the_configuration_says_what_the_graph_says(tmp_path: Path, model: Path) -> None:
    place = write_triton(tmp_path / "repository", model)
    assert sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()) == [
        "1/model.onnx",
        "config.pbtxt",
        "labels.txt",
    ]
    config = (place / "config.pbtxt").read_text()
    graph = onnx.load(place / "1" / "model.onnx").graph
    kinds = {onnx.TensorProto.FLOAT: "TYPE_FP32", onnx.TensorProto.INT64: "TYPE_INT64"}
    for kind, values in (("input", graph.input), ("output", graph.output)):
        expected = {}
        for value in values:
            dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in value.type.tensor_type.shape.dim]
            expected[value.name] = (kinds[value.type.tensor_type.elem_type], dims)
        assert tensors(config, kind) == expected
    assert 'name: "refineloc"\nbackend: "onnxruntime"\nmax_batch_size: 0\n' in config
    scores = Session(place / "1" / "model.onnx", "cpu").run(np.ones((3, 24), np.float32), np.array([1, 2]))
    assert scores.video_scores.shape == (2, 5)
    assert (place / "labels.txt").read_text().split("\n")[:-1] == list(Session(model, "cpu").metadata.classes)


def test_texts_are_escaped_as_protobuf_reads_them(metadata: ModelMetadata) -> None:
    odd = replace(metadata, classes=('say "hi"', "back\\slash", "ü", "x", "y"))
    config = triton_config(odd, "m")
    (text,) = re.findall(r'"refineloc\.classes" value \{ string_value: "(.*)" \} \}$', config, re.MULTILINE)
    read = text.replace("\\\\", "\0").replace('\\"', '"').replace("\0", "\\")
    assert json.loads(read) == list(odd.classes)


def test_triton_itself_would_read_it(metadata: ModelMetadata) -> None:
    pytest.importorskip("tritonclient", reason="Triton's own message types: pip install tritonclient")
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    read = text_format.Parse(triton_config(metadata, "m"), model_config_pb2.ModelConfig())
    assert read.max_batch_size == 0
    assert [list(value.dims) for value in read.input] == [[-1, metadata.width], [-1]]
    assert read.output[3].label_filename == "labels.txt"
    assert json.loads(read.parameters["refineloc.classes"].string_value) == list(metadata.classes)


@pytest.mark.parametrize("name", ["", "a/b", "..", 'a"b', "a\nb"])
def test_names_that_are_no_folder_are_refused(tmp_path: Path, model: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        write_triton(tmp_path, model, name)
    assert list(tmp_path.iterdir()) == [model]


def test_what_cannot_be_written_or_read_is_one_line(tmp_path: Path, model: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError, match="cannot be written"):
        write_triton(tmp_path / "file", model)
    with pytest.raises(ModelError, match="no such file"):
        write_triton(tmp_path / "repository", tmp_path / "absent.onnx")
    assert not (tmp_path / "repository").exists()
