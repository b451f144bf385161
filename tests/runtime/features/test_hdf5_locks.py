"""HDF5 files on file systems without locks, and files that another program writes or did not close."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from small_model import write_features

from refineloc.runtime.errors import FeatureError
from refineloc.runtime.features.opening import open_features

FEATURES = np.random.default_rng(0).standard_normal((7, 6)).astype(np.float32)
READ = """
import sys
from refineloc.runtime import open_features
with open_features(sys.argv[1]) as store:
    print(store.read("v").sum())
"""
# Holds a file open for writing until its input ends; "crash" ends without closing it.
WRITER = """
import os, sys, h5py
kind, path = sys.argv[1:]
file = h5py.File(path, "w", libver=None if kind == "append" else "latest")
file.create_dataset("v", data=[[1.0, 2.0]], chunks=(1, 2), maxshape=(None, 2))
if kind == "swmr":
    file.swmr_mode = True
file.flush()
print("open", flush=True)
if kind == "crash":
    os._exit(0)
sys.stdin.read()
"""


def test_the_lock_that_a_file_system_refuses_is_not_needed(tmp_path: Path) -> None:
    source = tmp_path / "flock.c"
    source.write_text("#include <errno.h>\nint flock(int fd, int operation) { errno = E; return -1; }\n")
    path = write_features(tmp_path / "f.h5", {"v": FEATURES})
    for code in ("ENOLCK", "EROFS"):
        library = tmp_path / f"{code}.so"
        try:
            subprocess.run(["cc", "-shared", "-fPIC", f"-DE={code}", "-o", library, source], check=True)
        except OSError:
            pytest.skip("there is no C compiler to make a flock that fails")
        done = subprocess.run(
            [sys.executable, "-c", READ, path],
            env=os.environ | {"LD_PRELOAD": str(library)},
            capture_output=True,
            text=True,
        )
        assert done.stdout.strip() == str(FEATURES.sum()), (code, done.stderr)


@pytest.fixture
def held(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    path = tmp_path / "held.h5"
    command = [sys.executable, "-c", WRITER, request.param, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        if request.param == "crash":
            writer.wait()
        yield path


@pytest.mark.parametrize("held", ["append"], indirect=True)
def test_a_file_that_another_program_writes_is_refused(held: Path) -> None:
    with pytest.raises(FeatureError, match=r"held\.h5: another program is writing it; wait"):
        open_features(held)


@pytest.mark.parametrize("held", ["swmr", "crash"], indirect=True)
def test_a_file_that_was_not_closed_has_the_cure(held: Path) -> None:
    """The mark in the file does not tell a live writer, which needs no lock (SWMR), from one that was killed."""
    with pytest.raises(FeatureError, match="another program is writing it, or ended without closing it") as caught:
        open_features(held)
    assert str(caught.value).endswith(f"h5clear -s {held}")


def test_two_readers_share_a_file(tmp_path: Path) -> None:
    path = write_features(tmp_path / "f.h5", {"v": FEATURES})
    with h5py.File(path, "r"), open_features(path) as store:
        assert np.array_equal(store.read("v"), FEATURES)
