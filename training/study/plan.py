"""The runs of a study as commands of refineloc-train, and the iteration 0 that they share."""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from refineloc.runtime.errors import OutputError
from refineloc.runtime.files import atomic_path
from refineloc.training.settings.config import Config, PseudoConfig
from refineloc.training.study.grid import Cell, first_name
from refineloc.training.study.jobs import Job

__all__ = ["cell_job", "first_config", "first_job"]


def first_job(folder: Path, seed: int, common: Sequence[str], config: Config) -> Job:
    """Train iteration 0 of a seed."""
    run = folder / first_name(seed)
    options = [*_options(_FIRST.generator, _FIRST.beta, seed), "--iterations", "1"]
    return Job(run.name, run, [*common, *options, *_to(run)], config.training.epochs)


def cell_job(folder: Path, cell: Cell, common: Sequence[str], config: Config, foreground_share: float | None) -> Job:
    """Train a run of the grid from iteration 1 on.

    Args:
        folder: of the study.
        cell: the run.
        common: options of all runs.
        config: of all runs.
        foreground_share: for the generator distribution-aware.
    """
    run = folder / cell.name
    options = _options(cell.generator, cell.beta, cell.seed)
    if cell.generator == "distribution-aware":
        options += ["--set", f"pseudo.foreground_share={foreground_share!r}"]
    copy = partial(_copy_first, folder / cell.first, run)
    epochs = config.training.iterations * config.training.epochs
    return Job(run.name, run, [*common, *options, *_to(run)], epochs, cell.first, copy)


def first_config(config: Config, seed: int) -> Config:
    """The settings of `first_job`: generator and β are no matter in iteration 0, so they are always the same."""
    pseudo = config.pseudo.model_copy(update={"generator": _FIRST.generator, "beta": _FIRST.beta})
    training = config.training.model_copy(update={"seed": seed, "iterations": 1})
    return config.model_copy(update={"pseudo": pseudo, "training": training})


_FIRST = PseudoConfig()


def _options(generator: str, beta: float, seed: int) -> list[str]:
    return ["--generator", generator, "--set", f"pseudo.beta={beta!r}", "--seed", str(seed)]


def _to(run: Path) -> list[str]:
    return ["--run", str(run), "--resume"]


def _copy_first(first: Path, run: Path) -> None:
    """Begin a run with the finished iteration 0 of another: its record comes last, as in a run of its own."""
    if (run / "iterations.json").exists():
        return
    try:
        (run / "iter_0").mkdir(parents=True, exist_ok=True)
        for name in ("iter_0/model.safetensors", "iter_0/detections.json", "metrics.jsonl", "iterations.json"):
            if (first / name).exists():  # detections need the videos' fps
                with atomic_path(run / name) as aside:
                    shutil.copyfile(first / name, aside)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{run}: cannot be written: {error.strerror or error}") from error
