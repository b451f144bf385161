"""Layouts that people have: read where they can be meant in one way only, else a line that says how to save them."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from refineloc.runtime.errors import FeatureError, InputWarning
from refineloc.runtime.features.opening import open_features

FEATURES = np.random.default_rng(0).standard_normal((7, 6)).astype(np.float32)


def expect(path: Path, name: str = "v") -> None:
    for untrusted in (True, False):
        with open_features(path, untrusted=untrusted) as store:
            assert store.names == (name,)
            info = store.info(name)
            assert (info.snippets, info.width) == (7, 6)
            assert np.array_equal(store.read(name), FEATURES)
            assert np.array_equal(store.read(name, slice(1, 5)), FEATURES[:, 1:5])


@pytest.mark.parametrize("shape", [(1, 7, 6), (7, 1, 6), (7, 1, 1, 6), (7, 6, 1, 1), (1, 7, 1, 1, 6)])
@pytest.mark.parametrize(
    "packing", [{}, {"compression": "gzip"}, {"compression": "lzf"}, {"compression": "gzip", "chunks": 2}]
)
def test_axes_of_length_1_do_not_count(tmp_path: Path, shape: tuple[int, ...], packing: dict[str, object]) -> None:
    options = {**packing, "chunks": tuple(min(2, size) for size in shape)} if packing.get("chunks") else packing
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.create_dataset("v", data=FEATURES.reshape(shape), **options)
    expect(tmp_path / "f.h5")
    (tmp_path / "folder").mkdir()
    for order in "CF":
        np.save(tmp_path / "folder" / "v.npy", np.asarray(FEATURES.reshape(shape), order=order))  # type: ignore[call-overload]
        expect(tmp_path / "folder")


@pytest.mark.parametrize("shape", [(1, 1, 6), (1, 1, 1, 6)])
def test_one_snippet_may_have_more_axes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "v.npy", np.ones(shape, np.float32))
    with open_features(tmp_path) as store:
        assert store.read("v").shape == (1, 6)


@pytest.mark.parametrize(
    ("shape", "cure"),
    [
        ((7, 10, 6), r"10 crops\? save their mean, features.mean\(axis=1\)"),
        ((10, 7, 6), r"10 crops\? save their mean, features.mean\(axis=0\)"),
        ((1, 7, 5, 6), r"5 crops\? save their mean, features.mean\(axis=2\)"),
        ((7, 3, 6), "save one array of T x D for each video"),
        ((7,), "save one array of T x D for each video"),
        ((), "save one array of T x D for each video"),
    ],
)
def test_other_shapes_say_how_to_save_them(tmp_path: Path, shape: tuple[int, ...], cure: str) -> None:
    np.save(tmp_path / "v.npy", np.ones(shape, np.float32))
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["v"] = np.ones(shape, np.float32)
    for path in (tmp_path, tmp_path / "f.h5"):
        with open_features(path) as store, pytest.raises(FeatureError, match=rf"video 'v': .*got shape .*: {cure}"):
            store.read("v")


@pytest.mark.parametrize("name", ["c3d_features", "fc7"])
def test_the_only_dataset_of_a_group_is_its_features(tmp_path: Path, name: str) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file[f"v/{name}"] = FEATURES
        file["v/frames"] = np.arange(7)
        file["v"].attrs["fps"] = 25
        file["v/elsewhere"] = h5py.SoftLink("/v/frames")
    expect(tmp_path / "f.h5")
    with open_features(tmp_path / "f.h5") as store:
        assert store.info("v").fps == 25


def test_a_group_of_two_says_what_it_holds(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["v/rgb"] = file["v/flow"] = FEATURES
        file["v/more/x"] = FEATURES
    message = r"a group with a dataset 'features' inside; got a group with 'flow' \(7 x 6\), 'more' \(a group\), 'rgb'"
    with open_features(tmp_path / "f.h5") as store, pytest.raises(FeatureError, match=message):
        store.read("v")


def test_keys_with_slashes(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["features/val/a"] = FEATURES
        file["features/val/b"] = -FEATURES
        file["features/val/c/fc7"] = 2 * FEATURES
        file["features/val/a"].attrs["fps"] = 25
    with open_features(tmp_path / "f.h5") as store:
        assert store.names == ("a", "b", "c")
        assert "features" not in store
        assert store.info("a").fps == 25
        assert np.array_equal(store.read("b"), -FEATURES)
        assert np.array_equal(store.read("c"), 2 * FEATURES)


def test_pairs_of_streams_are_joined_in_the_order_of_folders(tmp_path: Path) -> None:
    np.save(tmp_path / "v_rgb.npy", FEATURES[:, 4:])
    np.save(tmp_path / "v_flow.npy", FEATURES[:, :4])
    np.save(tmp_path / "v_fps.npy", np.array(25.0))
    np.save(tmp_path / "v_timestamps_ms.npy", np.arange(7.0))
    with pytest.warns(InputWarning, match=r"NAME_flow\.npy and NAME_rgb\.npy are joined, flow first"):
        expect(tmp_path)
    np.save(tmp_path / "w_rgb.npy", FEATURES)
    with pytest.raises(FeatureError, match=r"holds pairs .* and 'w_rgb' without such a pair"):
        open_features(tmp_path)


def test_one_stream_alone_keeps_its_name(tmp_path: Path) -> None:
    np.save(tmp_path / "v_rgb.npy", FEATURES)
    np.save(tmp_path / "v_fps.npy", np.array(25.0))
    expect(tmp_path, "v_rgb")


def test_numbers_beside_an_array_state_its_times(tmp_path: Path) -> None:
    for name, beside in (("v", "v"), ("w_rgb", "w"), ("x_rgb", "x_rgb")):
        np.save(tmp_path / f"{name}.npy", FEATURES)
        np.save(tmp_path / f"{beside}_fps.npy", np.array([25]))
        np.save(tmp_path / f"{beside}_duration.npy", np.array(4.5))
    np.save(tmp_path / "y_fps.npy", FEATURES)  # a video of that name
    with open_features(tmp_path) as store:
        assert store.names == ("v", "w_rgb", "x_rgb", "y_fps")
        for name in store.names[:3]:
            info = store.info(name)
            assert (info.fps, info.duration_s) == (25, 4.5)
        assert store.info("y_fps").fps is None
    with open_features(tmp_path / "w_rgb.npy") as store:
        assert store.info("w_rgb").fps == 25
    for value, message in (
        (np.array(0), "is 0; expected a number from 0.001"),
        (np.array([25, 30]), "is not a number"),
    ):
        np.save(tmp_path / "v_fps.npy", value)
        with open_features(tmp_path) as store, pytest.raises(FeatureError, match=rf"v_fps\.npy: fps {message}"):
            store.info("v")


def test_one_npy_file_is_one_video(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", FEATURES)
    np.save(tmp_path / "w.npy", FEATURES)
    expect(tmp_path / "v.npy")


def test_folders_of_other_files_say_what_they_hold(tmp_path: Path) -> None:
    for name, message in (
        ("v.csv", r"holds 1 \.csv file, which is not read; expected an HDF5 file"),
        ("v.MP4", r"holds films \(1 \.mp4\), whose features refineloc-extract makes"),
        ("val/v.npy", r"its folder .*/val does: give that"),
    ):
        folder = tmp_path / name.replace("/", "_")
        (folder / name).parent.mkdir(parents=True)
        np.save(folder / "x.npy", FEATURES)
        (folder / "x.npy").rename(folder / name)
        with pytest.raises(FeatureError, match=message) as raised:
            open_features(folder)
        assert raised.value.parameter == ("backbone" if name == "v.MP4" else "")


def test_files_of_other_kinds_say_what_they_are(tmp_path: Path) -> None:
    for name, content, message in (
        ("v.mp4", b"", "is a film; refineloc-extract makes its features"),
        ("features.csv", b"0.5,0.5\n", r"\.csv files are not read; expected an HDF5 file"),
        ("labels.csv", b"video-name,label\n", r"is a table of labels or detections; expected an HDF5 .*swapped\?"),
        ("labels.json", b'{"database": {}}', r"is a JSON of labels or detections; expected an HDF5 .*swapped\?"),
        ("model.onnx", b"\x08\x08\x12\x09refineloc", r"is an ONNX model; expected an HDF5 .*arguments swapped\?"),
        ("f.h5", b"version https://git-lfs.github.com/spec/v1\n", r"is a pointer of Git LFS.*git lfs pull"),
        ("features", b"video-name,label\n", "is a table of labels or detections; expected an HDF5 file of features"),
        ("model", b"\x08\x08\x12\x09refineloc", "is an ONNX model; expected an HDF5 file of features"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FeatureError, match=message):
            open_features(tmp_path / name)
