"""A study of benchmarks/STUDIES.md: how refinement behaves on the sample data, over three seeds.

    .venv/bin/python examples/sample_study.py FOLDER [IMAGES]

Makes the data and trains every variant into FOLDER (about a quarter of an hour). Finished runs are kept, so that it can
be stopped and started again. Prints the tables as Markdown and draws two pictures into IMAGES (default: FOLDER).
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from refineloc.evaluation import DEFAULT_TIOUS, evaluate, match_detections
from refineloc.runtime import Annotations, Scores, read_annotations
from refineloc.runtime.segments.rules import changed
from refineloc.training.data.inputs import Files
from refineloc.training.data.split import Split, load_split
from refineloc.training.data.truth import true_foreground
from refineloc.training.run.files import LoadedIteration, load_iteration, read_records
from refineloc.training.sample.cli import synth
from refineloc.training.scoring import detect, predict
from refineloc.training.settings.config import parse_assignment, resolve
from refineloc.training.study.display import show
from refineloc.training.study.jobs import Job, run_jobs, share_of_cores

TIOUS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]  # THUMOS14's
BOUNDARY_ITERATIONS = (0, 1, 3, 5)
BACKGROUND = (0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002)  # values of α_A
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

# Options of refineloc-synth, by data set.
DATA: dict[str, dict[str, Any]] = {
    "sample": {},
    "seed1": {"seed": 1},
    "twenty": {"classes": 20, "videos": 200},
    "wide": {"dim": 512},
}


@dataclass(frozen=True)
class Variant:
    """One way to train: a title, a data set, the number of models, the seeds, and settings over the preset's."""

    title: str
    data: str = "sample"
    iterations: int = 6
    seeds: tuple[int, ...] = (0, 1, 2)
    settings: tuple[str, ...] = ()


VARIANTS = {
    "sample": Variant("the preset"),
    "widen": Variant("pseudo labels widened by 2 snippets", settings=("pseudo.widen=2",)),
    "loose": Variant("pseudo labels from foreground >= 0.5", iterations=4, settings=("pseudo.foreground=0.5",)),
    "unweighted": Variant(
        "the same, not weighted (foreground >= 0.5)",
        iterations=4,
        settings=("pseudo.foreground=0.5", "pseudo.weighted=false"),
    ),
    "oracle": Variant("pseudo labels from the true times", iterations=2, settings=("pseudo.generator=oracle",)),
    "seed1": Variant("other videos and classes (data seed 1)", data="seed1", iterations=5, seeds=(0,)),
    "twenty": Variant("20 classes, 200 videos", data="twenty", iterations=5, seeds=(0,)),
    "wide": Variant("512 features", data="wide", iterations=5, seeds=(0,)),
}


@dataclass(frozen=True)
class Data:
    """The validation videos."""

    split: Split
    annotations: Annotations
    truth: npt.NDArray[np.bool_]


def main(folder: Path, images: Path) -> None:
    """Train the missing runs, then print and draw the results."""
    for name in sorted({variant.data for variant in VARIANTS.values()}):
        if not (folder / name / "val.csv").exists():
            synth(folder / name, **DATA[name])
    jobs = [job(folder, name, seed) for name, variant in VARIANTS.items() for seed in variant.seeds]
    missing = [job for job in jobs if not job.finished]
    failed = show(run_jobs(missing, *share_of_cores(None)), len(jobs), len(jobs) - len(missing))
    if failed:
        sys.exit("\n".join(f"{name}: {error}" for name, error in failed.items()))
    results = {}
    for name, variant in VARIANTS.items():
        options = [f"--{key} {value}" for key, value in DATA[variant.data].items()]
        print(f"\n## {variant.title}: {', '.join([*options, *variant.settings]) or 'nothing else'}\n")
        results[name] = table(folder, name, variant)
    for name in ("sample", "oracle"):
        sweep(folder, name)
    draw_curves(images / "sample-map.png", results)
    draw_boundaries(images / "sample-boundaries.png", folder)


def job(folder: Path, name: str, seed: int) -> Job:
    """A run of a variant."""
    variant = VARIANTS[name]
    data = folder / variant.data
    length = (f"training.iterations={variant.iterations}", "training.evaluate_every=0", f"training.seed={seed}")
    return Job(
        folder / f"runs/{name}-{seed}",
        resolve({"preset": "sample"}, *map(parse_assignment, (*length, *variant.settings))),
        Files(data / "train.h5", data / "train.csv", data / "val.h5", data / "val.csv"),
    )


def read_data(folder: Path, name: str) -> Data:
    """The validation videos of a variant, and which of their snippets lie in an action."""
    data = folder / VARIANTS[name].data
    any_run = load_iteration(folder / f"runs/{name}-0", 0)
    annotations = read_annotations(data / "val.csv")
    split = load_split(data / "val.h5", annotations, any_run.config, classes=any_run.data.classes)
    truth = true_foreground(split, annotations)
    if truth is None:
        raise SystemExit("the sample data has lost its times")
    return Data(split, annotations, truth)


def scores_of(folder: Path, name: str, seed: int, iteration: int, data: Data) -> tuple[LoadedIteration, Scores]:
    """One trained iteration, and its scores of the validation videos."""
    loaded = load_iteration(folder / f"runs/{name}-{seed}", iteration)
    return loaded, predict(loaded.model, data.split)


def mean_ap(
    loaded: LoadedIteration, scores: Scores, data: Data, tious: Sequence[float], alpha_a: float | None = None
) -> npt.NDArray[np.float64]:
    """mAP in percent at each threshold, with `alpha_a` in place of the run's α_A if given."""
    config = loaded.config
    if alpha_a is not None:
        config = config.model_copy(update={"detection": changed(config.detection, {"alpha_a": alpha_a})})
    detections = detect(config, data.split, scores)
    if detections is None:
        raise SystemExit("the sample data has lost its fps")
    return 100 * evaluate(match_detections(detections, data.annotations, tious)).mAP


def area_under_roc(score: npt.NDArray[np.float32], truth: npt.NDArray[np.bool_]) -> float:
    """The probability that a snippet in an action scores higher than one outside; ties count half."""
    _, value_index, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[value_index]
    positive = int(truth.sum())
    return float((rank[truth].sum() - positive * (positive + 1) / 2) / (positive * (len(truth) - positive)))


def table(folder: Path, name: str, variant: Variant) -> npt.NDArray[np.float64]:
    """Print a variant's table; returns average mAP [seeds, iterations]."""
    columns = ["seed", "iteration", "mAP@0.1", "@0.3", "@0.5", "@0.7", "average 0.1-0.7", "average 0.5-0.95"]
    columns += ["precision", "recall", "Ā_fg in actions", "Ā_fg outside", "AUC of Ā_fg"]
    print("|" + "".join(f" {column} |" for column in columns))
    print("|" + "--:|" * len(columns))
    data = read_data(folder, name)
    averages = np.zeros((len(variant.seeds), variant.iterations))
    for row, seed in enumerate(variant.seeds):
        for iteration in range(variant.iterations):
            loaded, scores = scores_of(folder, name, seed, iteration, data)
            scored, strict = mean_ap(loaded, scores, data, TIOUS), mean_ap(loaded, scores, data, DEFAULT_TIOUS)
            averages[row, iteration] = scored.mean()
            percents = [*scored[::2], scored.mean(), strict.mean()]
            foreground = scores.foreground
            shares = [foreground[data.truth].mean(), foreground[~data.truth].mean()]
            cells = [str(seed), str(iteration), *(f"{value:.1f}" for value in percents)]
            cells += taught_with(folder / f"runs/{name}-{seed}", iteration)
            cells += [*(f"{value:.2f}" for value in shares), f"{area_under_roc(foreground, data.truth):.3f}"]
            print("|" + "".join(f" {cell} |" for cell in cells), flush=True)
    return averages


def taught_with(run: Path, iteration: int) -> list[str]:
    """Precision and recall of the pseudo labels that an iteration learned from, on the training videos."""
    labels = read_records(run)[iteration]["pseudo_labels"]
    return [f"{labels['train'][name]:.2f}" if labels else "-" for name in ("precision", "recall")]


def sweep(folder: Path, name: str) -> None:
    """Print average mAP of each iteration by α_A at detection: the effect of the threshold alone."""
    print(f"\n## {VARIANTS[name].title}: average mAP 0.1-0.7 by α_A at detection, mean of the seeds\n")
    print("| iteration |" + "".join(f" {value:g} |" for value in BACKGROUND))
    print("|--:" * (len(BACKGROUND) + 1) + "|")
    data = read_data(folder, name)
    for iteration in range(VARIANTS[name].iterations):
        rows = []
        for seed in VARIANTS[name].seeds:
            loaded, scores = scores_of(folder, name, seed, iteration, data)
            rows.append([mean_ap(loaded, scores, data, TIOUS, value).mean() for value in BACKGROUND])
        print(f"| {iteration} |" + "".join(f" {value:.1f} |" for value in np.mean(rows, axis=0)))


def draw_curves(path: Path, results: dict[str, npt.NDArray[np.float64]]) -> None:
    """Draw average mAP by iteration on the sample data: a thin line for each seed, a thick one for their mean."""
    shown = {name: averages for name, averages in results.items() if VARIANTS[name].data == "sample"}
    figure = Figure(figsize=(6.5, 4.2), dpi=200, layout="constrained")
    axes = figure.add_subplot()
    for colour, marker, (name, averages) in zip(COLOURS, "osvD^", shown.items(), strict=False):
        for seed_averages in averages:
            axes.plot(seed_averages, color=colour, linewidth=0.7, alpha=0.6)
        axes.plot(averages.mean(axis=0), color=colour, linewidth=2, marker=marker, label=VARIANTS[name].title)
    axes.set_xlabel("iteration")
    axes.set_ylabel("average mAP 0.1-0.7 (%)")
    axes.set_xticks(range(max(averages.shape[1] for averages in shown.values())))
    axes.set_ylim(0)
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=2)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def draw_boundaries(path: Path, folder: Path) -> None:
    """Draw mean foreground around the snippets where actions begin and end (seed 0)."""
    reach = 8
    data = read_data(folder, "sample")
    lengths = data.split.lengths.numpy()
    steps = np.diff(data.truth.astype(np.int8), prepend=0)
    starts = np.cumsum(lengths) - lengths
    video_of = np.repeat(np.arange(len(lengths)), lengths)
    offsets = np.arange(-reach, reach + 1)
    figure = Figure(figsize=(8, 3.2), dpi=200, layout="constrained")
    for axes, sign, title in zip(
        figure.subplots(1, 2, sharey=True),
        (1, -1),
        ("first snippet of an action", "first snippet after an action"),
        strict=True,
    ):
        bounds = np.flatnonzero(steps == sign)
        first, past = starts[video_of[bounds]], starts[video_of[bounds]] + lengths[video_of[bounds]]
        around = bounds[(bounds - first >= reach) & (past - bounds > reach), None] + offsets
        axes.plot(offsets, data.truth[around].mean(axis=0), color="black", linestyle=":", label="truth")
        for iteration, colour in zip(BOUNDARY_ITERATIONS, COLOURS, strict=False):
            _, scores = scores_of(folder, "sample", 0, iteration, data)
            axes.plot(
                offsets, scores.foreground[around].mean(axis=0), color=colour, label=f"Ā_fg, iteration {iteration}"
            )
        axes.axvline(-0.5, color="0.8", zorder=0)
        axes.set_xticks(range(-reach, reach + 1, 2))
        axes.set_xlabel(f"snippets from the {title}", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[-1]))  # the last argument is FOLDER if IMAGES is left out
