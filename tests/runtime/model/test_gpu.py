"""Page-locked buffers, with a stand-in for NVIDIA's driver that checks how it is called."""

import ctypes
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_model import write_features

from refineloc.runtime import Detector, open_features
from refineloc.runtime.model import gpu


class _Driver:
    """Ordinary memory for page-locked; each function fails where it is told to."""

    def __init__(self, failing: str = "") -> None:
        self.failing = failing
        self.current: list[int] = []
        self.held: dict[int, Any] = {}
        self.calls: list[str] = []

    def _answer(self, name: str) -> int:
        self.calls.append(name)
        return 1 if name == self.failing else 0

    def cuInit(self, flags: int) -> int:
        return self._answer("cuInit")

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:
        device._obj.value = 7 + ordinal
        return self._answer("cuDeviceGet")

    def cuDevicePrimaryCtxRetain(self, context: Any, device: ctypes.c_int) -> int:
        assert device.value == 7
        context._obj.value = 1234
        return self._answer("cuDevicePrimaryCtxRetain")

    def cuCtxPushCurrent_v2(self, context: ctypes.c_void_p) -> int:
        if answer := self._answer("cuCtxPushCurrent"):
            return answer
        assert context.value is not None
        self.current.append(context.value)
        return 0

    def cuCtxPopCurrent_v2(self, old: Any) -> int:
        old._obj.value = self.current.pop()
        return self._answer("cuCtxPopCurrent")

    def cuMemHostAlloc(self, address: Any, size: ctypes.c_size_t, flags: ctypes.c_uint) -> int:
        assert self.current == [1234]
        assert flags.value == 1
        if answer := self._answer("cuMemHostAlloc"):
            return answer
        memory = ctypes.create_string_buffer(size.value)
        address._obj.value = ctypes.addressof(memory)
        self.held[ctypes.addressof(memory)] = memory
        return 0

    def cuMemFreeHost(self, address: ctypes.c_void_p) -> int:
        assert self.current == [1234]
        assert address.value is not None
        del self.held[address.value]
        return self._answer("cuMemFreeHost")


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Driver]:
    stand_in = _Driver()
    monkeypatch.setattr(gpu, "_load_driver", lambda: stand_in)
    gpu._context.cache_clear()
    yield stand_in
    gpu._context.cache_clear()


def test_memory_is_locked_and_freed_with_the_last_view(driver: _Driver) -> None:
    array = gpu.pinned_empty(15)
    assert array.shape == (15,)
    assert array.dtype == np.float32
    assert array.ctypes.data in driver.held
    array[:] = 2.0
    view = array[3:]
    del array
    gc.collect()
    assert len(driver.held) == 1
    assert view.sum() == 24.0
    del view
    gc.collect()
    assert not driver.held
    assert not driver.current  # the thread's context is as it was


def test_the_context_is_taken_once(driver: _Driver) -> None:
    arrays = [gpu.pinned_empty(4) for _ in range(3)]
    assert driver.calls.count("cuDevicePrimaryCtxRetain") == 1
    assert len({array.ctypes.data for array in arrays}) == 3


@pytest.mark.parametrize(
    "failing", ["cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuCtxPushCurrent", "cuMemHostAlloc"]
)
def test_ordinary_memory_where_the_driver_refuses(driver: _Driver, failing: str) -> None:
    driver.failing = failing
    array = gpu.pinned_empty(24)
    array[:] = 1.0
    assert array.shape == (24,)
    assert not driver.held
    assert not driver.current


def test_ordinary_memory_without_a_driver(driver: _Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_load_driver", lambda: None)
    assert gpu.pinned_empty(24).shape == (24,)
    assert "no NVIDIA driver" in (gpu.gpu_problem() or "")


def test_a_detector_on_a_gpu_reads_into_locked_memory(
    driver: _Driver, model_path: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    kinds = [np.float32, np.float16] * 3
    videos = {f"v{index}": rng.standard_normal((30, 24)).astype(kind) for index, kind in enumerate(kinds)}
    path = write_features(tmp_path / "f.h5", videos)
    detector = Detector(model_path, provider="cpu", batch_snippets=64)
    with open_features(path) as store:
        expected = {name: list(found) for name, found in detector.detect_many(store, fps=25.0)}
        assert not driver.calls
        detector._session.provider = "cuda"
        found = {name: list(own) for name, own in detector.detect_many(store, fps=25.0)}
    assert found == expected
    # Three batches of features that are read in turn, and four outputs; a second run takes them again.
    locked = driver.calls.count("cuMemHostAlloc")
    assert locked == 3 + 4
    with open_features(path) as store:
        assert {name: list(own) for name, own in detector.detect_many(store, fps=25.0)} == expected
    assert driver.calls.count("cuMemHostAlloc") == locked
    del detector
    gc.collect()
    assert not driver.held
