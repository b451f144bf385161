"""A study from its settings to its tables: the grid of Table 1 and the curves of Table 2, on any data set.

Each run is the one that refineloc-train would train alone, and can go on after a kill as any run can.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from refineloc.runtime.cli.common import note
from refineloc.runtime.errors import ConfigError, counted
from refineloc.runtime.files import atomic_write, claim_folder
from refineloc.training.data.inputs import Files, read_inputs
from refineloc.training.data.record import DataRecord
from refineloc.training.data.truth import settled, true_share, with_snippet_frames
from refineloc.training.fit import TrainingError, with_least_steps
from refineloc.training.run.files import Run, copy_first_iteration
from refineloc.training.run.folder import RunFolder, runs_in
from refineloc.training.run.lock import locked
from refineloc.training.settings.bases import base_names
from refineloc.training.settings.config import Config, PseudoConfig
from refineloc.training.study.display import show
from refineloc.training.study.grid import Cell, Grid, first_name, settings_file
from refineloc.training.study.jobs import Job, run_jobs, share_of_cores
from refineloc.training.study.tables import read_result, write_tables

__all__ = ["check_free", "failure", "run_study"]


def run_study(
    config: Config,
    grid: Grid,
    files: Files,
    folder: Path,
    *,
    device: str = "auto",
    at_a_time: int | None = None,
    memory: int = 0,
    resume: bool = False,
) -> None:
    """Train what is missing of a grid of runs, then write its tables and curves. Tells of it on stderr.

    Args:
        config: of all runs; generator, β and seed are the grid's.
        grid: what is trained; a resumed study may have another one.
        files: the data.
        folder: of the study.
        device: as `train_run` takes it.
        at_a_time: processes; as many as there are cores for if left out.
        memory: bytes for features, shared by the processes.
        resume: go on with the study in `folder`.

    Raises:
        ConfigError: fewer than 2 iterations; a folder that holds a run; other settings than the study's.
        InputError: data that cannot be used.
        TrainingError: runs failed; the table has the others.
        OutputError: the folder holds something else, or a file cannot be written.
    """
    # 1. What no run could use is refused before anything is written.
    iterations = config.training.iterations
    if iterations < 2:
        raise ConfigError(
            f"training.iterations: a study needs 2 or more, got {iterations}: the first knows neither generator nor β"
        )
    if config.student.first is not None:
        raise ConfigError("student.first: a study of generators compares what pseudo labels teach; leave students out")
    inputs = read_inputs(files, config, 0)  # sizes alone, no features
    for line in inputs.notes:
        note(line)
    settled(_first_config(config, 0), inputs.train, inputs.val, inputs.truth)
    config = with_least_steps(with_snippet_frames(config, inputs.train), inputs.train)
    _check_folder(folder, config, inputs.record, resume)
    # The generator distribution-aware is a reference and not weakly supervised (section 3.2): it needs the true times.
    known = true_share(inputs.train, inputs.truth.train) is not None
    if not known and "distribution-aware" in grid.generators:
        grid = replace(grid, generators=tuple(name for name in grid.generators if name != "distribution-aware"))
        note(
            f"warning: {files.labels}: the true share of foreground is not known, since not every video has times and "
            "fps; the generator distribution-aware is left out"
        )
    if resume and not settings_file(folder).exists():
        note(f"{folder}: holds no study to resume; one begins")
    with locked(folder):
        if not settings_file(folder).exists():
            lock, stem = RunFolder(folder).lock.name, first_name("")
            claim_folder(folder, lambda name: name == lock or name.startswith(stem), "a study")
        with atomic_write(settings_file(folder)) as file:
            file.write(config.to_toml())
        # 2. What there is to train: iteration 0 once for each seed, and all cells of the grid.
        at_a_time, threads = share_of_cores(at_a_time)
        job_of = partial(Job, files=files, device=device, memory_gib=memory / at_a_time / 2**30)
        firsts = {seed: job_of(folder / first_name(seed), _first_config(config, seed)) for seed in grid.seeds}
        cells = {cell: job_of(folder / cell.name, _cell_config(config, cell)) for cell in grid.cells()}
        total = len(firsts) + len(cells)
        done = sum(job.finished for job in (*firsts.values(), *cells.values()))
        note(
            f"{folder}: {counted(len(cells), 'run')} ({counted(len(grid.generators), 'generator')} x "
            f"{len(grid.betas)} β x "
            f"{counted(len(grid.seeds), 'seed')}) and {len(firsts)} of iteration 0, {done} finished; {at_a_time} at "
            "a time, "
            f"threads each: {threads}"
        )
        # 3. Train iteration 0; the cells begin with copies of it, and train the rest.
        missing = [job for job in firsts.values() if not job.finished]
        failed = show(run_jobs(missing, at_a_time, threads), total, done)
        failed |= {cell.name: f"{first} failed" for cell in cells if (first := first_name(cell.seed)) in failed}
        for cell, job in cells.items():
            if cell.name not in failed:
                copy_first_iteration(firsts[cell.seed].folder, job.folder)
        done += len(missing)
        missing = [job for job in cells.values() if job.name not in failed and not job.finished]
        failed |= show(run_jobs(missing, at_a_time, threads), total, done)
        # 4. What came of it.
        results = {cell: read_result(folder / cell.name, iterations) for cell in cells if cell.name not in failed}
        if results:
            write_tables(folder, grid, results, config.training.epochs, str(files.val_labels))
            note(f"{folder}: wrote table.md, table.csv and curves.png")
    if failed:
        raise failure(folder, failed, total)


def failure(folder: Path, failed: Mapping[str, str], total: int) -> TrainingError:
    """The error of a study whose runs did not all end well.

    Args:
        folder: of the study.
        failed: the runs by name, and why.
        total: runs of the study.
    """
    name, error = next(iter(failed.items()))
    return TrainingError(
        f"{folder}: {len(failed)} of {counted(total, 'run')} failed, the first is {name}: {error}; the others are "
        "kept, and "
        "a resumed study trains these again",
        parameter="resume",
    )


def _cell_config(config: Config, cell: Cell) -> Config:
    changed: dict[str, object] = {"generator": cell.generator, "beta": cell.beta}
    if cell.generator == "distribution-aware":
        changed["foreground_share"] = None  # the true one, whatever the settings say
    training = config.training.model_copy(update={"seed": cell.seed})
    return config.model_copy(update={"pseudo": config.pseudo.model_copy(update=changed), "training": training})


def _first_config(config: Config, seed: int) -> Config:
    """Iteration 0 does not depend on generator and β, so both are always the defaults."""
    default = PseudoConfig()
    config = _cell_config(config, Cell(default.generator, default.beta, seed))
    return config.model_copy(update={"training": config.training.model_copy(update={"iterations": 1})})


def check_free(folder: Path, resume: bool) -> None:
    """Refuse the folder of a run, and one of a study that is not to be resumed."""
    if RunFolder(folder).is_run:
        raise ConfigError(f"{folder}: holds a run; a study needs a folder of its own", parameter="folder")
    if settings_file(folder).exists() and not resume:
        raise ConfigError(f"{folder}: holds a study already; resume it, or give another folder", parameter="resume")


def _check_folder(folder: Path, config: Config, record: DataRecord, resume: bool) -> None:
    """Refuse the folder of a run, and a study of other settings: its runs of iteration 0 have them all."""
    check_free(folder, resume)
    if bases := [path.name for path in runs_in(folder) if path.name.rpartition("-seed")[0] in base_names()]:
        raise ConfigError(
            f"{folder}: holds another study, with the run {bases[0]}; give another folder", parameter="folder"
        )
    stem = first_name("")
    for first in runs_in(folder, f"{stem}*"):
        seed = first.name.removeprefix(stem)
        if seed.isdecimal():
            Run(first, _first_config(config, int(seed)), record, resume=True)
