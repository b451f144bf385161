"""Detection in many videos by processes and by Ray's actors: `python -m benchmarks.engines [VIDEOS [WIDTH [fp32]]]`.

Every output is compared with that of one process, byte for byte. In the last run an actor is killed in the middle. Each
way also does ten videos, which tells what starting and ending take. The figures of one call can be compared, as other
work on the machine slows them alike; not those of two calls.

The videos are as long as THUMOS14's. Each of a thousand arrays has many names (HDF5's hard links), so that ten thousand
videos of 2,048 values a snippet are a file of 1.5 GB, which stays in memory. The model is int8 where nothing else is
said, so that a run takes a minute and not three. That makes the share of Ray's start the larger one.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # for the model's metadata

from small_model import metadata_with

from benchmarks.runtime import thumos14_lengths
from refineloc.export.graph import model_bytes
from refineloc.export.precision import build
from refineloc.runtime.model.metadata import Precision
from refineloc.training.models.bases.refineloc import RefineLoc

ARRAYS, CLASSES = 1000, 20
ALPHA_C = 0.06  # a random model has about a hundred detections a video


@dataclass(frozen=True)
class Way:
    """Options of `refineloc-detect`, and the way without Ray that it is compared with."""

    name: str
    options: tuple[str, ...] = ()
    plain: str = ""
    kill: bool = False


RAY = ("--engine", "ray", "--actors")
WAYS = (
    Way("one process"),
    Way("Ray, one actor", (*RAY, "1"), "one process"),
    Way("two processes", ("--workers", "2")),
    Way("Ray, two actors", (*RAY, "2"), "two processes"),
    Way("Ray, two actors, one killed", (*RAY, "2"), "two processes", kill=True),
)


def main() -> None:
    videos = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    width = int(sys.argv[2]) if len(sys.argv) > 2 else 2048
    precision: Precision = "fp32" if "fp32" in sys.argv[3:] else "int8"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, videos, width, precision)
        print(f"{videos:,} videos x {width:,} float16, {precision} model; load {os.getloadavg()[0]:.0f}\n")
        print("| | s | overhead | of which start, s | after it, overhead | output |\n|---|--:|--:|--:|--:|---|")
        taken: dict[str, tuple[float, float]] = {}  # s of the whole, and after the start
        for way in WAYS:
            start_s = detect(folder, "few.h5", way)
            whole_s = detect(folder, "features.h5", way)
            output = (folder / "out.json").read_bytes()
            if way is WAYS[0]:
                first = output
            taken[way.name] = whole_s, whole_s - start_s
            pairs = zip(taken[way.name], taken[way.plain or way.name], strict=True)
            whole, after = (f"{ray / plain - 1:.0%}" if way.plain else "" for ray, plain in pairs)
            same = "the same" if output == first else "ANOTHER"
            print(f"| {way.name} | {whole_s:.1f} | {whole} | {start_s:.1f} | {after} | {same} |", flush=True)


def prepare(folder: Path, videos: int, width: int, precision: Precision) -> None:
    """Write the model and the two files of features."""
    torch.manual_seed(0)
    classes = tuple(f"c{index}" for index in range(CLASSES))
    stated = replace(metadata_with(alpha_c=ALPHA_C), classes=classes, width=width, precision=precision)
    (folder / "model.onnx").write_bytes(model_bytes(build(RefineLoc(width, CLASSES), width, precision), stated))
    write(folder / "features.h5", videos, width)
    write(folder / "few.h5", 10, width)


def write(path: Path, videos: int, width: int) -> None:
    lengths = thumos14_lengths(min(videos, ARRAYS))
    rng = np.random.default_rng(0)
    values = rng.standard_normal((2 * lengths.max(), width), dtype=np.float32).astype(np.float16)
    with h5py.File(path, "w", fs_strategy="page", fs_page_size=2**16) as file:
        for index in range(videos):
            if index >= ARRAYS:
                file[f"v{index:05}"] = file[f"v{index % ARRAYS:05}"]
                continue
            begin = int(rng.integers(0, len(values) - lengths[index]))
            dataset = file.create_dataset(f"v{index:05}", data=values[begin : begin + lengths[index]])
            dataset.attrs["fps"] = 25.0


def detect(folder: Path, features: str, way: Way) -> float:
    """Seconds that refineloc-detect takes."""
    program = [Path(sys.executable).with_name("refineloc-detect"), features, "--provider", "cpu", "--threads", "1"]
    began = time.perf_counter()
    with subprocess.Popen([*program, *way.options, "-o", "out.json"], cwd=folder) as process:
        if way.kill and features != "few.h5":
            threading.Thread(target=kill_an_actor, args=(process, folder / "out.json.partial")).start()
    if process.returncode:
        sys.exit(f"refineloc-detect ended with {process.returncode}")
    return time.perf_counter() - began


def kill_an_actor(program: "subprocess.Popen[bytes]", parts: Path) -> None:
    """Kill an actor once half of the parts are there."""
    while program.poll() is None:
        written = list(parts.glob("part-*.jsonl"))
        if written and 2 * len(written) >= json.loads(written[0].open().readline())["parts"]:
            break
        time.sleep(0.1)
    for path in Path("/proc").glob("[0-9]*"):
        # An actor works in the folder of the program.
        if (path / "cmdline").read_bytes().startswith(b"ray::MapWorker") and (path / "cwd").samefile(parts.parent):
            os.kill(int(path.name), signal.SIGKILL)
            print(f"killed an actor, process {path.name}", file=sys.stderr)
            return
    print("no actor was found", file=sys.stderr)


if __name__ == "__main__":
    main()
