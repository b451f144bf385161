"""Recognises a virtual dataset of an HDF5 file before HDF5 opens it.

HDF5 reads the list of source files as soon as a virtual dataset is opened, before anyone can ask whether it is virtual.
With a damaged list, HDF5 2.0.0 crashes or hangs (found by `make fuzz`). So this module reads the object's header, up to
its layout message (HDF5 file format specification, IV.A).
"""

import os
import struct

from refineloc.runtime.addresses import Ranges
from refineloc.runtime.errors import StoreError

__all__ = ["is_virtual"]

_CONTINUATION, _LAYOUT = 0x10, 0x08  # types of header messages
_VIRTUAL = 3  # a layout class
_MAX_BLOCKS, _MAX_BLOCK = 64, 1 << 20  # headers of features have fewer and smaller blocks


def is_virtual(file: int | Ranges, address: int, base: int = 0) -> bool:
    """Whether the object with its header at `address` is a virtual dataset.

    `file` is its descriptor, or the ranges of an address.

    Only files with addresses and lengths of 8 bytes are understood; h5py writes these. For a header that is damaged or
    not understood the result is False: HDF5 refuses it, or reads it as something else.

    HDF5 counts addresses from `base`, the size of the user block at the beginning of the file.
    """
    try:
        return _walk(file, address, base)
    except StoreError:
        raise
    except (struct.error, IndexError, OSError, OverflowError):  # the header points outside itself or the file
        return False


def _walk(file: int | Ranges, address: int, base: int) -> bool:
    start = _read(file, 48, base + address)
    ordered = False
    version_2 = start[:4] == b"OHDR"  # version 2 of the header; version 1 begins with its number
    if version_2:
        flags = start[5]
        ordered = bool(flags & 0x04)
        position = 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        width = 1 << (flags & 0x03)
        size = int.from_bytes(start[position : position + width], "little")
        blocks = [(address + position + width, size)]
    elif start[0] == 1:
        (size,) = struct.unpack_from("<I", start, 8)
        blocks = [(address + 16, size)]
    else:
        return False

    for _ in range(_MAX_BLOCKS):
        if not blocks:
            break
        where, size = blocks.pop()
        block = _read(file, min(size, _MAX_BLOCK), base + where)
        position = 0
        while position + 4 < len(block):
            if version_2:
                kind, length = struct.unpack_from("<BH", block, position)
                position += 6 if ordered else 4
            else:
                kind, length = struct.unpack_from("<HH", block, position)
                position += 8
            data = block[position : position + length]
            position += length
            if kind == _LAYOUT and data[0] >= 3:  # layouts of versions 1 and 2 are never virtual
                return data[1] == _VIRTUAL
            if kind == _CONTINUATION:
                offset, length = struct.unpack_from("<QQ", data)
                # A continuation block of version 2 begins with "OCHK" and ends with a checksum of 4 bytes.
                blocks.append((offset + 4, max(0, length - 8)) if version_2 else (offset, length))
    return False


def _read(file: int | Ranges, size: int, offset: int) -> bytes:
    if isinstance(file, Ranges):
        return bytes(file.read_at(offset, size))
    if hasattr(os, "pread"):
        return os.pread(file, size, offset)
    # Windows: HDF5 remembers where it left the descriptor, so it is put back; h5py's lock keeps HDF5 waiting.
    from h5py._objects import phil

    with phil:
        before = os.lseek(file, 0, os.SEEK_CUR)
        try:
            os.lseek(file, offset, os.SEEK_SET)
            return os.read(file, size)
        finally:
            os.lseek(file, before, os.SEEK_SET)
