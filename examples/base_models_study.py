"""The study behind docs/base-models.md: each base model alone and refined, on two data sets, over three seeds.

    .venv/bin/python examples/base_models_study.py FOLDER

Data: that of refineloc-synth, and simulated features along THUMOS14's real time lines (../shared/data; left out where
the folder is not there). Trains two runs at a time into FOLDER (an hour on two cores; it can be stopped and started
again) and prints the tables as Markdown.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from refineloc.evaluation import evaluate, match_detections
from refineloc.runtime import Annotations, read_annotations
from refineloc.runtime.annotations import write_annotations_csv
from refineloc.runtime.detections import read_detections
from refineloc.training.sample.synth import World

TIOUS = [0.3, 0.4, 0.5, 0.6, 0.7]
ITERATIONS, SEEDS = 6, (0, 1, 2)
RELEASE = Path(__file__).resolve().parents[2] / "shared" / "data" / "refineloc-release"
TIME_LINES = {"train": "thumos14_valid_groundtruth.csv", "val": "thumos14_test_groundtruth.csv"}
TIME_LINES_WIDTH = 64
DATA = {"sample": "the sample data", "thumos14": "simulated features along THUMOS14's time lines"}


@dataclass(frozen=True)
class Base:
    """A base model: its title, and what differs from the preset `sample` and its own defaults."""

    title: str
    options: tuple[str, ...]
    thumos14: tuple[str, ...] = ()  # along THUMOS14's time lines as well; chosen there with seed 0


BASES = {
    "refineloc": Base("RefineLoc", ("--epochs", "30"), ("--set", "pseudo.foreground=0.7")),
    "wtalc": Base("W-TALC", ("--epochs", "40", "--set", "training.learning_rate=1e-3")),
    "basnet": Base("BaS-Net", ("--epochs", "40", "--set", "training.learning_rate=2e-4")),
}


def main() -> None:
    """Train what is missing, then print the tables."""
    folder = Path(sys.argv[1])
    made = [data for data in DATA if make(data, folder / data)]
    jobs = [(data, base, seed) for data in made for base in BASES for seed in SEEDS]
    with ThreadPoolExecutor(2) as pool:
        for job in [pool.submit(train, folder, *job) for job in jobs]:
            job.result()
    for data in made:
        print(f"\n{DATA[data][0].upper()}{DATA[data][1:]}:\n")
        print(table(folder, data))


def make(data: str, folder: Path) -> bool:
    """Write the features and labels of a data set; False where its time lines are not there."""
    if (folder / "val.csv").exists():
        return True
    if data == "sample":
        subprocess.run([command("refineloc-synth"), str(folder)], check=True)
        return True
    if not RELEASE.is_dir():
        return False
    folder.mkdir(parents=True)
    splits = {split: read_annotations(RELEASE / name) for split, name in TIME_LINES.items()}
    world = World(splits["train"].classes, TIME_LINES_WIDTH)
    for split, annotations in splits.items():
        with h5py.File(folder / f"{split}.h5", "w") as file:
            for name, video in annotations.items():
                file[name] = world.along(video)
        write_annotations_csv(folder / f"{split}.csv", annotations)
    return True


def train(folder: Path, data: str, base: str, seed: int) -> None:
    """One run of all iterations; one that is there goes on, or ends at once."""
    files = [str(folder / data / name) for name in ("train.h5", "train.csv", "val.h5", "val.csv")]
    line = [command("refineloc-train"), *files[:2], "--val-features", files[2], "--val-labels", files[3]]
    own = BASES[base].options + (BASES[base].thumos14 if data == "thumos14" else ())
    line += ["--preset", "sample", "--base", base, *own, "--iterations", str(ITERATIONS)]
    line += ["--set", "training.evaluate_every=0", "--seed", str(seed), "--run", str(run(folder, data, base, seed))]
    done = subprocess.run(
        [*line, "--resume"], env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{data}, {base}, seed {seed}: {done.stderr}")


def table(folder: Path, data: str) -> str:
    """mAP in percent, mean over seeds; for the mean over thresholds also the standard deviation."""
    lines = [
        "| base model | iteration | " + " | ".join(f"{tiou:.1f}" for tiou in TIOUS) + " | mean 0.3:0.7 |",
        "|---|--:|" + "--:|" * (len(TIOUS) + 1),
    ]
    truth = read_annotations(folder / data / "val.csv")
    for base, what in BASES.items():
        scores = np.array([[_map(run(folder, data, base, s), i, truth) for i in range(ITERATIONS)] for s in SEEDS])
        for iteration in range(ITERATIONS):
            own = 100 * scores[:, iteration]
            cells: Sequence[float] = own.mean(axis=0).tolist()
            spread = own.mean(axis=1).std(ddof=1)
            title = what.title if not iteration else ""
            figures = " | ".join(f"{cell:.1f}" for cell in cells)
            lines.append(f"| {title} | {iteration} | {figures} | {own.mean():.1f} ± {spread:.1f} |")
    return "\n".join(lines)


def _map(folder: Path, iteration: int, truth: Annotations) -> npt.NDArray[np.float64]:
    found = read_detections(folder / f"iter_{iteration}" / "detections.json")
    return evaluate(match_detections(found, truth, TIOUS)).mAP


def run(folder: Path, data: str, base: str, seed: int) -> Path:
    """The folder of one run."""
    return folder / "runs" / f"{data}-{base}-seed{seed}"


def command(name: str) -> str:
    """A program of this environment."""
    return str(Path(sys.executable).with_name(name))


if __name__ == "__main__":
    main()
