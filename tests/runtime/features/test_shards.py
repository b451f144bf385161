"""Shards of features with an index: written by programs, read by one range a video."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from programs import run
from small_model import write_features

from refineloc.runtime import FeatureError, OutputError, open_features
from refineloc.runtime.features.shards import INDEX, ShardWriter

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")

TIMES = {"fps": 25.0, "duration": 12.5, "snippet_frames": 16, "stride_frames": 8, "backbone": "i3d"}


@pytest.fixture
def videos(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {f"v{index}": rng.standard_normal((1 + 7 * index, 24)).astype(np.float16) for index in range(9)}


@pytest.fixture
def shards(tmp_path: Path, videos: dict[str, np.ndarray]) -> Path:
    write(tmp_path / "shards", videos.items())
    return tmp_path / "shards"


def write(folder: Path, videos: Iterable[tuple[str, np.ndarray]]) -> None:
    with ShardWriter(folder, 5000) as writer:
        for name, values in videos:
            writer.add(name, values, TIMES)


def change(folder: Path, **columns: Any) -> None:
    """Other values in the index."""
    table = pa.parquet.read_table(folder / INDEX).to_pydict()
    pa.parquet.write_table(pa.table({**table, **columns}), folder / INDEX)


def test_a_folder_of_shards_is_read_as_its_videos(shards: Path, videos: dict[str, np.ndarray]) -> None:
    paths = sorted(shards.glob("shard-*.h5"))
    assert len(paths) > 2
    with open_features(shards) as store:
        assert store.names == tuple(videos)
        for name, values in videos.items():
            info = store.info(name)
            assert (info.snippets, info.width, info.dtype) == (*values.shape, np.float16)
            assert (info.fps, info.duration_s, info.snippet_frames, info.stride_frames) == (25.0, 12.5, 16, 8)
            assert info.backbone == "i3d"
            np.testing.assert_array_equal(store.read(name), values)
            np.testing.assert_array_equal(store.read(name, slice(3, 9)), values[:, 3:9])
        with pytest.raises(FeatureError, match=r"video 'none': not in the index, which has 9 videos"):
            store.info("none")
    # A shard is a file of features by itself.
    with open_features(paths[1]) as store:
        for name in store.names:
            np.testing.assert_array_equal(store.read(name), videos[name])
            assert store.info(name).stride_frames == 8


def test_convert_and_detect(tmp_path: Path, model_path: Path, rng: np.random.Generator) -> None:
    videos = {f"v{index:02}": rng.standard_normal((1 + index, 24), np.float32) for index in range(30)}
    write_features(tmp_path / "features.h5", videos, fps=25.0)
    done = run("refineloc-convert", "features.h5", "shards", "--to", "features", "--shard-mb", "1", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "shards: 30 videos in 1 shard, and an index\n")
    given = ("refineloc-detect", "--model", model_path, "--provider", "cpu", "--threads", "1")
    for source, out in (("features.h5", "one.json"), ("shards", "two.json"), ("shards", "two.parquet")):
        assert run(*given, source, "-o", out, cwd=tmp_path).returncode == 0
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


def test_writing_again_replaces_all_and_an_error_leaves_no_index(shards: Path, videos: dict[str, np.ndarray]) -> None:
    with ShardWriter(shards, 10**6) as writer:
        writer.add("w", videos["v3"], {})
    assert sorted(path.name for path in shards.iterdir()) == [INDEX, "shard-00000.h5"]
    with open_features(shards) as store:
        assert (store.names, store.info("w").fps) == (("w",), None)
    with pytest.raises(ValueError, match="name already exists"):
        write(shards, [("x", videos["v3"])] * 2)
    assert sorted(path.name for path in shards.iterdir()) == ["shard-00000.h5"]
    (shards / "notes.txt").touch()
    with pytest.raises(OutputError, match=r"holds 'notes.txt', which is not of features"):
        ShardWriter(shards, 10**6)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"shard": ["../secret"] * 9}, r"'../secret' is no name of a shard"),
        ({"dtype": ["object"] * 9}, "got dtype 'object'"),
        ({"offset": [-1] * 9}, "video 'v0': its offset is -1"),
        ({"width": [24] * 8 + [2**60]}, "video 'v8': its width is"),
        ({"fps": [float("nan")] * 9}, "video 'v0': its fps is nan"),
        ({"video": ["v0"] * 9}, "video 'v0': is there twice"),
        ({"video": [None] * 9}, "column 'video': 9 values are missing"),
    ],
)
def test_a_hostile_index_is_refused(shards: Path, columns: dict[str, Any], message: str) -> None:
    change(shards, **columns)
    with pytest.raises(FeatureError, match=message):
        open_features(shards)


def test_what_does_not_fit_the_shards_is_refused(shards: Path) -> None:
    change(shards, offset=[10**6] * 9)
    with open_features(shards) as store, pytest.raises(FeatureError, match="lies behind the end of the shard"):
        store.read("v3")
    with (shards / "shard-00000.h5").open("ab") as file:
        file.write(b"more")
    with open_features(shards) as store, pytest.raises(FeatureError, match="bytes, and the index says"):
        store.read("v0")
    (shards / "shard-00000.h5").unlink()
    with open_features(shards) as store, pytest.raises(FeatureError, match=r"shard-00000.h5: no such shard"):
        store.read("v0")
    (shards / INDEX).write_bytes(b"PAR1")
    with pytest.raises(FeatureError, match=r"index.parquet: cannot be read as Parquet"):
        open_features(shards)
