"""Reading ahead: the same items in the same order, errors in their place, nothing left running, memory bounded."""

import contextlib
import functools
import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_model import write_features
from waiting import wait_until

from refineloc.runtime import Detector, EngineError, FeatureError, SnippetGrid, open_features
from refineloc.runtime.batches import FeatureBatch, Planned, ahead, pack, read_batches
from refineloc.runtime.features.hdf5 import HDF5File
from refineloc.runtime.model.half import CAST_MODEL, HalfToFloat

EMPTY = functools.partial(np.empty, dtype=np.float32)
GRID = SnippetGrid(25.0, 16)


def running() -> list[str]:
    return [
        thread.name
        for thread in threading.enumerate()
        if thread.name.startswith(("refineloc-ahead", "refineloc-reader"))
    ]


def count(items: list[str], end: int, fail_at: int | None = None) -> Generator[int]:
    try:
        for number in range(end):
            if number == fail_at:
                raise FeatureError("in its place")
            items.append(f"made {number}")
            yield number
    finally:
        items.append("closed")


def test_gives_what_the_iterator_gives_and_ends() -> None:
    seen: list[str] = []
    assert list(ahead(ahead(count(seen, 50)))) == list(range(50))
    assert seen[-1] == "closed"
    assert not running()


def test_runs_ahead_by_two_items_and_no_further() -> None:
    seen: list[str] = []
    items = ahead(count(seen, 50))
    next(items)
    wait_until(lambda: len(seen) >= 3, "the reader makes its next")
    time.sleep(0.05)  # for one that would go further
    assert seen == ["made 0", "made 1", "made 2"]  # one taken, one waiting, one in the hand
    items.close()


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_comes_after_the_items_before_it(threads: int) -> None:
    items = ahead(ahead(count([], 50, fail_at=3)), str, threads)
    assert [next(items) for _ in range(3)] == ["0", "1", "2"]
    with pytest.raises(FeatureError, match="in its place"):
        next(items)
    assert not running()


def test_steps_run_at_a_time_and_their_results_and_errors_come_in_order() -> None:
    later = threading.Event()

    def step(number: int) -> int:
        if number == 0:
            assert later.wait(timeout=10)  # for a result that is ready before this one
        if number == 2:
            later.set()
        if number == 20:
            raise FeatureError("of the step")
        return -number

    items = ahead(count([], 50), step, 2)
    assert [next(items) for _ in range(20)] == [-number for number in range(20)]
    with pytest.raises(FeatureError, match="of the step"):
        next(items)
    assert not running()


@pytest.mark.parametrize("readers", [1, 4])
def test_calls_at_a_time_keep_their_features_until_each_has_ended(tmp_path: Path, readers: int) -> None:
    """The first call ends after the second, and after a third has begun: what is read meanwhile goes elsewhere."""
    videos = {f"v{index:02}": np.full((4, 24), index, np.float16) for index in range(16)}
    third = threading.Event()

    def call(batch: FeatureBatch) -> float:
        if batch.names == ["v00"]:
            assert third.wait(timeout=10)
            time.sleep(0.05)  # the reader goes on as far as it may
        if batch.names == ["v02"]:
            third.set()
        return float(batch.features.mean())

    with open_features(write_features(tmp_path / "features.h5", videos)) as store:
        batches = read_batches(store, plan(store), 24, 4, HalfToFloat, EMPTY, readers, 2)
        assert list(ahead(batches, call, 2)) == list(range(16))


def test_a_thread_may_go_on_when_the_main_thread_has_ended() -> None:
    code = (
        "import threading\nfrom refineloc.runtime.batches import ahead\n"
        "items = ahead(ahead(number for number in range(1000)))\nnext(items)\nmain = threading.main_thread()\n"
        "threading.Thread(target=lambda: (main.join(), print(sum(1 for _ in items)))).start()"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "999\n"


@pytest.mark.parametrize("taken", [0, 1, 7])
def test_leaving_early_stops_the_threads_and_closes_the_source(taken: int) -> None:
    seen: list[str] = []
    items = ahead(ahead(count(seen, 10_000)))
    for _ in range(taken):
        next(items)
    items.close()
    assert not running()
    assert seen[-1:] == (["closed"] if taken else [])  # a source that was never asked was never opened


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 60))
def test_packing_takes_neighbours_up_to_the_limit(lengths: list[int], limit: int) -> None:
    parts = [lengths[which] for which in pack(lengths, limit)]
    assert [length for part in parts for length in part] == lengths
    assert all(part and (sum(part) <= limit or len(part) == 1) for part in parts)
    for part, after in itertools.pairwise(parts):
        assert sum(part) + after[0] > limit  # the next one did not fit
    if len(parts) > 1:  # packing what is left after some calls gives the calls that were left
        assert [lengths[len(parts[0]) :][which] for which in pack(lengths[len(parts[0]) :], limit)] == parts[1:]


@pytest.fixture
def store_path(tmp_path: Path, rng: np.random.Generator) -> Path:
    videos = {
        f"v{index:02}": rng.standard_normal((length, 24)).astype(np.float16 if index % 2 else np.float32)
        for index, length in enumerate([5, 3, 40, 1, 9, 8, 2, 30, 4, 4, 4, 4])
    }
    return write_features(tmp_path / "features.h5", videos)


def plan(store: Any) -> list[Planned]:
    infos = [store.info(name) for name in store.names]
    return [Planned(one.name, one.snippets, one.dtype == np.float16, slice(0, 24), GRID) for one in infos]


@pytest.mark.parametrize("readers", [1, 4])
def test_batches_hold_the_features_until_the_second_next_is_asked_for(store_path: Path, readers: int) -> None:
    with open_features(store_path) as store:
        expected = {name: store.read(name) for name in store.names}
        names = []
        for batch in ahead(read_batches(store, plan(store), 24, 10, HalfToFloat, EMPTY, readers)):
            time.sleep(0.01)  # the reader goes on as far as it may
            assert batch.features.dtype == np.float32
            parts = np.split(batch.features, np.cumsum(batch.lengths)[:-1])
            for name, part in zip(batch.names, parts, strict=True):
                assert np.array_equal(part, expected[name])
            names += batch.names
        assert tuple(names) == store.names


@pytest.mark.parametrize(
    ("limit", "shapes"),
    [
        (2048, [(114, 24)]),  # all in one batch, of the file's own size
        (60, [(58, 24)] * 2),  # the larger of two batches: 5 + 3 + 40 + 1 + 9, then the rest
        (10, [(10, 24)] * 3),  # five batches fit, and three exist at a time
        (1, [(1, 24)]),  # the one video that fits; longer ones have arrays of their own
    ],
)
def test_buffers_are_no_larger_than_the_batches(store_path: Path, limit: int, shapes: list[tuple[int, int]]) -> None:
    asked: list[tuple[int, ...]] = []

    def empty(shape: tuple[int, ...]) -> Any:
        asked.append(shape)
        return EMPTY(shape)

    with open_features(store_path) as store:
        for _ in read_batches(store, plan(store), 24, limit, HalfToFloat, empty):
            pass
        assert asked == shapes
        list(read_batches(store, plan(store), 24, 10, HalfToFloat, empty, 4))
        assert asked[len(shapes) :] == [(10, 24)] * 4, "with several readers the next batch is begun"
        asked.clear()
        next(read_batches(store, plan(store), 24, 19, HalfToFloat, empty, threads=3))
        assert asked.pop() == (30, 24), "with room for the longest video of up to twice the limit"
        batches = read_batches(store, plan(store), 24, 10, HalfToFloat, empty, threads=3)
        met = threading.Barrier(3)

        def meet(batch: FeatureBatch) -> None:
            if batch.names[0] in ("v00", "v03", "v05"):  # at a time, so in three threads
                met.wait(timeout=10)

        list(ahead(batches, meet, 3))
    assert asked == [(10, 24)] * 3, "one of each thread"


@pytest.mark.parametrize("readers", [1, 4])
def test_half_floats_with_nan_are_found_after_the_conversion(tmp_path: Path, readers: int) -> None:
    bad = np.ones((6, 24), np.float16)
    bad[4, 2] = np.nan
    good = {f"good{index}": np.ones((6, 24), np.float16) for index in range(5)}
    path = write_features(tmp_path / "f.h5", good | {"odd": bad, "odd2": bad, "well": good["good0"]})
    with open_features(path) as store, pytest.raises(FeatureError, match="video 'odd': snippet 4 holds nan"):
        list(read_batches(store, plan(store), 24, 12, HalfToFloat, EMPTY, readers))
    assert not running()


def test_several_threads_read_at_a_time(store_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    met, read = threading.Barrier(3), HDF5File._read

    def slow(self: HDF5File, *arguments: Any) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            met.wait(timeout=10)  # three at a time, or not at all
        read(self, *arguments)

    monkeypatch.setattr(HDF5File, "_read", slow)
    with open_features(store_path) as store:
        assert len(store.names) % 3 == 0
        batches = read_batches(store, plan(store), 24, 2048, HalfToFloat, EMPTY, 3)
        assert sum(len(batch.names) for batch in batches) == len(store.names)
    assert not met.broken


def test_half_to_float_is_exact_for_every_half() -> None:
    every = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(256, 256)
    out = np.empty((256, 256), np.float32)
    HalfToFloat()(every, out)
    assert np.array_equal(out, every.astype(np.float32), equal_nan=True)


def test_the_model_of_one_node_is_what_onnx_would_write() -> None:
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Cast", ["x"], ["y"], to=single)],
        "Cast",
        [onnx.helper.make_tensor_value_info("x", half, ["T", "D"])],
        [onnx.helper.make_tensor_value_info("y", single, ["T", "D"])],
    )
    model = onnx.ModelProto(ir_version=8, graph=graph, opset_import=[onnx.OperatorSetIdProto(version=13)])
    onnx.checker.check_model(model, full_check=True)
    assert model.SerializeToString(deterministic=True) == CAST_MODEL


def test_half_to_float_refuses_what_it_would_misread() -> None:
    half = np.zeros((4, 6), np.float16)
    with pytest.raises(ValueError, match="C-contiguous"):
        HalfToFloat()(half[:, ::2], np.empty((4, 3), np.float32))
    with pytest.raises(ValueError, match="one shape"):
        HalfToFloat()(half, np.empty((4, 5), np.float32))


def test_leaving_detect_many_early_leaves_no_thread(model_path: Path, store_path: Path) -> None:
    detector = Detector(model_path, provider="cpu", batch_snippets=8)
    with open_features(store_path) as store:
        for name, _ in detector.detect_many(store, fps=25.0):
            assert name == "v00"
            break
        wait_until(lambda: not running(), "the threads end")


def test_a_program_may_end_in_the_middle(model_path: Path, store_path: Path) -> None:
    code = (
        "import sys\nfrom refineloc.runtime import Detector, open_features\n"
        f"detector = Detector({str(model_path)!r}, provider='cpu', batch_snippets=8)\n"
        f"videos = detector.detect_many(open_features({str(store_path)!r}), fps=25.0)\nnext(videos)\nsys.exit(3)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (3, "")


def test_an_error_of_the_engine_leaves_no_thread_and_then_the_store_is_closed(
    model_path: Path, store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = Detector(model_path, provider="cpu", batch_snippets=8)
    real, calls = detector._session.run, itertools.count(1)

    def run(*arguments: Any, **options: Any) -> Any:
        if next(calls) == 3:
            time.sleep(0.05)  # the reader waits with its next batch by then
            raise EngineError("out of memory")
        return real(*arguments, **options)

    monkeypatch.setattr(detector._session, "run", run)
    try:
        with open_features(store_path) as store:
            list(detector.detect_many(store, fps=25.0))
    except EngineError:
        assert not running()  # here, where the error's traceback still holds all that was going on
    else:
        pytest.fail("no error")


def test_every_video_is_looked_at_before_the_first_is_read(
    model_path: Path, store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with h5py.File(store_path, "a") as file:
        file["v99"] = np.zeros((3, 23), np.float32)
    detector = Detector(model_path, provider="cpu", batch_snippets=1)
    with open_features(store_path) as store:
        read: list[str] = []
        monkeypatch.setattr(store, "read_into", lambda name, *rest, **more: read.append(name))
        with pytest.raises(FeatureError, match="'v99': features have width 23"):
            next(detector.detect_many(store, fps=25.0))
        assert not read
        assert list(detector.detect_many(store, names=[], fps=25.0)) == []
