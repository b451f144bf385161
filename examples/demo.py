"""The main job on sample data, as `make demo` runs it: the five programs, a table and a picture.

Files are left under demo/: data/, run/, model.onnx, detections.json, timeline.png.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from refineloc.evaluation import evaluate, match_detections
from refineloc.runtime import Annotations, read_annotations, read_detections

DEMO = Path("demo")
ITERATIONS = 4
LAST = ITERATIONS - 1

PROGRAMS = f"""
refineloc-synth demo/data
refineloc-train demo/data/train.h5 demo/data/train.csv --val-features demo/data/val.h5 --val-labels demo/data/val.csv \
--iterations {ITERATIONS} --run demo/run
refineloc-export demo/run --iter {LAST} -o demo/model.onnx
refineloc-detect demo/data/val.h5 --model demo/model.onnx -o demo/detections.json
refineloc-eval demo/detections.json demo/data/val.csv --tiou 0.1:0.7:0.1
"""


def main() -> None:
    """Run the five programs, then show what each iteration detects."""
    began = time.perf_counter()
    # Matrices this small gain nothing from a second thread, and lose much if others use the cores too. With one thread
    # the figures repeat to the last digit (docs/explanation/sample-data.md has them).
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if DEMO.exists():
        shutil.rmtree(DEMO)
    DEMO.mkdir()
    for line in PROGRAMS.strip().splitlines():
        run(line)
    annotations = read_annotations(DEMO / "data/val.csv")
    print_table(annotations)
    picture = shutil.copy(DEMO / "run/timeline.png", DEMO)
    print(f"\nOne video's time line: {picture}")
    print(f"make demo took {time.perf_counter() - began:.0f} s")


def run(line: str) -> None:
    """Print a command and run it. If it fails it has printed why, and the demo ends with its exit code."""
    print(f"\n$ {line}", flush=True)
    program, *arguments = shlex.split(line)
    code = subprocess.run([Path(sys.executable).with_name(program), *arguments], check=False).returncode
    if code:
        sys.exit(code)


def print_table(annotations: Annotations) -> None:
    """Print mAP of each iteration on the validation videos, and the quality of the pseudo labels it learned from."""
    tious = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    print("\n           mAP (%) on the validation videos at tIoU        taught with pseudo labels of")
    print("iteration" + "".join(f"{tiou:7.1f}" for tiou in tious) + "  average   precision (%)  recall (%)")
    for iteration, record in enumerate(json.loads((DEMO / "run/iterations.json").read_text())):
        detections = read_detections(DEMO / f"run/iter_{iteration}/detections.json")
        result = evaluate(match_detections(detections, annotations, tious))
        line = f"{iteration:>9}" + "".join(f"{100 * value:7.1f}" for value in result.mAP)
        line += f"{100 * result.average_mAP:9.1f}"
        if record["pseudo_labels"]:
            quality = record["pseudo_labels"]["train"]
            line += f"{100 * quality['precision']:13.0f}{100 * quality['recall']:13.0f}"
        print(line)


if __name__ == "__main__":
    main()
