"""What thumos14.py and activitynet.py share: rows of published-and-ours.md, from features that you have.

For each base model and seed it runs the programs that a person would: training (a fifth of the training videos is held
out and chooses nothing but the learning rate: weights are those of the last epoch), export, detection in the test
videos, and mAP. Nothing looks at the test videos before.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from refineloc.evaluation import evaluate, match_detections
from refineloc.runtime import read_annotations, read_detections
from refineloc.training.settings.bases import base_names

LABELS = Path(__file__).resolve().parents[2] / "shared" / "data" / "refineloc-release"
ITERATIONS = 4


@dataclass(frozen=True)
class DataSet:
    """A data set: its name, the label files of its splits, the thresholds of its average, and RefineLoc's preset."""

    name: str
    train: str
    test: str
    tious: tuple[float, ...]
    preset: str


def main(data: DataSet, arguments: Sequence[str]) -> None:
    """Train and score what is missing, then print the rows."""
    parser = argparse.ArgumentParser(description=f"Rows of {data.name} for docs/explanation/published-and-ours.md.")
    parser.add_argument(
        "features", type=Path, help="folder with the features train.h5 and test.h5 (or train/ and test/)"
    )
    parser.add_argument("--labels", type=Path, default=LABELS, help=f"folder with {data.train} and {data.test}")
    parser.add_argument(
        "--out", type=Path, default=Path("rows"), help="folder for runs; may be stopped and started again"
    )
    parser.add_argument("--base", action="append", help="base model, repeatable; all if left out")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting, as refineloc-train's"
    )
    given = parser.parse_args(arguments)
    for path in (given.labels / data.train, given.labels / data.test):
        if not path.exists():
            sys.exit(f"{path}: no such file; give --labels FOLDER")
    results: dict[str, list[Mapping[str, object]]] = {}
    for title, options in rows_of(data, given.base or base_names()).items():
        for seed in range(given.seeds):
            folder = given.out / data.name.replace(" ", "-") / f"{title.replace(' ', '-')}-seed{seed}"
            results.setdefault(title, []).append(one_run(data, given, folder, [*options, "--seed", str(seed)]))
        print(table(data, results), flush=True)


def rows_of(data: DataSet, bases: Sequence[str]) -> dict[str, list[str]]:
    """The rows by title, each with its options of refineloc-train: RefineLoc by the paper's settings and by ours."""
    rows = {}
    for base in bases:
        if base == "refineloc":
            rows["refineloc (auto)"] = []
            rows["refineloc (paper)"] = ["--preset", data.preset]
        else:
            rows[base] = ["--base", base]
    return rows


def one_run(data: DataSet, given: argparse.Namespace, folder: Path, options: Sequence[str]) -> Mapping[str, object]:
    """mAP by tIoU of the first and the last iteration, and minutes; from the folder where it was made before."""
    result = folder / "result.json"
    if not result.exists():
        began = time.perf_counter()
        features = {split: features_of(given.features, split) for split in ("train", "test")}
        settings = ["training.select=last", "training.evaluate_every=0", *given.set]
        run = ["--run", str(folder), *(["--resume"] if (folder / "config.toml").exists() else [])]
        program(
            "refineloc-train", features["train"], given.labels / data.train, "--val-share", "0.2", "--iterations",
            ITERATIONS, *options, *run, *(part for setting in settings for part in ("--set", setting)),
        )  # fmt: skip
        iterations = {}
        for iteration in (0, len(json.loads((folder / "iterations.json").read_text())) - 1):
            model, detections = folder / f"iter_{iteration}.onnx", folder / f"test_{iteration}.json"
            program("refineloc-export", folder, "--iter", iteration, "-o", model)
            test = given.labels / data.test
            program("refineloc-detect", features["test"], "--model", model, "--videos", test, "-o", detections)
            matching = match_detections(read_detections(detections), read_annotations(test), data.tious)
            iterations[str(iteration)] = [float(value) for value in evaluate(matching).mAP]
        minutes = (time.perf_counter() - began) / 60
        result.write_text(json.dumps({"mAP": iterations, "minutes": minutes}))
    read: Mapping[str, object] = json.loads(result.read_text())
    return read


def features_of(folder: Path, split: str) -> Path:
    """The features of a split."""
    for path in (folder / f"{split}.h5", folder / split):
        if path.exists():
            return path
    sys.exit(f"{folder}: holds neither {split}.h5 nor {split}/")


def program(name: str, *arguments: object) -> None:
    """Run one of our programs; if it fails it has printed why, and the study ends with its exit code."""
    command = [Path(sys.executable).with_name(name), *map(str, arguments)]
    if code := subprocess.run(command, check=False).returncode:
        sys.exit(code)


def table(data: DataSet, results: Mapping[str, Sequence[Mapping[str, object]]]) -> str:
    """The rows as Markdown: mAP at 0.5 and the average in percent, the mean of the seeds and the worst average."""
    average = f"average {data.tious[0]:g}:{data.tious[-1]:g}"
    lines = [
        f"\n| {data.name} | seeds | alone @0.5 | {average} | worst | refined @0.5 | {average} | worst | minutes |",
        "|---|" + "--:|" * 8,
    ]
    at = data.tious.index(0.5)
    for title, runs in results.items():
        cells = [title, str(len(runs))]
        for which in (0, -1):
            scores = 100 * np.array([list(run["mAP"].values())[which] for run in runs])  # type: ignore[attr-defined]
            averages = scores.mean(axis=1)
            cells += [f"{value:.1f}" for value in (scores[:, at].mean(), averages.mean(), averages.min())]
        cells.append(f"{np.mean([run['minutes'] for run in runs]):.0f}")  # type: ignore[list-item]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
