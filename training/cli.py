"""`refineloc-train`: features and labels in, a run with one model for each refinement iteration out."""

import contextlib
import functools
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer

from refineloc.runtime.cli.common import VersionOption, new_app, note, run_app
from refineloc.runtime.errors import ConfigError, InputError, MissingExtraError
from refineloc.training.machine.malloc import keep_freed_memory
from refineloc.training.run.folder import RunFolder
from refineloc.training.settings.bases import base_names

__all__ = ["main"]

app = new_app("refineloc-train")

_LINE = "training needs the train extra: pip install 'refineloc[train]'"


# Of the options in the help.
GROUPS = {
    "Data": (),
    "Settings": (
        "preset", "config", "assignments", "profile", "base", "generator", "iterations", "student_from", "epochs",
        "seed", "show_config",
    ),
    "The run": ("run", "resume", "device", "memory"),
    "Studies": ("study", "betas", "seeds", "jobs"),
}  # fmt: skip


@app.command()
def train(
    features: Annotated[Path | None, typer.Argument(help="Training features: HDF5 file or folder.")] = None,
    labels: Annotated[Path | None, typer.Argument(help="Training labels: CSV or ActivityNet JSON.")] = None,
    val_features: Annotated[
        Path | None, typer.Option(help="Validation features; those of training if left out.")
    ] = None,
    val_labels: Annotated[Path | None, typer.Option(help="Validation labels; those of training if left out.")] = None,
    subset: Annotated[str | None, typer.Option(metavar="NAME", help="Train on this subset of the labels.")] = None,
    val_subset: Annotated[str | None, typer.Option(metavar="NAME", help="Validate on this subset.")] = None,
    val_share: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", help="Without validation files or subsets: share of the videos that is held out; 0.2."
        ),
    ] = None,
    val_seed: Annotated[int | None, typer.Option(min=0, help="Of which videos --val-share holds out; 0.")] = None,
    allow_leaks: Annotated[
        bool, typer.Option("--allow-leaks", help="Go on with videos that are in both splits.")
    ] = False,
    preset: Annotated[
        str | None, typer.Option(help="Settings to begin with (auto; none: the paper's); --preset list names them.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings, over the preset's.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting, over all others; repeatable.")
    ] = None,
    profile: Annotated[
        Literal["paper", "release"] | None,
        typer.Option(help="The paper's rules, or the released code's; release-... presets imply release."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help=f"Base model: {', '.join(base_names())}, or FILE.py of your own; list says what they are."),
    ] = None,
    generator: Annotated[
        str | None,
        typer.Option(
            help="Of pseudo labels: segment, attention, class-activation, uniform, distribution-aware, fused, oracle, "
            "or FILE.py of your own; list says what they are."
        ),
    ] = None,
    iterations: Annotated[int | None, typer.Option(help="Models to train: M_0 .. M_(N-1).")] = None,
    student_from: Annotated[
        int | None,
        typer.Option(metavar="N", help="Iterations from M_N on are a student: a detector that learns segments."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs an iteration.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything that is drawn.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    run: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Folder of the run; runs/DATE-TIME if left out.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --run.")] = False,
    study: Annotated[
        Literal["generators-beta", "bases"] | None,
        typer.Option(
            help="Train many runs into --run: every generator with every β (Tables 1 and 2); every base model, which "
            "is alone and refined (Table 5)."
        ),
    ] = None,
    betas: Annotated[
        str | None,
        typer.Option(metavar="B,B,...", help="Of generators-beta: its values of β; Table 1's 1,2,4,8,16 if left out."),
    ] = None,
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
    leave_out_unlabelled: Annotated[
        bool, typer.Option("--leave-out-unlabelled", help="Go on without the videos that have no label.")
    ] = False,
    negatives: Annotated[
        bool, typer.Option("--negatives", help="Videos without a label have no action: train them as background.")
    ] = False,
    show_config: Annotated[
        bool, typer.Option("--show-config", help="Print the resolved settings as TOML, and end.")
    ] = False,
    _version: VersionOption = False,
) -> None:
    """Train a weakly-supervised temporal action localization model, refined over several iterations.

    Without validation files or subsets a fifth of the videos is held out for validation. Training uses video-level
    labels only. Times in the label files are read for the scores shown, and for nothing else.
    """
    try:
        from refineloc.training.settings.config import GENERATORS, described_toml, parse_assignment, resolve
        from refineloc.training.settings.given import given_layers, keyword_settings
        from refineloc.training.settings.model import base_lines
        from refineloc.training.settings.own_files import OWN_PAGES
        from refineloc.training.settings.presets import PRESETS
        from refineloc.training.settings.section import Layer
    except ImportError as error:
        raise MissingExtraError(_LINE) from error

    if preset == "list":
        print("\n".join([*PRESETS, "none"]))
        return
    if "list" in (base, generator):
        for name, line in (base_lines() if base == "list" else GENERATORS).items():
            print(f"{name:<20}{line}")
        print(f"{'FILE.py':<20}one of your own ({OWN_PAGES['base' if base == 'list' else 'generator']})")
        return
    options = keyword_settings(
        preset=preset,
        profile=profile,
        base=base,
        generator=generator,
        iterations=iterations,
        epochs=epochs,
        seed=seed,
        student_from=student_from,
    )

    def layers() -> list[Layer]:
        further = map(parse_assignment, assignments or [])
        # A study trains the paper's tables.
        return given_layers("command line", config, options, *further, default=not study)

    if show_config:
        print(described_toml(*layers()), end="")
        return
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1  # torchrun has started several processes

    of_a_study = {"betas": betas, "seeds": seeds, "jobs": jobs}

    @functools.cache
    def settings() -> Any:
        if features is None or labels is None:
            raise InputError("give training features and labels (see --help)")
        _check(run, resume, fps, memory, several)
        if negatives and leave_out_unlabelled:
            raise ConfigError("--negatives: goes without --leave-out-unlabelled")
        if study is not None:
            _check_study(study, run, base, generator, betas, assignments or [], several)
        elif name := next((name for name, value in of_a_study.items() if value is not None), None):
            raise ConfigError(f"--{name}: of a study alone; give --study generators-beta too, or leave it out")
        return resolve(*(layer.settings for layer in layers()))

    def settings_of(base: str) -> Any:
        return resolve(*(layer.settings for layer in layers()), {"model": {"base": base}})

    if not several:
        # At once: torch takes seconds to load, and most mistakes are found without it.
        settings()
    try:
        from refineloc.training.data.inputs import Files
        from refineloc.training.machine.parallel import one_voice
        from refineloc.training.train_run import print_iterations, train_run
    except ImportError as error:
        raise MissingExtraError(f"{_LINE} ({error})") from error

    files = Files(
        features or Path(),  # `settings` refuses None
        labels or Path(),
        val_features,
        val_labels,
        fps,
        allow_missing,
        subset=subset,
        val_share=val_share,
        val_seed=val_seed,
        val_subset=val_subset,
        allow_leaks=allow_leaks,
        unlabelled="negatives" if negatives else "leave-out" if leave_out_unlabelled else "refuse",
    )
    folder = None if run is None else Path(run)
    with _interrupted(folder), one_voice():
        if study is not None and folder is not None and not several:
            of_all, of_base = settings(), settings_of if study == "bases" else None
            _study(of_all, of_base, files, folder, betas, seeds, jobs, device=device, memory=memory, resume=resume)
        else:
            folder = folder or Path("runs") / time.strftime("%Y%m%d-%H%M%S")
            print_iterations(train_run(settings, files, folder, device=device, resume=resume, memory_gib=memory))


def _check(run: str | None, resume: bool, fps: float | None, memory: float | None, several: bool) -> None:
    """Refuse values of options that are no settings."""
    if run is not None and not run.strip():
        raise ConfigError("--run: expected the name of a folder, got nothing")
    if resume and run is None:
        raise ConfigError("--resume: give the run to go on with as --run NAME")
    if memory is not None and not 0 <= memory < math.inf:
        raise ConfigError(f"--memory: expected 0 or more GiB, got {memory:g}")
    if fps is not None and not 0 < fps < math.inf:
        raise ConfigError(f"--fps: expected frames a second above 0, got {fps:g}")
    if several and run is None:
        raise ConfigError("several processes need one folder: give --run NAME")


def _check_study(
    study: str,
    run: str | None,
    base: str | None,
    generator: str | None,
    betas: str | None,
    assignments: Sequence[str],
    several: bool,
) -> None:
    """Refuse what a study has values of its own for. A settings file may have them: it has everything."""
    if several:
        raise ConfigError("--study: starts its own processes (--jobs); run it without torchrun")
    if study == "bases":
        given, all_of, keys = base, "base", {"model.base": "base models"}
        if betas is not None:
            raise ConfigError("--betas: of --study generators-beta alone; set pseudo.beta, or leave it out")
    else:
        whole = "generators with every β of --betas"
        given, all_of, keys = generator, "generator", {"pseudo.generator": whole, "pseudo.beta": whole}
    if given is not None or run is None:
        what = "base models" if study == "bases" else "generators"
        raise ConfigError(f"--study: trains all {what}, into a folder of its own: --run NAME, no --{all_of}")
    for name, kind in ((base, "base models"), (generator, "generators")):
        if (name or "").endswith(".py"):
            raise ConfigError(f"--study: trains in processes of its own, which {kind} of your own do not reach")
    for text in assignments:
        key = text.partition("=")[0].strip()
        if key in keys:
            raise ConfigError(f"--set {key}: a study trains all {keys[key]}; leave it out")


def _study(
    config: Any,
    config_of_base: Callable[[str], Any] | None,
    files: Any,
    folder: Path,
    betas: str | None,
    seeds: str | None,
    jobs: int | None,
    *,
    device: str,
    memory: float | None,
    resume: bool,
) -> None:
    """Of base models with `config_of_base`, otherwise of generators and β."""
    from refineloc.training.machine.device import choose_device, feature_budget
    from refineloc.training.study.bases import run_bases
    from refineloc.training.study.grid import BETAS, Grid
    from refineloc.training.study.run_study import run_study
    from refineloc.training.train_run import enough_memory

    chosen = choose_device(device)
    with enough_memory(chosen):
        grid = Grid.parse(betas or BETAS, str(config.training.seed) if seeds is None else seeds)
        further: dict[str, Any] = {
            "device": device,
            "at_a_time": jobs if jobs is not None or chosen.type == "cpu" else 1,
            "memory": feature_budget(memory),
            "resume": resume,
        }
        if config_of_base is not None:
            run_bases(config_of_base, grid.seeds, files, folder, **further)
        else:
            run_study(config, grid, files, folder, **further)


@contextlib.contextmanager
def _interrupted(folder: Path | None) -> Iterator[None]:
    """Ctrl-C ends with one line, which says how the run goes on."""
    from refineloc.training.study.grid import settings_file

    try:
        yield
    except KeyboardInterrupt:
        begun = folder is not None and (RunFolder(folder).is_run or settings_file(folder).is_file())
        if os.environ.get("RANK", "0") == "0":
            note(f"interrupted; the same command with --resume goes on with {folder}" if begun else "interrupted")
        raise typer.Exit(130) from None


def main() -> NoReturn:
    """Entry point of the console script."""
    keep_freed_memory()
    # OpenMP threads that wait for each other by spinning lose most of their time where other programs use the cores.
    # Read when torch is loaded, which this module does later.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    run_app(
        app,
        {
            "allow_leaks": "--allow-leaks",
            "allow_missing": "--allow-missing",
            "base": "--base FILE",
            "generator": "--generator FILE",
            "betas": "--betas B,B,...",
            "device": "--device NAME",
            "folder": "--run NAME",
            "memory": "--memory GIB",
            "memory_gib": "--memory GIB",
            "resume": "--resume",
            "seeds": "--seeds S,S,...",
            "setting": "--set KEY=VALUE",
            "subset": "--subset NAME",
            "unlabelled": "--leave-out-unlabelled, --negatives",
            "val_features": "--val-features FILE --val-labels FILE",
            "val_labels": "--val-labels FILE",
            "val_subset": "--val-subset NAME",
            "settings": "--show-config prints a file to begin with",
        },
        groups=GROUPS,
    )


if __name__ == "__main__":
    main()
