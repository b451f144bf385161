"""Feature files that would take all memory, wait for ever, or lead out of themselves: one clear line for each."""

import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from refineloc.runtime.errors import FeatureError
from refineloc.runtime.features import hdf5, npy, store
from refineloc.runtime.features.opening import open_features

VALUES = np.random.default_rng(0).standard_normal((7, 6)).astype(np.float32)


def written(path: Path, write: Callable[[h5py.File], object]) -> Path:
    with h5py.File(path, "w") as file:
        write(file)
    return path


def refuse(path: Path, message: str, *, name: str = "v", **options: int) -> None:
    for untrusted in (True, False):
        with (
            open_features(path, untrusted=untrusted, **options) as store,
            pytest.raises(FeatureError, match=message) as caught,
        ):
            store.read(name)
        text = str(caught.value)
        assert text.startswith(f"{path}: video {name!r}: ")
        assert "\n" not in text


@pytest.mark.parametrize("chunks", [None, (1000, 2048)])
def test_a_shape_with_nothing_stored_is_refused(tmp_path: Path, chunks: tuple[int, int] | None) -> None:
    shape = (100_000_000, 2048)
    path = written(tmp_path / "f.h5", lambda file: file.create_dataset("v", shape, "f4", chunks=chunks))
    assert path.stat().st_size < 10_000
    refuse(path, "100000000 x 2048, and nothing is stored in it")
    with open_features(path) as store, pytest.raises(FeatureError, match="nothing is stored"):
        store.info("v")


def test_a_shape_of_which_little_is_stored_meets_the_memory_limit(tmp_path: Path) -> None:
    def write(file: h5py.File) -> None:
        file.create_dataset("v", (100_000_000, 2048), "f4", chunks=(1, 2048), compression="gzip")[0] = 1
        file["small"] = VALUES

    path = written(tmp_path / "f.h5", write)
    refuse(path, r"100000000 x 2048 features would take 762.9 GiB of memory, more than the limit of 4.0 GiB")
    with open_features(path) as store:  # and does not hinder the others
        assert np.array_equal(store.read("small"), VALUES)


def test_well_compressed_features_are_read(tmp_path: Path) -> None:
    # 1000 : 1, the most that gzip reaches: no ratio of sizes can tell such a file from a hostile one.
    zeros = np.zeros((4000, 1024), np.float32)
    options = {"chunks": (2000, 1024), "compression": "gzip", "compression_opts": 9}
    path = written(tmp_path / "f.h5", lambda file: file.create_dataset("v", data=zeros, **options))
    assert path.stat().st_size * 500 < zeros.nbytes
    with open_features(path) as store:
        assert np.array_equal(store.read("v"), zeros)


def test_the_memory_limit_is_of_what_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "f.h5", lambda file: file.create_dataset("v", data=VALUES))
    with open_features(path, max_video_bytes=VALUES.nbytes) as store:
        assert np.array_equal(store.read("v"), VALUES)
    refuse(path, "more than the limit", max_video_bytes=VALUES.nbytes - 1)
    with open_features(path, max_video_bytes=VALUES.nbytes // 2) as store:  # half of the columns, half of the memory
        assert np.array_equal(store.read("v", slice(0, 3)), VALUES[:, :3])
        assert store.room("v", VALUES.shape, np.float16).shape == VALUES.shape


def test_chunks_that_unpack_to_more_than_the_limit_are_refused(tmp_path: Path) -> None:
    def write(file: h5py.File) -> None:
        file.create_dataset("v", data=VALUES, chunks=(1 << 16, 6), maxshape=(None, 6), compression="gzip")

    refuse(written(tmp_path / "f.h5", write), "chunks, 65536 x 6, are too large", max_video_bytes=1 << 20)


@pytest.mark.parametrize("where", ["empty", "read"])
def test_no_memory_is_an_error_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    path = written(tmp_path / "f.h5", lambda file: file.create_dataset("v", data=VALUES))

    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    if where == "empty":
        monkeypatch.setattr(store.np, "empty", fail)
    else:
        monkeypatch.setattr(hdf5.HDF5File, "_read", fail)
    refuse(path, "no memory")


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_links_in_the_middle_of_a_path_are_not_followed(tmp_path: Path, libver: str) -> None:
    os.mkfifo(tmp_path / "outside.h5")  # who opens it waits for ever
    path = tmp_path / "f.h5"
    with h5py.File(path, "w", libver=libver) as file:
        file["group/inner"] = h5py.ExternalLink("outside.h5", "/")
        file["soft"] = h5py.SoftLink("/group/inner/v")
        file["through/features"] = h5py.SoftLink("/group/inner/v")
        file["direct"] = h5py.ExternalLink(str(tmp_path / "outside.h5"), "/v")
        file["dangling"] = h5py.SoftLink("/nothing")
    for name in ("soft", "through", "direct", "dangling"):
        refuse(path, "links are not followed", name=name)
    refuse(path, "a group with a dataset 'features' inside", name="group")


def test_virtual_datasets_and_external_storage_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "outside.bin")
    layout = h5py.VirtualLayout((7, 6), "f4")
    layout[:] = h5py.VirtualSource("outside.bin", "v", (7, 6))
    itself = h5py.VirtualLayout((7, 6), "f4")
    itself[:] = h5py.VirtualSource(".", "itself", (7, 6))

    def write(file: h5py.File) -> None:
        file.create_virtual_dataset("virtual", layout)
        file.create_virtual_dataset("itself", itself)
        file.create_dataset("storage", (7, 6), "f4", external=[("outside.bin", 0, VALUES.nbytes)])

    path = written(tmp_path / "f.h5", write)
    for name in ("virtual", "itself", "storage"):
        refuse(path, "its data lie in another file", name=name)


def test_external_storage_is_not_opened_where_values_lie_in_the_file_too(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "outside.bin")
    external = [("outside.bin", 0, VALUES.nbytes)]
    path = written(tmp_path / "f.h5", lambda file: file.create_dataset("v", (7, 6), "f4", external=external))
    content, nowhere = path.read_bytes(), b"\xff" * 8 + struct.pack("<Q", VALUES.nbytes)
    assert content.count(nowhere) == 1
    path.write_bytes(content.replace(nowhere, struct.pack("<QQ", 800, VALUES.nbytes)))
    with h5py.File(path) as file:
        assert file["v"].id.get_offset() == 800
    refuse(path, "its data lie in another file")


def test_names_in_the_file_that_are_paths_are_not_followed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "outside.h5")

    def write(file: h5py.File) -> None:
        file["a"] = h5py.ExternalLink("outside.h5", "/")
        file["a-b"] = VALUES

    path = written(tmp_path / "f.h5", write)
    path.write_bytes(path.read_bytes().replace(b"a-b", b"a/b"))
    with open_features(path) as store:
        assert store.names == ("a", "a/b")
    refuse(path, "links are not followed", name="a/b")


def test_a_type_is_no_dataset(tmp_path: Path) -> None:
    path = written(tmp_path / "f.h5", lambda file: file.update(v=np.dtype(np.float32)))
    refuse(path, "expected a dataset, got a datatype")


def test_a_group_that_holds_itself_ends(tmp_path: Path) -> None:
    def write(file: h5py.File) -> None:
        group = file.create_group("v")
        group["features"] = group

    refuse(written(tmp_path / "f.h5", write), "expected a dataset, got a group")


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_cut_files(tmp_path: Path, part: float, libver: str) -> None:
    path = tmp_path / "f.h5"
    with h5py.File(path, "w", libver=libver) as file:
        for index in range(20):
            file.create_dataset(f"v{index}", data=VALUES, chunks=True, compression="gzip")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(FeatureError, match="cut short") as caught:
        open_features(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [np.arange(3), "25", np.array([], np.float32), [["a", "b"]], np.void(b"25")])
def test_attributes_of_other_kinds_are_refused(tmp_path: Path, value: object) -> None:
    path = written(tmp_path / "f.h5", lambda file: file.create_dataset("v", data=VALUES).attrs.update(fps=value))
    refuse(path, "'fps' is not a number")


def test_attributes_of_others_are_left_alone(tmp_path: Path) -> None:
    attributes = {"note": "a text", "table": np.zeros((50, 20)), "fps": np.array([25.0])}
    path = written(tmp_path / "f.h5", lambda file: file.create_dataset("v", data=VALUES).attrs.update(attributes))
    with open_features(path) as store:
        assert store.info("v").fps == 25.0


def test_names_that_are_not_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        file[b"v\xff"] = VALUES
    with pytest.raises(FeatureError, match=r"video 'v\\udcff': its name is not UTF-8"):
        open_features(path)


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f.h5")
    with pytest.raises(FeatureError, match="neither a file nor a folder"):
        open_features(tmp_path / "f.h5")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "folder" / "v.npy")
    refuse(tmp_path / "folder", "not a file")


@pytest.mark.parametrize(
    "kind",
    ["cut", "npz", "pickle", "empty", "header", "shape", "booleans", "negative", "digits", "version", "deep", "text"],
)
def test_npy_files_that_are_not_what_they_say(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "v.npy"
    np.save(path, VALUES)
    good = path.read_bytes()
    header = good[10 : good.index(b"\n")].rstrip()

    def with_header(text: bytes) -> bytes:
        return good[:8] + len(text).to_bytes(2, "little") + text

    contents = {
        "cut": good[:-4],
        "empty": b"",
        "header": with_header(b"{'descr': '<f4', 'shape': (1,"),
        "shape": with_header(header.replace(b"(7, 6)", b"(100000000000, 2048)")),
        "booleans": with_header(header.replace(b"(7, 6)", b"(True, True)")),
        "negative": with_header(header.replace(b"(7, 6)", b"(-1, -6)")),
        "digits": with_header(header.replace(b"(7, 6)", b"(0x" + b"f" * 5000 + b", 0)")),  # more than Python prints
        "version": good[:6] + b"\4\0" + good[8:],
        "deep": with_header(b"[" * 9000),
        "text": b"not an array",
    }
    if kind in contents:
        path.write_bytes(contents[kind])
    else:
        with path.open("wb") as file:
            np.savez(file, a=VALUES) if kind == "npz" else np.save(file, np.array([{"a": 1}]), allow_pickle=True)
    refuse(folder, r"not a readable \.npy file")


def test_a_sparse_npy_file_meets_the_memory_limit(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    np.lib.format.open_memmap(folder / "v.npy", mode="w+", dtype=np.float32, shape=(1_000_000, 2048))
    refuse(folder, "more than the limit of 4.0 GiB")


def test_a_chunk_too_short_for_its_checksum_is_refused(tmp_path: Path) -> None:
    def write(file: h5py.File) -> None:
        dataset = file.create_dataset("v", (6, 4), "f4", chunks=(3, 4), fletcher32=True)
        dataset.id.write_direct_chunk((0, 0), b"ab")  # HDF5 2.0.0 reads before and beyond such a chunk, and crashes

    refuse(written(tmp_path / "f.h5", write), "a chunk of 48 bytes is stored in 2")


CHANGED = "the file changed while it was read"


@pytest.mark.parametrize("untrusted", [True, False])
@pytest.mark.parametrize("how", ["cut", "written"])
def test_an_hdf5_file_that_changes_while_it_is_open_is_refused(tmp_path: Path, untrusted: bool, how: str) -> None:
    """HDF5 gives zeros for what lies behind the end of a file."""
    values = np.ones((20_000, 16), np.float32)
    options = {"chunks": (1000, 16), "compression": "gzip"} if untrusted else {}
    path = written(tmp_path / "f.h5", lambda file: file.create_dataset("v", data=values, **options))
    with open_features(path, untrusted=untrusted) as store:
        assert store.info("v").snippets == 20_000
        if how == "cut":
            os.truncate(path, path.stat().st_size - 1000)
        else:
            os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
        for ask in (store.info, store.read):
            with pytest.raises(FeatureError, match=f"^{re.escape(str(path))}: video 'v': {CHANGED}|damaged") as caught:
                ask("v")
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: os.truncate(path, path.stat().st_size - 4), "it ends before its last number"),
        (lambda path: os.truncate(path, 0), "it ends before its last number"),
        (lambda path: os.utime(path, ns=(0, path.stat().st_mtime_ns + 1)), CHANGED),
    ],
    ids=["cut", "emptied", "written"],
)
def test_an_npy_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str, change: Callable[[Path], object], message: str
) -> None:
    """Whoever maps such a file into memory is killed."""
    (tmp_path / "f").mkdir()
    path = tmp_path / "f" / "v.npy"
    np.save(path, np.asarray(np.ones((3000, 50), np.float32), order=order))  # type: ignore[call-overload]
    read = npy.NpyArray.read_into

    def late(*arguments: Any) -> None:
        change(path)
        read(*arguments)

    monkeypatch.setattr(npy.NpyArray, "read_into", late)
    with open_features(tmp_path / "f") as store, pytest.raises(FeatureError, match=message):
        store.read("v")


def test_an_npy_file_that_is_another_by_the_time_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    for first, second in (((7, 6), (9, 6)), ((7, 6), (7, 5))):
        np.save(tmp_path / "f" / "v.npy", np.ones(first, np.float32))
        with open_features(tmp_path / "f") as store:
            out = store.room("v", (store.info("v").snippets, 6))
            np.save(tmp_path / "f" / "v.npy", np.ones(second, np.float32))
            with pytest.raises(FeatureError, match=CHANGED):
                store.read_into("v", out, slice(0, 6))
