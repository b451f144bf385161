"""Changed bytes: whatever is in a file, reading it ends in data or in one clear line, in bounded time and memory.

150 cases here; `make fuzz` runs 10,000 (REFINELOC_FUZZ=10000).
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import onnx

PROGRAM = Path(__file__).with_name("fuzz_files.py")
CASES = int(os.environ.get("REFINELOC_FUZZ", "150"))


def write_features(folder: Path) -> None:
    """Every layout that is read, and files that point outside, to named pipes."""
    generator = np.random.default_rng(0)
    values = generator.standard_normal((6, 4)).astype(np.float32)
    with h5py.File(folder / "plain.h5", "w") as file:
        file["a"] = values
        file["b"] = values.astype(np.float16)
        file["a"].attrs["fps"] = 25.0
    with h5py.File(folder / "grouped.h5", "w", libver="latest") as file:
        file["a/features"] = values
        file["a"].attrs.update(fps=30, duration=4.5, snippet_frames=16, note="a text")
    with h5py.File(folder / "packed.h5", "w") as file:
        options = {"chunks": (3, 4), "compression": "gzip", "shuffle": True, "fletcher32": True}
        file.create_dataset("a", data=values, maxshape=(None, 4), **options)
        file.create_dataset("b", data=values, chunks=(2, 2), compression="lzf")
    layout = h5py.VirtualLayout((6, 4), "f4")
    layout[:] = h5py.VirtualSource("outside.bin", "a", (6, 4))
    with h5py.File(folder / "pointing.h5", "w") as file:
        file["a"] = values
        file["link"] = h5py.ExternalLink("outside.bin", "/a")
        file["soft"] = h5py.SoftLink("/link")
        file["group/features"] = h5py.ExternalLink("outside.bin", "/a")
        file.create_dataset("storage", (6, 4), "f4", external=[("outside.bin", 0, 96)])
        file.create_virtual_dataset("virtual", layout)


def write_models(folder: Path, model_path: Path) -> None:
    model = onnx.load(model_path)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="outside.bin")
    (folder / "pointing.onnx").write_bytes(model.SerializeToString())


def test_changed_files_are_read_or_refused(model_path: Path, tmp_path: Path) -> None:
    write_features(tmp_path)
    write_models(tmp_path, model_path)
    os.mkfifo(tmp_path / "outside.bin")
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path), str(CASES), "0"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    print(result["counts"])
    assert result["failures"] == []
    assert sum(result["counts"].values()) == CASES
    for kind in ("h5", "onnx"):
        assert result["counts"][f"{kind} refused"] > 0
        assert result["counts"][f"{kind} read"] > 0
