"""`refineloc-eval`: detections and ground truth in, mean average precision out."""

import contextlib
import gc
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer

from refineloc.evaluation.average_precision import Evaluation, evaluate
from refineloc.evaluation.cli.common import (
    DropRepeated,
    Subset,
    Tiou,
    check_regions,
    parse_tious,
    print_row,
    read_named,
    warn_of_odd,
    warn_of_unknown,
)
from refineloc.evaluation.matching import AmbiguousRule, Matching, match_detections
from refineloc.runtime.annotations import read_annotations, read_regions
from refineloc.runtime.cli.common import VersionOption, new_app, run_app
from refineloc.runtime.cli.streams import visible
from refineloc.runtime.detections import Detections, read_detections
from refineloc.runtime.errors import ConfigError, counted
from refineloc.runtime.files import atomic_write, check_writable, is_stdout

__all__ = ["main"]

app = new_app("refineloc-eval")


# Of the options in the help.
GROUPS = {
    "What counts": (),
    "Differences and intervals": ("others", "bootstrap", "seed"),
    "Further measures": ("recall", "min_score", "precision", "calibration"),
    "Output": ("per_class", "json_out"),
}


@app.command()
def evaluate_command(
    detections: Annotated[Path, typer.Argument(help="Detections: ActivityNet JSON, CSV or JSON lines.")],
    ground_truth: Annotated[Path, typer.Argument(help="Annotations with times: released CSV or ActivityNet JSON.")],
    tiou: Tiou = "0.5:0.95:0.05",
    subset: Subset = None,
    drop_repeated: DropRepeated = False,
    keep_empty: Annotated[
        bool,
        typer.Option(
            "--keep-empty",
            help="Keep annotations whose end is not after their start, as the kit does: each counts as missed.",
        ),
    ] = False,
    interpolation: Annotated[
        Literal["voc", "none"],
        typer.Option(help="Of average precision: VOC 2011, as ActivityNet's kit, or none."),
    ] = "voc",
    ambiguous: Annotated[
        Path | None,
        typer.Option(help="Ambiguous regions: lines VIDEO START END, such as THUMOS14's Ambiguous_test.txt."),
    ] = None,
    ambiguous_rule: Annotated[
        AmbiguousRule | None,
        typer.Option(
            help="With --ambiguous: spare false positives that overlap a region (the default), or drop all detections "
            "that do, right ones too, as code that builds on W-TALC's does."
        ),
    ] = None,
    others: Annotated[
        list[str] | None,
        typer.Option(
            "--compare",
            metavar="[NAME=]OTHER",
            help="Other detections of the same videos: the difference to them, with its 95 % interval; repeatable.",
        ),
    ] = None,
    bootstrap: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="95 % confidence intervals from N resamples of the videos; of differences 1000 if left out.",
        ),
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of the resamples.")] = 0,
    recall: Annotated[
        str | None, typer.Option(metavar="AN,...", help="Average recall at AN proposals a video, such as 1,10,100.")
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            help="Precision, recall, F1 and false alarms an hour of the detections of at least this score, at the "
            "lowest tIoU of --tiou.",
        ),
    ] = None,
    precision: Annotated[
        float | None,
        typer.Option(metavar="P", help="The same at the lowest score whose precision is at least this, such as 0.9."),
    ] = None,
    calibration: Annotated[
        bool, typer.Option("--calibration", help="Whether detections are right as often as their scores say.")
    ] = False,
    per_class: Annotated[bool, typer.Option("--per-class", help="Show every class.")] = False,
    json_out: Annotated[
        Path | None,
        typer.Option(
            "--json", help="Write the scores, fractions of 1, here; - is stdout, the table then goes to stderr."
        ),
    ] = None,
    _version: VersionOption = False,
) -> None:
    """Mean average precision as ActivityNet's evaluation kit computes it.

    Two things differ: annotations whose end is not after their start are dropped, unless --keep-empty says otherwise,
    and the order of equal scores is fixed. Videos without
    annotations hold false positives only; classes that the ground truth does not have are left out, and counted in a
    warning.
    """
    if ambiguous_rule is not None and ambiguous is None:
        raise ConfigError("--ambiguous-rule: goes with --ambiguous FILE, which is not given")
    if min_score is not None and precision is not None:
        raise ConfigError("--min-score and --precision: give one of them")
    if precision is not None and not 0 < precision <= 1:
        raise ConfigError(f"--precision {precision:g}: expected a number above 0 and at most 1, such as 0.9")
    tious = parse_tious(tiou)
    numbers = _numbers(recall) if recall is not None else []
    if json_out is not None:
        check_writable(json_out)
    annotations = read_annotations(ground_truth, subset=subset)
    regions = None if ambiguous is None else check_regions(read_regions(ambiguous), annotations, ambiguous)

    def matched(by_video: Mapping[str, Detections]) -> Matching:
        rule = ambiguous_rule or "spare"
        return match_detections(
            by_video,
            annotations,
            tious,
            drop_repeated=drop_repeated,
            keep_empty=keep_empty,
            ambiguous=regions,
            ambiguous_rule=rule,
        )

    compared = read_named(others or [])
    by_video = read_detections(detections)
    warn_of_odd({str(detections): by_video, **compared}, annotations, keep_empty=keep_empty)
    matching = matched(by_video)
    warn_of_unknown(matching, detections)
    interpolated = interpolation == "voc"
    evaluation = evaluate(matching, interpolated=interpolated)
    document = evaluation.to_json()
    # Standard output is for one of the two.
    with contextlib.redirect_stdout(sys.stderr) if json_out and is_stdout(json_out) else contextlib.nullcontext():
        _print(evaluation, per_class)
        if bootstrap:
            from refineloc.evaluation.bootstrap import bootstrap as intervals_of

            intervals = intervals_of(matching, resamples=bootstrap, seed=seed, interpolated=interpolated)
            document["intervals"] = intervals.to_json(evaluation)
            low, high = intervals.average_mAP
            print(f"average mAP, 95 % interval over videos\t{low:.6f}\t{high:.6f}")
            for tiou_value, low, high in zip(evaluation.tious, *intervals.mAP, strict=True):
                print(f"mAP@{tiou_value:.2f}, 95 % interval\t{low:.6f}\t{high:.6f}")
        if numbers:
            from refineloc.evaluation.recall import average_recall

            recalls = average_recall(matching, numbers)
            document["average_recall"] = {
                str(number): float(value) for number, value in zip(numbers, recalls, strict=True)
            }
            for number, value in zip(numbers, recalls, strict=True):
                print(f"AR@{number}\t{value:.6f}")
        if compared:
            matchings = {name: matched(by_video) for name, by_video in compared.items()}
            document["compared"] = _compare(matching, matchings, bootstrap or 1000, seed, interpolated)
        if min_score is not None or precision is not None or calibration:
            document |= _for_use(matching, min_score, precision, calibration, per_class)
    if json_out is not None:
        with atomic_write(json_out) as handle:
            json.dump(document, handle, indent=1)
            handle.write("\n")


def _compare(
    matching: Matching, others: Mapping[str, Matching], resamples: int, seed: int, interpolated: bool
) -> dict[str, Any]:
    """Print how the detections differ from each of the others; gives the part of the JSON, by name."""
    from refineloc.evaluation.bootstrap import compare
    from refineloc.evaluation.cli.comparison import Compared, print_comparison

    compared = []
    for name, other in others.items():
        warn_of_unknown(other, name)
        difference = compare(matching, other, resamples=resamples, seed=seed, interpolated=interpolated)
        compared.append(Compared(name, evaluate(other, interpolated=interpolated), difference))
    print_comparison(compared)
    return {
        each.name: each.evaluation.to_json() | {"difference": each.difference.to_json(each.evaluation)}
        for each in compared
    }


def _for_use(
    matching: Matching, min_score: float | None, precision: float | None, calibrated: bool, per_class: bool
) -> dict[str, Any]:
    """Print operating point and calibration, as asked for; gives their part of the JSON."""
    from refineloc.evaluation.cli.operating import print_calibration, print_points
    from refineloc.evaluation.operating import at_precision, at_score
    from refineloc.evaluation.operating import calibration as calibration_of

    part: dict[str, Any] = {}
    points = None
    if precision is not None:
        points = at_precision(matching, precision)
    elif min_score is not None:
        points = at_score(matching, min_score)
    if points is not None:
        part["operating_point"] = points.to_json()
        print_points(points, per_class)
    if calibrated:
        bins = calibration_of(matching)
        part["calibration"] = bins.to_json()
        print_calibration(bins)
    return part


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--recall {text!r}: expected whole numbers such as 1,10,100") from None


def _print(evaluation: Evaluation, per_class: bool) -> None:
    """Tables in percent on a terminal; in a pipe one tab-separated table of fractions of 1."""
    rows = [("all", evaluation.mAP, int(evaluation.instances.sum()))]
    if per_class:
        rows += [
            (label, evaluation.ap[:, k], int(evaluation.instances[k])) for k, label in enumerate(evaluation.classes)
        ]
    if not sys.stdout.isatty():
        print_row(["class", "instances", "average", *(f"{tiou:.2f}" for tiou in evaluation.tious)])
        for label, values, instances in rows:
            print_row([label, str(instances), *(f"{value:.6f}" for value in (values.mean(), *values))])
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    console.print(
        f"mAP in percent, {counted(len(evaluation.classes), 'class')}, {counted(int(rows[0][2]), 'instance')}",
        highlight=False,
    )
    overall = Table()
    overall.add_column("tIoU", justify="right")
    overall.add_column("mAP", justify="right")
    for tiou, value in zip(evaluation.tious, evaluation.mAP, strict=True):
        overall.add_row(f"{tiou:.2f}", f"{100 * value:.2f}")
    overall.add_row("average", f"{100 * evaluation.average_mAP:.2f}", style="bold")
    console.print(overall)
    if not per_class:
        return
    # As many thresholds as fit on 80 columns: the first, the middle and the last.
    shown = sorted({0, len(evaluation.tious) // 2, len(evaluation.tious) - 1})
    table = Table(title="AP by class, percent", title_justify="left")
    table.add_column("class")
    for name in ("instances", "average", *(f"{evaluation.tious[k]:.2f}" for k in shown)):
        table.add_column(name, justify="right")
    for label, values, instances in rows[1:]:
        table.add_row(
            Text(visible(label)),
            str(instances),
            f"{100 * values.mean():.2f}",
            *(f"{100 * values[k]:.2f}" for k in shown),
        )
    console.print(table)


def main() -> NoReturn:
    """Entry point of the console script."""
    # Nothing here has cycles, and looking for some among the values of a large file takes a tenth of the time.
    gc.disable()
    run_app(app, {"subset": "--subset"}, groups=GROUPS)


if __name__ == "__main__":
    main()
