"""Feature files: every accepted layout, and one clear line for each way a file can be wrong."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from refineloc.runtime.errors import FeatureError, InputError
from refineloc.runtime.features import check_finite, open_features, stream_slice

RNG = np.random.default_rng(0)
FEATURES = RNG.standard_normal((7, 6)).astype(np.float32)


def h5(path: Path, **videos: object) -> Path:
    with h5py.File(path, "w") as file:
        for name, data in videos.items():
            file[name] = data
    return path


def test_reads_datasets_at_the_root_with_their_attributes(tmp_path: Path) -> None:
    path = h5(tmp_path / "f.h5", b=FEATURES, a=FEATURES[:3].astype(np.float16))
    with h5py.File(path, "a") as file:
        file["b"].attrs.update(fps=29.97, duration=4.0, snippet_frames=16)
    with open_features(path) as store:
        assert store.names == ("a", "b")
        assert "b" in store
        assert "c" not in store
        info = store.info("b")
        assert (info.snippets, info.width, info.fps, info.duration_s, info.snippet_frames) == (7, 6, 29.97, 4.0, 16)
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


def test_one_line_for_each_wrong_file(tmp_path: Path) -> None:
    whole = h5(tmp_path / "whole.h5", v=RNG.standard_normal((500, 64)))
    cut = tmp_path / "cut.h5"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    text = tmp_path / "text.h5"
    text.write_text("not hdf5")
    cases = {
        tmp_path / "absent.h5": "no such file",
        cut: "cut short",
        text: "not an HDF5 file",
        h5(tmp_path / "empty.h5"): "holds no video",
    }
    for path, message in cases.items():
        with pytest.raises(FeatureError, match=message) as caught:
            open_features(path)
        assert path.name in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros(5, np.float32), "shape T x D"),
        (np.zeros((2, 3, 4), np.float32), "shape T x D"),
        (np.zeros((2, 3), np.int64), "dtype int64"),
        (np.array([["a", "b"]], dtype="S1"), "dtype"),
        (np.zeros((2, 0), np.float32), "width 0"),
        (np.float32(3), "shape T x D"),
    ],
)
def test_datasets_that_hold_no_features_are_refused(tmp_path: Path, data: object, message: str) -> None:
    with open_features(h5(tmp_path / "f.h5", v=data)) as store, pytest.raises(FeatureError, match=message):
        store.read("v")


def test_object_and_string_datasets_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("v", data=[["x", "y"]], dtype=h5py.string_dtype())
    with open_features(path) as store, pytest.raises(FeatureError, match="dtype"):
        store.read("v")


def test_nothing_outside_the_file_is_followed(tmp_path: Path) -> None:
    other = h5(tmp_path / "other.h5", v=FEATURES, **{"g/features": FEATURES})
    raw = tmp_path / "raw.bin"
    raw.write_bytes(FEATURES.tobytes())
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        file["external"] = h5py.ExternalLink("other.h5", "/v")
        file["missing"] = h5py.ExternalLink("nowhere.h5", "/v")
        file["soft"] = h5py.SoftLink("/external")
        file["hidden/features"] = h5py.ExternalLink("other.h5", "/v")
        file.create_dataset("storage", (7, 6), "f4", external=[(str(raw), 0, h5py.h5f.UNLIMITED)])
        layout = h5py.VirtualLayout((7, 6), "f4")
        layout[:] = h5py.VirtualSource(other, "v", (7, 6))
        file.create_virtual_dataset("virtual", layout)
    with open_features(path) as store:
        for name in store.names:
            with pytest.raises(FeatureError, match=r"link|another file"):
                store.read(name)


def test_names_do_not_lead_through_the_file(tmp_path: Path) -> None:
    with open_features(h5(tmp_path / "f.h5", v=FEATURES)) as store:
        for name in ("absent", "/v", "", "v/features", "."):
            with pytest.raises(FeatureError, match="not in the file"):
                store.read(name)


def test_attributes_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    path = h5(tmp_path / "f.h5", v=FEATURES, w=FEATURES)
    with h5py.File(path, "a") as file:
        file["v"].attrs["fps"] = "fast"
        file["w"].attrs["fps"] = -1.0
    with open_features(path) as store:
        for name in ("v", "w"):
            with pytest.raises(FeatureError, match="'fps'"):
                store.info(name)


def test_pickled_npy_files_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with open_features(tmp_path) as store, pytest.raises(FeatureError, match=r"\.npy"):
        store.read("v")


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
