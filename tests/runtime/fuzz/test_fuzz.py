"""Changed files: whatever is in one, reading it ends in data or in one clear line, in bounded time and memory.

200 cases here; `make fuzz` runs 10,000 (REFINELOC_FUZZ=10000).
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime
import pytest

sys.path.append(str(Path(__file__).parent))  # where the program, which runs by itself, finds them

import fuzz_files
import fuzz_mutations

from refineloc.runtime.errors import ModelError
from refineloc.runtime.model.session import Session

PROGRAM = Path(__file__).with_name("fuzz_files.py")
CASES = int(os.environ.get("REFINELOC_FUZZ", "200"))


@pytest.fixture
def folder(model_path: Path, tmp_path: Path) -> Path:
    fuzz_mutations.write_features(tmp_path)
    fuzz_mutations.write_models(tmp_path, model_path)
    return tmp_path


def test_changed_files_are_read_or_refused(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(folder), str(CASES), "0"],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    print(result["counts"], result["most MiB"])
    assert result["failures"] == []
    assert sum(result["counts"].values()) == CASES
    for kind in {kind for kind, *_ in fuzz_files.KINDS}:
        assert result["counts"].get(f"{kind} refused", 0) > 0
        # A model whose weights lie outside is never read: it cannot be without them.
        assert (result["counts"].get(f"{kind} read", 0) > 0) == (kind != "onnx pointing"), kind


@pytest.mark.parametrize("place", fuzz_mutations.PLACES, ids=lambda place: place.__name__)
@pytest.mark.parametrize("long", [0, 1, 2])
def test_weights_that_onnx_runtime_takes_from_another_file_are_refused(
    folder: Path, place: Callable[[onnx.ModelProto], None], long: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime alone follows what the cases of the kind "onnx pointing" hold, and the trap tells."""
    monkeypatch.chdir(folder)
    trap = fuzz_files.Trap([folder / fuzz_mutations.OUTSIDE_RAW])
    model = onnx.load(folder / "model.onnx")
    place(model)
    content = fuzz_mutations.rewritten(
        model.SerializeToString(),
        onnx.ModelProto.DESCRIPTOR,
        lambda number, wire: fuzz_mutations.written(number << 3 | wire, long if number in (13, 14) else 0),
    )
    path = folder / "pointing.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="written in more bytes than it needs" if long else "external data"):
        Session(path, "cpu")
    assert not trap.sprung()
    assert onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).get_inputs()
    assert trap.sprung()
