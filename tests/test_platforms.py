"""The runtime where the system lacks what only POSIX has, as on Windows: shown here by hiding it."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from small_model import WIDTH, write_features, write_model

from refineloc.runtime import Detector, open_features, read_detections
from refineloc.runtime.features.hdf5_virtual import is_virtual

# The packages that we depend on choose by `sys.platform`, so they are loaded first.
WITHOUT_POSIX = """
import os, signal, sys, tempfile, subprocess, multiprocessing
import numpy, onnxruntime, h5py, typer, rich.console, rich.progress
for name in ("fcntl", "grp", "posix", "pty", "pwd", "resource", "termios", "tty"):
    sys.modules[name] = None
for module, kept in ((os, "O_APPEND O_CREAT O_EXCL O_RDONLY O_RDWR O_TRUNC O_WRONLY"), (signal, "SIGINT SIGTERM")):
    for name in dir(module):
        if name.startswith(("O_", "SIG")) and name not in kept.split():
            delattr(module, name)
for name in '''chown fchdir fchmod fchown fork forkpty getegid geteuid getgid getpgid getuid killpg lchown lockf mkfifo
        mknod nice posix_fadvise posix_fallocate posix_spawn pread preadv pwrite pwritev sched_getaffinity
        sched_setaffinity sendfile setsid statvfs sync sysconf uname'''.split():
    os.__dict__.pop(name, None)
for name in ("pthread_sigmask", "sigwait", "setitimer", "alarm"):
    signal.__dict__.pop(name, None)
"""


@pytest.fixture
def files(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A folder with model.onnx, features.h5 and truth.csv."""
    write_model(tmp_path / "model.onnx")
    videos = {f"v{index}": rng.standard_normal((40, WIDTH), np.float32) for index in range(3)}
    write_features(tmp_path / "features.h5", videos, fps=25.0)
    (tmp_path / "truth.csv").write_text("video-name,t-start,t-end,label\nv0,1.0,9.0,run\n")
    return tmp_path


def run_without_posix(code: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, "-c", WITHOUT_POSIX + code], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_detector_and_its_program_need_nothing_that_only_posix_has(files: Path) -> None:
    with open_features(files / "features.h5") as store:
        expected = dict(Detector(files / "model.onnx", provider="cpu").detect_many(store))
    assert sum(map(len, expected.values())) > 3
    printed = run_without_posix(
        "from refineloc.runtime import Detector, open_features\n"
        "with open_features('features.h5', untrusted=True) as store:\n"
        "    for name, found in Detector('model.onnx', provider='cpu').detect_many(store): print(name, len(found))\n"
        "sys.argv = ['refineloc-detect', 'features.h5', '--model', 'model.onnx', '--provider', 'cpu']\n"
        "from refineloc.runtime.cli.detect import main; main()",
        files,
    )
    assert printed.splitlines()[:3] == [f"{name} {len(found)}" for name, found in expected.items()]
    written = read_detections(files / "detections.json")
    assert {name: len(found) for name, found in written.items()} == {n: len(found) for n, found in expected.items()}
    assert b"\r" not in (files / "detections.json").read_bytes()
    assert not (files / "detections.json.partial").exists()


def test_evaluation_needs_nothing_that_only_posix_has(files: Path) -> None:
    (files / "detections.csv").write_text("video-name,t-start,t-end,label,score\nv0,1.0,9.0,run,0.5\n")
    printed = run_without_posix(
        "sys.argv = ['refineloc-eval', 'detections.csv', 'truth.csv', '--json', 'scores.json']\n"
        "from refineloc.evaluation.cli.evaluate import main; main()",
        files,
    )
    assert printed.splitlines()[1].split("\t")[:3] == ["all", "1", "1.000000"]
    assert '"average_mAP": 1.0' in (files / "scores.json").read_text()


def test_headers_of_hdf5_are_read_beside_hdf5_without_pread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the descriptor of HDF5, which finds its own place again."""
    layout = h5py.VirtualLayout((4, 3), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "v", (4, 3))
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["contiguous"] = np.arange(12, dtype=np.float32).reshape(4, 3)
        file.create_virtual_dataset("virtual", layout)
    monkeypatch.delattr("os.pread", raising=False)
    with h5py.File(tmp_path / "f.h5", "r") as file:
        descriptor = file.id.get_vfd_handle()
        os.lseek(descriptor, 7, os.SEEK_SET)
        address = {name: file.id.links.get_info(name.encode()).u for name in file}
        assert is_virtual(descriptor, address["virtual"])
        assert not is_virtual(descriptor, address["contiguous"])
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == 7
        assert file["contiguous"][3, 2] == 11
