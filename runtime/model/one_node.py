"""An ONNX model of one node, as bytes: to convert numbers, and to see whether a provider starts.

The runtime has no `onnx`, so the few messages of onnx.proto that this takes are written here.
"""

from collections.abc import Sequence

__all__ = ["FLOAT", "FLOAT16", "one_node"]

FLOAT, FLOAT16 = 1, 10  # onnx.proto's numbers of element types
_INT = 2  # and of an attribute that is an integer


def one_node(operator: str, given: int, gives: int, shape: Sequence[str], **attributes: int) -> bytes:
    """The model `y = operator(x)`, of opset 13.

    Args:
        operator: of ONNX's own domain.
        given, gives: element types of x and y.
        shape: of both, a name a dimension.
        attributes: of the operator, integers.
    """

    def end(name: str, kind: int) -> bytes:  # ValueInfoProto: name, type.tensor_type
        dims = b"".join(_bytes(1, _bytes(2, dim)) for dim in shape)  # each a dim_param
        return _bytes(1, name) + _bytes(2, _bytes(1, _number(1, kind) + _bytes(2, dims)))

    node = _bytes(1, "x") + _bytes(2, "y") + _bytes(4, operator)  # input, output, op_type
    for name, value in attributes.items():
        node += _bytes(5, _bytes(1, name) + _number(3, value) + _number(20, _INT))  # name, i, type
    graph = _bytes(1, node) + _bytes(2, operator) + _bytes(11, end("x", given)) + _bytes(12, end("y", gives))
    return _number(1, 8) + _bytes(7, graph) + _bytes(8, _number(2, 13))  # ir_version, graph, opset_import


def _bytes(field: int, value: str | bytes) -> bytes:
    """A text or a message: key, length, bytes."""
    content = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _varint(value: int) -> bytes:
    found = b""
    while value > 127:
        found += bytes([value & 127 | 128])
        value >>= 7
    return found + bytes([value])
