"""What `refineloc-eval --compare` prints."""

import sys
from collections.abc import Sequence
from typing import NamedTuple

from refineloc.evaluation.average_precision import Evaluation
from refineloc.evaluation.bootstrap import Difference
from refineloc.evaluation.cli.common import print_row
from refineloc.runtime.cli.streams import visible

__all__ = ["Compared", "print_comparison"]


class Compared(NamedTuple):
    """Other detections.

    Attributes:
        name: of the set.
        evaluation: its own scores.
        difference: by how much the main detections are above it.
    """

    name: str
    evaluation: Evaluation
    difference: Difference


def print_comparison(compared: Sequence[Compared]) -> None:
    """A table in percent for each on a terminal; in a pipe tab-separated fractions of 1, a line a threshold."""
    on_terminal = sys.stdout.isatty()
    if not on_terminal:
        print_row(["compared with", "measure", "its mAP", "difference", "95 % low", "95 % high"])
    for each in compared:
        rows = _rows(each)
        if on_terminal:
            _print_table(each, rows)
            continue
        for measure, *values in rows:
            print_row([each.name, measure, *(f"{value:.6f}" for value in values)])


def _rows(compared: Compared) -> list[tuple[str, float, float, float, float]]:
    """Measure, their figure, the difference, its low and its high."""
    evaluation, difference = compared.evaluation, compared.difference
    columns = (evaluation.mAP.tolist(), difference.mAP.tolist(), *difference.mAP_interval.tolist())
    rows = [
        (f"mAP@{tiou:.2f}", theirs, change, low, high)
        for tiou, theirs, change, low, high in zip(evaluation.tious, *columns, strict=True)
    ]
    low, high = difference.average_mAP_interval
    return [*rows, ("average mAP", evaluation.average_mAP, difference.average_mAP, low, high)]


def _print_table(compared: Compared, rows: Sequence[tuple[str, float, float, float, float]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    resamples = compared.difference.resamples
    console.print(Text(f"compared with {visible(compared.name)}, in points; intervals of {resamples} resamples"))
    table = Table()
    for name in ("tIoU", "its mAP", "difference", "95 % interval"):
        table.add_column(name, justify="right")
    for measure, theirs, change, low, high in rows:
        cells = (f"{100 * theirs:.2f}", f"{100 * change:+.2f}", f"{100 * low:+.2f} to {100 * high:+.2f}")
        average = measure == "average mAP"
        table.add_row("average" if average else measure.partition("@")[2], *cells, style="bold" if average else None)
    console.print(table)
