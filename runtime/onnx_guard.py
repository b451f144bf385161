"""Reads an ONNX file as bytes and refuses one whose weights lie in other files.

ONNX Runtime follows external-data paths (relative, absolute, through symbolic links) when it loads a model; a file
from a stranger must not make us open others. The runtime has no `onnx`, so the few protobuf fields that can point
outside are looked at here, on the wire: a walk over the tree of messages that may hold a tensor.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from refineloc.runtime.errors import ModelError

__all__ = ["read_model"]

# field number -> the kind of message it holds, for each kind that may lead to a tensor (onnx.proto).
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of a tensor
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_DEPTH = 32
_MAX_BYTES = 2**31  # protobuf's own limit


def read_model(path: str | os.PathLike[str]) -> bytes:
    """The bytes of an ONNX file that stands alone.

    Raises:
        ModelError: missing, unreadable, too large, not a protobuf message, or with external data.
    """
    source = Path(path)
    try:
        if source.is_dir():
            raise ModelError(f"{source}: is a folder; give the .onnx file that refineloc-export wrote")
        status = source.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device could go on forever
            raise ModelError(f"{source}: not a file; give the .onnx file that refineloc-export wrote")
        if status.st_size > _MAX_BYTES:
            raise ModelError(f"{source}: larger than 2 GiB, which no single ONNX file can be")
        content = source.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"{source}: no such file; refineloc-export writes one") from None
    except OSError as error:
        raise ModelError(f"{source}: cannot be read: {error.strerror}") from error
    try:
        external = _has_external_data(memoryview(content), "model", 0)
    except (IndexError, ValueError) as error:
        raise ModelError(f"{source}: not an ONNX file, or cut short") from error
    if not content:
        raise ModelError(f"{source}: empty file")
    if external:
        raise ModelError(f"{source}: its weights lie in other files (external data); export it as one file")
    return content


def _has_external_data(message: memoryview, kind: str, depth: int) -> bool:
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deep")
    children = _CHILDREN[kind]
    for field, wire, value in _fields(message):
        if kind == "tensor":
            if field == _EXTERNAL_DATA or (field == _DATA_LOCATION and wire == _VARINT and value != 0):
                return True
        elif (
            field in children
            and isinstance(value, memoryview)
            and _has_external_data(value, children[field], depth + 1)
        ):
            return True
    return False


def _fields(message: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """The fields of one message: number, wire type, value (an int or the bytes)."""
    at, size = 0, len(message)
    while at < size:
        key, at = _varint(message, at)
        field, wire = key >> 3, key & 7
        value: int | memoryview
        if wire == _VARINT:
            value, at = _varint(message, at)
        else:
            if wire == _BYTES:
                length, at = _varint(message, at)
            elif wire in (_FIXED64, _FIXED32):
                length = 8 if wire == _FIXED64 else 4
            else:
                raise ValueError(f"wire type {wire}")
            if at + length > size:
                raise ValueError("cut short")
            value, at = message[at : at + length], at + length
        yield field, wire, value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("varint too long")
