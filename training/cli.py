"""`refineloc-train`: features and labels in, a run with one model for each refinement iteration out."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer

from refineloc.runtime.cli.common import new_app, note, progress, run_app, version_callback
from refineloc.runtime.errors import ConfigError, InputError, MissingExtraError

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
    base: Annotated[str | None, typer.Option(help="Base model.")] = None,
    generator: Annotated[str | None, typer.Option(help="Pseudo-label generator.")] = None,
    iterations: Annotated[int | None, typer.Option(help="Models to train: M_0 .. M_(N-1).")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs an iteration.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything that is drawn.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    run: Annotated[Path | None, typer.Option(help="Folder of the run; runs/DATE-TIME if left out.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --run.")] = False,
    fps: Annotated[float | None, typer.Option(help="Frames a second of videos for which no file states it.")] = None,
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
        from refineloc.training.config import parse_assignment, read_toml, resolve
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
    resolved = resolve(
        settings_of(preset) if preset else {},
        read_toml(config) if config else {},
        options,
        *map(parse_assignment, assignments or []),
    )
    if show_config:
        print(resolved.described_toml(), end="")
        return
    if features is None or labels is None or val_features is None or val_labels is None:
        raise InputError("give training features and labels, --val-features and --val-labels (see --help)")
    if resume and run is None:
        raise ConfigError("--resume: give the run to go on with as --run NAME")
    _train(resolved, (features, labels), (val_features, val_labels), device, run, resume, fps, allow_missing)


def _train(
    config: Any,
    train_files: tuple[Path, Path],
    val_files: tuple[Path, Path],
    device: str,
    folder: Path | None,
    resume: bool,
    fps: float | None,
    allow_missing: bool,
) -> None:
    import time

    try:
        from rich.console import Console

        from refineloc.training.data import load_split, read_labels
        from refineloc.training.refine import Truth, refine
        from refineloc.training.report import RunReporter, iterations_table
        from refineloc.training.run import DataRecord, Run
    except ImportError as error:
        raise MissingExtraError(f"{_LINE} ({error})") from error

    chosen = _device(device)
    train_labels, val_labels = read_labels(train_files[1]), read_labels(val_files[1])
    with progress("reading features", len(train_labels) + len(val_labels), "videos") as advance:
        train = load_split(train_files[0], train_labels, config, fps=fps, allow_missing=allow_missing, advance=advance)
        val = load_split(
            val_files[0],
            val_labels,
            config,
            classes=train.classes,
            fps=fps,
            allow_missing=allow_missing,
            advance=advance,
        )
    if val.width != train.width:
        raise InputError(f"{val.source}: features have width {val.width}, those of {train.source} {train.width}")
    # Times, where the files have them: for the scores that are shown, and for the oracle. Training has its own labels.
    truth = Truth(_with_times(train_files[1]), _with_times(val_files[1]))
    if any(grid is None for grid in val.grids):
        without = next(name for name, grid in zip(val.names, val.grids, strict=True) if grid is None)
        note(
            f"warning: {val_files[1]}: video {without!r}: its fps is not known, so no detections.json and no mAP; "
            "give --fps X, or a column fps in the labels"
        )
    record = DataRecord(
        train_features=str(train_files[0]),
        train_labels=str(train_files[1]),
        val_features=str(val_files[0]),
        val_labels=str(val_files[1]),
        classes=train.classes,
        width=train.features.shape[1],
        fps=fps or 0.0,
    )
    run = Run(folder or Path("runs") / time.strftime("%Y%m%d-%H%M%S"), config, record, resume=resume)
    note(
        f"{run.folder}: {len(train)} + {len(val)} videos, {train.snippets} + {val.snippets} snippets x "
        f"{train.features.shape[1]}, {len(train.classes)} classes, on {chosen}"
    )
    reporter = RunReporter(config.training.iterations, config.training.epochs, run.folder, len(run.records))
    with reporter:
        refine(config, train.to(chosen), val.to(chosen), run, reporter, truth)
    Console(width=None if _is_terminal() else 120).print(iterations_table(run.records))


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


def _is_terminal() -> bool:
    import sys

    return sys.stdout.isatty()


def main() -> NoReturn:
    """Entry point of the console script."""
    run_app(app)
