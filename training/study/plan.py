"""The runs of a study as commands of refineloc-train, and the iteration 0 that they share."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from refineloc.runtime.errors import ModelError, OutputError
from refineloc.runtime.files import atomic_path
from refineloc.training.config import Config, PseudoConfig
from refineloc.training.study.grid import Cell, first_name
from refineloc.training.study.jobs import Job

__all__ = ["Files", "cell_job", "first_config", "first_job", "read_records"]


@dataclass(frozen=True, slots=True)
class Files:
    """What every run is trained on: the options of refineloc-train of the same names."""

    features: Path
    labels: Path
    val_features: Path
    val_labels: Path
    fps: float | None = None
    allow_missing: bool = False

    def arguments(self) -> list[str]:
        """As refineloc-train takes them."""
        out = [str(self.features), str(self.labels)]
        out += ["--val-features", str(self.val_features), "--val-labels", str(self.val_labels)]
        if self.fps is not None:
            out += ["--fps", repr(self.fps)]
        return [*out, "--allow-missing"] if self.allow_missing else out


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


def read_records(run: Path) -> list[dict[str, Any]]:
    """The finished iterations of a run; none where it has not begun.

    Raises:
        ModelError: iterations.json is damaged.
    """
    path = run / "iterations.json"
    try:
        records = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    if not isinstance(records, list):
        raise ModelError(f"{path}: expected a list of records")
    return records


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
