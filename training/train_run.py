"""From settings and data to a run, for `refineloc-train` and Python alike; in one process, or in each of several."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from refineloc.evaluation.formats.database import write_activitynet
from refineloc.evaluation.formats.tracks import tracks_of_annotations
from refineloc.runtime.cli.common import note
from refineloc.runtime.errors import ConfigError, InputError
from refineloc.runtime.features.streams import described_columns
from refineloc.training.data.inputs import Files, Inputs, read_inputs
from refineloc.training.data.split import Split
from refineloc.training.data.truth import Truth, settled
from refineloc.training.fit import Epoch, TrainingError, with_least_steps
from refineloc.training.machine import parallel
from refineloc.training.machine.device import choose_device, feature_budget, room_on
from refineloc.training.machine.products import products_in
from refineloc.training.members import Network
from refineloc.training.refine import Begun, Iteration, refine
from refineloc.training.run.checkpoint import Checkpoint
from refineloc.training.run.display import RunReporter, Silent, iterations_table
from refineloc.training.run.files import Run
from refineloc.training.run.folder import RunFolder
from refineloc.training.run.lock import locked
from refineloc.training.run.memory import RunInMemory
from refineloc.training.run.picture import draw_run
from refineloc.training.run.trained import TrainedRun
from refineloc.training.scoring import detect, quality
from refineloc.training.settings.config import Config
from refineloc.training.settings.presets import sets_stream

__all__ = ["enough_memory", "print_iterations", "train_into", "train_run"]


def train_run(
    settings: Callable[[], Config],
    files: Files,
    folder: Path | None,
    *,
    device: str = "auto",
    resume: bool = False,
    memory_gib: float | None = None,
    show: bool = True,
) -> TrainedRun:
    """Train, tell of it, and give the run.

    Args:
        settings: gives the configuration; called when all processes are there, so that its errors are said once.
        files: the data.
        folder: of the run, with all its files; None keeps it in memory.
        device: auto, cpu, cuda or cuda:N (`choose_device`).
        resume: go on with the run in `folder`.
        memory_gib: for features, of all processes of this machine together; half of what is free if left out.
        show: show how far it is.

    Raises:
        RefineLocError: what is wrong, in one line.
    """
    chosen = choose_device(device)
    parallel.join(chosen)
    # 1. All that can be refused is, before anything is written.
    config = parallel.agree(settings)
    with enough_memory(chosen):
        config, inputs = parallel.agree(partial(_prepared, config, files, chosen, memory_gib, show))
        if folder is None:
            return _train(RunInMemory(config, inputs.record), inputs, chosen, show)
        # 2. The folder is this run's alone.
        with contextlib.ExitStack() as held:
            lock = contextlib.nullcontext() if parallel.rank() else locked(folder)
            parallel.agree(partial(held.enter_context, lock))
            begins = resume and not RunFolder(folder).is_run
            # All look at the folder before the first process writes there.
            run = parallel.agree(partial(Run, folder, config, inputs.record, resume=resume))
            parallel.agree(run.begin)
            if inputs.record.val_share:
                parallel.agree(partial(_write_split, run.files.split, inputs))
            if begins and not parallel.rank():
                note(f"{folder}: holds no run to resume; one begins")
            trained = _train(run, inputs, chosen, show)
            if not parallel.rank():
                note(draw_run(run, trained.val, inputs.truth.val or inputs.labels.val))
            return trained


def print_iterations(trained: TrainedRun) -> None:
    """The table at the end of a run, on stdout, by the first of several processes."""
    if not parallel.rank():
        Console(width=None if sys.stdout.isatty() else 120).print(iterations_table(trained.records))


def _prepared(
    config: Config, files: Files, chosen: torch.device, memory_gib: float | None, show: bool
) -> tuple[Config, Inputs]:
    if config.training.precision == "tf32" and chosen.type != "cuda":
        raise ConfigError("training.precision: tf32 needs a CUDA GPU; on a CPU there are float32 and bf16")
    first, last = config.student.first, config.training.iterations - 1
    if first is not None and first > last:
        raise ConfigError(f"student.first: {first}, and the last iteration is {last}; train more iterations")
    inputs = read_inputs(files, config, feature_budget(memory_gib), show=show and not parallel.rank())
    settled_config = with_least_steps(settled(config, inputs.train, inputs.val, inputs.truth), inputs.train)
    before, epochs = config.training.epochs, settled_config.training.epochs
    if epochs > before and not parallel.rank():
        videos, steps = len(inputs.train), config.training.min_steps
        note(
            f"few training videos ({videos:,}): {epochs:,} epochs instead of {before:,}, so that the optimiser takes "
            f"at least {steps:,} steps (training.min_steps)"
        )
    return settled_config, inputs


def _train(run: Run | RunInMemory, inputs: Inputs, chosen: torch.device, show: bool) -> TrainedRun:
    first = parallel.rank() == 0
    if first:
        _tell(run, inputs, chosen)
    display = parallel.agree(lambda: RunReporter(run, show=show) if first else Silent())
    train, val = (split.to(chosen, room_on(chosen)) for split in (inputs.train, inputs.val))
    with display, products_in(run.config.training.precision):
        train_into(run, train, val, inputs.truth, display)
    return TrainedRun(run, inputs.val, inputs.truth.val)


def _write_split(path: Path, inputs: Inputs) -> None:
    """Which videos were held out: for the evaluation and the export of the run, and for other runs."""
    if parallel.rank():
        return
    parts = (
        ("training", inputs.truth.train or inputs.labels.train),
        ("validation", inputs.truth.val or inputs.labels.val),
    )
    tracks = [replace(track, subset=subset) for subset, part in parts for track in tracks_of_annotations(part)]
    write_activitynet(path, tracks)


def train_into(run: Run | RunInMemory, train: Split, val: Split, truth: Truth, display: RunReporter | Silent) -> None:
    """Train what a run has not yet, keep it in the run, and show it.

    Args:
        run: its settings are settled with the data (`settled`, `with_least_steps`), and it has begun (`begin`).
        train, val: the splits, on the device of training.
        truth: their true times.
        display: of this process.

    Raises:
        TrainingError: a loss is not finite; the last good state is kept as the run's checkpoint.
        ModelError: files of the run are damaged.
        OutputError: a file cannot be written.
    """
    config = run.config
    for record in run.records:
        parallel.agree(partial(display.iteration, record))
    finished = len(run.records)
    model = parallel.agree(lambda: run.model(finished - 1).to(train.device) if finished else None)
    networks = parallel.agree(partial(run.networks, train.device))
    last, saved = run.checkpoint, time.monotonic()
    try:
        for event in refine(config, train, val, truth, Begun(run.records, model, networks, run.checkpoint)):
            if isinstance(event, Epoch):
                record = dict(event.record)
                if event.scores is not None:
                    detections = detect(config.of_iteration(record["iteration"]), val, event.scores)
                    record["average_mAP"] = quality(detections, truth.val)["average_mAP"]
                last = event.pack()
                goes_on = record["epoch"] + 1 < config.of_iteration(record["iteration"]).training.epochs
                due = goes_on and time.monotonic() - saved >= config.training.checkpoint_s
                parallel.agree(partial(_keep, run, display, record, last if due else None))
                saved = time.monotonic() if due else saved
            elif isinstance(event, Network):
                parallel.agree(partial(run.add_network, event))
                last, saved = None, time.monotonic()
            elif isinstance(event, Iteration):
                parallel.agree(partial(run.add_iteration, event.record, event.model, event.detections))
                parallel.agree(partial(display.iteration, event.record))
                last, saved = None, time.monotonic()
            else:
                display.warning(event)
    except TrainingError as error:
        parallel.agree(partial(_give_up, run, last, error))


def _keep(
    run: Run | RunInMemory, display: RunReporter | Silent, record: Mapping[str, Any], checkpoint: Checkpoint | None
) -> None:
    run.add_epoch(record)
    display.epoch(record)
    if checkpoint is not None:
        run.save_checkpoint(checkpoint)


def _give_up(run: Run | RunInMemory, last: Checkpoint | None, error: TrainingError) -> None:
    """End with the last good state in the run's folder."""
    if run.folder is None:
        raise TrainingError(f"{error}; train again with a lower training.learning_rate or pseudo.beta") from error
    if last is not None:
        run.save_checkpoint(last)
    raise TrainingError(
        f"{run.folder}: {error}; {len(run.records)} finished iterations "
        f"{'and the state before this epoch ' if last is not None else ''}are kept; begin another run with a lower "
        "training.learning_rate or pseudo.beta: a resumed run takes the same settings only",
        parameter="folder",
    ) from error


def _tell(run: Run | RunInMemory, inputs: Inputs, chosen: torch.device) -> None:
    """What is about to be trained."""
    train, val, files = inputs.train, inputs.val, inputs.record
    for line in inputs.notes:
        note(line)
    if files.val_share and isinstance(run, Run):
        note(f"{run.files.split}: which videos, with their labels; its subsets are training and validation")
    if any(grid is None for grid in val.grids):
        without = next(name for name, grid in zip(val.names, val.grids, strict=True) if grid is None)
        note(
            f"warning: {files.val_labels or 'val_labels'}: video {without!r}: its fps is not known, so no detections "
            "and no mAP; give fps, or a column fps in the labels"
        )
    features = run.config.features
    columns = described_columns(train.file_width, train.columns, features.stream)
    if columns and not train.two_streams and sets_stream(run.config.preset):
        note(
            f"warning: {files.train_features}: features of width {train.file_width} are not known to hold two streams, "
            f"of which the preset {run.config.preset} takes the {columns}; features.stream=both takes all "
            "(--set features.stream=both)"
        )
    processes = f" in {parallel.size()} processes" if parallel.size() > 1 else ""
    stored = [split.source.name for split in (train, val) if not split.bytes_held]
    # Leaks under other names are looked for in memory alone (`refuse_same_features`).
    read = f"; read from disk: {', '.join(stored)}, so leaks are found by name alone" if stored else ""
    note(
        f"{run.folder or 'training'}: {len(train)} + {len(val)} videos, {train.snippets} + {val.snippets} snippets x "
        f"{train.width}{f' ({columns})' if columns else ''}, {len(train.classes)} classes, on {chosen}{processes}{read}"
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
            f"out of memory on {device}: lower memory_gib (for features), or training.batch_videos in a new run",
            parameter="memory_gib",
        ) from error
