"""What came of a study: Table 1 and Table 2 as Markdown, every iteration of every run as CSV, and both as curves."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from refineloc.runtime.errors import counted
from refineloc.runtime.files import atomic_path, atomic_write
from refineloc.training.run.files import read_epochs, read_records
from refineloc.training.study.curves import draw_curves
from refineloc.training.study.grid import Grid
from refineloc.training.study.summary import Results, Summary

__all__ = ["read_result", "table_lines", "write_csv", "write_tables"]


def read_result(run: Path, iterations: int) -> list[dict[str, Any]]:
    """The records of a finished run, at most so many, each with its training loss.

    Raises:
        ModelError: the run's files are damaged.
    """
    losses = {_epoch_of(line, line["epoch"]): line.get("train_loss") for line in read_epochs(run)}
    records = read_records(run)[:iterations]
    return [record | {"train_loss": _train_loss(record, losses)} for record in records]


def _epoch_of(record: Mapping[str, Any], epoch: int) -> tuple[int, ...]:
    """What identifies an epoch of a run."""
    return record["iteration"], record.get("member", 0), record.get("attempt", 0), epoch


def _train_loss(record: Mapping[str, Any], losses: Mapping[tuple[int, ...], float | None]) -> float | None:
    """The training loss at the best epoch, the mean of an ensemble's members; None where one is not known."""
    networks = [{"iteration": record["iteration"], **member} for member in record.get("members", [record])]
    known = [losses.get(_epoch_of(network, network["best_epoch"])) for network in networks]
    values = [value for value in known if value is not None]
    return sum(values) / len(values) if len(values) == len(known) else None


def write_tables(folder: Path, grid: Grid, results: Results, epochs: int, data: str) -> None:
    """Write table.md, table.csv and curves.png into the study's folder.

    Args:
        folder: of the study.
        grid: rows and columns.
        results: of the finished runs, at least one.
        epochs: an iteration.
        data: the validation labels, for the table's heading.

    Raises:
        OutputError: a file cannot be written.
    """
    summary = Summary(grid, results)
    with atomic_write(folder / "table.md") as file:
        file.write(_markdown(summary, epochs, data))
    by_place = {(cell.generator, f"{cell.beta:g}", cell.seed): records for cell, records in results.items()}
    with atomic_path(folder / "table.csv") as aside:
        write_csv(aside, ("generator", "beta", "seed"), by_place)
    with atomic_path(folder / "curves.png") as aside:
        draw_curves(summary).savefig(aside)


def _markdown(summary: Summary, epochs: int, data: str) -> str:
    grid = summary.grid
    lines = ["# Generators and β", ""]
    seeds = ", ".join(map(str, grid.seeds))
    settings = f"{counted(summary.iterations, 'iteration')} of {counted(epochs, 'epoch')}, " + (
        f"seeds {seeds}: mean ± standard deviation" if len(grid.seeds) > 1 else f"seed {seeds}"
    )
    if summary.scored:
        lines.append(
            f"{summary.measure} in percent on the videos of {data}; {settings}. In brackets the iteration: the one "
            + "with the best mean; where that is 0, the best after it follows. Both are chosen, as the best β is, by "
            + "the mAP that is shown: differences as small as those between seeds say nothing."
        )
    else:
        lines.append(
            f"Validation loss on the videos of {data}, whose times are not known, so there is no mAP; {settings}. In "
            + "brackets the iteration: of those after 0 the one with the lowest. A loss holds β times the loss against "
            + "the run's own pseudo labels: it tells a run that went wrong, but not which generator or β is better."
        )
    lines += ["", f"Iteration 0, before any pseudo label: {summary.text(summary.first)}", ""]
    lines += table_lines(
        ["generator", *(f"β = {beta:g}" for beta in grid.betas)],
        [[name, *(summary.best_text(name, beta) for beta in grid.betas)] for name in grid.generators],
    )
    lines += ["", "By iteration, at each generator's best β:", ""]
    rows = []
    for name in grid.generators:
        beta = summary.best_beta(name)
        if beta is not None:
            values = summary.values[name, beta].T
            texts = [summary.text(seeds) for seeds in values]
            rows.append([name, f"{beta:g}", *texts, *["-"] * (summary.iterations - len(texts))])
    lines += table_lines(["generator", "β", *(f"iteration {k}" for k in range(summary.iterations))], rows)
    for (name, beta), missing in summary.missing.items():
        lines += ["", f"Failed: {name} with β = {beta:g}, seeds {', '.join(map(str, missing))}."]
    return "\n".join(lines) + "\n"


def table_lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown; all columns but the first are numbers."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    return [line(head), "|---|" + "--:|" * (len(head) - 1), *map(line, rows)]


def write_csv(path: Path, names: Sequence[str], results: Mapping[tuple[Any, ...], Sequence[Mapping[str, Any]]]) -> None:
    """A row for each run and iteration; what is not known is empty.

    Args:
        path: of the file.
        names: of the columns that tell the runs apart.
        results: records of the finished runs, by the values of these columns.
    """
    thresholds = sorted({key for records in results.values() for record in records for key in record.get("mAP", {})})
    shares = ("foreground", "precision", "recall")
    known = ["iteration", "best_epoch", "train_loss", "validation_loss", "average_mAP"]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            [*names, *known, *(f"mAP@{key}" for key in thresholds), *(f"pseudo_labels_{name}" for name in shares)]
        )
        for run, records in results.items():
            for record in records:
                pseudo = (record.get("pseudo_labels") or {}).get("train", {})
                row = [*run, *(record.get(name, "") for name in known)]
                row += [record.get("mAP", {}).get(key, "") for key in thresholds]
                writer.writerow(row + [pseudo.get(name, "") for name in shares])
