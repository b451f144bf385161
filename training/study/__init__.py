"""`refineloc-train --study generators-beta`: the grid of Table 1 and the curves of Table 2, on any data set.

    runs/STUDY/
        settings.toml              of all runs, but for generator, β and seed
        iteration0-seedS/          a run of iteration 0 alone, which knows neither generator nor β
        GENERATOR-betaB-seedS/     a run; its iteration 0 is a copy
        table.md, table.csv, curves.png

Every run is what refineloc-train would train alone, in a process of its own, and goes on after a kill as runs do.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from refineloc.runtime.annotations import read_annotations
from refineloc.runtime.errors import ConfigError, InputError, OutputError, RefineLocError
from refineloc.runtime.files import atomic_write
from refineloc.training.config import Config
from refineloc.training.data import load_split, read_labels
from refineloc.training.pseudo_labels import true_foreground
from refineloc.training.run import DataRecord, Run
from refineloc.training.study.display import Display
from refineloc.training.study.grid import Grid, first_name
from refineloc.training.study.jobs import run_jobs, share_of_cores
from refineloc.training.study.plan import Files, cell_job, first_config, first_job, read_records
from refineloc.training.study.report import outcome, read_result, write_report

__all__ = ["Files", "Grid", "StudyError", "run_study"]


class StudyError(RefineLocError, RuntimeError):
    """Runs of a study failed; the others are kept and in its table."""


def run_study(
    config: Config,
    grid: Grid,
    files: Files,
    folder: Path,
    *,
    note: Callable[[str], None],
    device: str = "auto",
    at_a_time: int | None = None,
    memory: int = 0,
    resume: bool = False,
) -> None:
    """Train what is missing of a grid of runs, then write its table and curves.

    Args:
        config: of all runs; the grid's values take the place of its generator, β and seed.
        grid: what is trained; a resumed study may have another one.
        files: the data.
        folder: of the study.
        note: is told, in lines, what the user should know.
        device: as refineloc-train takes it.
        at_a_time: processes; as many as there are cores for if left out.
        memory: bytes for features, shared by the processes.
        resume: go on with the study in `folder`.

    Raises:
        ConfigError: fewer than 2 iterations; a folder that holds something else; other settings than the study's.
        InputError: data that cannot be used.
        StudyError: runs failed; the table has the others.
        OutputError: a file cannot be written.
    """
    iterations = config.training.iterations
    if iterations < 2:
        raise ConfigError("--study: expected 2 or more iterations; the first knows neither generator nor β")
    record, foreground_share = _look_at(files, config)
    _check_folder(folder, config, record, resume)
    if foreground_share is None and "distribution-aware" in grid.generators:
        grid = replace(grid, generators=tuple(name for name in grid.generators if name != "distribution-aware"))
        note(
            f"warning: {files.labels}: the true share of foreground is not known, since not every video has times and "
            "fps; the generator distribution-aware is left out"
        )
    _begin(folder, config)

    # 1. What there is to train: iteration 0 once for each seed, then all that differs.
    at_a_time, threads = share_of_cores(at_a_time)
    common = [*files.arguments(), "--config", str(folder / _SETTINGS), "--device", device]
    common += ["--memory", repr(memory / at_a_time / 2**30)]
    cells = grid.cells()
    firsts = [first_job(folder, seed, common, config) for seed in grid.seeds]
    rest = [cell_job(folder, cell, common, config, foreground_share) for cell in cells]
    missing = [job for job in firsts if not read_records(job.folder)]
    missing += [job for job in rest if len(read_records(job.folder)) < iterations]
    total = len(firsts) + len(rest)
    note(
        f"{folder}: {len(rest)} runs ({len(grid.generators)} generators x {len(grid.betas)} β x {len(grid.seeds)} "
        f"seeds) and {len(firsts)} of iteration 0, {total - len(missing)} finished; {at_a_time} at a time, "
        f"threads each: {threads}"
    )
    # 2. Train it.
    with Display(total, total - len(missing), lambda job: outcome(read_records(job.folder))) as display:
        failed = run_jobs(missing, at_a_time, threads, display)
    # 3. What came of it.
    results = [read_result(folder, cell, iterations) for cell in cells if cell.name not in failed]
    if results:
        write_report(folder, grid, results, config.training.epochs, str(files.val_labels))
        note(f"{folder}: wrote table.md, table.csv and curves.png")
    if failed:
        name, why = next(iter(failed.items()))
        raise StudyError(
            f"{folder}: {len(failed)} of {total} runs failed, the first is {name}: {why}; the others are kept, and "
            "--resume trains these again"
        )


_SETTINGS = "settings.toml"


def _look_at(files: Files, config: Config) -> tuple[DataRecord, float | None]:
    """What runs state of their data, and the true share of foreground where known; reads sizes, but no features.

    The share is for one generator that is a reference and not weakly supervised (section 3.2), and for nothing else.
    """
    train = load_split(
        files.features,
        read_labels(files.labels),
        config,
        fps=files.fps,
        allow_missing=files.allow_missing,
        memory=0,
    )
    val = load_split(
        files.val_features,
        read_labels(files.val_labels),
        config,
        classes=train.classes,
        fps=files.fps,
        allow_missing=files.allow_missing,
        memory=0,
    )
    if val.file_width != train.file_width:
        raise InputError(
            f"{val.source}: features have width {val.file_width}, those of {train.source} {train.file_width}"
        )
    times = read_annotations(files.labels)
    true = true_foreground(times, train.names, train.grids, train.lengths.numpy()) if times.has_times else None
    record = DataRecord(
        train_features=str(files.features),
        train_labels=str(files.labels),
        val_features=str(files.val_features),
        val_labels=str(files.val_labels),
        classes=train.classes,
        width=train.width,
        fps=files.fps or 0.0,
    )
    return record, None if true is None else float(true.mean())


def _check_folder(folder: Path, config: Config, record: DataRecord, resume: bool) -> None:
    """Refuse a run's folder, and a study of other settings: its runs of iteration 0 have them all."""
    if (folder / "config.toml").exists():
        raise ConfigError(f"{folder}: holds a run; a study needs a folder of its own: --run NAME")
    if (folder / _SETTINGS).exists() and not resume:
        raise ConfigError(f"{folder}: holds a study already; --resume goes on with it, --run NAME begins another")
    stem = first_name("")
    for first in sorted(folder.glob(f"{stem}*/config.toml")):
        seed = first.parent.name.removeprefix(stem)
        if seed.isdecimal():
            Run(first.parent, first_config(config, int(seed)), record, resume=True, writes=False)


def _begin(folder: Path, config: Config) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror}") from error
    with atomic_write(folder / _SETTINGS) as file:
        file.write(config.to_toml())
