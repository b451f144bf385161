"""`refineloc-export`: a trained iteration, or a released checkpoint, as one ONNX file."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from refineloc.export.card import CARD, check_card, write_card
from refineloc.runtime.cli.common import VersionOption, new_app, note, run_app
from refineloc.runtime.errors import ConfigError, MissingExtraError, counted
from refineloc.runtime.files import check_writable, is_stdout, is_stream
from refineloc.runtime.segments.values import POINT_SCORES, SNIPPET_SCORES

if TYPE_CHECKING:
    from refineloc.evaluation.rules import RuleComparison
    from refineloc.export.write import Written

__all__ = ["main"]

app = new_app("refineloc-export")
OUT = Path("model.onnx")

# Of the options in the help.
GROUPS = {
    "What to export": ("iteration", "single", "checkpoint", "classes", "preset", "base"),
    "The file": ("out", "precision", "licence", "card"),
    "Comparison with the trained model": ("features", "labels", "allow_loss"),
    "A backbone for films": ("backbone", "weights", "assignments"),
}


@app.command()
def export(
    run: Annotated[
        Path | None,
        typer.Argument(
            help="Folder of a run; with --card also a model file. [default: the newest under runs/]", show_default=False
        ),
    ] = None,
    iteration: Annotated[
        str | None,
        typer.Option(
            "--iter",
            metavar="N|best",
            help="Iteration to export; best: chosen without times (docs/how-to/training.md). [default: the last]",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="ONNX file to write; - is stdout.")] = OUT,
    precision: Annotated[
        Literal["fp32", "fp16", "int8"],
        typer.Option(help="Of weights and products; int8 is the fastest on a CPU, fp16 is for GPUs."),
    ] = "fp32",
    single: Annotated[
        bool,
        typer.Option("--single", help="Of several models of an iteration the one of the lowest validation loss."),
    ] = False,
    checkpoint: Annotated[
        Path | None, typer.Option(help="A checkpoint that the paper's authors released, instead of a run.")
    ] = None,
    classes: Annotated[
        Path | None, typer.Option(help="With --checkpoint: its classes, one a line, or a labels CSV.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="With --checkpoint: settings for what it does not state itself.")
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(help="Features to compare the file with the trained model on, instead of the run's."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Ground truth of these features, to compare mAP, instead of the run's.")
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A backbone for films instead of a run: torchvision:r2plus1d_18, s3d, mvit_v2_s or swin3d_t, or "
            "FILE.py:FUNCTION of a function that gives a torch module (it is run).",
        ),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="With --backbone: a state dict, .pth or .safetensors.")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="With --backbone, repeatable: frames, stride, fps, size, short_side, mean, std, layout, source, "
            "licence; or samples, rate and stride of sound.",
        ),
    ] = None,
    base: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The run's base model, where it is a file of your own.")
    ] = None,
    allow_loss: Annotated[
        bool, typer.Option("--allow-loss", help="Write the file even where it is too far from the trained model.")
    ] = False,
    licence: Annotated[
        str,
        typer.Option(metavar="NAME", help="Of the model, such as CC-BY-4.0; the file keeps it.", show_default=False),
    ] = "",
    card: Annotated[
        bool,
        typer.Option("--card", help=f"Write {CARD} beside the file: a model card, from what the file says of itself."),
    ] = False,
    _version: VersionOption = False,
) -> None:
    """Write a trained model as one ONNX file that holds all that detection needs.

    The file is compared with the trained model on the run's validation features, if they still exist. The differences
    are printed, and written into the file.
    """
    if card and run is not None and run.suffix.lower() == ".onnx":
        given = (iteration, checkpoint, classes, preset, features, labels, backbone, weights, assignments, base)
        if any(given) or single or licence or allow_loss or out != OUT or precision != "fp32":
            raise ConfigError(f"--card of {run}, which is a model file, goes without other options")
        print(f"{write_card(run)}: the card of {run}")
        return
    if card and is_stream(out):
        raise ConfigError("--card goes with a file: it is written beside it")
    if backbone is not None:
        if licence or card:
            raise ConfigError("--licence and --card are of models; a backbone takes --set licence=NAME")
        if run is not None or iteration is not None or checkpoint is not None or single or precision != "fp32":
            raise ConfigError("--backbone goes without RUN, --iter, --checkpoint, --single and --precision")
        _export_backbone(backbone, weights, assignments or [], out)
        return
    if weights is not None or assignments:
        raise ConfigError(f"{'--set' if weights is None else '--weights'} goes with --backbone")
    if checkpoint is None:
        for option, value in (("--classes", classes), ("--preset", preset)):
            if value is not None:
                raise ConfigError(f"{option} goes with --checkpoint; a run knows its own")
    elif run is not None or iteration is not None or single or base is not None:
        raise ConfigError("--checkpoint goes without RUN, --iter, --single and --base")
    elif classes is None:
        raise ConfigError("--checkpoint needs --classes FILE: a checkpoint does not hold the names of its classes")
    number = _iteration(iteration)
    if labels is not None and features is None:
        raise ConfigError("--labels goes with --features")
    _check_start(out)
    if card:
        check_card(out)
    from refineloc.export.library import sample_of_files
    from refineloc.export.sources import from_checkpoint, from_run
    from refineloc.export.write import write_model
    from refineloc.training.settings.own_files import name_own

    if base is not None:
        name_own(str(base), "base")
    if checkpoint is not None and classes is not None:
        trained = from_checkpoint(checkpoint, classes, preset)
    else:
        trained = from_run(run, number, single=single)
    sample = sample_of_files(trained, features, labels)
    for warning in trained.warnings:
        note(f"warning: iteration {trained.metadata.iteration}: {warning}")
    metadata = replace(trained.metadata, licence=licence)
    written = write_model(out, trained.model, metadata, sample, precision=precision, allow_loss=allow_loss)
    (note if is_stdout(out) else print)(_table(out, written))
    for problem in written.beyond:
        note(f"warning: {problem}")
    if card:
        print(f"{write_card(out)}: its card")


def _check_start(out: Path) -> None:
    check_writable(out, suffixes=(".onnx",))
    missing = [name for name in ("torch", "onnx", "onnxscript", "pydantic", "safetensors") if find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"refineloc-export needs {', '.join(missing)}: pip install 'refineloc[train,cpu]'")


def _export_backbone(name: str, weights: Path | None, assignments: list[str], out: Path) -> None:
    _check_start(out)
    from refineloc.export.backbone import export_backbone, export_sound_backbone, read_options
    from refineloc.export.named_backbones import find_backbone

    options = read_options(assignments)
    named = find_backbone(name, weights)
    write = export_sound_backbone if "samples" in options else export_backbone
    written = write(named.module, out, **({"source": name} | dict(named.options) | options))
    metadata = written.metadata
    unit = "frames" if metadata.kind == "video" else "samples"
    rate = f"{metadata.fps:g} {unit} a second" if metadata.fps else "each film's own rate"
    shape = " x ".join(map(str, metadata.size))
    (note if is_stdout(out) else print)(
        f"{out}: backbone, {metadata.source}, {written.size / 1e6:.2f} MB\n"
        f"  takes {metadata.snippet_frames} {unit} every {metadata.stride_frames}, at {rate}"
        + (f", {shape} pixels{' on the shorter side' if len(metadata.size) == 1 else ''}" if shape else "")
        + f"\n  gives {metadata.width} features; largest difference from the module {written.difference:.1e} of the "
        f"largest\n  identity {metadata.identity}"
    )


def _iteration(text: str | None) -> int | Literal["best"] | None:
    if text is None or text == "best":
        return None if text is None else "best"
    if not (text.isascii() and text.isdecimal()):
        raise ConfigError(f"--iter: expected the number of an iteration, or best, got {text!r}")
    return int(text)


def _table(out: Path, written: "Written") -> str:
    metadata = written.metadata
    parity = metadata.parity
    assert parity is not None  # for the type checker: write_model always measures
    size = f"{written.size / 1e6:.2f} MB" if written.size >= 1e6 else f"{written.size / 1e3:.1f} kB"
    where = f"{parity.source} ({counted(parity.videos, 'video')}, {counted(parity.snippets, 'snippet')})"
    lines = [
        f"{out}: {metadata.base} iteration {metadata.iteration}, {len(metadata.classes)} classes, "
        f"{metadata.width} features, {metadata.precision}, {size}",
        f"  compared with the trained model on {where}",
        f"  {'output':<14}largest difference",
    ]
    for name in SNIPPET_SCORES + POINT_SCORES:
        if (difference := getattr(parity, name)) is not None:  # points are of students alone
            lines.append(f"  {name:<14}{difference:.1e}")
    lines.append(f"  {'detections':<14}{parity.detections}: {parity.lost} lost, {parity.gained} gained")
    if parity.reference_map is not None and parity.map is not None:
        change = 100 * (parity.map - parity.reference_map)
        lines.append(f"  {'average mAP':<14}{100 * parity.reference_map:.2f} -> {100 * parity.map:.2f} ({change:+.2f})")
    if written.streaming is not None:
        lines.append(_streaming_line(written.streaming))
    return "\n".join(lines)


def _streaming_line(comparison: "RuleComparison") -> str:
    """What the rule for streaming loses against the file's own."""
    if comparison.map is not None and comparison.other_map is not None:
        change = 100 * (comparison.other_map - comparison.map)
        against = f"average mAP {100 * comparison.map:.2f} -> {100 * comparison.other_map:.2f} ({change:+.2f})"
    else:
        against = f"mean best tIoU {comparison.agreement:.2f} (no times are known)"
    counts = f"{counted(comparison.detections, 'detection')} -> {comparison.other_detections}"
    return f"  {'streaming':<14}{against}, {counts}: by its own rule, as a running video has it"


def main() -> NoReturn:
    """Entry point of the console script."""
    options = {
        "preset": "--preset NAME",
        "allow_loss": "--allow-loss",
        "weights": "--weights FILE",
        "base": "--base FILE",
    }
    run_app(app, options, groups=GROUPS)


if __name__ == "__main__":
    main()
