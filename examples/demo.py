"""The main job on sample data, as `make demo` runs it: the five programs, a table and a picture.

Files are left under demo/: data/, run/, model.onnx, detections.json, timeline.png.
"""

import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from refineloc.runtime import Annotations, VideoAnnotation, evaluate, read_annotations, read_detections
from refineloc.runtime.timeline import draw_timeline

DEMO = Path("demo")
ITERATIONS = 4
LAST = ITERATIONS - 1

PROGRAMS = f"""
refineloc-synth demo/data
refineloc-train demo/data/train.h5 demo/data/train.csv --val-features demo/data/val.h5 --val-labels demo/data/val.csv \
--preset sample --iterations {ITERATIONS} --run demo/run
refineloc-export demo/run --iter {LAST} -o demo/model.onnx
refineloc-detect demo/data/val.h5 --model demo/model.onnx -o demo/detections.json
refineloc-eval demo/detections.json demo/data/val.csv --tiou 0.1:0.7:0.1
"""


def main() -> None:
    """Run the five programs, then show what each iteration detects."""
    began = time.perf_counter()
    if DEMO.exists():
        shutil.rmtree(DEMO)
    DEMO.mkdir()
    for line in PROGRAMS.strip().splitlines():
        run(line)
    annotations = read_annotations(DEMO / "data/val.csv")
    print_table(annotations)
    picture = draw_typical(annotations)
    print(f"\nOne video's time line: {picture}")
    print(f"make demo took {time.perf_counter() - began:.0f} s")


def run(line: str) -> None:
    """Print a command and run it; where it fails it has said why, and the demo ends with its exit code."""
    print(f"\n$ {line}", flush=True)
    program, *arguments = shlex.split(line)
    code = subprocess.run([Path(sys.executable).with_name(program), *arguments], check=False).returncode
    if code:
        sys.exit(code)


def print_table(annotations: Annotations) -> None:
    """mAP of each iteration on the validation videos, and how good the pseudo labels were that taught it."""
    tious = np.round(np.arange(0.1, 0.71, 0.1), 2)
    records = json.loads((DEMO / "run/iterations.json").read_text())
    shown = (0.1, 0.3, 0.5, 0.7)
    print(f"\n{'':9}  {'mAP (%) at tIoU':^27}  {'average':>9}   {'pseudo labels made (%)':>22}")
    print(
        "iteration" + "".join(f"{tiou:7.1f}" for tiou in shown) + f"{'0.1-0.7':>11}" + f"{'precision':>13}{'recall':>9}"
    )
    for iteration, record in enumerate(records):
        found = read_detections(DEMO / f"run/iter_{iteration}/detections.json")
        result = evaluate(found, annotations, tious)
        at = [100 * result.mAP[int(np.argmin(np.abs(tious - tiou)))] for tiou in shown]
        precision, recall = (100 * record[f"pseudo_{name}"] for name in ("precision", "recall"))
        columns = "".join(f"{value:7.1f}" for value in at)
        print(f"{iteration:^9}{columns}{100 * result.average_mAP:11.1f}{precision:13.0f}{recall:9.0f}")


def draw_typical(annotations: Annotations) -> Path:
    """The time line of the video in the middle when all are sorted by their number of actions: not a chosen one."""

    def actions(video: VideoAnnotation) -> tuple[int, str]:
        return len(video.start), video.name

    typical = sorted(annotations.values(), key=actions)[len(annotations) // 2]
    rows = {
        f"iteration {iteration}": read_detections(DEMO / f"run/iter_{iteration}/detections.json")[typical.name]
        for iteration in range(ITERATIONS)
    }
    draw_timeline(DEMO / "timeline.png", typical, rows, title=f"{typical.name}: ground truth and detections")
    return DEMO / "timeline.png"


if __name__ == "__main__":
    main()
