"""Archives of arrays (.npz): what is read of them, and hostile ones."""

import io
import os
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refineloc.runtime.errors import FeatureError, InputWarning
from refineloc.runtime.features import npz
from refineloc.runtime.features.opening import open_features

FEATURES = np.random.default_rng(0).standard_normal((7, 6)).astype(np.float32)
OBJECTS = np.array([{"a": 1}], dtype=object)
WRITERS = pytest.mark.parametrize("write", [np.savez, np.savez_compressed])


def npy(array: Any = FEATURES) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@WRITERS
@pytest.mark.parametrize(
    "arrays",
    [
        {"feats": FEATURES},
        {"arr_0": FEATURES},
        {"features": FEATURES, "boxes": FEATURES},
        {"x": FEATURES, "fps": 25, "frames": np.arange(7), "title": "a text", "info": OBJECTS},
        {"x": np.asfortranarray(FEATURES)},
        {"x": FEATURES[None, :, None]},
    ],
    ids=lambda arrays: "+".join(arrays),
)
def test_an_archive_of_one_video(tmp_path: Path, write: Callable[..., None], arrays: dict[str, Any]) -> None:
    (tmp_path / "f").mkdir()
    write(tmp_path / "f" / "v.npz", **arrays)
    for path in (tmp_path / "f", tmp_path / "f" / "v.npz"):
        with open_features(path, untrusted=True) as store:
            assert store.names == ("v",)
            info = store.info("v")
            assert (info.snippets, info.width, info.fps) == (7, 6, arrays.get("fps"))
            assert np.array_equal(store.read("v"), FEATURES)
            assert np.array_equal(store.read("v", slice(1, 6, 2)), FEATURES[:, 1:6:2])


@WRITERS
def test_an_archive_of_many_videos(tmp_path: Path, write: Callable[..., None]) -> None:
    videos = {"b": FEATURES, "a": -FEATURES[:3], "c d": np.asfortranarray(2 * FEATURES), "empty": FEATURES[:0]}
    write(tmp_path / "f.npz", **videos, fps=25.0, snippet_frames=16, stride_frames=np.array([4]))
    with open_features(tmp_path / "f.npz") as store:
        assert store.names == ("a", "b", "c d", "empty")
        assert "fps" not in store
        info = store.info("a")
        assert (info.snippets, info.width, info.dtype) == (3, 6, np.float32)
        assert (info.fps, info.duration_s, info.snippet_frames, info.stride_frames) == (25, None, 16, 4)
        for name, features in videos.items():
            assert np.array_equal(store.read(name), features)
            assert np.array_equal(store.read(name, slice(0, 3)), features[:, :3])
        with pytest.raises(FeatureError, match="video 'x': not in the archive, which holds 4 videos"):
            store.info("x")


def test_pairs_of_archives_are_joined(tmp_path: Path) -> None:
    np.savez(tmp_path / "v_rgb.npz", x=FEATURES[:, 4:], fps=25)
    np.savez(tmp_path / "v_flow.npz", x=FEATURES[:, :4])
    with pytest.warns(InputWarning, match=r"NAME_flow\.npz and NAME_rgb\.npz are joined"):
        store = open_features(tmp_path)
    assert store.info("v").fps == 25
    assert store.two_streams
    assert np.array_equal(store.read("v"), FEATURES)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"flow": FEATURES, "rgb": FEATURES[:, 1:]}, r"array 'rgb' \(float32, \(7, 5\)\): another width than 'flow'"),
        ({"arr_0": FEATURES, "arr_1": FEATURES}, r"array 'arr_0' \(float32, \(7, 6\)\): of which video\?"),
        ({"a": FEATURES, "b": FEATURES, "labels": np.arange(2)}, r"'labels' \(int64, \(2,\)\): not T x D of float32"),
        ({"a": np.arange(12).reshape(3, 4), "b": np.arange(4)}, r"'a' \(int64, \(3, 4\)\): not T x D of float32"),
        ({"a": FEATURES, "b": FEATURES, " ": FEATURES}, "its name is empty"),
        ({"a": FEATURES, "b": FEATURES, "fps": -1}, "array 'fps' is -1; expected a number from"),
        ({"a": FEATURES, "b": FEATURES, "fps": "25"}, "array 'fps' is not a number"),
        ({"data": OBJECTS}, "array 'data': cannot be read: pickled objects, which are not loaded"),
        (
            {"features": np.stack([FEATURES, FEATURES]), "names": np.array(["a", "b"])},
            r"got shape \(2, 7, 6\): save one",
        ),
        ({}, "holds no video"),
    ],
)
def test_files_that_are_no_arrays_of_videos(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "f.npz", **arrays)
    with pytest.raises(FeatureError, match=f"^{re.escape(str(tmp_path / 'f.npz'))}: .*{message}"):
        open_features(tmp_path / "f.npz")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"flow": FEATURES, "rgb": FEATURES}, r"one array alone that can be .*; got 'flow' \(7, 6\), 'rgb' \(7, 6\)$"),
        ({"x": OBJECTS}, "pickled objects, which are not loaded"),
        ({"x": np.arange(42).reshape(7, 6)}, "expected float32 or float16 features, got dtype int64"),
        ({"x": np.ones((7, 10, 6), np.float32)}, "10 crops"),
        ({"fps": 25}, r"one array alone .*; got 'fps' \(\)$"),
    ],
)
def test_archives_in_a_folder_that_are_no_features(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "v.npz", **arrays)
    with open_features(tmp_path) as store, pytest.raises(FeatureError, match=message) as caught:
        store.read("v")
    assert str(tmp_path) in str(caught.value)


def members(path: Path, *names: str, method: int = zipfile.ZIP_STORED, content: bytes | None = None) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        for name in names:
            archive.writestr(name, npy() if content is None else content)
    return path


def patched(path: Path, offset: int, value: bytes) -> None:
    """Change the flags or sizes of the only member, in both of its headers."""
    content = bytearray(path.read_bytes())
    for begin, place in ((content.index(b"PK\1\2"), offset + 2), (0, offset)):
        content[begin + place : begin + place + len(value)] = value
    path.write_bytes(content)


def hostile(path: Path, kind: str) -> None:
    if kind == "folder":
        members(path, "../../v.npy")
    elif kind == "backslash":
        members(path, "..\\v.npy")
    elif kind == "absolute":
        members(path, "/v.npy")
    elif kind == "twice":
        members(path, "v.npy", "v.npy")
    elif kind == "no array":
        members(path, "v.npy", "data.pkl")
    elif kind == "lzma":
        members(path, "v.npy", method=zipfile.ZIP_LZMA)
    elif kind == "encrypted":
        patched(members(path, "v.npy"), 6, b"\1\0")
    elif kind == "cut":
        path.write_bytes(members(path, "v.npy").read_bytes()[:-9])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_bytes(b"features\n")
    elif kind == "hdf5":
        path.write_bytes(b"\x89HDF\r\n\x1a\n")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("folder", r"its member '\.\./\.\./v\.npy' is in a folder"),
        ("backslash", r"its member '\.\.\\\\v\.npy' is in a folder"),
        ("absolute", r"its member '/v\.npy' is in a folder"),
        ("twice", "the array 'v' is there twice"),
        ("no array", r"its member 'data\.pkl' is not an array of numpy\.savez"),
        ("lzma", "the array 'v' is packed as NumPy does not"),
        ("encrypted", "the array 'v' is encrypted"),
        ("cut", "not a readable .npz file: File is not a zip file"),
        ("empty", "not a readable .npz file"),
        ("text", "not a readable .npz file"),
        ("hdf5", "is an HDF5 file, as of features"),
    ],
)
def test_hostile_archives(tmp_path: Path, kind: str, message: str) -> None:
    hostile(tmp_path / "f.npz", kind)
    with pytest.raises(FeatureError, match=f"^{re.escape(str(tmp_path / 'f.npz'))}: .*{message}") as caught:
        open_features(tmp_path / "f.npz")
    assert "\n" not in str(caught.value)


def refuse(path: Path, message: str, **options: int) -> None:
    with pytest.raises(FeatureError, match=message) as caught, open_features(path, **options) as store:
        store.read(store.names[0])
    assert "\n" not in str(caught.value)


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "v.npz")
    refuse(tmp_path, r"v\.npz: not a file")


def test_damage_is_seen(tmp_path: Path) -> None:
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = members(tmp_path / "f.npz", "v.npy", method=method)
        content = bytearray(path.read_bytes())
        content[content.index(b"PK\1\2") - 3] ^= 1
        path.write_bytes(content)
        refuse(path, "cannot be read.*: (Bad CRC-32|Error -3 while decompressing)")


def header(shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return file.getvalue()


def test_what_a_member_says_of_its_size(tmp_path: Path) -> None:
    content = header((200_000, 4096)) + bytes(1 << 20)  # 3.1 GiB
    path = members(tmp_path / "f.npz", "v.npy", method=zipfile.ZIP_DEFLATED, content=content)
    assert path.stat().st_size < 10_000
    refuse(path, "array 'v': cannot be read: it is shorter than its header says")
    patched(path, 22, b"\xfe\xff\xff\xff")  # the size that it unpacks to
    refuse(path, r"would take 3\.1 GiB of memory, more than the limit of 1\.0 GiB", max_video_bytes=1 << 30)
    refuse(path, "it ends before its last number")


def test_a_long_header_is_not_unpacked(tmp_path: Path) -> None:
    content = b"\x93NUMPY\2\0" + (1 << 30).to_bytes(4, "little") + b" " * (1 << 20)
    path = members(tmp_path / "f.npz", "v.npy", method=zipfile.ZIP_DEFLATED, content=content)
    refuse(path, "array 'v': cannot be read: a header of 1,073,741,824 bytes")


def test_a_long_list_of_members_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = members(tmp_path / "f.npz", *(f"{index}.npy" for index in range(2000)), content=b"")
    monkeypatch.setattr(npz, "_MOST_LISTED", 1 << 16)  # more than is looked through for the list
    refuse(path, "its list of members has 1[0-9]{2},[0-9]{3} bytes, more than 65,536")


@pytest.mark.parametrize("videos", [1, 2])
def test_an_archive_that_changes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, videos: int) -> None:
    path = tmp_path / "f.npz"
    np.savez(path, **{f"v{index}": np.ones((3000, 50), np.float32) for index in range(videos)})
    read = npz.NpyArray.read_into

    def late(*arguments: Any) -> None:
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
        read(*arguments)

    monkeypatch.setattr(npz.NpyArray, "read_into", late)
    refuse(path, "the file changed while it was read")
