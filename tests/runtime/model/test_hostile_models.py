"""Model files that are damaged, foreign, lying or hostile end in one clear line, and open no file but themselves."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_model import GRAPH

from refineloc.runtime.errors import ModelError
from refineloc.runtime.model import onnx_guard
from refineloc.runtime.model.session import Session


@pytest.fixture
def good(model_path: Path) -> Path:
    return model_path


def refuse(path: Path, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        Session(path, provider="cpu")
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def outside(tensor: TensorProto, location: str) -> None:
    """Make a tensor say that its data lie in another file."""
    size = len(numpy_helper.to_array(tensor).tobytes())
    for field in ("raw_data", "float_data", "int64_data"):
        tensor.ClearField(field)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(size))):
        tensor.external_data.add(key=key, value=value)


@pytest.mark.parametrize("how", ["relative", "absolute", "symlink", "parent"])
def test_weights_in_another_file_are_not_followed(tmp_path: Path, good: Path, how: str) -> None:
    model = onnx.load(good)
    tensor = model.graph.initializer[0]
    secret = tmp_path / "secret.bin"
    secret.write_bytes(numpy_helper.to_array(tensor).tobytes())
    (tmp_path / "link.bin").symlink_to(secret)
    place = {"relative": "secret.bin", "absolute": str(secret), "symlink": "link.bin", "parent": "../x/secret.bin"}[how]
    outside(tensor, place)
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(model.SerializeToString())
    refuse(bad, "external data")


def in_an_attribute(model: onnx.ModelProto, tensor: TensorProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["spare"], value=tensor))


def in_a_list(model: onnx.ModelProto, tensor: TensorProto) -> None:
    node = model.graph.node.add(op_type="Relu")
    node.attribute.add(name="a", type=onnx.AttributeProto.TENSORS).tensors.append(tensor)


def branch(tensor: TensorProto) -> onnx.GraphProto:
    return helper.make_graph([], "branch", [], [helper.make_tensor_value_info("x", 1, [1])], [tensor])


def in_a_branch(model: onnx.ModelProto, tensor: TensorProto) -> None:
    both = {"then_branch": branch(tensor), "else_branch": branch(tensor)}
    model.graph.node.append(helper.make_node("If", ["condition"], ["spare"], **both))


def in_a_list_of_graphs(model: onnx.ModelProto, tensor: TensorProto) -> None:
    node = model.graph.node.add(op_type="Relu")
    node.attribute.add(name="a", type=onnx.AttributeProto.GRAPHS).graphs.append(branch(tensor))


def in_a_function(model: onnx.ModelProto, tensor: TensorProto) -> None:
    node = helper.make_node("Constant", [], ["y"], value=tensor)
    model.functions.append(helper.make_function("local", "f", [], ["y"], [node], [helper.make_opsetid("", 20)]))


def in_the_default_of_a_function(model: onnx.ModelProto, tensor: TensorProto) -> None:
    function = helper.make_function("local", "f", [], [], [], [helper.make_opsetid("", 20)])
    function.attribute_proto.add(name="w", type=onnx.AttributeProto.TENSOR).t.CopyFrom(tensor)
    model.functions.append(function)


def in_training_info(model: onnx.ModelProto, tensor: TensorProto) -> None:
    model.training_info.add().algorithm.initializer.append(tensor)


def in_a_sparse_tensor(model: onnx.ModelProto, tensor: TensorProto) -> None:
    model.graph.sparse_initializer.add().values.CopyFrom(tensor)


def in_the_indices_of_a_sparse_attribute(model: onnx.ModelProto, tensor: TensorProto) -> None:
    node = model.graph.node.add(op_type="Constant")
    node.attribute.add(name="a", type=onnx.AttributeProto.SPARSE_TENSOR).sparse_tensor.indices.CopyFrom(tensor)


@pytest.mark.parametrize(
    "hide",
    [
        in_an_attribute,
        in_a_list,
        in_a_branch,
        in_a_list_of_graphs,
        in_a_function,
        in_the_default_of_a_function,
        in_training_info,
        in_a_sparse_tensor,
        in_the_indices_of_a_sparse_attribute,
    ],
)
def test_wherever_they_hide(tmp_path: Path, good: Path, hide: Callable[[onnx.ModelProto, TensorProto], None]) -> None:
    model = onnx.load(good)
    tensor = numpy_helper.from_array(np.zeros(1, np.float32), "x")
    outside(tensor, "secret.bin")
    hide(model, tensor)
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


def varint(value: int, size: int = 0) -> bytes:
    """In `size` bytes, or as few as it takes."""
    found = b""
    while value > 127 or len(found) + 1 < size:
        found += bytes([value & 127 | 128])
        value >>= 7
    return found + bytes([value])


def with_bit_32(key: int) -> bytes:
    """protobuf drops the bits above the 32nd of a key: it reads `key`."""
    return varint(key | 1 << 32)


def padded(key: int) -> bytes:
    return varint(key, 5)


@pytest.mark.parametrize("key", [with_bit_32, padded])
@pytest.mark.parametrize("where", ["relative", "absolute", "beside"])
def test_keys_that_are_written_too_long_hide_nothing(
    tmp_path: Path, good: Path, key: Callable[[int], bytes], where: str
) -> None:
    model = onnx.load(good)
    tensor = model.graph.initializer[0]
    values = tensor.raw_data
    weights = tmp_path / "weights.bin"
    weights.write_bytes(values)
    tensor.ClearField("raw_data")
    location = {"relative": "weights.bin", "absolute": str(weights), "beside": f"../{tmp_path.name}/weights.bin"}
    content = tensor.SerializeToString()
    for name, value in (("location", location[where]), ("offset", "0"), ("length", str(len(values)))):
        entry = onnx.StringStringEntryProto(key=name, value=value).SerializeToString()
        content += key(13 << 3 | 2) + varint(len(entry)) + entry
    content += key(14 << 3) + b"\x01"
    del model.graph.initializer[0]
    graph = model.graph.SerializeToString() + varint(5 << 3 | 2) + varint(len(content)) + content
    model.ClearField("graph")
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(model.SerializeToString() + varint(7 << 3 | 2) + varint(len(graph)) + graph)
    if where == "relative":  # ONNX Runtime itself takes the weights from the other file
        assert onnxruntime.InferenceSession(str(bad), providers=["CPUExecutionProvider"]).get_inputs()
    refuse(bad, "written in more bytes than it needs")


def test_lengths_and_fields_that_readers_could_take_for_others(tmp_path: Path, good: Path) -> None:
    content = good.read_bytes()
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


def test_other_ways_to_other_files(tmp_path: Path, good: Path) -> None:
    """A model in ONNX Runtime's own format, and a node whose graph TensorRT would read from a file."""
    model = onnx.load(good)
    model.graph.node.append(helper.make_node("EPContext", [], [], domain="com.microsoft", ep_cache_context="a.engine"))
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(model.SerializeToString())
    refuse(bad, "external data")
    content = good.read_bytes()
    bad.write_bytes(varint(2 << 3 | 2) + b"\x10zzORTM" + b"z" * 10 + content)
    onnx.ModelProto.FromString(bad.read_bytes())
    refuse(bad, "own format")


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
        ({"refineloc.format_version": "1"}, "is missing; export the model with refineloc-export"),
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


@pytest.mark.parametrize("size", [0, 1, 10, 1000, -1])
def test_a_file_that_is_cut_short(tmp_path: Path, good: Path, size: int) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes(good.read_bytes()[:size])
    with pytest.raises(ModelError, match=str(path)):
        Session(path, provider="cpu")


@pytest.mark.parametrize(
    "content", [b"hello", b"\x89HDF\r\n\x1a\n" + bytes(500), b"PK\x03\x04" + bytes(500), bytes(64)]
)
def test_a_file_of_another_kind(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=str(path)):
        Session(path, provider="cpu")


def test_no_file(tmp_path: Path) -> None:
    refuse(tmp_path / "none.onnx", "no such file")
    refuse(tmp_path, "is a folder")


MUTATE = textwrap.dedent(
    """
    import json, resource, sys
    import numpy as np
    from refineloc.runtime.errors import RefineLocError
    from refineloc.runtime.model.session import Session
    good, bad, seed, cases = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    import onnxruntime
    resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, 4 << 30))
    content = open(good, "rb").read()
    generator = np.random.default_rng(seed)
    counts = {"read": 0, "refused": 0}
    for case in range(cases):
        changed = bytearray(content)
        for place in generator.integers(0, len(content), generator.integers(1, 6)):
            changed[place] = generator.integers(256)
        if case % 4 == 0:
            del changed[generator.integers(len(content)) :]
        open(bad, "wb").write(changed)
        try:
            Session(bad, provider="cpu", threads=1)
            counts["read"] += 1
        except RefineLocError as error:
            assert "\\n" not in str(error), error
            counts["refused"] += 1
    print(json.dumps(counts))
    """
)


def test_changed_bytes_end_in_one_line(tmp_path: Path, good: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MUTATE, str(good), str(tmp_path / "bad.onnx"), "0", "400"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts["read"] + counts["refused"] == 400
    assert counts["refused"] > 100
