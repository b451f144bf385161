"""Where the arrays of numbers lie in a pickle, without unpickling it.

NumPy saves an array of arrays (dtype object) as a pickle, and loading a pickle can run any program. This reads the few
instructions that such a file has, for their structure alone: nothing is called, and the numbers are not read.

    W-TALC, CO2-Net: np.save(FILE, array of V arrays T x D), by Python 2 (protocol 2) or 3 (protocols 3, 4)
"""

import struct
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from refineloc.runtime.features.checks import file_state

__all__ = ["PickledArray", "read_structure"]

_MOST_STEPS = 20_000_000  # instructions: some 40 an array
_MOST_TEXT = 1 << 16  # bytes of a name
_MOST_VALUES = 1_000_000  # a list can hold another one many times, and that one another
_DAMAGED = (IndexError, KeyError, TypeError, AttributeError, struct.error, UnicodeDecodeError, RecursionError)
_RECONSTRUCT = {f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")}
_SIZES = {  # bytes of the length before a text or bytes
    b"U": "<B", b"T": "<i", b"C": "<B", b"B": "<I", b"\x8e": "<Q", b"\x8c": "<B", b"X": "<I", b"\x8d": "<Q",
}  # fmt: skip
_NUMBERS = {b"K": "<B", b"M": "<H", b"J": "<i"}
_CONSTANTS: dict[bytes, Any] = {b"N": None, b"\x88": True, b"\x89": False, b")": ()}
_TUPLES = {b"\x85": 1, b"\x86": 2, b"\x87": 3}


class PickledArray(NamedTuple):
    """An array of numbers in a file.

    Attributes:
        shape, dtype: of it.
        by_columns: whether it lies in Fortran's order.
        offset: of its first byte in the file.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    by_columns: bool
    offset: int


class _Span(NamedTuple):
    offset: int
    size: int
    text: bytes  # its first bytes, which are all of a short one


class _Name(NamedTuple):
    name: str


class _Mark:
    pass


class _Built:
    """An array or a dtype: what it is made of, and its state once that came."""

    def __init__(self, kind: str, arguments: tuple[Any, ...]) -> None:
        self.kind, self.arguments = kind, arguments
        self.state: Any = None


def read_structure(file: BinaryIO) -> Any:
    """What a pickle holds, from the file's position on: `PickledArray`, lists, dicts, numbers, texts; None elsewhere.

    An array of objects is the list of them.

    Raises:
        ValueError: it is damaged, or holds anything but arrays of numbers, lists, dicts, numbers and texts.
    """
    return _Reader(file).read()


class _Reader:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = file_state(file)[0]
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._values = 0

    def read(self) -> Any:
        try:
            for _ in range(_MOST_STEPS):
                code = self._take(1)
                if code == b".":
                    return self._value(self._stack.pop())
                self._step(code)
        except _DAMAGED as error:
            raise ValueError("a damaged pickle") from error
        raise ValueError("a pickle of too many parts")

    def _take(self, size: int) -> bytes:
        content = self._file.read(size)
        if len(content) < size:
            raise ValueError("it ends before its end")
        return content

    def _number(self, form: str) -> int:
        value: int = struct.unpack(form, self._take(struct.calcsize(form)))[0]
        return value

    def _step(self, code: bytes) -> None:
        stack = self._stack
        if code in _SIZES:
            stack.append(self._span(self._number(_SIZES[code])))
        elif code in _NUMBERS:
            stack.append(self._number(_NUMBERS[code]))
        elif code in _CONSTANTS:
            stack.append(_CONSTANTS[code])
        elif code in _TUPLES:
            count = _TUPLES[code]
            stack[-count:] = [tuple(stack[-count:])]
        elif code == b"\x80":
            self._take(1)
        elif code == b"\x95":
            self._take(8)
        elif code == b"\x8a":
            stack.append(int.from_bytes(self._take(self._number("<B")), "little", signed=True))
        elif code == b"G":
            stack.append(struct.unpack(">d", self._take(8))[0])
        elif code == b"(":
            stack.append(_Mark)
        elif code == b"t":
            stack.append(tuple(self._from_mark()))
        elif code in (b"]", b"l"):
            stack.append([] if code == b"]" else self._from_mark())
        elif code == b"}":
            stack.append({})
        elif code == b"a":
            item = stack.pop()
            stack[-1].append(item)
        elif code == b"e":
            items = self._from_mark()
            stack[-1].extend(items)
        elif code in (b"s", b"u"):
            items = self._from_mark() if code == b"u" else [stack.pop() for _ in range(2)][::-1]
            stack[-1].update(zip(map(_text, items[::2]), items[1::2], strict=True))
        elif code in (b"q", b"r", b"\x94"):
            index = len(self._memo) if code == b"\x94" else self._number("<B" if code == b"q" else "<I")
            self._memo[index] = stack[-1]
        elif code in (b"h", b"j"):
            stack.append(self._memo[self._number("<B" if code == b"h" else "<I")])
        elif code == b"c":
            stack.append(_Name(".".join(self._line() for _ in range(2))))
        elif code == b"\x93":
            name, module = stack.pop(), stack.pop()
            stack.append(_Name(f"{_text(module)}.{_text(name)}"))
        elif code == b"R":
            arguments, name = stack.pop(), stack.pop()
            stack.append(_made(name, arguments))
        elif code == b"b":
            state = stack.pop()
            if not isinstance(stack[-1], _Built):
                raise ValueError("objects that are no arrays")
            stack[-1].state = state
        else:
            raise ValueError("objects that are no arrays of numbers")

    def _span(self, size: int) -> _Span:
        offset = self._file.tell()
        if not 0 <= size <= self._size - offset:
            raise ValueError("it ends before its end")
        text = self._take(min(size, _MOST_TEXT)) if size <= _MOST_TEXT else b""
        self._file.seek(offset + size)
        return _Span(offset, size, text)

    def _line(self) -> str:
        line = self._file.readline(_MOST_TEXT)
        if not line.endswith(b"\n"):
            raise ValueError("it ends before its end")
        return line[:-1].decode()

    def _from_mark(self) -> list[Any]:
        begin = len(self._stack) - 1 - self._stack[::-1].index(_Mark)
        items = self._stack[begin + 1 :]
        del self._stack[begin:]
        return items

    def _value(self, item: Any) -> Any:
        self._values += 1
        if self._values > _MOST_VALUES:
            raise ValueError("a pickle of too many parts")
        if isinstance(item, _Built):
            return self._array(item) if item.kind == "array" else None
        if isinstance(item, _Span):
            return item.text.decode(errors="replace")
        if isinstance(item, (list, tuple)):
            return [self._value(each) for each in item]
        if isinstance(item, dict):
            return {key: self._value(each) for key, each in item.items()}
        return item if isinstance(item, (int, float)) else None

    def _array(self, built: _Built) -> Any:
        _, shape, dtype, by_columns, data = built.state
        kind = _text(dtype.arguments[0])
        if kind in ("O", "O8", "|O"):
            return [self._value(each) for each in data]
        if kind not in ("f2", "f4", "f8"):
            raise ValueError(f"numbers of the type {kind!r:.20}, where float32 or float16 is expected")
        if not isinstance(data, _Span):  # Python 3 writes bytes as text in protocols 0 to 2
            raise ValueError("numbers as text; save it with NumPy again")
        order = _text(dtype.state[1])
        if order not in ("<", ">") or not all(type(each) is int and 0 <= each < 2**48 for each in shape):
            raise ValueError("a damaged pickle")
        count = 1
        for each in shape:
            count *= each
        number = np.dtype(order + kind)
        if count * number.itemsize != data.size:
            raise ValueError("a shape that its numbers do not have")
        return PickledArray(tuple(shape), number, bool(by_columns), data.offset)


def _text(span: _Span) -> str:
    return span.text.decode()


def _made(name: Any, arguments: Any) -> _Built:
    """What a call would make; only these two are known, and neither is called."""
    called = name.name if isinstance(name, _Name) else ""
    if called in _RECONSTRUCT:
        return _Built("array", arguments)
    if called == "numpy.dtype":
        return _Built("dtype", arguments)
    raise ValueError(
        f"a call of {called or 'something'!r:.60}, which no array of numbers needs; save it with NumPy again"
    )
