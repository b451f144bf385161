"""float16 features to float32 by ONNX Runtime's Cast, many times as fast as NumPy and HDF5 (benchmarks/RESULTS.md)."""

from typing import Any

import numpy as np
import numpy.typing as npt

from refineloc.runtime.model.session import create_session, load_engine

__all__ = ["CAST_MODEL", "HalfToFloat"]

# The ONNX model y [T, D] = Cast(x [T, D]), float16 to float32, opset 13. Bytes, as the runtime has no `onnx`; a test
# compares them with the model that `onnx` writes.
CAST_MODEL = (
    b'\x08\x08:M\n\x17\n\x01x\x12\x01y"\x04Cast*\t\n\x02to\x18\x01\xa0\x01\x02\x12\x04Cast'
    b"Z\x15\n\x01x\x12\x10\n\x0e\x08\n\x12\n\n\x03\x12\x01T\n\x03\x12\x01D"
    b"b\x15\n\x01y\x12\x10\n\x0e\x08\x01\x12\n\n\x03\x12\x01T\n\x03\x12\x01DB\x02\x10\r"
)


class HalfToFloat:
    """Converts float16 arrays to float32, in the thread of the caller; thread-safe."""

    def __init__(self) -> None:
        engine = load_engine()
        # One thread is as fast as memory allows. The threads of a second pool would take cores from the model, as they
        # wait for work by spinning.
        self._session = create_session(engine, "the conversion of float16", CAST_MODEL, ["cpu"], 1)

    def __reduce__(self) -> tuple[Any, ...]:
        return HalfToFloat, ()  # a session cannot be pickled

    def __call__(self, half: npt.NDArray[np.float16], out: npt.NDArray[np.float32]) -> None:
        """Convert `half` [T, D] into `out` [T, D]; both are C-contiguous."""
        if half.shape != out.shape or not (half.flags.c_contiguous and out.flags.c_contiguous):
            raise ValueError(f"expected two C-contiguous arrays of one shape, got {half.shape} and {out.shape}")
        binding: Any = self._session.io_binding()  # writes into `out`: no second array of its size
        binding.bind_cpu_input("x", half)
        binding.bind_output("y", "cpu", 0, np.float32, list(out.shape), out.ctypes.data)
        self._session.run_with_iobinding(binding)
