"""Feature files: every accepted layout, and one clear line for each way a file can be wrong."""

import struct
from pathlib import Path

import h5py
import numpy as np
import pytest
from small_model import write_features

from refineloc.runtime.errors import FeatureError, InputError
from refineloc.runtime.features import npy
from refineloc.runtime.features.checks import check_finite
from refineloc.runtime.features.opening import open_features
from refineloc.runtime.features.streams import stream_slice

RNG = np.random.default_rng(0)
FEATURES = RNG.standard_normal((7, 6)).astype(np.float32)


def h5(path: Path, **videos: object) -> Path:
    return write_features(path, videos)


def test_reads_datasets_at_the_root_with_their_attributes(tmp_path: Path) -> None:
    path = h5(tmp_path / "f.h5", b=FEATURES, a=FEATURES[:3].astype(np.float16))
    with h5py.File(path, "a") as file:
        file["b"].attrs.update(fps=29.97, duration=4.0, snippet_frames=16, stride_frames=15)
    with open_features(path) as store:
        assert store.names == ("a", "b")
        assert "b" in store
        assert "c" not in store
        info = store.info("b")
        assert (info.snippets, info.width, info.fps, info.duration_s, info.snippet_frames) == (7, 6, 29.97, 4.0, 16)
        assert info.stride_frames == 15
        assert np.array_equal(store.read("b"), FEATURES)
        half = store.read("a")
        assert half.dtype == np.float32
        assert np.array_equal(half, FEATURES[:3].astype(np.float16).astype(np.float32))
        assert np.array_equal(store.read("b", slice(2, 5)), FEATURES[:, 2:5])


def test_reads_groups_with_features_inside(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        file["v/features"] = FEATURES
        file["v"].attrs["fps"] = 25
    with open_features(path) as store:
        assert store.info("v").fps == 25
        assert np.array_equal(store.read("v"), FEATURES)


def test_reads_a_folder_of_npy(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", FEATURES)
    with open_features(tmp_path) as store:
        assert np.array_equal(store.read("v"), FEATURES)


def test_joins_flow_before_rgb(tmp_path: Path) -> None:
    for kind, data in (("rgb", FEATURES), ("flow", -FEATURES)):
        (tmp_path / kind).mkdir()
        np.save(tmp_path / kind / "v.npy", data)
    with open_features(tmp_path) as store:
        assert store.info("v").width == 12
        assert np.array_equal(store.read("v"), np.hstack([-FEATURES, FEATURES]))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["f2", ">f4", "f4", "f8"])
@pytest.mark.parametrize(
    "columns", [slice(0, 12), slice(3, 9), slice(0, 6), slice(7, 12), slice(1, 12, 4), slice(5, 5)]
)
def test_columns_of_npy_files_in_every_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str, dtype: str, columns: slice
) -> None:
    monkeypatch.setattr(npy, "_BLOCK", 60)  # a few snippets at a time
    parts = [np.asarray(FEATURES * factor, dtype, order=order) for factor in (-1, 1)]  # type: ignore[call-overload]
    for kind, part in zip(("flow", "rgb"), parts, strict=True):
        (tmp_path / kind).mkdir()
        np.save(tmp_path / kind / "v.npy", part)
    with (tmp_path / "rgb" / "v.npy").open("ab") as file:
        file.write(b"more")  # which NumPy leaves alone
    with open_features(tmp_path) as store:
        expected = np.hstack(parts)[:, columns].astype(np.float32)
        assert np.array_equal(store.read("v", columns), expected)
    with open_features(tmp_path / "rgb") as store:
        assert np.array_equal(store.read("v"), parts[1].astype(np.float32))
        assert np.array_equal(store.read("v", slice(2, 5)), parts[1][:, 2:5].astype(np.float32))


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_npy_files_of_every_version(tmp_path: Path, version: tuple[int, int]) -> None:
    with (tmp_path / "v.npy").open("wb") as file:
        np.lib.format.write_array(file, FEATURES, version)
    with open_features(tmp_path) as store:
        assert np.array_equal(store.read("v"), FEATURES)


@pytest.mark.parametrize("kinds", [("f2", "f4"), ("f4", "f2"), ("f8", "f2")])
def test_streams_of_two_dtypes_lose_nothing(tmp_path: Path, kinds: tuple[str, str]) -> None:
    for kind, dtype in zip(("flow", "rgb"), kinds, strict=True):
        (tmp_path / kind).mkdir()
        np.save(tmp_path / kind / "v.npy", FEATURES.astype(dtype) * (70_000 if dtype == "f4" else 1))
    with open_features(tmp_path) as store:
        assert store.info("v").dtype == np.result_type(*kinds)
        parts = [np.load(tmp_path / kind / "v.npy").astype(np.float32) for kind in ("flow", "rgb")]
        assert np.array_equal(store.read("v"), np.hstack(parts))


@pytest.mark.parametrize("kind", ["npy", "h5"])
def test_float64_is_taken_as_float32_and_an_overflow_is_told(tmp_path: Path, kind: str) -> None:
    values = {"v": FEATURES.astype(np.float64) + 1e-12, "large": np.full((3, 6), 1e300), "one": np.ones((3, 6))}
    values["one"][1, 2] = -1e39
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, data in values.items():
        np.save(folder / f"{name}.npy", data)
    # A RuntimeWarning would fail the test: pytest is told so in pyproject.toml.
    with open_features(folder if kind == "npy" else h5(tmp_path / "f.h5", **values)) as store:
        assert np.array_equal(store.read("v"), values["v"].astype(np.float32))
        for name, snippet in (("large", 0), ("one", 1)):
            with pytest.raises(FeatureError, match=f"snippet {snippet} holds .* too large for float32 .* as float64"):
                store.read(name)


def test_asking_whether_a_video_is_there_takes_no_time_that_grows(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", FEATURES)
    with open_features(tmp_path) as store:
        # A tuple of names would be searched from its beginning at each look at a video.
        store.names = type("Names", (tuple,), {"__contains__": lambda *_: pytest.fail("searched")})(store.names)
        assert "v" in store
        assert "w" not in store
        assert store.info("v").snippets == 7


def test_a_video_of_no_snippets_reads_as_empty(tmp_path: Path) -> None:
    with open_features(h5(tmp_path / "f.h5", v=np.empty((0, 6), np.float32))) as store:
        assert store.read("v").shape == (0, 6)


@pytest.mark.parametrize(
    ("stream", "order", "expected"),
    [
        ("both", "temporal-spatial", slice(0, 6)),
        ("temporal", "temporal-spatial", slice(0, 3)),
        ("spatial", "temporal-spatial", slice(3, 6)),
        ("temporal", "spatial-temporal", slice(3, 6)),
        ("spatial", "spatial-temporal", slice(0, 3)),
    ],
)
def test_streams(stream: str, order: str, expected: slice) -> None:
    assert stream_slice(6, stream, order) == expected  # type: ignore[arg-type]


def test_one_stream_of_an_odd_width_is_refused() -> None:
    with pytest.raises(InputError, match="even"):
        stream_slice(5, "spatial", "temporal-spatial")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_name_video_and_snippet(tmp_path: Path, value: float) -> None:
    bad = FEATURES.copy()
    bad[4, 1] = value
    with open_features(h5(tmp_path / "f.h5", good=FEATURES, bad=bad)) as store:
        store.read("good")
        with pytest.raises(FeatureError, match=r"f\.h5: video 'bad': snippet 4 holds"):
            store.read("bad")


def test_infinities_that_cancel_are_found_and_large_finite_values_pass() -> None:
    with pytest.raises(FeatureError, match="snippet 0"):
        check_finite(np.array([[np.inf, -np.inf]], np.float32), "x")
    check_finite(np.full((4, 4), np.finfo(np.float32).max), "x")


def test_every_half_that_is_not_finite_is_found_and_no_other() -> None:
    for half in np.arange(2**16, dtype=np.uint16).view(np.float16):
        features = np.array([[1, half], [-1, 0]], np.float16)
        if np.isfinite(half):
            check_finite(features, "x")
            check_finite(features[:, 1:], "x")
        else:
            with pytest.raises(FeatureError, match="snippet 0 holds"):
                check_finite(features, "x")
    check_finite(np.empty((0, 3), np.float16), "x")


def test_one_line_for_each_wrong_file(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("not hdf5")
    h5(tmp_path / "empty.h5")
    for name, message in (("absent", "no such file"), ("text", "not an HDF5 file"), ("empty", "holds no video")):
        path = tmp_path / f"{name}.h5"
        with pytest.raises(FeatureError, match=message) as caught:
            open_features(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros(5, np.float32), "shape T x D"),
        (np.zeros((2, 3, 4), np.float32), "shape T x D"),
        (np.zeros((2, 3), np.int64), "dtype int64"),
        (np.array([["a", "b"]], dtype="S1"), "dtype"),
        ([["a", "b"]], "dtype object"),  # texts of any length
        (np.zeros((2, 0), np.float32), "width 0"),
        (np.float32(3), "shape T x D"),
    ],
)
def test_datasets_that_hold_no_features_are_refused(tmp_path: Path, data: object, message: str) -> None:
    with open_features(h5(tmp_path / "f.h5", v=data)) as store, pytest.raises(FeatureError, match=message):
        store.read("v")


def test_features_at_address_0_are_damaged(tmp_path: Path) -> None:
    path = h5(tmp_path / "f.h5", v=FEATURES)
    with h5py.File(path) as file:
        address = struct.pack("<Q", file["v"].id.get_offset())
    content = path.read_bytes()
    for place in range(len(content) - 8):  # the address may stand for something else, too
        if content[place : place + 8] != address:
            continue
        path.write_bytes(content[:place] + bytes(8) + content[place + 8 :])
        with pytest.raises(FeatureError), open_features(path) as store:
            store.read("v")


def test_columns_backwards_are_refused_and_not_read_forwards(tmp_path: Path) -> None:
    """HDF5 has no such selection; reading without it must not take the shape for the order."""
    with open_features(h5(tmp_path / "f.h5", v=FEATURES)) as store, pytest.raises(FeatureError, match="video 'v'"):
        store.read("v", slice(None, None, -1))


def test_names_do_not_lead_through_the_file(tmp_path: Path) -> None:
    with open_features(h5(tmp_path / "f.h5", v=FEATURES)) as store:
        for name in ("absent", "/v", "", "v/features", "."):
            with pytest.raises(FeatureError, match="not in the file"):
                store.read(name)


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("fps", 1e-308, "is 1e-308; expected a number from 0.001 to 1,000,000$"),
        ("fps", 1e300, r"is 1e\+300; expected"),
        ("fps", np.nan, "is nan; expected"),
        ("fps", 0, "is 0; expected"),
        ("fps", -1.0, "is -1; expected"),
        ("duration", np.inf, "is inf; expected a number from 0.001 to 1,000,000,000$"),
        ("snippet_frames", 16.4, "is 16.4; expected a whole number from 1 to 16,777,216$"),
        ("snippet_frames", 1e308, r"is 1e\+308; expected"),
        ("snippet_frames", np.uint64(2**64 - 1), r"is 1.84467e\+19; expected"),
        ("snippet_frames", 0, "is 0; expected"),
    ],
)
def test_attributes_out_of_bounds_are_refused_in_a_short_line(
    tmp_path: Path, attribute: str, value: float, message: str
) -> None:
    path = h5(tmp_path / "f.h5", v=FEATURES)
    with h5py.File(path, "a") as file:
        file["v"].attrs[attribute] = value
    with open_features(path) as store, pytest.raises(FeatureError, match=message) as caught:
        store.info("v")
    assert len(str(caught.value)) < len(str(path)) + 120


def test_whole_numbers_of_any_dtype_are_snippet_frames(tmp_path: Path) -> None:
    path = h5(tmp_path / "f.h5", a=FEATURES, b=FEATURES)
    with h5py.File(path, "a") as file:
        file["a"].attrs["snippet_frames"] = np.float32(16)
        file["b"].attrs["snippet_frames"] = np.array([16], np.int8)
    with open_features(path) as store:
        assert [store.info(name).snippet_frames for name in "ab"] == [16, 16]


def test_rgb_and_flow_must_match(tmp_path: Path) -> None:
    for kind, names in (("rgb", "ab"), ("flow", "a")):
        (tmp_path / kind).mkdir()
        for name in names:
            np.save(tmp_path / kind / f"{name}.npy", FEATURES[: 3 if kind == "rgb" else 4])
    with pytest.raises(FeatureError, match="'b'"):
        open_features(tmp_path)
    (tmp_path / "rgb" / "b.npy").unlink()
    with open_features(tmp_path) as store, pytest.raises(FeatureError, match="differ in length"):
        store.read("a")
