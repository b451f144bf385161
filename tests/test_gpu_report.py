"""The report of a GPU (`make gpu`) is rehearsed on the CPU, so that it still runs when someone has a card."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.long
def test_all_parts_of_the_report_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--small", "--out", str(tmp_path / "gpu.md")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    report = (tmp_path / "gpu.md").read_text()
    assert report.count("### ") == 7
    assert "FAILED" not in report
    assert "| cpu | fp32 | cpu | 0.0e+00 | yes (bound 1e-05) |" in report
