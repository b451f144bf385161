"""Reads an ONNX file as bytes and refuses one whose weights are in other files, or that has control flow.

ONNX Runtime follows paths of external data (relative, absolute, through symbolic links) when it loads a model. A file
from a stranger must not make it open other files. The runtime has no `onnx`, so this module walks the protobuf messages
that may contain a tensor, and looks for the few fields that can point outside.

A graph without control flow computes each node once. A Loop of 2^62 rounds never ends, and neither do functions that
each call the next one twice. So graphs within nodes (Loop, If, Scan, SequenceMap and those of ONNX Runtime's own) and
functions are refused, used or not: the contract (docs/reference/onnx.md) has none.

The walk must see what ONNX Runtime's reader sees. So everything that the two could read differently is refused: field
numbers and lengths that are not written in the shortest form (protobuf drops the upper bits of a longer one), and
fields that onnx.proto did not have in the version below.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal, Protocol

from refineloc.runtime.addresses import as_path
from refineloc.runtime.errors import ConfigError, ModelError, first_line
from refineloc.runtime.files import reason
from refineloc.runtime.kinds import mistaken

__all__ = ["ModelSource", "read_model"]

# For each kind of message that may contain a tensor: field number -> kind of its content; "" for a text, a packed list
# or a message without tensors. All fields that are bytes on the wire are here (onnx.proto of ONNX 1.23).
_FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"} | dict.fromkeys((2, 3, 4, 6, 8, 14, 26), ""),
    "training": {1: "graph", 2: "graph"} | dict.fromkeys((3, 4), ""),
    "graph": {1: "node", 5: "tensor", 15: "sparse"} | dict.fromkeys((2, 10, 11, 12, 13, 14, 16), ""),
    "function": {7: "node", 11: "attribute"} | dict.fromkeys((1, 4, 5, 6, 8, 9, 10, 12, 13, 14), ""),
    "node": {5: "attribute"} | dict.fromkeys((1, 2, 3, 4, 6, 7, 8, 9, 10), ""),
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"}
    | dict.fromkeys((1, 4, 7, 8, 9, 13, 14, 15, 21), ""),
    "sparse": {1: "tensor", 2: "tensor", 3: ""},
    "tensor": dict.fromkeys((1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 16), ""),
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of a tensor
_OP_TYPE = 4  # of a node
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# What is wrong with a file; of several, the first is told.
_EXTERNAL = "its weights lie in other files (external data); export it as one file"
_CONTROL_FLOW = "it has control flow (graphs within nodes, or functions), and might run for ever; export it without"
_MAX_DEPTH = 32
_MAX_BYTES = 2**31  # protobuf's own limit
_PART = 2**20  # bytes that are read at a time of a file whose size is not known


class Openable(Protocol):
    """A `zipfile.Path`, or a resource of `importlib.resources`."""

    def open(self, mode: Literal["rb"], /) -> IO[bytes]: ...


# What a model can be read from.
ModelSource = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Openable


def read_model(model: ModelSource) -> tuple[str, bytes]:
    """The name of a model in messages, and its bytes.

    Args:
        model: a path, bytes, a binary file (read from where it stands), or what opens one: a `zipfile.Path`, a resource
            of `importlib.resources`. It may need no other file and computes each of its nodes once.

    Raises:
        ModelError: it is missing, unreadable, too large or not an ONNX model, or it has external data or control flow.
        ConfigError: of another kind.
    """
    if isinstance(model, (str, os.PathLike)):
        path = as_path(model)
        source, content = str(path), _read_path(path)
    elif isinstance(model, (bytes, bytearray, memoryview)):
        source, content = "model given as bytes", bytes(model)
    elif hasattr(model, "read"):
        name = getattr(model, "name", None)
        source = name if isinstance(name, str) else f"model in a {type(model).__name__}"
        content = _read_file(model, source)
    elif hasattr(model, "open"):
        source = str(model)
        try:
            with model.open("rb") as file:
                content = _read_file(file, source)
        except ModelError:
            raise
        except Exception as error:  # of any library: a missing entry, a damaged archive
            raise ModelError(f"{source}: cannot be read: {first_line(error)}") from error
    else:
        raise ConfigError(f"model: expected a path, bytes or a binary file, got {model!r:.40}")
    _check(content, source)
    return source, content


def _read_path(path: Path) -> bytes:
    try:
        status = path.stat()
        # Reading a pipe or a device might never end.
        if stat.S_ISREG(status.st_mode) and status.st_size <= _MAX_BYTES:
            return path.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file; refineloc-export writes one") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {reason(error)}") from error
    except ValueError as error:  # a null byte
        raise ModelError(f"{str(path)!r}: cannot be read: {error}") from error
    if stat.S_ISREG(status.st_mode):
        raise _too_large(str(path))
    kind = "is a folder" if stat.S_ISDIR(status.st_mode) else "not a file"
    raise ModelError(f"{path}: {kind}; give the .onnx file that refineloc-export wrote")


def _read_file(file: Any, source: str) -> bytes:
    content = bytearray()
    try:
        while part := file.read(_PART):  # a raw file may give fewer bytes than it is asked for
            if isinstance(part, str):
                raise ModelError(f"{source}: gives text; open it in binary mode, 'rb'")
            content += part
            if len(content) > _MAX_BYTES:
                raise _too_large(source)
    except ModelError:
        raise
    except Exception as error:  # of any library that has files
        raise ModelError(f"{source}: cannot be read: {first_line(error)}") from error
    if not content:
        raise ModelError(f"{source}: empty; a file that was read before is at its end (seek(0))")
    return bytes(content)


def _too_large(source: str) -> ModelError:
    return ModelError(f"{source}: larger than 2 GiB, which no single ONNX file can be")


def _check(content: bytes, source: str) -> None:
    try:
        if content[4:8] == b"ORTM":  # ONNX Runtime would read it as its own format, past this check
            raise ValueError("ONNX Runtime's own format")
        problems = set(_problems(memoryview(content), "model", 0))
    except (IndexError, ValueError) as error:
        if other := mistaken(content, "give the .onnx file that refineloc-export wrote", own="an ONNX"):
            raise ModelError(f"{source}: {other}") from error
        detail = "it ends in the middle" if isinstance(error, IndexError) else error
        raise ModelError(f"{source}: not an ONNX file, or cut short: {detail}") from error
    if not content:
        raise ModelError(f"{source}: empty file")
    for problem in (_EXTERNAL, _CONTROL_FLOW):
        if problem in problems:
            raise ModelError(f"{source}: {problem}")


def _problems(message: memoryview, kind: str, depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deep")
    known = _FIELDS[kind]
    for field, wire, value in _fields(message):
        if kind == "tensor" and (
            field == _EXTERNAL_DATA or (field == _DATA_LOCATION and wire == _VARINT and value != 0)
        ):
            yield _EXTERNAL
        if not isinstance(value, memoryview) or (kind == "tensor" and field == _EXTERNAL_DATA):
            continue
        # TensorRT reads the graph of this operator from a file.
        if kind == "node" and field == _OP_TYPE and bytes(value[:10]) == b"EPContext":
            yield _EXTERNAL
        if field not in known:
            raise ValueError(f"{kind}: field {field} is not known (a newer ONNX? update refineloc)")
        if known[field] == "function" or (kind == "attribute" and known[field] == "graph"):
            yield _CONTROL_FLOW
        if known[field]:
            yield from _problems(value, known[field], depth + 1)


def _fields(message: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """The fields of one message: number, wire type, and value (a number, or bytes for a field with a length)."""
    offset, size = 0, len(message)
    while offset < size:
        key, offset = _size(message, offset)
        field, wire = key >> 3, key & 7
        value: int | memoryview = 0
        if not field:
            raise ValueError("field 0")
        if wire == _VARINT:
            value, offset = _varint(message, offset)
        else:
            if wire == _BYTES:
                length, offset = _size(message, offset)
            elif wire in (_FIXED64, _FIXED32):
                length = 8 if wire == _FIXED64 else 4
            else:
                raise ValueError(f"wire type {wire}")
            if offset + length > size:
                raise ValueError("cut short")
            if wire == _BYTES:
                value = message[offset : offset + length]
            offset += length
        yield field, wire, value


def _size(message: memoryview, offset: int) -> tuple[int, int]:
    """A field's key or length, and the offset after it. Only 32 bits in the shortest form: readers agree on it."""
    value, end = _varint(message, offset)
    if value >= 1 << 32 or end - offset != max(1, -(-value.bit_length() // 7)):
        raise ValueError("a number written in more bytes than it needs")
    return value, end


def _varint(message: memoryview, offset: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[offset]
        offset += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, offset
        shift += 7
        if shift > 63:
            raise ValueError("varint too long")
