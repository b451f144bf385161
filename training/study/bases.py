"""The study of base models: each alone and refined, with every seed (RefineLoc, Table 5), on any data set.

A base model alone is iteration 0 of its run, so each run has both.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from refineloc.runtime.cli.common import note
from refineloc.runtime.errors import ConfigError, counted
from refineloc.runtime.files import atomic_path, atomic_write
from refineloc.training.data.inputs import Files, read_inputs
from refineloc.training.data.truth import settled
from refineloc.training.fit import with_least_steps
from refineloc.training.run.files import Run
from refineloc.training.run.folder import runs_in
from refineloc.training.run.lock import locked
from refineloc.training.settings.bases import base_names
from refineloc.training.settings.config import Config
from refineloc.training.study.curves import draw_base_curves
from refineloc.training.study.display import show
from refineloc.training.study.grid import settings_file
from refineloc.training.study.jobs import Job, run_jobs, share_of_cores
from refineloc.training.study.run_study import check_free, failure
from refineloc.training.study.summary import mean_text, measure_of, values_of
from refineloc.training.study.tables import read_result, table_lines, write_csv

__all__ = ["run_bases", "write_base_tables"]

# Of the finished runs, by base model and seed: records of iterations.json, each with the training loss of its epoch.
Results = Mapping[tuple[str, int], Sequence[Mapping[str, Any]]]


def run_bases(
    config_of: Callable[[str], Config],
    seeds: Sequence[int],
    files: Files,
    folder: Path,
    *,
    device: str = "auto",
    at_a_time: int | None = None,
    memory: int = 0,
    resume: bool = False,
) -> None:
    """Train what is missing of every base model with every seed, then write tables and curves. Tells of it on stderr.

    Args:
        config_of: the settings of a base model by name; the seed is the study's.
        seeds: at least one; a resumed study may have others.
        files: the data.
        folder: of the study.
        device: as `train_run` takes it.
        at_a_time: processes; as many as there are cores for if left out.
        memory: bytes for features, shared by the processes.
        resume: go on with the study in `folder`.

    Raises:
        ConfigError: fewer than 2 iterations; a folder that holds something else; other settings than the study's.
        InputError: data that cannot be used.
        TrainingError: runs failed; the table has the others.
        OutputError: a file cannot be written.
    """
    # 1. What no run could use is refused before anything is written.
    names = base_names()
    configs = {(name, seed): _with_seed(config_of(name), seed) for seed in seeds for name in names}
    iterations = configs[names[0], seeds[0]].training.iterations
    if iterations < 2:
        raise ConfigError(f"training.iterations: a study needs 2 or more, got {iterations}: the first is not refined")
    check_free(folder, resume)
    begun = {path.name for path in runs_in(folder)}
    if others := sorted(name for name in begun if name.rpartition("-seed")[0] not in names):
        raise ConfigError(
            f"{folder}: holds another study, with the run {others[0]}; give another folder", parameter="folder"
        )
    inputs = read_inputs(files, configs[names[0], seeds[0]], 0)  # sizes alone, no features
    for line in inputs.notes:
        note(line)
    for key, config in configs.items():
        prepared = with_least_steps(settled(config, inputs.train, inputs.val, inputs.truth), inputs.train)
        if _run_name(*key) in begun:
            Run(folder / _run_name(*key), prepared, inputs.record, resume=True)
    with locked(folder):
        with atomic_write(settings_file(folder)) as file:
            file.write(configs[names[0], seeds[0]].to_toml())
        # 2. Train what is missing.
        at_a_time, threads = share_of_cores(at_a_time)
        job_of = partial(Job, files=files, device=device, memory_gib=memory / at_a_time / 2**30)
        jobs = {key: job_of(folder / _run_name(*key), config) for key, config in configs.items()}
        missing = [job for job in jobs.values() if not job.finished]
        done = len(jobs) - len(missing)
        note(
            f"{folder}: {counted(len(jobs), 'run')} ({counted(len(names), 'base model')} x "
            f"{counted(len(seeds), 'seed')}), {done} finished; "
            f"{at_a_time} at a time, threads each: {threads}"
        )
        failed = show(run_jobs(missing, at_a_time, threads), len(jobs), done)
        # 3. What came of it.
        results = {key: read_result(job.folder, iterations) for key, job in jobs.items() if job.name not in failed}
        if results:
            write_base_tables(folder, results, seeds, str(files.val_labels or files.labels))
            note(f"{folder}: wrote table.md, table.csv and curves.png")
    if failed:
        raise failure(folder, failed, len(jobs))


def write_base_tables(folder: Path, results: Results, seeds: Sequence[int], data: str) -> None:
    """Write table.md, table.csv and curves.png into the study's folder.

    Args:
        folder: of the study.
        results: of the finished runs, at least one.
        seeds: that were wanted.
        data: the validation labels, for the table's heading.

    Raises:
        OutputError: a file cannot be written.
    """
    scored, measure = measure_of(results.values())
    values: dict[str, npt.NDArray[np.float64]] = {}  # [seeds, iterations], those that all seeds reached
    absent: list[str] = []
    for name in base_names():
        runs = [values_of(results[name, seed], scored) for seed in seeds if (name, seed) in results]
        if runs:
            reached = min(map(len, runs))
            values[name] = np.array([run[:reached] for run in runs])
        if missing := [str(seed) for seed in seeds if (name, seed) not in results]:
            absent.append(f"Failed: {name}, seeds {', '.join(missing)}.")
    with atomic_write(folder / "table.md") as file:
        file.write(_markdown(values, absent, scored, measure, seeds, data))
    with atomic_path(folder / "table.csv") as aside:
        write_csv(aside, ("base", "seed"), results)
    with atomic_path(folder / "curves.png") as aside:
        draw_base_curves(values, measure, scored).savefig(aside)


def _markdown(
    values: Mapping[str, npt.NDArray[np.float64]],
    absent: Sequence[str],
    scored: bool,
    measure: str,
    seeds: Sequence[int],
    data: str,
) -> str:
    several = f"seeds {', '.join(map(str, seeds))}: mean ± standard deviation" if len(seeds) > 1 else f"seed {seeds[0]}"
    lines = ["# Base models, alone and refined", ""]
    if scored:
        lines += [
            f"{measure} in percent on the videos of {data}; {several}. Alone is iteration 0. Refined is the later "
            "iteration, in brackets, with the best mean: it is chosen by the mAP that is shown, so differences as "
            "small as those between seeds say nothing.",
            "",
        ]
        rows = []
        for name, runs in values.items():
            if runs.shape[1] < 2:
                rows.append([name, mean_text(runs[:, 0], scored), "-", "-"])
                continue
            best = 1 + int(np.argmax(runs.mean(axis=0)[1:]))
            gain = runs[:, best] - runs[:, 0]
            refined = f"{mean_text(runs[:, best], scored)} ({best})"
            rows.append([name, mean_text(runs[:, 0], scored), refined, mean_text(gain, scored, sign="+")])
        lines += [*table_lines(["base model", "alone", "refined", "gain"], rows), ""]
    else:
        lines += [
            f"Validation loss on the videos of {data}, whose times are not known, so there is no mAP; {several}. From "
            "iteration 1 on a loss holds β times the loss against the run's own pseudo labels, and base models have "
            "losses of their own: it tells a run that went wrong, but not which base model is better.",
            "",
        ]
    most = max(runs.shape[1] for runs in values.values())
    rows = [
        [name, *(mean_text(column, scored) for column in runs.T), *["-"] * (most - runs.shape[1])]
        for name, runs in values.items()
    ]
    lines += ["By iteration:", "", *table_lines(["base model", *(f"iteration {k}" for k in range(most))], rows)]
    for line in absent:
        lines += ["", line]
    return "\n".join(lines) + "\n"


def _with_seed(config: Config, seed: int) -> Config:
    return config.model_copy(update={"training": config.training.model_copy(update={"seed": seed})})


def _run_name(base: str, seed: int) -> str:
    return f"{base}-seed{seed}"
