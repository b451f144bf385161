"""The Triton example: what its configuration says is what the ONNX file says."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

from refineloc.runtime.model.metadata import ModelMetadata
from refineloc.runtime.model.session import Session

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "triton_server" / "write_repository.py"


@pytest.fixture(scope="module")
def example(load_example: Callable[[str], ModuleType]) -> ModuleType:
    return load_example("triton_server/write_repository.py")


@pytest.fixture
def metadata(model_path: Path) -> ModelMetadata:
    return Session(model_path, "cpu").metadata


def tensors(config: str, kind: str) -> dict[str, tuple[str, list[int]]]:
    rows = re.findall(rf'^{kind} \[ {{ name: "(\w+)" data_type: (\w+) dims: (\[.*?\])', config, re.MULTILINE)
    return {name: (element, json.loads(dims)) for name, element, dims in rows}


def test_the_configuration_says_what_the_graph_says(tmp_path: Path, model_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), str(model_path), str(tmp_path / "repository")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    folder = Path(done.stdout.rstrip("\n"))
    assert folder == tmp_path / "repository" / "refineloc"
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        "1/model.onnx",
        "config.pbtxt",
        "labels.txt",
    ]
    config = (folder / "config.pbtxt").read_text()
    graph = onnx.load(folder / "1" / "model.onnx").graph
    kinds = {onnx.TensorProto.FLOAT: "TYPE_FP32", onnx.TensorProto.INT64: "TYPE_INT64"}
    for kind, values in (("input", graph.input), ("output", graph.output)):
        expected = {}
        for value in values:
            dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in value.type.tensor_type.shape.dim]
            expected[value.name] = (kinds[value.type.tensor_type.elem_type], dims)
        assert tensors(config, kind) == expected
    assert 'name: "refineloc"\nbackend: "onnxruntime"\nmax_batch_size: 0\n' in config
    scores = Session(folder / "1" / "model.onnx", "cpu").run(np.ones((3, 24), np.float32), np.array([1, 2]))
    assert scores.video_scores.shape == (2, 5)
    assert (folder / "labels.txt").read_text().split("\n")[:-1] == list(Session(model_path, "cpu").metadata.classes)


def test_texts_are_escaped_as_protobuf_reads_them(example: ModuleType, metadata: ModelMetadata) -> None:
    odd = replace(metadata, classes=('say "hi"', "back\\slash", "ü", "x", "y"))
    config = example.configuration(odd, "m")
    (text,) = re.findall(r'"refineloc\.classes" value \{ string_value: "(.*)" \} \}$', config, re.MULTILINE)
    read = text.replace("\\\\", "\0").replace('\\"', '"').replace("\0", "\\")
    assert json.loads(read) == list(odd.classes)


def test_triton_itself_would_read_it(example: ModuleType, metadata: ModelMetadata) -> None:
    pytest.importorskip("tritonclient", reason="Triton's own message types: pip install tritonclient")
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    read = text_format.Parse(example.configuration(metadata, "m"), model_config_pb2.ModelConfig())
    assert read.max_batch_size == 0
    assert [list(value.dims) for value in read.input] == [[-1, metadata.width], [-1]]
    assert read.output[3].label_filename == "labels.txt"
    assert json.loads(read.parameters["refineloc.classes"].string_value) == list(metadata.classes)


def test_what_cannot_be_read_is_one_line_and_writes_nothing(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), str(tmp_path / "absent.onnx"), str(tmp_path / "repository")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.fullmatch(r"error: .*absent\.onnx: no such file.*\n", done.stderr)
    assert not (tmp_path / "repository").exists()
