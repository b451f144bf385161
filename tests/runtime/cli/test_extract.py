"""`refineloc-extract`: one file of features from many films, whatever happens to one of them or to the run."""

import json
import re
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

pytest.importorskip("av")

from films import write_film, write_sound
from programs import Program, run
from small_backbone import write_backbone

from refineloc.runtime.features.opening import open_features
from refineloc.runtime.video.backbone import Backbone
from refineloc.runtime.video.features import film_features

ODD = "a b'\"映画"


def film(path: Path, levels: Sequence[int]) -> Path:
    """One second for each grey level, at 10 frames a second: two snippets each."""
    frames = [np.full((32, 32, 3), level, dtype=np.uint8) for level in np.repeat(levels, 10)]
    return write_film(path, range(0, 100 * len(frames), 100), codec="ffv1", size=(32, 32), rate=10, frames=frames)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A backbone and four films of 1 to 4 s."""
    (tmp_path / "films" / "more").mkdir(parents=True)
    write_backbone(tmp_path / "b.onnx")
    for seconds, name in enumerate(("v1.mkv", "v2.mkv", "more/v3.mkv", f"more/{ODD}.mkv"), start=1):
        film(tmp_path / "films" / name, range(50, 50 + 30 * seconds, 30))
    return tmp_path


ARGUMENTS = ("films", "--backbone", "b.onnx", "--provider", "cpu")


def content(path: Path) -> dict[str, list[list[float]]]:
    with open_features(path) as store:
        return {name: store.read(name).tolist() for name in store.names}


def test_films_become_one_file_that_states_all_of_them(folder: Path) -> None:
    done = run("refineloc-extract", *ARGUMENTS, cwd=folder)
    assert done.returncode == 0
    assert "features.h5: 4 films of 10 s, 20 snippets of 3 features (cpu, " in done.stderr
    assert done.stdout == ""
    assert not (folder / "features.h5.partial").exists()
    backbone = Backbone(folder / "b.onnx", provider="cpu")
    with open_features(folder / "features.h5") as store:
        assert store.names == tuple(sorted((ODD, "v1", "v2", "v3")))
        info = store.info("v3")
        assert (info.snippets, info.dtype, info.fps, info.duration_s) == (6, np.float16, 10.0, pytest.approx(3.0))
        assert (info.snippet_frames, info.stride_frames) == (5, 5)
        expected = film_features(folder / "films/more/v3.mkv", backbone).features
        np.testing.assert_allclose(store.read("v3"), expected, atol=1e-3)
        assert len(np.unique(expected)) >= 3
    with h5py.File(folder / "features.h5") as file:
        assert file["v3"].attrs["backbone"] == backbone.metadata.identity
        assert file.id.get_create_plist().get_file_space_strategy()[0] == h5py.h5f.FSPACE_STRATEGY_PAGE


def test_shards_hold_what_one_file_does(folder: Path) -> None:
    pytest.importorskip("pyarrow")
    assert run("refineloc-extract", *ARGUMENTS, cwd=folder).returncode == 0
    done = run("refineloc-extract", *ARGUMENTS, "--shard-mb", "1", "-o", "shards", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (folder / "shards").iterdir()) == ["index.parquet", "shard-00000.h5"]
    with open_features(folder / "features.h5") as one, open_features(folder / "shards") as several:
        assert one.names == several.names
        for name in one.names:
            assert one.info(name) == several.info(name)
            np.testing.assert_array_equal(one.read(name), several.read(name))
    done = run("refineloc-extract", *ARGUMENTS, "--shard-mb", "1", cwd=folder)
    assert done.stderr == "error: --shard-mb: writes shards into a folder, and features.h5 is none; give --out FOLDER\n"


def test_a_list_and_float32(folder: Path) -> None:
    (folder / "list.txt").write_text(f"films/v1.mkv\nfilms/more/{ODD}.mkv\n", encoding="utf-8")
    arguments = ("--list", "list.txt", "--backbone", "b.onnx", "--provider", "cpu", "--float32", "-o", "f.hdf5")
    assert run("refineloc-extract", *arguments, cwd=folder).returncode == 0
    with open_features(folder / "f.hdf5") as store:
        assert store.names == tuple(sorted((ODD, "v1")))
        assert store.info("v1").dtype == np.float32


def test_a_bad_film_does_not_end_the_job_and_is_tried_again(folder: Path) -> None:
    good = shutil.copy(folder / "films/v2.mkv", folder / "v2.mkv")
    (folder / "films/v2.mkv").write_bytes(Path(good).read_bytes()[:300])
    (folder / "films/v0.mp4").touch()
    done = run("refineloc-extract", *ARGUMENTS, cwd=folder)
    assert done.returncode == 2
    *_, summary, last = done.stderr.splitlines()
    assert "warning: films/v0.mp4: is empty (0 bytes)" in done.stderr
    assert "warning: films/v2.mkv: " in done.stderr
    assert summary.startswith("features.h5: 3 films")
    assert last.startswith("error: 2 films have errors, the first: films/v0.mp4: is empty")
    assert "features.h5 has the other 3; the same command tries again" in last
    assert sorted(content(folder / "features.h5")) == sorted((ODD, "v1", "v3"))

    shutil.copy(good, folder / "films/v2.mkv")
    film(folder / "films/v0.mp4", [99])
    film(folder / "films/v1.mkv", [99, 199])  # another film of the same name
    done = run("refineloc-extract", *ARGUMENTS, cwd=folder)
    assert done.returncode == 0
    assert "goes on after 2 of 5 films" in done.stderr
    assert {name: len(rows) for name, rows in content(folder / "features.h5").items()} == {
        "v0": 2,
        "v1": 4,
        "v2": 4,
        "v3": 6,
        ODD: 8,
    }
    assert not (folder / "features.h5.partial").exists()


def test_where_no_film_is_good_nothing_is_written(folder: Path) -> None:
    shutil.rmtree(folder / "films")
    write_sound(folder / "films.mkv", np.zeros(8000, dtype=np.float32), 8000)
    done = run("refineloc-extract", "films.mkv", *ARGUMENTS[1:], cwd=folder)
    assert done.returncode == 2
    assert done.stderr == "error: features.h5: not written: films.mkv: has no video stream (sound alone)\n"
    assert sorted(path.name for path in folder.iterdir()) == ["b.onnx", "films.mkv"]


# It waits before the third film, so that a signal never comes too late.
WAITS = """
import signal
from refineloc.runtime.jobs import run
write_part = run.write_part
def waits(block, rows):
    if block.names == ("v2",): signal.pause()
    yield from write_part(block, rows)
run.write_part = waits
"""


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_stopped_goes_on(folder: Path, stop: signal.Signals) -> None:
    partial = folder / "features.h5.partial"
    with Program("refineloc-extract", *ARGUMENTS, cwd=folder, before=WAITS) as program:
        program.wait_until(lambda: len(list(partial.glob("part-*.jsonl"))) == 2)
        program.send_signal(stop)
        done = program.wait()
    if stop == signal.SIGINT:
        assert (done.returncode, done.stderr) == (
            130,
            "features.h5.partial has 2 films; the same command goes on with them\ninterrupted\n",
        )
    other = run("refineloc-extract", *ARGUMENTS, "--float32", cwd=folder)
    assert other.returncode == 2
    assert "is of a run that was given something else (dtype)" in other.stderr
    next(partial.glob("part-*.npy")).unlink()  # a part without what lies beside it is done again
    done = run("refineloc-extract", *ARGUMENTS, cwd=folder)
    assert done.returncode == 0
    assert "features.h5.partial: goes on after 1 of 4 films" in done.stderr
    assert len(content(folder / "features.h5")) == 4
    assert not partial.exists()


def test_films_that_come_and_go_between_two_starts(folder: Path) -> None:
    with Program("refineloc-extract", *ARGUMENTS, cwd=folder, before=WAITS) as program:
        program.wait_until(lambda: len(list(folder.glob("features.h5.partial/part-*.jsonl"))) == 2)
        program.send_signal(signal.SIGKILL)
    film(folder / "films/a.mkv", [10, 20])  # before all others
    film(folder / "films/v11.mkv", [30])
    (folder / f"films/more/{ODD}.mkv").unlink()  # one of the two that were done
    done = run("refineloc-extract", *ARGUMENTS, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "features.h5.partial: goes on after 1 of 5 films" in done.stderr
    assert list(content(folder / "features.h5")) == ["a", "v1", "v11", "v2", "v3"]
    assert sorted(path.name for path in folder.iterdir()) == ["b.onnx", "features.h5", "films"]


FULL = """
import os
fsync, calls = os.fsync, []
def full(descriptor):
    calls.append(descriptor)
    if len(calls) == {count}: raise OSError(28, "No space left on device")
    fsync(descriptor)
os.fsync = full
"""
# The parts fit, the merged file does not.
FULL_AT_THE_END = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
"""


@pytest.mark.parametrize(
    ("before", "message"),
    [
        (
            FULL.format(count=3),
            r"part-[0-9a-f]{20}.npy: cannot be written: no space left on device; .* has 1 film; the same",
        ),
        (FULL.format(count=4), r"part-00002.jsonl: cannot be written: no space left on device; .* has 1 film"),
        (FULL.format(count=9), "error: features.h5: cannot be written: no space left on device"),
        (FULL_AT_THE_END, "error: features.h5: cannot be written: file too large"),
    ],
)
def test_a_disk_that_is_full_in_the_middle(folder: Path, before: str, message: str) -> None:
    with Program("refineloc-extract", *ARGUMENTS, cwd=folder, before=before) as program:
        done = program.wait()
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert re.search(message, done.stderr)
    assert "Traceback" not in done.stderr
    assert not (folder / "features.h5").exists()
    done = run("refineloc-extract", *ARGUMENTS, cwd=folder)
    assert done.returncode == 0
    assert "goes on after" in done.stderr
    assert len(content(folder / "features.h5")) == 4
    assert sorted(path.name for path in folder.iterdir()) == ["b.onnx", "features.h5", "films"]


def test_features_too_large_for_float16(folder: Path) -> None:
    shutil.rmtree(folder / "films")
    write_sound(folder / "loud.wav", np.tile(np.float32([0.99, -0.99]), 200_000), 8000)
    sound = {"kind": "audio", "fps": 8000.0, "snippet_frames": 100_000, "stride_frames": 100_000, "size": ()}
    write_backbone(folder / "b.onnx", **sound)
    done = run("refineloc-extract", ".", *ARGUMENTS[1:], cwd=folder)
    assert done.returncode == 2
    assert "loud.wav: features up to 9.79e+04 are too large for float16; store float32" in done.stderr
    assert run("refineloc-extract", ".", *ARGUMENTS[1:], "--float32", cwd=folder).returncode == 0
    assert len(content(folder / "features.h5")["loud"]) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backbone", "b.onnx"], "no films: give films, folders of films, or --list FILE"),
        (["films", "--backbone", "b.onnx", "-o", "f.npz"], "expected an output name that ends in .h5, .hdf5"),
        (["films", "--backbone", "gone.onnx"], "gone.onnx: no such file"),
        (["gone.mp4", "--backbone", "b.onnx"], "gone.mp4: no such film or folder"),
        (["films", "films/v1.mkv", "v1.mp4", "--backbone", "b.onnx"], "would both be video 'v1'"),
    ],
)
def test_wrong_calls(folder: Path, arguments: list[str], message: str) -> None:
    (folder / "v1.mp4").touch()
    done = run("refineloc-extract", *arguments, "--provider", "cpu", cwd=folder)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert not list(folder.glob("*.partial"))


@pytest.mark.long
def test_several_films_at_a_time_give_the_same_file(folder: Path) -> None:
    (folder / "films/v0.mp4").touch()
    for name, options in (("one.h5", ()), ("two.h5", ("--workers", "2"))):
        done = run("refineloc-extract", *ARGUMENTS, *options, "-o", name, cwd=folder)
        assert done.returncode == 2
        assert "error: films/v0.mp4: is empty" in done.stderr
    assert content(folder / "one.h5") == content(folder / "two.h5")
    rows = [json.loads(path.read_text().splitlines()[1]) for path in (folder / "two.h5.partial").glob("*.jsonl")]
    assert len(rows) == 5
