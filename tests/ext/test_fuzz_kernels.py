"""Kernels with arguments of any type, shape, layout and value, in processes of their own: a result or a refusal."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("fuzz_kernels.py")


@pytest.mark.parametrize(
    ("cases", "seed"), [(1000, 0), *[pytest.param(40_000, seed, marks=pytest.mark.long) for seed in (1, 2)]]
)
def test_kernels_take_or_refuse_whatever_they_are_given(tmp_path: Path, cases: int, seed: int) -> None:
    command = [sys.executable, str(PROGRAM), str(cases), str(seed), str(tmp_path / "last")]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = pickle.loads((tmp_path / "last").read_bytes())
        pytest.fail(f"ended with {done.returncode} at {last}\n{done.stderr[-5000:]}")
    result = json.loads(done.stdout)
    print(result["counts"])
    assert result["odd"] == []
    assert sum(result["counts"].values()) == cases
    for kernel in {name.partition(" ")[0] for name in result["counts"]}:
        took, refused = (result["counts"].get(f"{kernel} {what}", 0) for what in ("took", "refused"))
        assert took > (took + refused) / 20, f"{kernel}: its docstring does not say what fits (see {PROGRAM.name})"
        assert refused > (took + refused) / 50
