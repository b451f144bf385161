"""Numbers of other libraries: fractions of video readers, scalars, arrays and tensors without dimensions."""

import operator
from typing import Any

__all__ = ["as_number", "as_whole"]


def as_number(value: Any) -> float | None:
    """A real number as a float, None if it is not one; bool, texts and arrays of any dimension are not."""
    value = _scalar(value)
    # What has a shape here is longdouble, which `item` leaves as it is.
    if isinstance(value, bool) or not hasattr(value, "__float__") or getattr(value, "shape", ()) != ():
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def as_whole(value: Any) -> int | None:
    """A whole number as an int, None if it is not one. 16.0 is not: a float was computed, the next may be 15.99."""
    value = _scalar(value)
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


def _scalar(value: Any) -> Any:
    """The Python number in a scalar, array or tensor without dimensions, of any library."""
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value
