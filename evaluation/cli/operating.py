"""What `refineloc-eval` shows of operating points and calibration: tables on a terminal, tab-separated in a pipe."""

import sys
from collections.abc import Sequence

from refineloc.evaluation.cli.common import print_row
from refineloc.evaluation.operating import Calibration, OperatingPoint, OperatingPoints
from refineloc.runtime.cli.common import note
from refineloc.runtime.cli.streams import visible
from refineloc.runtime.errors import counted

__all__ = ["print_calibration", "print_points"]


def print_points(points: OperatingPoints, per_class: bool) -> None:
    """A row for all detections, and one a class where asked for; a warning of what is not reached."""
    rows = [("all", points.total)]
    if per_class:
        rows += points.by_class.items()
    # All fit on 80 columns.
    names = ("min score", *_named("precision", "recall", "F1"), "alarms/h", "right", "wrong")
    what = "" if points.wanted is None else f", the lowest score of precision {points.wanted:g}"
    title = f"operating point at tIoU {points.tiou:.2f}{what}"
    _print(title, ["class", *names], [[label, *_cells(point)] for label, point in rows])
    if points.wanted is None:
        return
    if not points.total.is_reached:
        note(f"warning: precision {points.wanted:g} at tIoU {points.tiou:.2f} is not reached: {_highest(points.total)}")
    missed = [label for label, point in points.by_class.items() if not point.is_reached]
    if missed and per_class:
        few = ", ".join(missed[:3]) + (", ..." if len(missed) > 3 else "")
        note(
            f"warning: precision {points.wanted:g} is not reached in {counted(len(missed), 'class')} ({few}): their "
            "highest is "
            "shown, without a score"
        )


def _highest(point: OperatingPoint) -> str:
    if point.precision is None or point.min_score is None:
        return "there are no detections"
    return f"the highest is {point.precision:.3g}, of scores from {point.min_score:.7g}"


def print_calibration(calibrated: Calibration) -> None:
    """A row a bin of scores, and the expected calibration error."""
    rows = []
    for index, count in enumerate(calibrated.detections.tolist()):
        score, precision = float(calibrated.score[index]), float(calibrated.precision[index])
        shown = [f"{score:.6f}", _fraction(precision)] if count else ["-", "-"]
        rows.append([f"{calibrated.edges[index]:.3g} to {calibrated.edges[index + 1]:.3g}", str(count), *shown])
    _print(
        f"calibration at tIoU {calibrated.tiou:.2f}", ["score", "detections", "mean score", *_named("precision")], rows
    )
    if calibrated.error is not None:
        print(f"expected calibration error\t{calibrated.error:.6f}")
    elif calibrated.detections.sum():
        note("warning: scores outside 0 to 1 have no calibration error; the bins compare them with precision")


def _cells(point: OperatingPoint) -> list[str]:
    score = "-" if point.min_score is None or not point.is_reached else f"{point.min_score:.7g}"
    alarms = "-" if point.false_alarms_an_hour is None else f"{point.false_alarms_an_hour:.2f}"
    counts = (point.true_positives, point.false_positives)
    return [
        score,
        "-" if point.precision is None else _fraction(point.precision),
        _fraction(point.recall),
        _fraction(point.f1),
        alarms,
        *map(str, counts),
    ]


def _named(*names: str) -> list[str]:
    """Short ones, of percent, on a terminal."""
    return [f"{name.replace('ision', '.')} %" for name in names] if sys.stdout.isatty() else [*names]


def _fraction(value: float) -> str:
    """In percent on a terminal, as all figures there."""
    return f"{100 * value:.1f}" if sys.stdout.isatty() else f"{value:.6f}"


def _print(title: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if not sys.stdout.isatty():
        print_row(names)
        for row in rows:
            print_row(row)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for index, name in enumerate(names):
        table.add_column(name, justify="right" if index else "left", no_wrap=index > 0, overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    Console().print(table)
