"""`refineloc-eval`: detections and ground truth in, mean average precision out."""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from refineloc.evaluation.average_precision import Evaluation, evaluate
from refineloc.evaluation.matching import match_detections
from refineloc.runtime.annotations import read_annotations, read_regions
from refineloc.runtime.cli.common import new_app, note, parse_numbers, run_app, version_callback
from refineloc.runtime.detections import read_detections
from refineloc.runtime.errors import ConfigError
from refineloc.runtime.files import atomic_write, check_writable

__all__ = ["main", "parse_tious"]

app = new_app("refineloc-eval")


@app.command()
def evaluate_command(
    detections: Annotated[Path, typer.Argument(help="Detections: ActivityNet JSON, CSV or JSON lines.")],
    ground_truth: Annotated[Path, typer.Argument(help="Annotations with times: released CSV or ActivityNet JSON.")],
    tiou: Annotated[
        str, typer.Option(help="tIoU thresholds: FIRST:LAST:STEP, or a list such as 0.3,0.5.")
    ] = "0.5:0.95:0.05",
    subset: Annotated[str | None, typer.Option(help="Of an ActivityNet JSON: evaluate on this subset.")] = None,
    drop_repeated: Annotated[
        bool,
        typer.Option(help="Drop annotations repeated within 0.001 s first, as OpenTAD and ActionFormer do."),
    ] = False,
    interpolation: Annotated[
        Literal["voc", "none"],
        typer.Option(help="Of average precision: VOC 2011, as ActivityNet's kit, or none, as W-TALC's."),
    ] = "voc",
    ambiguous: Annotated[
        Path | None,
        typer.Option(help="Lines VIDEO START END: false positives that overlap these regions count neither way."),
    ] = None,
    bootstrap: Annotated[
        int, typer.Option(min=0, metavar="N", help="95 % confidence intervals from N resamples of the videos.")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of the resamples.")] = 0,
    recall: Annotated[
        str | None, typer.Option(metavar="AN,...", help="Average recall at AN proposals a video, such as 1,10,100.")
    ] = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="Show every class.")] = False,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the scores, fractions of 1, here.")] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]FILE", help="Other detections, as of earlier iterations, to draw beside; repeatable."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What pictures and report call DETECTIONS (default: by its file).")
    ] = None,
    diagnose: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write DETAD's three analyses here: pictures and JSON.")
    ] = None,
    bins: Annotated[
        Literal["auto", "activitynet", "thumos14", "quantile"],
        typer.Option(help="The groups of annotations in the analyses."),
    ] = "auto",
    timeline: Annotated[
        tuple[str, Path] | None,
        typer.Option(metavar="VIDEO OUT", help="Draw one video's time line (.png, .svg or .pdf)."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="With --timeline and --features: draw this model's attention and class scores too."),
    ] = None,
    features: Annotated[Path | None, typer.Option(help="With --timeline and --model: the video's features.")] = None,
    report: Annotated[Path | None, typer.Option(metavar="OUT.html", help="Write a report to look at.")] = None,
    videos: Annotated[
        Path | None, typer.Option(metavar="DIR", help="With --report: video files, which it then opens at a segment.")
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=version_callback, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Mean average precision as ActivityNet's evaluation kit computes it.

    Annotations of length zero are dropped. Videos without annotations hold false positives only; classes that the
    ground truth does not have are left out, and counted in a warning.
    """
    tious = parse_tious(tiou)
    numbers = _numbers(recall) if recall is not None else []
    if json_out is not None:
        check_writable(json_out)
    if (model is None) != (features is None) or (model is not None and timeline is None):
        raise ConfigError("--model and --features: both together, and with --timeline")
    if videos is not None and report is None:
        raise ConfigError("--videos: only with --report")
    if (ambiguous is not None or interpolation != "voc") and (diagnose is not None or report is not None):
        raise ConfigError(
            "--diagnose and --report follow ActivityNet's rules: leave out --ambiguous and --interpolation none"
        )
    drawn = diagnose is not None or timeline is not None or report is not None
    if not drawn and (compare or name is not None):
        raise ConfigError("--compare and --name: only with --diagnose, --timeline or --report")
    if diagnose is None and report is None and bins != "auto":
        raise ConfigError("--bins: only with --diagnose or --report")
    if drawn:
        from refineloc.evaluation.cli import views  # imported here: scores alone stay quick

        # Before the evaluation, which can take minutes: what is wrong is told first, or nothing is done.
        views.check_places(diagnose, timeline, report, videos)
    truth = read_annotations(ground_truth, subset=subset)
    found = read_detections(detections)
    if drawn:
        runs = views.named_runs(name or detections, found, compare or [])
        if timeline is not None:
            views.check_timeline(timeline[0], truth, model, features)
    matching = match_detections(
        found,
        truth,
        tious,
        drop_repeated=drop_repeated,
        ambiguous=read_regions(ambiguous) if ambiguous is not None else None,
    )
    interpolated = interpolation == "voc"
    result = evaluate(matching, interpolated=interpolated)
    document = result.to_json()
    if result.unknown_labels:
        note(f"warning: {result.unknown_labels} detections have a class that {ground_truth} does not have; left out")
    if result.unknown_videos:
        note(f"warning: {result.unknown_videos} videos of {detections} are not in {ground_truth}: false positives")
    _print(result, per_class)
    if bootstrap:
        from refineloc.evaluation.bootstrap import bootstrap as intervals_of

        intervals = intervals_of(matching, resamples=bootstrap, seed=seed, interpolated=interpolated)
        document["intervals"] = intervals.to_json(result)
        print(f"average mAP, 95 % interval over videos\t{intervals.average_mAP[0]:.6f}\t{intervals.average_mAP[1]:.6f}")
        for tiou_value, low, high in zip(result.tious, *intervals.mAP, strict=True):
            print(f"mAP@{tiou_value:.2f}, 95 % interval\t{low:.6f}\t{high:.6f}")
    if numbers:
        from refineloc.evaluation.recall import average_recall

        recalls = average_recall(matching, numbers)
        document["average_recall"] = {str(number): float(value) for number, value in zip(numbers, recalls, strict=True)}
        for number, value in zip(numbers, recalls, strict=True):
            print(f"AR@{number}\t{value:.6f}")
    if json_out is not None:
        with atomic_write(json_out) as handle:
            json.dump(document, handle, indent=1)
            handle.write("\n")
    if drawn:
        chosen = None if bins == "auto" else bins
        matchings = {
            key: matching
            if detected is found
            else match_detections(detected, truth, tious, drop_repeated=drop_repeated)
            for key, detected in (runs.items() if diagnose is not None or report is not None else ())
        }
        if diagnose is not None:
            views.write_diagnoses(diagnose, matchings, bins=chosen)
        if timeline is not None:
            views.write_timeline(*timeline, runs, truth, model=model, features=features)
        if report is not None:
            resamples = bootstrap or views.RESAMPLES
            views.write_report_page(
                report, matchings, truth, bins=chosen, resamples=resamples, seed=seed, videos=videos
            )


def parse_tious(text: str) -> list[float]:
    """`0.5:0.95:0.05` or `0.3,0.5` as thresholds.

    Raises:
        ConfigError: neither form, or a threshold that is not above 0 and at most 1.
    """
    tious = parse_numbers(text)
    if not tious or not all(0 < value <= 1 for value in tious):
        raise ConfigError(f"--tiou {text!r}: expected FIRST:LAST:STEP or a list, of numbers above 0 and at most 1")
    return tious


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--recall {text!r}: expected whole numbers such as 1,10,100") from None


def _print(result: Evaluation, per_class: bool) -> None:
    """Tables in percent on a terminal; in a pipe one tab-separated table of fractions of 1."""
    rows = [("all", result.mAP, int(result.instances.sum()))]
    if per_class:
        rows += [(label, result.ap[:, k], int(result.instances[k])) for k, label in enumerate(result.classes)]
    if not sys.stdout.isatty():
        print("\t".join(["class", "instances", "average", *(f"{tiou:.2f}" for tiou in result.tious)]))
        for label, values, instances in rows:
            print("\t".join([label, str(instances), f"{values.mean():.6f}", *(f"{value:.6f}" for value in values)]))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(f"mAP in percent, {len(result.classes)} classes, {rows[0][2]} instances", highlight=False)
    overall = Table()
    overall.add_column("tIoU", justify="right")
    overall.add_column("mAP", justify="right")
    for tiou, value in zip(result.tious, result.mAP, strict=True):
        overall.add_row(f"{tiou:.2f}", f"{100 * value:.2f}")
    overall.add_row("average", f"{100 * result.average_mAP:.2f}", style="bold")
    console.print(overall)
    if not per_class:
        return
    # As many thresholds as fit on 80 columns: the first, the middle and the last.
    shown = sorted({0, len(result.tious) // 2, len(result.tious) - 1})
    table = Table(title="AP by class, percent", title_justify="left")
    table.add_column("class")
    for name in ("instances", "average", *(f"{result.tious[k]:.2f}" for k in shown)):
        table.add_column(name, justify="right")
    for label, values, instances in rows[1:]:
        table.add_row(label, str(instances), f"{100 * values.mean():.2f}", *(f"{100 * values[k]:.2f}" for k in shown))
    console.print(table)


def main() -> NoReturn:
    """Entry point of the console script."""
    run_app(app)
