"""Honest and hostile files to change, and the ways to change them: byte by byte, and knowing what the bytes mean.

Files that point outside point to files that are there and are what they should be, so that who follows them succeeds.
"""

import io
import json
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

WIDTH = 24
SIZES = (0, 1, 0x7FFFFFFF, 0x80000000, 2**40, 2**63 - 1, 2**64 - 1)
OUTSIDE_RAW, OUTSIDE_H5 = "outside.bin", "outside.h5"


def write_features(folder: Path) -> None:
    """Every layout that is read, and files that point outside."""
    values = np.random.default_rng(0).standard_normal((6, WIDTH)).astype(np.float32)
    with h5py.File(folder / "plain.h5", "w") as file:
        file["a"] = values
        file["b"] = values.astype(np.float16)
        file["a"].attrs["fps"] = 25.0
    with h5py.File(folder / "grouped.h5", "w", libver="latest") as file:
        file["a/features"] = values
        file["a"].attrs.update(fps=30, duration=4.5, snippet_frames=16, note="a text")
    with h5py.File(folder / "packed.h5", "w") as file:
        options = {"chunks": (3, WIDTH), "compression": "gzip", "shuffle": True, "fletcher32": True}
        file.create_dataset("a", data=values, maxshape=(None, WIDTH), **options)
        file.create_dataset("b", data=values.round(), chunks=(2, 12), compression="lzf")
    with h5py.File(folder / OUTSIDE_H5, "w") as file:
        file["a"] = values
    layout = h5py.VirtualLayout(values.shape, "f4")
    layout[:] = h5py.VirtualSource(OUTSIDE_H5, "a", values.shape)
    with h5py.File(folder / "pointing.h5", "w") as file:
        file["a"] = values
        file["link"] = h5py.ExternalLink(OUTSIDE_H5, "/a")
        file["soft"] = h5py.SoftLink("/link")
        file["group/features"] = h5py.ExternalLink(OUTSIDE_H5, "/a")
        file.create_dataset("storage", values.shape, "f4", external=[(OUTSIDE_RAW, 0, values.nbytes)])
        file.create_virtual_dataset("virtual", layout)
    np.save(folder / "array.npy", values)
    np.savez_compressed(folder / "arrays.npz", a=values, b=-values, fps=25)


def write_models(folder: Path, model_path: Path) -> None:
    """The model, and its first weights in a file of their own."""
    model = onnx.load(model_path)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    (folder / OUTSIDE_RAW).write_bytes(numpy_helper.to_array(model.graph.initializer[0]).tobytes())


def changed_bytes(content: bytes, generator: np.random.Generator) -> bytes:
    """One to four changes: bytes, bits, sizes, blocks, a cut, a repetition."""
    changed = bytearray(content)
    for _ in range(generator.integers(1, 5)):
        at = int(generator.integers(len(changed)))
        kind = generator.integers(7)
        if kind <= 1:
            changed[at] = generator.integers(256)
        elif kind == 2:
            changed[at] ^= 1 << generator.integers(8)
        elif kind == 3:
            size = SIZES[generator.integers(len(SIZES))].to_bytes(8, "little")
            changed[at : at + 8] = size[: len(changed) - at]
        elif kind == 4:
            length = min(int(generator.integers(1, 64)), len(changed) - at)
            changed[at : at + length] = generator.bytes(length)
        elif kind == 5:
            changed[at:at] = changed[at : at + int(generator.integers(1, 64))]
        elif generator.integers(3) == 0 and at:
            del changed[at:]
    return bytes(changed)


def bomb(_: bytes, generator: np.random.Generator) -> bytes:
    """A compressed dataset whose one chunk unpacks to anything from nothing to 256 MiB, by filters in any order."""
    shape = (int(2 ** generator.integers(0, 14)), WIDTH)
    size = int(shape[0] * WIDTH * 4 * generator.choice([0, 0.5, 1, 1, 2, 1000]))
    data = bytes(min(size, 2**28))
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk(shape)
    for name in generator.permutation(["deflate", "deflate", "lzf", "shuffle", "fletcher32"])[: generator.integers(4)]:
        if name == "deflate":
            plist.set_deflate(9)
            data = zlib.compress(data, 1)
        elif name == "lzf":
            stated = SIZES[generator.integers(4)] if generator.integers(4) == 0 else shape[0] * WIDTH * 4
            plist.set_filter(h5py.h5z.FILTER_LZF, h5py.h5z.FLAG_OPTIONAL, (4, 261, stated))
            data = b"\0\0" + (len(data) // 264) * b"\xe0\xff\0"
        elif name == "shuffle":
            plist.set_shuffle()
        else:
            plist.set_fletcher32()
            data += bytes(4)
    file = io.BytesIO()
    with h5py.File(file, "w") as made:
        dataset = h5py.h5d.create(made.id, b"v", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple(shape), plist)
        dataset.write_direct_chunk((0, 0), data or b"\0", int(generator.choice([0, 0, 0, 1, 2])))
    return _perhaps_changed(file.getvalue(), generator)


def header_of_npy(content: bytes, generator: np.random.Generator) -> bytes:
    """A .npy file with another header, or other bytes."""
    values = content[content.index(b"\n") + 1 :]
    descr, shape, order, version = "'<f4'", f"(6, {WIDTH})", "False", b"\1\0"
    kind = generator.integers(8)
    if kind <= 1:
        descr = str(generator.choice(["'>f4'", "'<f8'", "'|S0'", "'|O'", "('<f4', (24,))", "[('a', '<f4')]", "{1: 2}"]))
    if kind in (1, 2, 3):
        sizes = [-1, 0, 1, 6, WIDTH, 144, 10**9, 10**28]
        many = int(generator.choice([0, 1, 2, 2, 2, 70]))
        shape = str(tuple(sizes[index] for index in generator.integers(len(sizes), size=many)))
    if kind == 4:
        order = str(generator.choice(["True", "3", "None"]))
    if kind == 5:
        version = bytes([int(generator.integers(5)), int(generator.integers(3))])
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}\n"
    if kind == 6:
        text = str(generator.choice(["(" * int(generator.integers(9000)), text[:-9], f"  {text}", ""]))
    size = len(text).to_bytes(2 if version == b"\1\0" else 4, "little")
    return _perhaps_changed(b"\x93NUMPY" + version + size + text.encode() + values, generator)


def archive(content: bytes, generator: np.random.Generator) -> bytes:
    """A .npz archive whose members have other names, methods, flags or contents, or unpack to 256 MiB."""
    names = ["a.npy", "a.npy", "b.npy", "fps.npy", "features.npy", "../a.npy", "a", ".npy", "\u00e9\n.npy", "a\0b.npy"]
    methods = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
    file = io.BytesIO()
    with (
        warnings.catch_warnings(),
        zipfile.ZipFile(io.BytesIO(content)) as source,
        zipfile.ZipFile(file, "w") as made,
    ):
        warnings.simplefilter("ignore")  # of names that are there twice
        arrays = [source.read(name) for name in source.namelist()]
        hostile = generator.integers(3) > 0
        for index in range(int(generator.integers(1, 4))):
            array = arrays[generator.integers(2)]
            if hostile and generator.integers(3) == 0:
                array = header_of_npy(array, generator)
            if hostile and generator.integers(6) == 0:
                array += bytes(2**28)
            made.writestr(
                str(generator.choice(names)) if hostile else f"{index}.npy",
                array,
                methods[generator.integers(len(methods) if hostile else 3)],
            )
    return _perhaps_changed(file.getvalue(), generator) if hostile else file.getvalue()


def part(content: bytes, generator: np.random.Generator) -> bytes:
    """A part with another value somewhere, or other bytes, or as a kill leaves it: without its end."""
    if generator.integers(4) == 0:
        return content[: generator.integers(len(content))]
    others: list[Any] = [[], {}, 5, -7, 99, None, True, "v", 1e308, float("inf"), 10**30, [["a"]], [["a", 1, 2, 3, 4]]]
    lines: list[Any] = [json.loads(line) for line in content.splitlines()]
    at: Any = lines
    while True:  # from the outermost list inwards, and stop anywhere
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not keys:
            break
        key = keys[generator.integers(len(keys))]
        if not isinstance(at[key], (list, dict)) or generator.integers(4) == 0:
            at[key] = others[generator.integers(len(others))]
            break
        at = at[key]
    return _perhaps_changed(b"".join(json.dumps(line).encode() + b"\n" for line in lines), generator)


def _perhaps_changed(content: bytes, generator: np.random.Generator) -> bytes:
    return changed_bytes(content, generator) if generator.integers(2) else content


def pointing(content: bytes, generator: np.random.Generator) -> bytes:
    """A model whose first weights lie outside, in one of the places that can hold them, said in one of many ways."""
    model = onnx.ModelProto.FromString(content)
    PLACES[generator.integers(len(PLACES))](model)
    share = generator.choice([0.0, 0.0, 0.01, 0.5])  # of all keys of the model that are written too long
    how = int(generator.integers(3))

    def key(number: int, wire: int) -> bytes:
        long = (how if number in (13, 14) else 0) or (int(generator.integers(3)) if generator.random() < share else 0)
        return written(number << 3 | wire, long)

    found = rewritten(model.SerializeToString(), onnx.ModelProto.DESCRIPTOR, key)
    return changed_bytes(found, generator) if generator.integers(4) == 0 else found


def in_an_initializer(model: onnx.ModelProto) -> None:
    _outside(model.graph.initializer[0])


def in_a_constant(model: onnx.ModelProto) -> None:
    model.graph.node.insert(0, helper.make_node("Constant", [], [_taken(model).name], value=_taken_out(model)))


def in_a_branch(model: onnx.ModelProto) -> None:
    name = _taken(model).name
    dims = list(_taken(model).dims)
    tensor = _taken_out(model)
    branches = {}
    for which in ("then_branch", "else_branch"):
        tensor.name = f"{which}_weights"
        node = helper.make_node("Identity", [tensor.name], [which])
        output = helper.make_tensor_value_info(which, TensorProto.FLOAT, dims)
        branches[which] = helper.make_graph([node], which, [], [output], [tensor])
    model.graph.node.insert(0, helper.make_node("If", ["yes"], [name], **branches))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))


def in_a_function(model: onnx.ModelProto) -> None:
    _function(model, helper.make_node("Constant", [], ["y"], value=_taken_out(model, call=True)))


def in_the_default_of_a_function(model: onnx.ModelProto) -> None:
    node = helper.make_node("Constant", [], ["y"])
    node.attribute.add(name="value", ref_attr_name="w", type=AttributeProto.TENSOR)
    tensor = _taken_out(model, call=True)
    default = _function(model, node).attribute_proto.add(name="w", type=AttributeProto.TENSOR)
    default.t.CopyFrom(tensor)


PLACES: tuple[Callable[[onnx.ModelProto], None], ...] = (
    in_an_initializer,
    in_a_constant,
    in_a_branch,
    in_a_function,
    in_the_default_of_a_function,
)


def _taken(model: onnx.ModelProto) -> TensorProto:
    return model.graph.initializer[0]


def _taken_out(model: onnx.ModelProto, *, call: bool = False) -> TensorProto:
    """The first weights, out of the graph and outside; with `call`, a call of the function that gives them."""
    tensor = TensorProto()
    tensor.CopyFrom(_taken(model))
    del model.graph.initializer[0]
    if call:
        model.graph.node.insert(0, helper.make_node("give", [], [tensor.name], domain="local"))
        model.opset_import.append(helper.make_opsetid("local", 1))
    return _outside(tensor)


def _function(model: onnx.ModelProto, node: onnx.NodeProto) -> onnx.FunctionProto:
    model.functions.append(helper.make_function("local", "give", [], ["y"], [node], [helper.make_opsetid("", 20)]))
    return model.functions[0]


def _outside(tensor: TensorProto) -> TensorProto:
    size = len(tensor.raw_data)
    assert size
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", OUTSIDE_RAW), ("offset", "0"), ("length", str(size))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def rewritten(content: bytes, message: Any, key: Callable[[int, int], bytes]) -> bytes:
    """A protobuf message with its fields' keys written by `key`, in all messages inside it as well."""
    found, at = b"", 0
    while at < len(content):
        number, at = _read(content, at)
        start = at
        value = b""
        if number & 7 == 2:
            size, at = _read(content, at)
            value, at = content[at : at + size], at + size
            field = message.fields_by_number[number >> 3]
            if field.message_type is not None:
                value = rewritten(value, field.message_type, key)
            value = written(len(value)) + value
        elif number & 7 == 0:
            at = _read(content, at)[1]
            value = content[start:at]
        else:
            at += 8 if number & 7 == 1 else 4
            value = content[start:at]
        found += key(number >> 3, number & 7) + value
    return found


def written(value: int, long: int = 0) -> bytes:
    """A number as protobuf has it; 1: in five bytes; 2: in five, with a 33rd bit that readers drop."""
    if long == 2:
        value |= 1 << 32
    found = b""
    while value > 127 or (long and len(found) < 4):
        found += bytes([value & 127 | 128])
        value >>= 7
    return found + bytes([value])


def _read(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while content[at] & 128:
        value |= (content[at] & 127) << shift
        at, shift = at + 1, shift + 7
    return value | content[at] << shift, at + 1
