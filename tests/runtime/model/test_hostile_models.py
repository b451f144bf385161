"""Model files that are damaged, foreign, lying or hostile end in one clear line, and open no file but themselves."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper
from small_model import GRAPH

from refineloc.runtime.errors import ModelError
from refineloc.runtime.model import onnx_guard
from refineloc.runtime.model.metadata import FORMAT_VERSION
from refineloc.runtime.model.session import Session


def refuse(path: Path, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        Session(path, provider="cpu")
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def ways_to_tensors(message: Any = onnx.ModelProto.DESCRIPTOR, way: tuple[Any, ...] = ()) -> Iterator[str]:
    """The names of the fields that lead from a model to a tensor, as "graph.initializer"; no field twice on a way."""
    if message is TensorProto.DESCRIPTOR:
        yield ".".join(field.name for field in way)
        return
    for field in message.fields:
        if field.message_type is not None and field not in way:
            yield from ways_to_tensors(field.message_type, (*way, field))


@pytest.mark.parametrize("way", list(ways_to_tensors()))
def test_weights_in_another_file_are_refused_wherever_they_hide(tmp_path: Path, model_path: Path, way: str) -> None:
    model = onnx.load(model_path)
    message: Any = model
    for name in way.split("."):
        value = getattr(message, name)
        message = value.add() if hasattr(value, "add") else value
    message.data_location = TensorProto.EXTERNAL
    message.external_data.add(key="location", value="secret.bin")
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(model.SerializeToString())
    refuse(bad, "external data")


def test_every_field_that_onnx_knows_is_known() -> None:
    """The guard's table of fields, compared with the package's own description of the format."""
    names = {
        "model": onnx.ModelProto,
        "training": onnx.TrainingInfoProto,
        "graph": onnx.GraphProto,
        "function": onnx.FunctionProto,
        "node": onnx.NodeProto,
        "attribute": onnx.AttributeProto,
        "sparse": onnx.SparseTensorProto,
        "tensor": onnx.TensorProto,
    }
    kinds = {message.DESCRIPTOR.name: kind for kind, message in names.items()}
    assert names.keys() == onnx_guard._FIELDS.keys()
    for kind, message in names.items():
        for field in message.DESCRIPTOR.fields:
            holds = kinds.get(field.message_type.name, "") if field.message_type is not None else ""
            known = onnx_guard._FIELDS[kind].get(field.number, "")
            if field.name != "external_data":
                assert known == holds, (kind, field.name)
            lengthy = field.message_type is not None or field.type in (field.TYPE_STRING, field.TYPE_BYTES)
            if lengthy and field.name != "external_data":
                assert field.number in onnx_guard._FIELDS[kind], (kind, field.name)


def varint(value: int) -> bytes:
    written = b""
    while value > 127:
        written += bytes([value & 127 | 128])
        value >>= 7
    return written + bytes([value])


def test_lengths_and_fields_that_readers_could_take_for_others(tmp_path: Path, model_path: Path) -> None:
    content = model_path.read_bytes()
    bad = tmp_path / "bad.onnx"
    for more, message in (
        (varint(2 << 3 | 2) + b"\x81\x00a", "more bytes than it needs"),
        (varint(2 << 3 | 2) + varint(1 | 1 << 32) + b"a", "more bytes than it needs"),
        (varint(99 << 3 | 2) + b"\x01a", "model: field 99 is not known"),
        (b"\x02\x01a", "field 0"),
        (varint(2 << 3 | 3), "wire type 3"),
    ):
        bad.write_bytes(content + more)
        refuse(bad, message)


def test_other_ways_to_other_files(tmp_path: Path, model_path: Path) -> None:
    """A model in ONNX Runtime's own format, and a node whose graph TensorRT would read from a file."""
    model = onnx.load(model_path)
    model.graph.node.append(helper.make_node("EPContext", [], [], domain="com.microsoft", ep_cache_context="a.engine"))
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(model.SerializeToString())
    refuse(bad, "external data")
    content = model_path.read_bytes()
    bad.write_bytes(varint(2 << 3 | 2) + b"\x10zzORTM" + b"z" * 10 + content)
    onnx.ModelProto.FromString(bad.read_bytes())
    refuse(bad, "own format")


def _loop(body: onnx.GraphProto) -> onnx.NodeProto:
    return helper.make_node("Loop", ["rounds", "yes"], ["scan"], body=body)


def _graph_of(*nodes: onnx.NodeProto) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "inner", [], [])


def _as_function(*nodes: onnx.NodeProto) -> onnx.FunctionProto:
    return helper.make_function("local", "twice", [], [], list(nodes), [helper.make_opsetid("", 20)])


@pytest.mark.parametrize(
    "hide",
    [
        lambda model: model.graph.node.append(_loop(_graph_of())),
        lambda model: model.graph.node.insert(0, helper.make_node("SequenceMap", ["a"], ["b"], body=_graph_of())),
        lambda model: model.graph.node.append(
            helper.make_node("Other", [], [], domain="com.microsoft", graphs=[_graph_of()])
        ),
        # Each calls the next one twice: as many calls as 2 to the number of functions.
        lambda model: model.functions.append(_as_function(*[helper.make_node("next", [], [], domain="local")] * 2)),
        lambda model: model.functions.append(_as_function(_loop(_graph_of()))),
    ],
    ids=["loop", "sequence-map", "several-graphs", "functions", "loop-in-a-function"],
)
def test_graphs_that_may_run_for_ever_are_refused(
    tmp_path: Path, model_path: Path, hide: Callable[[onnx.ModelProto], None]
) -> None:
    model = onnx.load(model_path)
    hide(model)
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(model.SerializeToString())
    refuse(bad, "control flow")


def test_a_model_of_others(tmp_path: Path) -> None:
    foreign = helper.make_model(
        helper.make_graph(
            [helper.make_node("Relu", ["x"], ["y"])],
            "foreign",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    path = tmp_path / "foreign.onnx"
    path.write_bytes(foreign.SerializeToString())
    refuse(path, "not a refineloc model")


@pytest.mark.parametrize(
    ("props", "message"),
    [
        ({}, "refineloc.format_version is missing"),
        ({"names": "{0: 'person'}", "stride": "32"}, "refineloc.format_version is missing"),
        ({"refineloc.format_version": str(FORMAT_VERSION)}, "is missing; export the model with refineloc-export"),
        ({"refineloc.format_version": "99"}, "update refineloc"),
    ],
    ids=["none", "of-others", "most-missing", "newer"],
)
def test_metadata_that_are_not_ours(tmp_path: Path, props: dict[str, str], message: str) -> None:
    model = onnx.load(GRAPH)
    helper.set_model_props(model, props)
    path = tmp_path / "bad.onnx"
    path.write_bytes(model.SerializeToString())
    refuse(path, message)


@pytest.mark.parametrize("lie", [{"width": 23}, {"width": 48}, {"classes": ("a", "b")}])
def test_metadata_that_lie_about_the_graph(make_model: Callable[..., Path], lie: dict[str, object]) -> None:
    refuse(make_model(**lie), "do not fit its graph")


@pytest.mark.parametrize("size", [1, 10, 1000, -1])
def test_a_file_that_is_cut_short(tmp_path: Path, model_path: Path, size: int) -> None:
    (tmp_path / "cut.onnx").write_bytes(model_path.read_bytes()[:size])
    refuse(tmp_path / "cut.onnx", "not an ONNX file, or cut short")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello", "not an ONNX file|cannot load it"),
        (bytes(64), "not an ONNX file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(500), "is an HDF5 file"),
        (b"PK\x03\x04" + bytes(500), "is a zip archive"),
    ],
)
def test_a_file_of_another_kind(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    refuse(tmp_path / "model.onnx", message)


def test_no_file(tmp_path: Path) -> None:
    refuse(tmp_path / "none.onnx", "no such file")
    refuse(tmp_path, "is a folder")
    (tmp_path / "empty.onnx").touch()
    refuse(tmp_path / "empty.onnx", "empty file")
    os.mkfifo(tmp_path / "pipe.onnx")  # who opens it waits for ever
    refuse(tmp_path / "pipe.onnx", "not a file")
