"""float16 features to float32 by ONNX Runtime's Cast: nine times as fast as NumPy, 29 times as fast as HDF5.

Measured on one thread of a busy AMD EPYC, 2,048 x 2,048 values, CPU time: ONNX Runtime 0.8 ms, NumPy 7 ms; HDF5, where
it converts what it reads, 22 ms more than reading float16 as it is. ONNX Runtime is there anyway: a model of one node.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from refineloc.runtime.session import create_session, load_engine

__all__ = ["HalfToFloat"]

_FLOAT, _FLOAT16, _INT = 1, 10, 2  # of onnx.proto: two element types, and the type of an attribute


class HalfToFloat:
    """Converts float16 arrays to float32, each in the thread that calls; one converter serves many threads."""

    def __init__(self) -> None:
        engine = load_engine()
        # One thread is as fast as memory allows. More would be a second pool, whose threads wait for work by spinning:
        # on two cores that slowed the model beside it by a third.
        self._session = create_session(engine, Path("the conversion of float16"), _cast_model(), ["cpu"], 1)

    def __call__(self, half: npt.NDArray[np.float16], out: npt.NDArray[np.float32]) -> None:
        """Convert `half` [T, D] into `out` [T, D]; both are C-contiguous."""
        if half.shape != out.shape or not (half.flags.c_contiguous and out.flags.c_contiguous):
            raise ValueError(f"expected two C-contiguous arrays of one shape, got {half.shape} and {out.shape}")
        binding: Any = self._session.io_binding()  # writes into `out`: no second array of its size
        binding.bind_cpu_input("half", half)
        binding.bind_output("float", "cpu", 0, np.float32, list(out.shape), out.ctypes.data)
        self._session.run_with_iobinding(binding)


def _cast_model() -> bytes:
    """float [T, D] = Cast(half [T, D]), as the bytes of onnx.proto's messages: the runtime has no `onnx`."""

    def text(field: int, value: bytes) -> bytes:  # a text or a message: key, length, bytes
        return bytes([field << 3 | 2, len(value)]) + value

    def number(field: int, value: int) -> bytes:
        return _varint(field << 3) + bytes([value])

    def value_info(name: bytes, kind: int) -> bytes:
        shape = text(1, text(2, b"T")) + text(1, text(2, b"D"))  # two dims, each a dim_param
        return text(1, name) + text(2, text(1, number(1, kind) + text(2, shape)))  # name, type.tensor_type

    to = text(1, b"to") + number(3, _FLOAT) + number(20, _INT)  # name, i, type
    node = text(1, b"half") + text(2, b"float") + text(4, b"Cast") + text(5, to)  # input, output, op_type, attribute
    ends = text(11, value_info(b"half", _FLOAT16)) + text(12, value_info(b"float", _FLOAT))
    graph = text(1, node) + text(2, b"cast") + ends
    return number(1, 8) + text(7, graph) + text(8, number(2, 13))  # ir_version, graph, opset_import


def _varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128, value >> 7])
