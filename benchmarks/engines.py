"""Detection in many videos by one process, by processes and by Ray's actors: `python -m benchmarks.engines [VIDEOS]`.

Every output is compared with that of one process, byte for byte. In the last run an actor is killed. Each way also does
one block alone, which tells what starting takes. The rates of one call can be compared, as other work on the machine
slows them alike; not those of two calls.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # for the model's metadata

from small_model import metadata_with

from refineloc.export.graph import model_bytes
from refineloc.export.precision import build
from refineloc.training.models.bases.refineloc import RefineLoc

WIDTH = 128  # narrow, so that ten thousand videos are many blocks and not many GB
WAYS = {
    "one process": (),
    "--workers 2": ("--workers", "2"),
    "--engine ray --actors 1": ("--engine", "ray", "--actors", "1"),
    "--engine ray --actors 2": ("--engine", "ray", "--actors", "2"),
    "--engine ray --actors 2, one killed": ("--engine", "ray", "--actors", "2"),
}


def main() -> None:
    videos = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(0)
        network, metadata = build(RefineLoc(WIDTH, 5), WIDTH, "fp32"), metadata_with(alpha_c=0.3)
        (folder / "model.onnx").write_bytes(model_bytes(network, replace(metadata, width=WIDTH)))
        write(folder / "features.h5", videos)
        write(folder / "few.h5", 10)
        print(f"{videos:,} videos of 100 to 300 snippets x {WIDTH} float16; load {os.getloadavg()[0]:.0f}\n")
        print("| | s | start, s | videos/s after it | output |\n|---|--:|--:|--:|---|", flush=True)
        for way, options in WAYS.items():
            start_s = detect(folder, "few.h5", options)
            wall_s = detect(folder, "features.h5", options, kill=way.endswith("killed"))
            output = (folder / "out.json").read_bytes()
            if way == "one process":
                first = output
            same = "the same" if output == first else "ANOTHER"
            rate = videos / (wall_s - start_s)
            print(f"| {way} | {wall_s:.0f} | {start_s:.0f} | {rate:.0f} | {same} |", flush=True)


def write(path: Path, videos: int) -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((1000, WIDTH)).astype(np.float16)
    with h5py.File(path, "w", fs_strategy="page", fs_page_size=2**16) as file:
        for index in range(videos):
            begin = int(rng.integers(0, 700))
            dataset = file.create_dataset(f"v{index:05}", data=values[begin : begin + int(rng.integers(100, 301))])
            dataset.attrs["fps"] = 25.0


def detect(folder: Path, features: str, options: tuple[str, ...], *, kill: bool = False) -> float:
    """Seconds that refineloc-detect takes; with `kill` one of its actors is killed once there is a part."""
    program = [Path(sys.executable).with_name("refineloc-detect"), features, "--provider", "cpu", "--threads", "1"]
    began = time.perf_counter()
    with subprocess.Popen([*program, *options, "-o", "out.json"], cwd=folder) as process:
        if kill:
            threading.Thread(target=kill_an_actor, args=(process, folder / "out.json.partial")).start()
    if process.returncode:
        sys.exit(f"refineloc-detect ended with {process.returncode}")
    return time.perf_counter() - began


def kill_an_actor(program: "subprocess.Popen[bytes]", parts: Path) -> None:
    while program.poll() is None and not any(parts.glob("part-*.jsonl")):
        time.sleep(0.1)
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        command = path.read_bytes()
        if command.startswith(b"ray::MapWorker") and b"_Actor" in command:
            os.kill(int(path.parent.name), signal.SIGKILL)
            print(f"killed an actor, process {path.parent.name}", file=sys.stderr)
            return
    print("no actor was found", file=sys.stderr)


if __name__ == "__main__":
    main()
