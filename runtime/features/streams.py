"""The two streams of features: which columns are whose."""

from typing import Literal

from refineloc.runtime.errors import InputError, counted

__all__ = ["Stream", "StreamOrder", "described_columns", "stream_slice"]

Stream = Literal["both", "temporal", "spatial"]


StreamOrder = Literal["temporal-spatial", "spatial-temporal"]


def stream_slice(width: int, stream: Stream, order: StreamOrder) -> slice:
    """The columns of one stream in features that hold two, half of the width each.

    Args:
        width: D of the file.
        stream: which to take; "both" takes all columns.
        order: which stream stands first in the file. It differs between sources and cannot be seen in the data,
            so it is always given, never guessed.

    Raises:
        InputError: one stream of an odd width was asked for.
    """
    if stream == "both":
        return slice(0, width)
    if width % 2:
        raise InputError(f"width: expected an even number (two streams), got {width}")
    first_half = (stream == "temporal") == (order == "temporal-spatial")
    return slice(0, width // 2) if first_half else slice(width // 2, width)


def described_columns(width: int, columns: slice, stream: Stream) -> str:
    """Which columns are taken, for people: "spatial half, columns 1024 to 2047 of 2048"; "" for both streams.

    Args:
        width: D of the file.
        columns: those that are taken.
        stream: which they are.
    """
    if stream == "both":
        return ""
    if columns.stop - columns.start == width:
        return f"{stream} stream, all {counted(width, 'column')}"
    return f"{stream} half, columns {columns.start} to {columns.stop - 1} of {width}"
