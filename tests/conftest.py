"""Fixtures that every part of the test suite shares."""

import os
from collections.abc import Callable
from pathlib import Path

# Before NumPy and torch start their threads: the tests run in several processes at once, on few cores, and threads that
# wait for each other there are many times slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest
from small_model import write_model

# Kernels built elsewhere, with bounds checks or a sanitizer (docs/memory-safety.md), in the place of the usual ones.
if "REFINELOC_EXT_DIR" in os.environ:
    import refineloc._ext

    refineloc._ext.__path__.insert(0, os.environ["REFINELOC_EXT_DIR"])
    from refineloc._ext import matching, nms, proposals, segments

    for kernel in (matching, nms, proposals, segments):
        if Path(kernel.__file__).parent != Path(os.environ["REFINELOC_EXT_DIR"]):
            pytest.exit(f"REFINELOC_EXT_DIR: {kernel.__file__} was loaded instead", returncode=2)

SHARED_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real files that others published; tests that need it are skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the real files are not here: {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a small model with clear and varied scores; keyword arguments change its metadata."""
    return lambda **changes: write_model(tmp_path_factory.mktemp("model") / "model.onnx", **changes)


@pytest.fixture(scope="session")
def model_path(make_model: Callable[..., Path]) -> Path:
    """A model of five classes on 24 features."""
    return make_model()


@pytest.fixture
def rng() -> np.random.Generator:
    """Seeded."""
    return np.random.default_rng(7)
