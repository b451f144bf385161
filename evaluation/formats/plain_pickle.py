"""Pickles of plain values, as `numpy.save` writes object arrays: lists of numbers, strings and arrays of them.

A pickle is a program. To refuse all names but NumPy's own is not enough: `numpy.dtype` and `numpy.ndarray`, called with
a state or a buffer of the file's choice, read and write any memory. So nothing that the file says is handed to NumPy:
the names stand for objects of this module, which check every argument and build plain lists. The opcodes are a list of
those that plain values need, and Python's own unpickler runs them, as the compiled one makes room for memo number
4,000,000,000 when a file of ten bytes asks for it.
"""

import io
import math
import pickle
import re
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

__all__ = ["load_plain"]

# Values, containers, the memo, and calls of what `find_class` gives; neither classes, extensions nor outside objects.
_OPCODES = """
PROTO FRAME STOP MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT
BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES
BINBYTES8 EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT DICT SETITEM SETITEMS
GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL REDUCE BUILD
"""

_PLAIN_KIND = re.compile(r"(?:(?P<number>[biuf])(?P<bytes>[1248])|(?P<text>[SU])(?P<length>[1-9][0-9]{0,5})|O[48]?)")
_DIMENSIONS = 4  # of an array; annotations have one or two


def load_plain(data: bytes) -> Any:
    """The value of a pickle; arrays come as lists, NumPy's numbers as Python's.

    Args:
        data: the pickle. Strings of Python 2 are given as bytes.

    Raises:
        pickle.UnpicklingError and others that a damaged pickle can cause; all are subclasses of Exception.
    """
    return _Unpickler(data).load()


def _refuse(unpickler: Any) -> None:
    raise pickle.UnpicklingError("has an opcode that plain values do not need")


_ALLOWED = {getattr(pickle, name)[0] for name in _OPCODES.split()}


class _Unpickler(pickle._Unpickler):
    dispatch: ClassVar = {
        code: action if code in _ALLOWED else _refuse for code, action in pickle._Unpickler.dispatch.items()
    }

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="bytes")
        budget = _Budget(len(data))
        array = _Name(None)
        self._known = {("numpy", "ndarray"): array, ("numpy", "dtype"): _Name(_Kind)}
        for core in ("numpy.core.multiarray", "numpy._core.multiarray"):
            self._known[core, "_reconstruct"] = _Name(lambda kind, shape, code: _empty_array(kind is array, budget))
            self._known[core, "scalar"] = _Name(lambda kind, raw: _scalar(kind, raw, budget))
        for builtins in ("builtins", "__builtin__"):
            self._known[builtins, "bytes"] = _Name(lambda: b"")  # what Python 3 writes in protocol 2 for no bytes
        self._known["_codecs", "encode"] = _Name(lambda text, codec: _encoded(text, codec, budget))

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._known[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"names {module}.{name}") from None


class _Budget:
    """What arrays and strings may come to in all: no more than the file holds, or a small file could fill the memory.

    Values that stand in the file once each are never above it; those that it makes again and again from one place are.
    """

    def __init__(self, size: int) -> None:
        self._left = size

    def spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise pickle.UnpicklingError("its arrays are larger than the file")


class _Name:
    """What a name in the file stands for; the file can call it where it has an action, and change nothing about it."""

    __slots__ = ("_action",)

    def __init__(self, action: Callable[..., Any] | None) -> None:
        self._action = action

    def __call__(self, *arguments: Any) -> Any:
        if self._action is None:
            raise pickle.UnpicklingError("calls numpy.ndarray")
        return self._action(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("changes a function")


class _Kind:
    """numpy.dtype, of plain kinds only.

    Attributes:
        code: "O", "S", "U", or a number's kind and size such as "f8".
        size: bytes an element; 0 of objects.
        order: "<" or ">".
    """

    __slots__ = ("code", "order", "size")

    def __init__(self, code: Any, align: Any = False, copy: Any = True) -> None:
        found = _PLAIN_KIND.fullmatch(_text(code))
        if found is None:
            raise pickle.UnpicklingError(f"holds an array of kind {_text(code)[:20]!r}")
        self.order = "<"
        if found["number"]:
            self.code, self.size = found[0], int(found["bytes"])
            if self.code not in ("b1", "f2", "f4", "f8") and found["number"] in "bf":
                raise pickle.UnpicklingError(f"holds an array of kind {self.code!r}")
        elif found["text"]:
            self.code, self.size = found["text"], int(found["length"]) * (4 if found["text"] == "U" else 1)
        else:
            self.code, self.size = "O", 0

    def __setstate__(self, state: Any) -> None:
        """Only what NumPy writes for such a kind: (3, order, None, None, None, size, alignment, flags)."""
        if not isinstance(state, tuple) or len(state) != 8:
            raise pickle.UnpicklingError("the state of a dtype is not of this form")
        version, order, subarray, names, fields, size, alignment, flags = state
        order = _text(order)
        plain = subarray is None and names is None and fields is None
        whole = all(type(value) is int for value in (version, size, alignment, flags))
        if not plain or not whole or order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("holds an array of records or of another kind that is not plain")
        # NumPy's: objects 63; text in Unicode 8; numbers and bytes 0. Size and alignment are told of text only.
        expected = {"O": 63, "U": 8}.get(self.code, 0)
        if flags != expected or size not in (-1, self.size) or not -1 <= alignment <= 16:
            raise pickle.UnpicklingError(f"the flags or the size of a dtype do not fit its kind {self.code!r}")
        self.order = ">" if order == ">" else "<"

    def values(self, raw: bytes) -> list[Any]:
        """The elements of a buffer, whose size is a multiple of this one's."""
        if self.code in ("S", "U"):
            parts = [raw[at : at + self.size] for at in range(0, len(raw), self.size)]
            if self.code == "S":
                return [part.rstrip(b"\0") for part in parts]
            return [part.decode("utf-32-be" if self.order == ">" else "utf-32-le").rstrip("\0") for part in parts]
        # The type's text is one of a dozen that the pattern lets through, and the buffer is bytes of its size.
        values: list[Any] = np.frombuffer(raw, np.dtype(self.order + self.code)).tolist()
        return values


class _Array(list[Any]):
    """numpy.ndarray as a list (of lists, in several dimensions), empty until its state comes."""

    __slots__ = ("_budget",)

    def __init__(self, budget: _Budget) -> None:
        super().__init__()
        self._budget = budget

    def __setstate__(self, state: Any) -> None:
        """(1, shape, dtype, whether columns come first, bytes or a list of objects)."""
        if not isinstance(state, tuple) or len(state) != 5 or len(self):
            raise pickle.UnpicklingError("the state of an array is not of this form")
        _, shape, kind, columns_first, raw = state
        if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape):
            raise pickle.UnpicklingError("the shape of an array is not one")
        if not isinstance(kind, _Kind) or not 1 <= len(shape) <= _DIMENSIONS or (columns_first and len(shape) > 1):
            raise pickle.UnpicklingError("an array is not of a plain form")
        count = math.prod(shape)
        fits = type(raw) is (list if kind.code == "O" else bytes)
        if not fits or len(raw) != count * (kind.size or 1):
            raise pickle.UnpicklingError(f"an array of shape {shape} has another number of values")
        self._budget.spend(len(raw))
        values = raw if isinstance(raw, list) else kind.values(raw)
        if count:  # from the last dimension on; each is at most `count`
            for size in shape[:0:-1]:
                values = [values[at : at + size] for at in range(0, len(values), size)]
        self.extend(values)


def _empty_array(is_array: bool, budget: _Budget) -> _Array:
    if not is_array:
        raise pickle.UnpicklingError("makes something that is no array")
    return _Array(budget)


def _scalar(kind: Any, raw: Any, budget: _Budget) -> Any:
    if not isinstance(kind, _Kind) or kind.code == "O" or type(raw) is not bytes or len(raw) != kind.size:
        raise pickle.UnpicklingError("holds a number of another size than its kind")
    budget.spend(len(raw))
    return kind.values(raw)[0]


def _encoded(text: Any, codec: Any, budget: _Budget) -> bytes:
    """Python 3's bytes in protocol 2."""
    if type(text) is not str or _text(codec) not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("encodes something other than bytes")
    budget.spend(len(text))
    return text.encode("latin-1")


def _text(value: Any) -> str:
    """A short text, which Python 2 wrote as bytes."""
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if not isinstance(value, str):
        raise pickle.UnpicklingError(f"expected a text, got {type(value).__name__}")
    return value
