"""A study of benchmarks/STUDIES.md: each base model alone and refined, on two data sets, over three seeds.

    .venv/bin/python examples/base_models_study.py FOLDER

Data: those of refineloc-synth, and simulated features along THUMOS14's real time lines (in ../shared/data; left out if
there is no such folder). Trains two runs at a time into FOLDER (an hour on two cores; it can be stopped and started
again) and prints the tables as Markdown.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from refineloc.evaluation import evaluate, match_detections
from refineloc.runtime import Annotations, read_annotations
from refineloc.runtime.annotations import write_annotations_csv
from refineloc.runtime.detections import read_detections
from refineloc.training.data.inputs import Files
from refineloc.training.run.folder import RunFolder
from refineloc.training.sample.cli import synth
from refineloc.training.sample.synth import World
from refineloc.training.settings.config import parse_assignment, resolve
from refineloc.training.study.display import show
from refineloc.training.study.jobs import Job, run_jobs

TIOUS = [0.3, 0.4, 0.5, 0.6, 0.7]
ITERATIONS, SEEDS = 6, (0, 1, 2)
RELEASE = Path(__file__).resolve().parents[2] / "shared" / "data" / "refineloc-release"
TIME_LINES = {"train": "thumos14_valid_groundtruth.csv", "val": "thumos14_test_groundtruth.csv"}
TIME_LINES_WIDTH = 64
DATA = {"sample": "The sample data", "thumos14": "Simulated features along THUMOS14's time lines"}


@dataclass(frozen=True)
class Base:
    """A base model: its title, and settings that differ from the preset `sample` and the base model's own."""

    title: str
    settings: tuple[str, ...]
    thumos14: tuple[str, ...] = ()  # more settings along THUMOS14's time lines; chosen there with seed 0


BASES = {
    "refineloc": Base("RefineLoc", ("training.epochs=30",), ("pseudo.foreground=0.7",)),
    "wtalc": Base("W-TALC", ("training.epochs=40", "training.learning_rate=1e-3")),
    "basnet": Base("BaS-Net", ("training.epochs=40", "training.learning_rate=2e-4")),
}


def main(folder: Path) -> None:
    """Train the missing runs, then print the tables."""
    made = [data for data in DATA if make(data, folder / data)]
    jobs = [job(folder, data, base, seed) for data in made for base in BASES for seed in SEEDS]
    missing = [job for job in jobs if not job.finished]
    failed = show(run_jobs(missing, at_a_time=2, threads=1), len(jobs), len(jobs) - len(missing))
    if failed:
        sys.exit("\n".join(f"{name}: {error}" for name, error in failed.items()))
    for data in made:
        print(f"\n{DATA[data]}:\n")
        print(table(folder, data))


def make(data: str, folder: Path) -> bool:
    """Write the features and labels of a data set; False if its time lines are missing."""
    if (folder / "val.csv").exists():
        return True
    if data == "sample":
        synth(folder)
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


def job(folder: Path, data: str, base: str, seed: int) -> Job:
    """One run of all iterations."""
    train, val = folder / data / "train", folder / data / "val"
    settings = [f"model.base={base}", *BASES[base].settings, *(BASES[base].thumos14 if data == "thumos14" else ())]
    settings += [f"training.iterations={ITERATIONS}", "training.evaluate_every=0", f"training.seed={seed}"]
    return Job(
        run(folder, data, base, seed),
        resolve({"preset": "sample"}, *map(parse_assignment, settings)),
        Files(train.with_suffix(".h5"), train.with_suffix(".csv"), val.with_suffix(".h5"), val.with_suffix(".csv")),
    )


def run(folder: Path, data: str, base: str, seed: int) -> Path:
    """The folder of one run."""
    return folder / "runs" / f"{data}-{base}-seed{seed}"


def table(folder: Path, data: str) -> str:
    """mAP in percent, mean over seeds; for the mean over thresholds also the standard deviation."""
    lines = [
        "| base model | iteration | " + " | ".join(f"{tiou:.1f}" for tiou in TIOUS) + " | mean 0.3:0.7 |",
        "|---|--:|" + "--:|" * (len(TIOUS) + 1),
    ]
    truth = read_annotations(folder / data / "val.csv")
    for base, settings in BASES.items():
        for iteration in range(ITERATIONS):
            scores = np.array([mean_ap(run(folder, data, base, seed), iteration, truth) for seed in SEEDS])
            figures = " | ".join(f"{score:.1f}" for score in scores.mean(axis=0))
            spread = scores.mean(axis=1).std(ddof=1)
            title = settings.title if not iteration else ""
            lines.append(f"| {title} | {iteration} | {figures} | {scores.mean():.1f} ± {spread:.1f} |")
    return "\n".join(lines)


def mean_ap(run: Path, iteration: int, truth: Annotations) -> npt.NDArray[np.float64]:
    """mAP in percent at each threshold."""
    detections = read_detections(RunFolder(run).detections(iteration))
    return 100 * evaluate(match_detections(detections, truth, TIOUS)).mAP


if __name__ == "__main__":
    main(Path(sys.argv[1]))
