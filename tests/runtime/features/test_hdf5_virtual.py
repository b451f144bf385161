"""The layout of HDF5 datasets, read from the file's own bytes, compared with what HDF5 says."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from refineloc.runtime.errors import FeatureError
from refineloc.runtime.features.hdf5_virtual import is_virtual
from refineloc.runtime.features.opening import open_features

VALUES = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.mark.parametrize("libver", ["earliest", "v110", "latest"])
@pytest.mark.parametrize("track_order", [False, True])
@pytest.mark.parametrize("userblock", [0, 512])
def test_it_agrees_with_hdf5(tmp_path: Path, libver: str, track_order: bool, userblock: int) -> None:
    path = tmp_path / "f.h5"
    options = {"libver": libver, "track_order": track_order, "userblock_size": userblock}
    with h5py.File(path, "w", **options) as file:
        file["contiguous"] = VALUES
        file.create_dataset("chunked", data=VALUES, chunks=(2, 3), compression="gzip", track_order=track_order)
        for name, attributes in (("virtual", 0), ("described", 40)):
            layout = h5py.VirtualLayout((4, 3), "f4")
            layout[:] = h5py.VirtualSource("other.h5", "v", (4, 3))
            dataset = file.create_virtual_dataset(name, layout)
            for index in range(attributes):  # the header goes on in other blocks
                dataset.attrs[f"note {index}"] = "a text " * 10
        file["contiguous"].attrs["note"] = "a text " * 100
    seen = set()
    with h5py.File(path, "r") as file, path.open("rb") as raw:
        for name in file:
            address = file.id.links.get_info(name.encode()).u
            assert is_virtual(raw.fileno(), address, userblock) == file[name].is_virtual, name
            seen.add(file[name].is_virtual)
    assert seen == {False, True}
    with open_features(path) as store:
        assert np.array_equal(store.read("chunked"), VALUES)
        with pytest.raises(FeatureError, match="another file"):
            store.read("described")


@pytest.mark.parametrize("content", [b"", b"\x01", b"OHDR", b"OHDR\x02\xff" + b"\xff" * 60, b"\x01\x00" + b"\xff" * 60])
def test_what_is_no_header_is_not_virtual(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "f"
    path.write_bytes(content)
    with path.open("rb") as file:
        assert not is_virtual(file.fileno(), 0)
        assert not is_virtual(file.fileno(), 10**15)


def test_blocks_that_lead_to_each_other_end(tmp_path: Path) -> None:
    again = (16).to_bytes(8, "little") + (24).to_bytes(8, "little")
    header = bytes([1, 0, 1, 0, 1, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0])
    path = tmp_path / "f"
    path.write_bytes(header + bytes([0x10, 0, 16, 0, 0, 0, 0, 0]) + again)
    descriptor = os.open(path, os.O_RDONLY)
    assert not is_virtual(descriptor, 0)
    os.close(descriptor)
