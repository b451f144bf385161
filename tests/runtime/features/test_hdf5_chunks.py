"""Compressed HDF5 datasets: what is read equals what HDF5 reads, and no untrusted chunk takes more than its size."""

import json
import struct
import subprocess
import sys
import textwrap
import types
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from refineloc.runtime.errors import FeatureError, MissingExtraError
from refineloc.runtime.features.opening import open_features

VALUES = np.random.default_rng(0).standard_normal((37, 23)).round(1)
CHUNKS = (64, 128)  # of the datasets whose chunks are written as bytes: 32 KiB
SIZE = 64 * 128 * 4


def refuse(path: Path, message: str, *, untrusted: bool = True) -> None:
    with open_features(path, untrusted=untrusted) as store, pytest.raises(FeatureError, match=message) as caught:
        store.read("v")
    assert str(caught.value).startswith(f"{path}: video 'v': ")
    assert "\n" not in str(caught.value)


def raw_chunk(path: Path, chunk: bytes, *, mask: int = 0, filters: tuple[str, ...] = ("deflate",)) -> Path:
    """A dataset of one chunk, whose bytes are given as they are stored."""
    with h5py.File(path, "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk(CHUNKS)
        for name in filters:
            if name == "deflate":
                plist.set_deflate(9)
            elif name == "lzf":
                plist.set_filter(h5py.h5z.FILTER_LZF, h5py.h5z.FLAG_OPTIONAL, (4, 261, SIZE))
            elif name == "fletcher32":
                plist.set_fletcher32()
            else:
                plist.set_filter(int(name), h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple(CHUNKS)
        dataset = h5py.h5d.create(file.id, b"v", h5py.h5t.IEEE_F32LE, space, plist)
        dataset.write_direct_chunk((0, 0), chunk, mask)
    return path


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2", "<f8"])
@pytest.mark.parametrize("compression", ["gzip", "lzf", None])
@pytest.mark.parametrize("untrusted", [True, False])
def test_it_reads_what_hdf5_reads(
    tmp_path: Path, libver: str, dtype: str, compression: str | None, untrusted: bool
) -> None:
    path = tmp_path / "f.h5"
    with h5py.File(path, "w", libver=libver) as file:
        for name, shuffle, checksum, chunks in (
            ("a", False, False, (5, 7)),
            ("b", True, False, (5, 23)),
            ("c", False, True, (37, 23)),
            ("d", True, True, (1, 23)),
            ("resizable", True, True, (8, 8)),
        ):
            options: dict[str, Any] = {"maxshape": (None, 23)} if name == "resizable" else {}
            options |= {"chunks": chunks, "compression": compression, "shuffle": shuffle, "fletcher32": checksum}
            file.create_dataset(name, data=VALUES.astype(dtype), **options)
        file.create_dataset("part", VALUES.shape, dtype, chunks=(5, 7), compression=compression, fillvalue=2.5)
        file["part"][3:9, 2:12] = VALUES[3:9, 2:12]
    with h5py.File(path) as file, open_features(path, untrusted=untrusted) as store:
        for name in store.names:
            expected = file[name][...].astype(np.float32)
            assert np.array_equal(store.read(name), expected), name
            for columns in (slice(0, 11), slice(11, 23), slice(6, 8), slice(3, 22, 3), slice(20, 400)):
                assert np.array_equal(store.read(name, columns), expected[:, columns]), (name, columns)
            if dtype == "<f2":
                half = np.empty(expected.shape, np.float16)
                store.read_into(name, half)
                assert np.array_equal(half, expected.astype(np.float16))


def test_a_chunk_that_went_without_a_filter_is_read(tmp_path: Path) -> None:
    values = np.arange(SIZE // 4, dtype=np.float32).reshape(CHUNKS)
    for filters in (("deflate",), ("lzf",)):
        path = raw_chunk(tmp_path / "f.h5", values.tobytes(), mask=1, filters=filters)
        for untrusted in (True, False):
            with open_features(path, untrusted=untrusted) as store:
                assert np.array_equal(store.read("v"), values)


def inflating(size: int) -> bytes:
    """A deflate stream of `size` zeros, a thousandth of that."""
    stream = zlib.compressobj(9)
    return b"".join([*(stream.compress(bytes(2**20)) for _ in range(size >> 20)), stream.flush()])


def lzf_zeros(size: int) -> bytes:
    """An LZF stream of `size` zeros or a little more: a zero, then copies of 264 bytes."""
    return b"\0\0" + (-(-(size - 1) // 264)) * b"\xe0\xff\0"


@pytest.mark.parametrize(
    ("chunk", "filters", "message"),
    [
        (inflating(2**20), ("deflate",), "unpacks to more than its 32,768 bytes"),
        (zlib.compress(inflating(2**25)), ("deflate", "deflate"), "compressed twice"),
        (zlib.compress(lzf_zeros(SIZE)), ("lzf", "deflate"), "compressed twice"),
        (inflating(2**30), ("deflate",), r"a chunk of 32,768 bytes is stored in 1,0\d\d,\d\d\d"),
        (lzf_zeros(2 * SIZE), ("lzf",), "unpacks to 65,737 bytes, expected 32,768"),
        (zlib.compress(bytes(16)), ("deflate",), "unpacks to 16 bytes, expected 32,768"),
        (zlib.compress(bytes(SIZE))[:-2], ("deflate",), "deflate stream is cut short"),
        (b"no stream", ("deflate",), "incorrect header check"),
        (b"\x03abcd", ("lzf",), "unpacks to 4 bytes"),
        (b"\x1fabcd", ("lzf",), "unpacks to -1 bytes"),
        (b"\0", ("deflate", "fletcher32"), "a chunk of 32,768 bytes is stored in 1"),
        (zlib.compress(b"\0"), ("fletcher32", "deflate"), "too short for its checksum"),
        (zlib.compress(bytes(SIZE)) + b"abcd", ("deflate", "fletcher32"), "its checksum is wrong"),
        (b"abcd", ("32015",), r"filter 32015 \('of no name'\), which is not read from strangers; h5repack -f"),
        (b"abcd", ("6",), "filter 6 "),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else None,
)
def test_chunks_that_are_not_what_they_say(
    tmp_path: Path, chunk: bytes, filters: tuple[str, ...], message: str
) -> None:
    try:
        path = raw_chunk(tmp_path / "f.h5", chunk, filters=filters)
    except ValueError as error:  # HDF5 does not even make it
        pytest.skip(str(error))
    refuse(path, message)


def test_an_lzf_filter_that_states_another_size_is_refused(tmp_path: Path) -> None:
    path = raw_chunk(tmp_path / "f.h5", lzf_zeros(SIZE - 7), filters=("lzf",))
    stated = SIZE.to_bytes(4, "little")
    content = path.read_bytes()
    assert content.count((261).to_bytes(4, "little") + stated) == 1
    path.write_bytes(content.replace((261).to_bytes(4, "little") + stated, (261).to_bytes(4, "little") + b"\xff" * 4))
    refuse(path, "states chunks of another size")


def test_filters_of_a_dataset_without_chunks_are_checked(tmp_path: Path) -> None:
    """HDF5 writes no such dataset, and reads its values as they are."""
    path = raw_chunk(tmp_path / "f.h5", bytes(SIZE), filters=("305",))
    content = path.read_bytes()
    layout = content.index(struct.pack("<III", *CHUNKS, 4)) - 11  # version 3, kind, axes and address before it
    assert content[layout : layout + 3] == bytes([3, h5py.h5d.CHUNKED, 3])
    one_piece = struct.pack("<BBQQ", 3, h5py.h5d.CONTIGUOUS, 2048, SIZE)
    path.write_bytes(content[:layout] + one_piece + content[layout + len(one_piece) :])
    refuse(path, "not read from strangers")


def test_numbers_of_no_numpy_type_are_refused(tmp_path: Path) -> None:
    bfloat16 = h5py.h5t.IEEE_F32LE.copy()
    bfloat16.set_fields(15, 7, 8, 0, 7)
    bfloat16.set_size(2)
    bfloat16.set_ebias(127)
    with h5py.File(tmp_path / "f.h5", "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((4, 4))
        plist.set_deflate(4)
        dataset = h5py.h5d.create(file.id, b"v", bfloat16, h5py.h5s.create_simple((4, 4)), plist)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ones((4, 4), np.float32))
    refuse(tmp_path / "f.h5", "a form that NumPy lacks")


MEASURE = textwrap.dedent(
    """
    import json, resource, sys
    from refineloc.runtime.errors import FeatureError, MissingExtraError
    from refineloc.runtime.features.opening import open_features
    with open_features(sys.argv[1]) as first:  # HDF5 and all of ours are loaded
        first.read("v")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    errors = []
    for path in sys.argv[2:]:
        try:
            with open_features(path, untrusted=True) as store:
                store.read("v")
        except FeatureError as error:
            errors.append(str(error))
    print(json.dumps([errors, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10]))
    """
)


def test_bombs_take_no_memory(tmp_path: Path) -> None:
    good = raw_chunk(tmp_path / "good.h5", zlib.compress(bytes(SIZE)))
    bomb = inflating(2**29)
    wide = tmp_path / "wide.h5"
    with h5py.File(wide, "w") as file:  # a chunk of 1 MiB that half a megabyte of deflate is not too much for
        dataset = file.create_dataset("v", (2048, 128), "f4", chunks=(2048, 128), compression="gzip")
        dataset.id.write_direct_chunk((0, 0), bomb)
    assert wide.stat().st_size < 2**20
    twice = raw_chunk(tmp_path / "twice.h5", zlib.compress(bomb, 9), filters=("deflate", "deflate"))
    assert twice.stat().st_size < 10_000
    command = [sys.executable, "-c", MEASURE, *map(str, (good, wide, twice))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    errors, mebibytes = json.loads(done.stdout)
    assert len(errors) == 2
    assert mebibytes < 32  # HDF5 itself takes 512 and more


def test_a_plain_chunk_shorter_than_its_shape_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("v", data=np.ones(CHUNKS, np.float32), chunks=CHUNKS, maxshape=(None, 128))
    content = path.read_bytes()
    at = content.index(b"TREE\x01") + 24  # the first key of the chunks' tree begins with the size
    assert content[at : at + 4] == SIZE.to_bytes(4, "little")
    path.write_bytes(content[:at] + (16).to_bytes(4, "little") + content[at + 4 :])
    for untrusted in (True, False):
        refuse(path, "a chunk of 32,768 bytes is stored in 16", untrusted=untrusted)


@pytest.mark.parametrize(
    ("chunk", "filters"),
    [
        (b"no stream", ("deflate",)),
        (zlib.compress(bytes(SIZE))[:-2], ("deflate",)),
        (b"\x1fabcd", ("lzf",)),
        (zlib.compress(bytes(SIZE)) + b"abcd", ("deflate", "fletcher32")),
    ],
    ids=["no stream", "cut", "lzf", "checksum"],
)
def test_a_damaged_chunk_of_a_trusted_file_is_one_line(tmp_path: Path, chunk: bytes, filters: tuple[str, ...]) -> None:
    refuse(raw_chunk(tmp_path / "f.h5", chunk, filters=filters), "cannot be read", untrusted=False)


def test_a_filter_that_hdf5_lacks_comes_from_hdf5plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = raw_chunk(tmp_path / "f.h5", b"abcd", filters=("32099",))
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    with open_features(path) as store, pytest.raises(MissingExtraError, match=r"32099 .*: pip install hdf5plugin$"):
        store.read("v")
    monkeypatch.setitem(sys.modules, "hdf5plugin", types.ModuleType("hdf5plugin"))
    refuse(path, r"32099 .* and hdf5plugin too; h5repack", untrusted=False)


@pytest.mark.parametrize("name", ["Blosc", "Zstd"])
def test_filters_of_hdf5plugin_are_read(tmp_path: Path, name: str) -> None:
    plugins = pytest.importorskip("hdf5plugin")
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("v", data=VALUES, chunks=(5, 23), **getattr(plugins, name)())
    with open_features(path) as store:
        assert np.array_equal(store.read("v"), VALUES.astype(np.float32))
    refuse(path, "not read from strangers")
