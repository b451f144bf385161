"""`refineloc-train`: features and labels in, a run with one model for each refinement iteration out."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer

from refineloc.runtime.cli.common import new_app, note, progress, run_app, version_callback
from refineloc.runtime.errors import ConfigError, InputError, MissingExtraError
from refineloc.training.memory import keep_freed_memory

__all__ = ["main"]

app = new_app("refineloc-train")

# OpenMP threads that wait for each other by spinning lose most of their time where other programs use the cores: on two
# busy cores an iteration of the sample data took 43 s so, and 11 s with threads that sleep. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_LINE = "training needs the train extra: pip install 'refineloc[train]'"


@app.command()
def train(
    features: Annotated[Path | None, typer.Argument(help="Training features: HDF5 file or folder.")] = None,
    labels: Annotated[Path | None, typer.Argument(help="Training labels: CSV or ActivityNet JSON.")] = None,
    val_features: Annotated[Path | None, typer.Option(help="Validation features.")] = None,
    val_labels: Annotated[Path | None, typer.Option(help="Validation labels.")] = None,
    preset: Annotated[str | None, typer.Option(help="Settings to begin with; --preset list names them.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings, over the preset's.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting, over all others; repeatable.")
    ] = None,
    profile: Annotated[
        Literal["paper", "release"] | None, typer.Option(help="The paper's rules, or the released code's.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="Base model: refineloc, wtalc, basnet.")] = None,
    generator: Annotated[str | None, typer.Option(help="Pseudo-label generator.")] = None,
    iterations: Annotated[int | None, typer.Option(help="Models to train: M_0 .. M_(N-1).")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs an iteration.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything that is drawn.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    run: Annotated[Path | None, typer.Option(help="Folder of the run; runs/DATE-TIME if left out.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --run.")] = False,
    study: Annotated[
        Literal["generators-beta"] | None,
        typer.Option(help="Train a grid of runs into --run: every generator with every β (Tables 1 and 2)."),
    ] = None,
    betas: Annotated[str, typer.Option(metavar="B,B,...", help="Of a study: its values of β.")] = "1,2,4,6,8",
    seeds: Annotated[
        str | None, typer.Option(metavar="S,S,...", help="Of a study, instead of --seed: its seeds.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Of a study: runs at a time; one a core if left out, one on a GPU.")
    ] = None,
    fps: Annotated[float | None, typer.Option(help="Frames a second of videos for which no file states it.")] = None,
    memory: Annotated[
        float | None,
        typer.Option(
            metavar="GIB", help="Memory for features; more is read from disk for each batch. Half of the free."
        ),
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Go on with the videos that have both features and labels.")
    ] = False,
    show_config: Annotated[
        bool, typer.Option("--show-config", help="Print the resolved settings as TOML, and end.")
    ] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=version_callback, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Train a weakly-supervised temporal action localization model, refined over several iterations.

    Training uses video-level labels only. Times in the label files are read for the scores shown, and for nothing else.
    """
    try:
        from refineloc.training.config import base_defaults, parse_assignment, read_toml, resolve
        from refineloc.training.presets import PRESETS
        from refineloc.training.presets import preset as settings_of
    except ImportError as error:
        raise MissingExtraError(_LINE) from error

    if preset == "list":
        print("\n".join(PRESETS))
        return
    options: dict[str, Any] = {
        "model": _given(base=base),
        "pseudo": _given(generator=generator),
        "training": _given(iterations=iterations, epochs=epochs, seed=seed),
    } | _given(profile=profile)
    own = [read_toml(config) if config else {}, options, *map(parse_assignment, assignments or [])]
    resolved = resolve(settings_of(preset) if preset else {}, base_defaults(*own), *own)
    if show_config:
        print(resolved.described_toml(), end="")
        return
    if features is None or labels is None or val_features is None or val_labels is None:
        raise InputError("give training features and labels, --val-features and --val-labels (see --help)")
    if resume and run is None:
        raise ConfigError("--resume: give the run to go on with as --run NAME")
    if memory is not None and memory < 0:
        raise ConfigError(f"--memory: expected 0 or more GiB, got {memory:g}")
    if study is not None:
        if generator is not None or run is None:
            raise ConfigError("--study: trains all generators, into a folder of its own: --run NAME, no --generator")
        files = (features, labels, val_features, val_labels, fps, allow_missing)
        _study(resolved, betas, seeds, files, run, device, jobs, memory, resume)
        return
    _train(resolved, (features, labels), (val_features, val_labels), device, run, resume, fps, allow_missing, memory)


def _train(
    config: Any,
    train_files: tuple[Path, Path],
    val_files: tuple[Path, Path],
    device: str,
    folder: Path | None,
    resume: bool,
    fps: float | None,
    allow_missing: bool,
    memory: float | None,
) -> None:
    try:
        from rich.console import Console

        from refineloc.training.data import load_split, read_labels
        from refineloc.training.parallel import join
        from refineloc.training.refine import Truth, refine
        from refineloc.training.report import RunReporter, Silent, iterations_table
        from refineloc.training.run import DataRecord, Run
        from refineloc.training.timeline import draw_run
    except ImportError as error:
        raise MissingExtraError(f"{_LINE} ({error})") from error

    chosen = _device(device)
    if config.training.precision == "tf32" and chosen.type != "cuda":
        raise ConfigError("training.precision: tf32 needs a CUDA GPU; on a CPU there are float32 and bf16")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and folder is None:
        raise ConfigError("several processes need one folder: give --run NAME")
    group = join(chosen)
    train_labels, val_labels = read_labels(train_files[1]), read_labels(val_files[1])
    budget = int(memory * 2**30) if memory is not None else free_memory() // 2
    with progress("reading features", len(train_labels) + len(val_labels), "videos") as advance:
        train = load_split(
            train_files[0],
            train_labels,
            config,
            fps=fps,
            allow_missing=allow_missing,
            memory=budget,
            advance=advance,
        )
        val = load_split(
            val_files[0],
            val_labels,
            config,
            classes=train.classes,
            fps=fps,
            allow_missing=allow_missing,
            memory=budget - train.bytes_held,
            advance=advance,
        )
    if val.file_width != train.file_width:
        raise InputError(
            f"{val.source}: features have width {val.file_width}, those of {train.source} {train.file_width}"
        )
    # Times, where the files have them: for the scores that are shown, and for the oracle. Training has its own labels.
    truth = Truth(_with_times(train_files[1]), _with_times(val_files[1]))
    record = DataRecord(
        train_features=str(train_files[0]),
        train_labels=str(train_files[1]),
        val_features=str(val_files[0]),
        val_labels=str(val_files[1]),
        classes=train.classes,
        width=train.width,
        fps=fps or 0.0,
    )
    first = group.rank == 0
    folder = folder or Path("runs") / time.strftime("%Y%m%d-%H%M%S")
    # All look at the folder before the first process writes there.
    run = Run(folder, config, record, resume=resume, writes=False) if not first else None
    group.wait()
    run = run or Run(folder, config, record, resume=resume)
    group.wait()
    if first:
        if any(grid is None for grid in val.grids):
            without = next(name for name, grid in zip(val.names, val.grids, strict=True) if grid is None)
            note(
                f"warning: {val_files[1]}: video {without!r}: its fps is not known, so no detections.json and no mAP; "
                "give --fps X, or a column fps in the labels"
            )
        processes = f" in {group.size} processes" if group.size > 1 else ""
        stored = [split.source.name for split in (train, val) if not split.bytes_held]
        read = f"; read from disk: {', '.join(stored)}" if stored else ""
        note(
            f"{run.folder}: {len(train)} + {len(val)} videos, {train.snippets} + {val.snippets} snippets x "
            f"{train.width}, {len(train.classes)} classes, on {chosen}{processes}{read}"
        )
    settings = config.training
    reporter = RunReporter(settings.iterations, settings.epochs, run) if first else Silent()
    train = train.to(chosen, room_on(chosen))
    val = val.to(chosen, room_on(chosen))
    with reporter, _products(settings.precision):
        refine(config, train, val, run, reporter, truth, group)
    if first:
        Console(width=None if sys.stdout.isatty() else 120).print(iterations_table(run.records))
        note(draw_run(config, val, run, truth.val or val_labels))


def _study(
    config: Any,
    betas: str,
    seeds: str | None,
    files: tuple[Any, ...],
    folder: Path,
    device: str,
    jobs: int | None,
    memory: float | None,
    resume: bool,
) -> None:
    try:
        from refineloc.training.study import Files, Grid, run_study
    except ImportError as error:
        raise MissingExtraError(f"{_LINE} ({error})") from error

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("--study: starts its own processes (--jobs); run it without torchrun")
    run_study(
        config,
        Grid.parse(betas, str(config.training.seed) if seeds is None else seeds),
        Files(*files),
        folder,
        note=note,
        device=device,
        at_a_time=jobs if jobs is not None or _device(device).type == "cpu" else 1,
        memory=int(memory * 2**30) if memory is not None else free_memory() // 2,
        resume=resume,
    )


def _with_times(path: Path) -> Any:
    from refineloc.runtime.annotations import read_annotations

    annotations = read_annotations(path)
    return annotations if annotations.has_times else None


def _device(name: str) -> Any:
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device {name}: cannot be used here: {str(error).splitlines()[0]}") from error
    return device


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def free_memory() -> int:
    """Bytes that programs can still take."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def room_on(device: Any) -> int | None:
    """Bytes that features may take on a device; None on the CPU, where they are already."""
    import torch

    # The rest is for batches and activations: at most a few GB of tens.
    return int(0.7 * torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else None


@contextlib.contextmanager
def _products(precision: str) -> Iterator[None]:
    """TF32 for the matrix products of CUDA GPUs while a run lasts, where its settings say so."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def main() -> NoReturn:
    """Entry point of the console script."""
    keep_freed_memory()
    run_app(app)
