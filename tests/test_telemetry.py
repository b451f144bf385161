"""ONNX Runtime's telemetry is off: a detector opens no socket and writes nothing into the home folder."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PARTS = ("refineloc.runtime", "refineloc.evaluation", "refineloc.export", "refineloc.training")
# onnxruntime is imported after a part of ours, as a program does that uses both.
DETECT = """
import os, stat, sys
import refineloc.runtime, onnxruntime
import numpy as np
from refineloc.runtime import Detector
detector = Detector(sys.argv[1], provider="cpu", threads=1)
detector.detect(np.ones((40, detector.metadata.width), np.float16), fps=25.0)
def is_socket(number):
    try:
        return stat.S_ISSOCK(os.fstat(int(number)).st_mode)
    except OSError:
        return False
print(os.environ["ORT_DISABLE_TELEMETRY"], sum(map(is_socket, os.listdir("/proc/self/fd"))))
"""


def environment(home: Path, **more: str) -> dict[str, str]:
    left_out = ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "CI")
    return {name: value for name, value in os.environ.items() if name not in left_out} | {"HOME": str(home)} | more


@pytest.mark.parametrize("stated", [{}, {"ORT_DISABLE_TELEMETRY": ""}])
def test_a_detector_opens_no_socket_and_writes_nothing(
    model_path: Path, tmp_path: Path, stated: dict[str, str]
) -> None:
    home, trace = tmp_path / "home", tmp_path / "trace.txt"
    home.mkdir()
    command = [sys.executable, "-c", DETECT, str(model_path)]
    traced = ["strace", "-f", "-qq", "-e", "trace=socket,connect", "-o", str(trace)]
    can_trace = shutil.which("strace") and not subprocess.run([*traced, "true"], capture_output=True).returncode
    done = subprocess.run(
        [*(traced if can_trace else []), *command],
        env=environment(home, **stated),
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1", "0"]
    assert list(home.rglob("*")) == []
    assert not can_trace or trace.read_text() == ""


@pytest.mark.parametrize("part", PARTS)
def test_every_part_turns_it_off_and_keeps_what_the_user_set(part: str, tmp_path: Path) -> None:
    code = f"import os, {part}; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    for stated, kept in (({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0")):
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment(tmp_path, **stated), capture_output=True, text=True
        )
        assert done.stdout.strip() == kept, done.stderr
