"""Chunks of HDF5 datasets: checks of their sizes, and safe unpacking of those of untrusted files.

HDF5's filters unpack a stream to its end, whatever the size of the chunk: 1.5 MB of deflate took 1.5 GB of memory, and
7 KB deflated twice took as much. If a stream ends early, HDF5 2.0.0 reads the memory after it as features. So HDF5 only
locates the chunks of an untrusted file, and this module unpacks them, each to exactly its size.

It reads deflate (gzip), LZF, shuffle and Fletcher's checksum. Other filters are refused by name, so that HDF5 loads no
plugins. HDF5 unpacks LZF, as Python would unpack 10 MB a second, but only after each stream was found to unpack to
exactly the size of its chunk, which takes 15 ms for a MB.
"""

import math
import struct
import zlib
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from refineloc.runtime.errors import FeatureError

__all__ = ["REPACK", "check_chunks", "check_filters", "filters_of", "read_packed", "selection"]

REPACK = "h5repack -f GZIP=4 IN.h5 OUT.h5 packs it with gzip"

_DEFLATE, _SHUFFLE, _FLETCHER32, _LZF = 1, 2, 3, 32000  # HDF5's numbers of filters
_COMPRESSIONS = (_DEFLATE, _LZF)
_CHECKSUM = 4  # bytes
_BLOCK = 1 << 20  # 16-bit words of a checksum at a time

_Filters = list[tuple[int, tuple[int, ...]]]  # number and parameters of each, in the order of writing


def filters_of(stated: Any) -> list[tuple[int, tuple[int, ...], str]]:
    """Number, parameters and name of each filter of a dataset, in the order of writing, by its property list."""
    filters = [stated.get_filter(index) for index in range(stated.get_nfilters())]
    return [
        (number, values, name.decode("ascii", "replace")[:40] or "of no name") for number, _, values, name in filters
    ]


def check_chunks(item: Any, stated: Any, dtype: np.dtype[Any], where: str, limit: int) -> None:
    """Refuse a chunked dataset that cannot be read in bounded memory, as far as is known without unpacking.

    `item` is the dataset as h5py's `DatasetID`, `stated` its property list, and `limit` is in bytes of a chunk.

    Raises:
        FeatureError: a chunk of more than `limit` bytes, or one whose stored size does not match its shape.
    """
    if stated.get_layout() != h5py.h5d.CHUNKED:
        return
    chunks = stated.get_chunk()
    size = math.prod(chunks) * dtype.itemsize
    if size > limit:
        raise FeatureError(
            f"{where}: its chunks, {' x '.join(map(str, chunks))}, are too large to be read; use h5repack"
        )
    # HDF5 would read past the end of a plain chunk that is stored too short, and before the start of one that is
    # shorter than its checksum. A chunk that a filter cannot shrink grows little.
    filters = filters_of(stated)
    low, high = (0, 2 * size + 64) if filters else (size, size)
    if filters and filters[-1][0] == _FLETCHER32:
        low = _CHECKSUM
    odd: list[int] = []
    item.chunk_iter(lambda chunk: odd.append(chunk.size) if not low <= chunk.size <= high else None)
    if odd:
        raise FeatureError(f"{where}: damaged: a chunk of {size:,} bytes is stored in {odd[0]:,}")


def check_filters(stated: Any, dtype: np.dtype[Any], plain: bool, where: str) -> None:
    """Refuse a dataset whose chunks cannot be unpacked here, by its property list.

    `plain` says whether its numbers are stored just as `dtype` has them.

    Raises:
        FeatureError: a filter that this module does not read, a dataset that is compressed twice, or numbers in a form
            that NumPy does not have.
    """
    filters = filters_of(stated)
    if not filters:
        return
    for number, _, name in filters:
        if number not in (*_COMPRESSIONS, _SHUFFLE, _FLETCHER32):
            raise FeatureError(
                f"{where}: is packed with the filter {number} ({name!r}), which is not read from strangers; {REPACK}"
            )
    if sum(number in _COMPRESSIONS for number, *_ in filters) > 1:
        raise FeatureError(f"{where}: is compressed twice, which is not read; {REPACK}")
    # HDF5's LZF allocates the size that this parameter states, before it unpacks.
    most = 2 * math.prod(stated.get_chunk()) * dtype.itemsize + 64
    if any(number == _LZF and any(value > most for value in values[2:3]) for number, values, _ in filters):
        raise FeatureError(f"{where}: damaged: its LZF filter states chunks of another size than the data set's")
    if not plain:
        raise FeatureError(f"{where}: its numbers have a form that NumPy lacks; write it as float32 or float16")


def read_packed(dataset: Any, axes: tuple[int, int], out: npt.NDArray[Any], columns: slice, where: str) -> None:
    """Fill `out` [T, columns] from a dataset that passed `check_chunks` and `check_filters`.

    Args:
        dataset: of T x D, with any axes of length 1 beside them.
        axes: that of T and that of D.
        out: where to.
        columns: which of D.
        where: file and video, for messages.

    Raises:
        FeatureError: a chunk does not unpack to exactly its size.
    """
    filters = [(number, values) for number, values, _ in filters_of(dataset.id.get_create_plist())]
    masks: dict[tuple[int, ...], int] = {}  # where each stored chunk begins -> bits of filters not applied
    dataset.id.chunk_iter(lambda chunk: masks.__setitem__(chunk.chunk_offset, chunk.filter_mask))
    height, width = (dataset.chunks[axis] for axis in axes)
    inside = tuple(slice(None) if axis in axes else 0 for axis in range(len(dataset.chunks)))
    size = math.prod(dataset.chunks) * dataset.dtype.itemsize
    lzf = any(number == _LZF for number, _ in filters)
    start, stop, step = columns.indices(dataset.shape[axes[1]])
    grid = math.prod(-(-whole // part) for whole, part in zip(dataset.shape, dataset.chunks, strict=True))
    if len(masks) < grid:
        out[...] = dataset.fillvalue
    for offset, mask in masks.items():
        row, column = (offset[axis] for axis in axes)
        rows = min(height, len(out) - row)
        # Columns k = first..last - 1 of `out` are in this chunk: column <= start + k * step < column + width.
        first = max(0, -(-(column - start) // step))
        last = -(-(min(column + width, stop) - start) // step)
        if rows <= 0 or first >= last:
            continue
        try:
            raw = _unpacked(dataset.id.read_direct_chunk(offset)[1], filters, mask, size)
        except (ValueError, IndexError, zlib.error) as error:
            raise FeatureError(f"{where}: damaged: the chunk of snippet {row}: {error}; copy the file again") from error
        if raw is not None and not lzf:
            chunk = np.frombuffer(raw, dataset.dtype).reshape(dataset.chunks)[inside]
            out[row : row + rows, first:last] = chunk[:rows, start + first * step - column :: step][:, : last - first]
    if lzf:
        dataset.read_direct(out, source_sel=selection(len(dataset.shape), axes, columns))


def selection(rank: int, axes: tuple[int, int], columns: slice) -> tuple[Any, ...]:
    """All snippets and these columns of a dataset of `rank` axes, without those of length 1 beside `axes`."""
    return tuple(columns if axis == axes[1] else slice(None) if axis == axes[0] else 0 for axis in range(rank))


def _unpacked(data: bytes, filters: _Filters, mask: int, size: int) -> bytes | None:
    """The `size` bytes of a chunk; None if LZF packed them: then only their number is checked.

    A set bit of `mask` means that this filter was not applied.
    """
    for index, (number, values) in reversed(list(enumerate(filters))):
        if mask >> index & 1:
            continue
        # The filter packed the chunk, and the checksums that filters before it had added.
        unpacked_size = size + _CHECKSUM * sum(
            f == _FLETCHER32 and not mask >> i & 1 for i, (f, _) in enumerate(filters[:index])
        )
        if number == _DEFLATE:
            data = _inflated(data, unpacked_size)
        elif number == _LZF:
            _check_size(_lzf_size(data), unpacked_size)
            return None
        elif number == _FLETCHER32:
            data = _without_checksum(data)
        else:
            data = _unshuffled(data, values[0])
    _check_size(len(data), size)
    return data


def _check_size(size: int, expected: int) -> None:
    if size != expected:
        raise ValueError(f"unpacks to {size:,} bytes, expected {expected:,}")


def _inflated(data: bytes, size: int) -> bytes:
    stream = zlib.decompressobj()
    content = stream.decompress(data, size + 1)
    if len(content) > size:
        raise ValueError(f"unpacks to more than its {size:,} bytes")
    if not stream.eof:
        raise ValueError("its deflate stream is cut short")
    return content


def _lzf_size(data: bytes) -> int:
    """How many bytes an LZF stream unpacks to; an IndexError or -1 if it ends in the middle.

    A control byte c below 32 is followed by c + 1 plain bytes. Any other control byte copies bytes that are already
    unpacked: n + 2 of them, where n are its upper three bits. If n = 7, a byte follows that is added to n. One more
    byte belongs to the distance.
    """
    position = size = 0
    while position < len(data):
        control = data[position]
        if control < 32:
            position += control + 2
            size += control + 1
        elif control < 224:
            position += 2
            size += (control >> 5) + 2
        else:
            size += data[position + 1] + 9
            position += 3
    return size if position == len(data) else -1


def _unshuffled(data: bytes, width: int) -> bytes:
    """Undo shuffle, which stores all first bytes, all second bytes, ... of numbers of `width` bytes."""
    count = len(data) // width if width > 1 else 0
    if not count:
        return data
    planes = np.frombuffer(data, np.uint8, count * width).reshape(width, count)
    numbers = np.empty((count, width), np.uint8)
    for index in range(width):  # ten times as fast as a transposed copy
        numbers[:, index] = planes[index]
    return numbers.tobytes() + data[count * width :]  # shuffle leaves a rest shorter than a number as it is


def _without_checksum(data: bytes) -> bytes:
    """The data before Fletcher's checksum, after a check. It is of the big-endian 16-bit words."""
    if len(data) < _CHECKSUM:
        raise ValueError("is too short for its checksum")
    content = data[:-_CHECKSUM]
    even = content if len(content) % 2 == 0 else content + b"\0"
    words = np.frombuffer(even, ">u2")
    # The sum of the words, and the sum of all partial sums, in which the k-th word from the end counts k times; both
    # modulo 65535. Blocks bound the 64-bit sums and the temporary arrays.
    first = second = 0
    for begin in range(0, len(words), _BLOCK):
        block = words[begin : begin + _BLOCK].astype(np.uint64)
        second += len(block) * first + int(block @ np.arange(len(block), 0, -1, dtype=np.uint64))
        first += int(block.sum())
    low, high = struct.unpack("<HH", data[-_CHECKSUM:])
    if (first % 65535, second % 65535) != (low % 65535, high % 65535):
        raise ValueError("its checksum is wrong")
    return content
