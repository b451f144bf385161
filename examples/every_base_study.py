"""The study behind "ours" in published-and-ours.md: every base model alone and refined, on three data sets.

    .venv/bin/python examples/every_base_study.py FOLDER [SEEDS] [BASE ...]

Data: those of refineloc-synth, real speech events, and simulated features along THUMOS14's time lines (the last two in
../shared/data, left out where there is no such folder). Trains two runs at a time into FOLDER, may be stopped and
started again, and prints a table for each data set as Markdown: average mAP in percent at tIoU 0.3 to 0.7 of the
validation videos by iteration, mean and worst of the seeds.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from auto_study import DATA, SETTINGS, SPOKEN
from base_models_study import TIOUS, make

from refineloc.evaluation import evaluate, match_detections
from refineloc.runtime import Annotations, read_annotations, read_detections
from refineloc.training.data.inputs import Files
from refineloc.training.run.folder import RunFolder
from refineloc.training.settings.bases import base_names
from refineloc.training.settings.config import parse_assignment, resolve
from refineloc.training.study.display import show
from refineloc.training.study.jobs import Job, run_jobs

ITERATIONS = 3


def main(folder: Path, seeds: int, bases: Sequence[str]) -> None:
    """Train the missing runs, then print the tables."""
    made = [data for data in DATA if (SPOKEN.is_dir() if data == "spoken" else make(data, folder / data))]
    jobs = [job(folder, data, base, seed) for seed in range(seeds) for data in made for base in bases]
    missing = [job for job in jobs if not job.finished]
    failed = show(run_jobs(missing, at_a_time=2, threads=1), len(jobs), len(jobs) - len(missing))
    if failed:
        sys.exit("\n".join(f"{name}: {error}" for name, error in failed.items()))
    for data in made:
        print(f"\n{DATA[data]}, {seeds} seeds:\n")
        print(table(folder, data, bases, seeds))


def job(folder: Path, data: str, base: str, seed: int) -> Job:
    """One run: the preset auto, of one network."""
    settings = ["preset=auto", f"model.base={base}", "training.models=1", "training.restarts=0"]
    settings += [f"training.seed={seed}", f"training.iterations={ITERATIONS}", *SETTINGS.get(data, [])]
    splits = {split: (SPOKEN if data == "spoken" else folder / data) / split for split in ("train", "val")}
    parts = [splits[split].with_suffix(suffix) for split in splits for suffix in (".h5", ".csv")]
    return Job(folder / "runs" / f"{data}-{base}-seed{seed}", resolve(*map(parse_assignment, settings)), Files(*parts))


def table(folder: Path, data: str, bases: Sequence[str], seeds: int) -> str:
    """Mean and worst of the seeds by iteration."""
    heads = [f"M_{k} mean | worst" for k in range(ITERATIONS)]
    lines = ["| base model | " + " | ".join(heads) + " |", "|---|" + "--:|" * (2 * ITERATIONS)]
    truth = read_annotations((SPOKEN if data == "spoken" else folder / data) / "val.csv")
    for base in bases:
        runs = [folder / "runs" / f"{data}-{base}-seed{seed}" for seed in range(seeds)]
        scores = np.array([[mean_ap(run, k, truth) for k in range(ITERATIONS)] for run in runs])
        pairs = zip(scores.mean(axis=0), scores.min(axis=0), strict=True)
        lines.append(f"| {base} | " + " | ".join(f"{mean:.1f} | {worst:.1f}" for mean, worst in pairs) + " |")
    return "\n".join(lines)


def mean_ap(run: Path, iteration: int, truth: Annotations) -> float:
    """Average mAP in percent of an iteration."""
    detections = read_detections(RunFolder(run).detections(iteration))
    return 100 * float(evaluate(match_detections(detections, truth, TIOUS)).average_mAP)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int((sys.argv[2:3] or ["5"])[0]), sys.argv[3:] or base_names())
