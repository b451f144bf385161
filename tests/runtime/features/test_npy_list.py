"""All videos in one .npy file, as W-TALC and CO2-Net have them: read without unpickling."""

import contextlib
import pickle
import pickletools
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refineloc.runtime.errors import FeatureError
from refineloc.runtime.features.opening import open_features
from refineloc.runtime.features.pickled import read_structure

LENGTHS = {"video_validation_0000051": 7, "b": 40, "a": 3}
ANNOTATIONS = Path(__file__).parents[4] / "shared/data/wtalc-thumos14reduced"


def features(rng: np.random.Generator, width: int = 12, dtype: Any = np.float32) -> dict[str, npt.NDArray[Any]]:
    return {name: rng.standard_normal((length, width)).astype(dtype) for name, length in LENGTHS.items()}


def objects(videos: dict[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    array = np.empty(len(videos), object)
    array[:] = list(videos.values())
    return array


def saved(path: Path, array: npt.NDArray[Any], protocol: int = 4) -> None:
    """As `np.save`, which takes the protocol of its own version."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(pickle.dumps(array, protocol=protocol))


def python2(array: npt.NDArray[Any]) -> bytes:
    """The pickle of an array of arrays as Python 2 writes it: protocol 2, bytes as its strings."""
    content = pickle.dumps(array, protocol=3)
    parts = [(code, argument) for code, argument, _ in pickletools.genops(content)]
    out = b""
    for code, argument in parts:
        if code.name in ("BINBYTES", "SHORT_BINBYTES"):
            short = len(argument) < 256
            out += b"U" + struct.pack("<B", len(argument)) if short else b"T" + struct.pack("<i", len(argument))
            out += argument
        elif code.name == "BINUNICODE":
            out += b"U" + struct.pack("<B", len(argument)) + argument.encode()
        elif code.name == "PROTO":
            out += b"\x80\x02"
        else:
            out += _encoded(code, argument)
    return out


def _encoded(code: Any, argument: Any) -> bytes:
    sizes = {"BINPUT": "<B", "LONG_BINPUT": "<I", "BINGET": "<B", "LONG_BINGET": "<I", "BININT": "<i"}
    sizes |= {"BININT1": "<B", "BININT2": "<H"}
    head: bytes = code.code.encode("latin-1")
    if code.name == "GLOBAL":
        return head + argument.replace(" ", "\n").encode() + b"\n"
    return head + (struct.pack(sizes[code.name], argument) if code.name in sizes else b"")


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ">f4"])
def test_arrays_come_back_as_they_were_saved(
    tmp_path: Path, rng: np.random.Generator, protocol: int, dtype: Any
) -> None:
    videos = features(rng, dtype=dtype)
    videos["a"] = np.asfortranarray(videos["a"])
    saved(tmp_path / "f.npy", objects(videos), protocol)
    (tmp_path / "f.txt").write_text("\n".join(videos) + "\n")
    with open_features(tmp_path / "f.npy") as store:
        assert store.names == tuple(sorted(LENGTHS))
        for name, expected in videos.items():
            assert (store.info(name).snippets, store.info(name).width) == expected.shape
            assert np.array_equal(store.read(name), expected.astype(np.float32))
            assert np.array_equal(store.read(name, slice(6, 12)), expected[:, 6:].astype(np.float32))


def test_python_2_saved_them(tmp_path: Path, rng: np.random.Generator) -> None:
    videos = features(rng)
    content = python2(objects(videos))
    read = pickle.loads(content, encoding="latin1")
    assert np.array_equal(read[1], videos["b"]), "it is what Python 2 writes"
    with (tmp_path / "f.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"shape": (3,), "fortran_order": False, "descr": "|O"})
        file.write(content)
    (tmp_path / "f.txt").write_text("\n".join(videos))
    with open_features(tmp_path / "f.npy") as store:
        assert np.array_equal(store.read("b"), videos["b"])


def test_numbers_of_one_length_are_an_array_without_objects(tmp_path: Path, rng: np.random.Generator) -> None:
    array = rng.standard_normal((2, 100, 6), np.float32)
    np.save(tmp_path / "f.npy", array)
    (tmp_path / "f.txt").write_text("x\ny\n")
    with open_features(tmp_path / "f.npy") as store:
        assert np.array_equal(store.read("y"), array[1])


def test_the_names_are_where_w_talc_has_them(tmp_path: Path, rng: np.random.Generator) -> None:
    videos = features(rng)
    path = tmp_path / "Thumos14reduced-I3D-JOINTFeatures.npy"
    saved(path, objects(videos))
    with pytest.raises(FeatureError, match=r"names are not known; write them beside it, .* as Thumos14reduced-.*\.txt"):
        open_features(path)
    (tmp_path / "Thumos14reduced-Annotations").mkdir()
    np.save(tmp_path / "Thumos14reduced-Annotations/videoname.npy", np.array(list(videos), "S"))
    with open_features(path) as store:
        assert np.array_equal(store.read("b"), videos["b"])
    np.save(tmp_path / "videoname.npy", np.array(list(videos)[:2], "S"))
    with pytest.raises(FeatureError, match=r"holds 3 arrays, and .*videoname.npy has 2 names"):
        open_features(path)


def test_the_file_may_change_and_be_cut(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "f.npy"
    saved(path, objects(features(rng)))
    (tmp_path / "f.txt").write_text("\n".join(LENGTHS))
    store = open_features(path)
    content = path.read_bytes()
    path.write_bytes(content[:-40])
    with pytest.raises(FeatureError, match="changed while it was read"):
        store.read("b")
    with pytest.raises(FeatureError, match=r"f.npy: cannot be read as arrays of T x D numbers: "):
        open_features(path)


class _Harm:
    def __reduce__(self) -> Any:
        return print, ("harm",)


@pytest.mark.parametrize(
    ("element", "message"),
    [
        (_Harm(), "a call of .*print"),
        (np.zeros(3, np.int64), "numbers of the type 'i8'"),
        (1j, "cannot be read as arrays"),
    ],
)
def test_nothing_else_is_read_from_a_pickle(
    tmp_path: Path, rng: np.random.Generator, element: Any, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    array = objects(features(rng))
    array[1] = element
    saved(tmp_path / "f.npy", array)
    (tmp_path / "f.txt").write_text("\n".join(LENGTHS))
    with pytest.raises(FeatureError, match=message):
        open_features(tmp_path / "f.npy")
    assert capsys.readouterr().out == ""


def test_what_stands_in_the_place_of_an_array_is_named(tmp_path: Path, rng: np.random.Generator) -> None:
    array = objects(features(rng))
    array[1] = None
    array[2] = np.zeros((2, 3, 4), np.float32)
    saved(tmp_path / "f.npy", array)
    (tmp_path / "f.txt").write_text("\n".join(LENGTHS))
    with open_features(tmp_path / "f.npy") as store:
        with pytest.raises(FeatureError, match="video 'b': expected an array of T x D numbers, got NoneType"):
            store.info("b")
        with pytest.raises(FeatureError, match=r"video 'a': expected features of shape T x D, got shape \(2, 3, 4\)"):
            store.info("a")


GOOD = pickle.dumps(objects({"a": np.ones((2, 3), np.float32), "b": np.zeros((1, 3), np.float16)}), protocol=4)


@settings(max_examples=200, deadline=None)
@given(at=st.integers(0, len(GOOD) - 1), change=st.integers(0, 255), cut=st.integers(0, len(GOOD)))
def test_damaged_pickles_are_value_errors(
    tmp_path_factory: pytest.TempPathFactory, at: int, change: int, cut: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged"
    for content in (GOOD[:at] + bytes([change]) + GOOD[at + 1 :], GOOD[:cut]):
        path.write_bytes(content)
        with path.open("rb") as file, contextlib.suppress(ValueError):
            read_structure(file)


def test_lists_that_hold_each_other_many_times_are_refused(tmp_path: Path) -> None:
    value: list[Any] = []
    for _ in range(60):
        value = [value, value]
    (tmp_path / "p").write_bytes(pickle.dumps(value, protocol=4))
    with (tmp_path / "p").open("rb") as file, pytest.raises(ValueError, match="too many parts"):
        read_structure(file)


@pytest.mark.skipif(not ANNOTATIONS.is_dir(), reason="W-TALC's published annotations are not here")
def test_the_published_list_of_names(tmp_path: Path) -> None:
    names = np.load(ANNOTATIONS / "videoname.npy")
    (tmp_path / "videoname.npy").write_bytes((ANNOTATIONS / "videoname.npy").read_bytes())
    array = objects({name: np.full((3, 4), index, np.float32) for index, name in enumerate(names)})
    np.save(tmp_path / "Thumos14reduced-I3D-JOINTFeatures.npy", array)
    with open_features(tmp_path / "Thumos14reduced-I3D-JOINTFeatures.npy") as store:
        assert len(store.names) == 412
        assert store.read("video_validation_0000053")[0, 0] == 2
