"""A study of benchmarks/STUDIES.md, the preset auto: over seeds, and each of its parts left out.

    .venv/bin/python examples/auto_study.py FOLDER [SEEDS] [SEEDS OF ABLATIONS]

Data: those of refineloc-synth; real speech events and simulated features along THUMOS14's time lines (both in
../shared/data, left out where there is no such folder). Trains two runs at a time into FOLDER, may be stopped and
started again, and prints the tables as Markdown: average mAP in percent at tIoU 0.3 to 0.7 of the validation videos.
"""

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from base_models_study import TIOUS, make

from refineloc.evaluation import evaluate, match_detections
from refineloc.runtime import Annotations, read_annotations, read_detections
from refineloc.training.data.inputs import Files
from refineloc.training.run.choice import choose
from refineloc.training.run.files import read_records
from refineloc.training.run.folder import RunFolder
from refineloc.training.settings.config import parse_assignment, resolve
from refineloc.training.study.display import show
from refineloc.training.study.jobs import Job, run_jobs

SPOKEN = Path(__file__).resolve().parents[2] / "shared" / "data" / "spoken"
DATA = {
    "sample": "The sample data",
    "spoken": "Real speech events in noise; the validation videos have another speaker",
    "thumos14": "Simulated features along THUMOS14's time lines",
}
SETTINGS = {"spoken": ["features.snippet_frames=8"]}
# What is left out, or put in the place of a part: two iterations of each.
ABLATED = {
    "all of auto": [],
    "features as they are": ["features.standardise=false"],
    "means not exchanged": ["model.options.exchanged_means=0"],
    "one network": ["training.models=1"],
    "no label smoothing": ["training.label_smoothing=0"],
    "no weight decay": ["training.weight_decay=0"],
    "ŷ added (weight 1)": ["detection.video_term=add", "detection.video_weight=1"],
    "the model's ŷ": ["detection.video_share=0"],
    "at most 2 classes": ["detection.top_k=2"],
    "contrast of C̄": ["detection.scored_on=class"],
    "NMS, no votes": ["detection.suppression=hard"],
    "fusion, no votes": ["detection.suppression=fuse"],
    "one threshold (paper)": ["detection.profile=paper", "pseudo.generator=segment"],
    "no classes taught": ["pseudo.class_weight=0"],
    "hard labels": ["pseudo.softness=0"],
    "no length_power": ["detection.length_power=0"],
}


def main(folder: Path, seeds: int, ablation_seeds: int) -> None:
    """Train the missing runs, then print the tables."""
    made = [data for data in DATA if (SPOKEN.is_dir() if data == "spoken" else make(data, folder / data))]
    jobs = [job(folder, data, "all of auto", seed, 4) for data in made for seed in range(seeds)]
    ablated = [data for data in made if data != "thumos14"]
    jobs += [
        job(folder, data, name, seed, 2)
        for data in ablated
        for name in list(ABLATED)[1:]
        for seed in range(ablation_seeds)
    ]
    missing = [each for each in jobs if not each.finished]
    failed = show(run_jobs(missing, at_a_time=2, threads=1), len(jobs), len(jobs) - len(missing))
    if failed:
        sys.exit("\n".join(f"{name}: {error}" for name, error in failed.items()))
    for data in made:
        print(f"\n{DATA[data]}, {seeds} seeds:\n\n{over_seeds(folder, data, seeds)}")
    if ablation_seeds:
        table = ablations(folder, ablated, ablation_seeds)
        print(f"\nEach part left out, {ablation_seeds} seeds, iteration 0 / 1:\n\n{table}")


def files(folder: Path, data: str) -> Files:
    """The training and validation files of a data set."""
    place = SPOKEN if data == "spoken" else folder / data
    return Files(place / "train.h5", place / "train.csv", place / "val.h5", place / "val.csv")


def run(folder: Path, data: str, name: str, seed: int) -> Path:
    """The folder of one run."""
    return folder / "runs" / f"{data}-{list(ABLATED).index(name)}-seed{seed}"


def job(folder: Path, data: str, name: str, seed: int, iterations: int) -> Job:
    """One run of all iterations."""
    settings = [*SETTINGS.get(data, []), *ABLATED[name], f"training.seed={seed}", f"training.iterations={iterations}"]
    return Job(
        run(folder, data, name, seed),
        resolve({"preset": "auto"}, *map(parse_assignment, settings)),
        files(folder, data),
    )


def average(run: Path, iteration: int, truth: Annotations) -> float:
    """Average mAP in percent."""
    detections = read_detections(RunFolder(run).detections(iteration))
    return 100 * float(evaluate(match_detections(detections, truth, TIOUS)).average_mAP)


def of_seeds(folder: Path, data: str, name: str, seeds: int, iterations: int) -> npt.NDArray[np.float64]:
    """Average mAP [seeds, iterations]."""
    truth = read_annotations(files(folder, data).val_labels)
    runs = [run(folder, data, name, seed) for seed in range(seeds)]
    return np.array([[average(each, iteration, truth) for iteration in range(iterations)] for each in runs])


def over_seeds(folder: Path, data: str, seeds: int) -> str:
    """Mean, worst and gain over iteration 0: a row an iteration, and one of those that --iter best takes."""
    scores = of_seeds(folder, data, "all of auto", seeds, 4)
    chosen = [choose(read_records(run(folder, data, "all of auto", seed))) for seed in range(seeds)]
    best = [choice.iteration for choice in chosen if choice]
    columns = [(str(iteration), scores[:, iteration]) for iteration in range(4)]
    columns.append(("best", scores[np.arange(seeds), best]))
    lines = ["| iteration | mean | worst | gain, mean | gain, worst |", "|---|--:|--:|--:|--:|"]
    for title, values in columns:
        gain = values - scores[:, 0]
        lines.append(f"| {title} | {values.mean():.1f} | {values.min():.1f} | {gain.mean():+.1f} | {gain.min():+.1f} |")
    return "\n".join(lines)


def ablations(folder: Path, made: list[str], seeds: int) -> str:
    """A row a part: mean and worst of iterations 0 and 1, a column a data set."""
    lines = ["| | " + " | ".join(f"{DATA[data].split(';')[0]}, mean | worst" for data in made) + " |"]
    lines.append("|---|" + "--:|--:|" * len(made))
    for name in ABLATED:
        cells = []
        for data in made:
            scores = of_seeds(folder, data, name, seeds, 2)
            cells += [
                " / ".join(f"{value:.1f}" for value in part) for part in (scores.mean(axis=0), scores.min(axis=0))
            ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(text) for text in [*sys.argv[2:4], *["10", "2"][len(sys.argv[2:4]) :]]))
