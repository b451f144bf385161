"""What `refineloc-train` does but for its options: data in, a run out; in one process, or in each of several."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from refineloc.runtime.cli.common import note, progress
from refineloc.runtime.errors import ConfigError, InputError
from refineloc.training.data.inputs import Files, Inputs, read_inputs
from refineloc.training.machine.device import choose_device, feature_budget, room_on
from refineloc.training.machine.parallel import Group, join, one_voice
from refineloc.training.refine import refine, settled
from refineloc.training.run.display import RunReporter, Silent, iterations_table
from refineloc.training.run.files import Run, locked
from refineloc.training.run.picture import draw_run
from refineloc.training.settings.config import Config

__all__ = ["enough_memory", "train_run"]


def train_run(
    settings: Callable[[], Config],
    files: Files,
    folder: Path | None,
    *,
    device: str = "auto",
    resume: bool = False,
    memory_gib: float | None = None,
) -> None:
    """Train, tell of it, and leave a run.

    Args:
        settings: gives the configuration; called when all processes are there, so that its errors are said once.
        files: the data.
        folder: of the run; runs/DATE-TIME if left out.
        device: as `--device`.
        resume: go on with the run in `folder`.
        memory_gib: for features, of all processes of this machine together; half of what is free if left out.

    Raises:
        RefineLocError: what is wrong, in one line.
    """
    with one_voice():
        chosen = choose_device(device)
        group = join(chosen)
        # 1. All that can be refused is, before anything is written.
        config = group.agree(settings)
        with enough_memory(chosen):
            config, inputs = group.agree(partial(_prepared, config, files, chosen, memory_gib, group))
            # 2. The folder is this run's alone.
            folder = folder or Path("runs") / time.strftime("%Y%m%d-%H%M%S")
            with contextlib.ExitStack() as held:
                group.agree(
                    partial(held.enter_context, locked(folder) if group.rank == 0 else contextlib.nullcontext())
                )
                _train(config, inputs, folder, chosen, resume, group)
        group.leave()


def _prepared(
    config: Config, files: Files, chosen: torch.device, memory_gib: float | None, group: Group
) -> tuple[Config, Inputs]:
    if config.training.precision == "tf32" and chosen.type != "cuda":
        raise ConfigError("training.precision: tf32 needs a CUDA GPU; on a CPU there are float32 and bf16")
    budget = feature_budget(memory_gib)
    if group.rank:
        inputs = read_inputs(files, config, budget)
    else:
        inputs = read_inputs(files, config, budget, lambda total: progress("reading features", total, "videos"))
    return settled(config, inputs.train, inputs.val, inputs.truth), inputs


def _train(config: Config, inputs: Inputs, folder: Path, chosen: torch.device, resume: bool, group: Group) -> None:
    first = group.rank == 0
    begins = resume and not (folder / "config.toml").exists()
    # All look at the folder before the first process writes there.
    opened = partial(Run, folder, config, inputs.record, resume=resume)
    run = group.agree(partial(opened, writes=group.size == 1))
    if group.size > 1:
        run = group.agree(opened if first else lambda: run)
    if first:
        if begins:
            note(f"{folder}: holds no run that --resume could go on with; one begins")
        _tell(run, inputs, chosen, group)
    settings = config.training
    reporter = group.agree(lambda: RunReporter(settings.iterations, settings.epochs, run) if first else Silent())
    train, val = (split.to(chosen, room_on(chosen)) for split in (inputs.train, inputs.val))
    with reporter, _products(settings.precision):
        refine(config, train, val, run, reporter, inputs.truth, group)
    if first:
        Console(width=None if sys.stdout.isatty() else 120).print(iterations_table(run.records))
        note(draw_run(config, val, run, inputs.truth.val or inputs.labels))


def _tell(run: Run, inputs: Inputs, chosen: torch.device, group: Group) -> None:
    """What is about to be trained."""
    train, val, files = inputs.train, inputs.val, inputs.record
    if inputs.dropped:
        note(
            f"warning: {files.train_labels}: no video with features has the label "
            f"{', '.join(map(repr, inputs.dropped))}; trained without {'them' if len(inputs.dropped) > 1 else 'it'}"
        )
    if any(grid is None for grid in val.grids):
        without = next(name for name, grid in zip(val.names, val.grids, strict=True) if grid is None)
        note(
            f"warning: {files.val_labels}: video {without!r}: its fps is not known, so no detections.json and no mAP; "
            "give --fps X, or a column fps in the labels"
        )
    processes = f" in {group.size} processes" if group.size > 1 else ""
    stored = [split.source.name for split in (train, val) if not split.bytes_held]
    read = f"; read from disk: {', '.join(stored)}" if stored else ""
    note(
        f"{run.folder}: {len(train)} + {len(val)} videos, {train.snippets} + {val.snippets} snippets x "
        f"{train.width}, {len(train.classes)} classes, on {chosen}{processes}{read}"
    )


@contextlib.contextmanager
def enough_memory(device: torch.device) -> Iterator[None]:
    """Too little memory, torch's own words for it included, is one line.

    Raises:
        InputError: it was too little.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        words = str(error).lower()
        known = ("not enough memory", "can't allocate memory", "out of memory")
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and not any(text in words for text in known):
            raise
        raise InputError(
            f"out of memory on {device}: lower --memory, which is for features, or training.batch_videos in a new run"
        ) from error


@contextlib.contextmanager
def _products(precision: str) -> Iterator[None]:
    """TF32 for the matrix products of CUDA GPUs while a run lasts, where its settings say so."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
