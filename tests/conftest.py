"""Fixtures that every part of the test suite shares."""

import os
from pathlib import Path

# Before NumPy and torch start their threads: the tests run in several processes at once, on few cores, and threads that
# wait for each other there are many times slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest

SHARED_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real files that others published; tests that need it are skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the real files are not here: {SHARED_DATA}")
    return SHARED_DATA
