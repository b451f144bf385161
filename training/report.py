"""How a run is shown: a live display on a terminal, plain lines elsewhere, TensorBoard, a table at the end."""

import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch.utils.tensorboard import SummaryWriter

from refineloc.training.run import Run

__all__ = ["RunReporter", "Silent", "iterations_table"]


class Silent:
    """Tells nobody."""

    def __enter__(self) -> "Silent":
        return self

    def __exit__(self, *_: object) -> None: ...

    def epoch(self, record: Mapping[str, Any]) -> None:
        """After each epoch."""

    def iteration(self, record: Mapping[str, Any]) -> None:
        """After each iteration."""

    def warning(self, message: str) -> None:
        """Something the user should know."""


class RunReporter:
    """Shows epochs and iterations on a terminal, writes one line an iteration elsewhere, and TensorBoard scalars.

    Args:
        iterations, epochs: planned.
        run: what it has already is not waited for; TensorBoard's files go into tensorboard/ in its folder.
    """

    def __init__(self, iterations: int, epochs: int, run: Run) -> None:
        self._iterations = iterations
        self._epochs = epochs
        self._done = len(run.records)
        self._seen = 0
        self._began = time.perf_counter()
        behind = self._done * epochs + (run.checkpoint.epochs if run.checkpoint else 0)
        self._writer = SummaryWriter(str(run.folder / "tensorboard"))
        self._console = Console(stderr=True)
        self._progress: Progress | None = None
        if sys.stderr.isatty():
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("epochs  {task.fields[state]}"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._task = self._progress.add_task("iteration 0", total=iterations * epochs, completed=behind, state="")

    def __enter__(self) -> "RunReporter":
        if self._progress:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress:
            self._progress.stop()
        self._writer.close()

    def epoch(self, record: Mapping[str, Any]) -> None:
        """After each epoch."""
        step = record["iteration"] * self._epochs + record["epoch"]
        for name in ("train_loss", "validation_loss", "learning_rate", "average_mAP"):
            if name in record:
                self._writer.add_scalar(f"epoch/{name}", record[name], step)
        if self._progress:
            state = f"loss {record['train_loss']:.3f}, validation {record['validation_loss']:.3f}"
            if "average_mAP" in record:
                state += f", mAP {100 * record['average_mAP']:.2f} %"
            what = f"iteration {record['iteration']} of {self._iterations}, epoch {record['epoch'] + 1}"
            self._progress.update(self._task, advance=1, description=what, state=state)

    def iteration(self, record: Mapping[str, Any]) -> None:
        """After each iteration."""
        self._seen += 1
        self._writer.add_scalar("iteration/validation_loss", record["validation_loss"], record["iteration"])
        if "average_mAP" in record:
            self._writer.add_scalar("iteration/average_mAP", record["average_mAP"], record["iteration"])
        score = f", average mAP {100 * record['average_mAP']:.2f} %" if "average_mAP" in record else ""
        read = " (read, not trained again)" if self._seen <= self._done else ""
        seconds = time.perf_counter() - self._began
        self._say(
            f"iteration {record['iteration']}: validation loss {record['validation_loss']:.4f} "
            f"at epoch {record['best_epoch']}{score}{read}, {seconds:.0f} s"
        )

    def warning(self, message: str) -> None:
        """Something the user should know."""
        self._say(f"warning: {message}")

    def _say(self, message: str) -> None:
        if self._progress:
            self._progress.console.print(message, highlight=False)
        else:
            print(message, file=sys.stderr, flush=True)


def iterations_table(records: list[dict[str, Any]]) -> Table:
    """The table at the end of a run: a row an iteration.

    Columns: validation loss; mAP at a few tIoU thresholds and its average over all, where times are known; the
    pseudo labels that the iteration was trained with: share of foreground, precision and recall (training videos).
    """
    thresholds = sorted(records[0]["mAP"]) if records and "mAP" in records[0] else []
    shown = [key for key in thresholds if key in ("0.50", "0.70", "0.90")]
    table = Table(title="Refinement, validation videos (mAP in percent)", title_justify="left")
    columns = ["iteration", "val. loss", "epoch", *(f"mAP@{key}" for key in shown)]
    if thresholds:
        columns.append(f"average {thresholds[0]}:{thresholds[-1]}")
    for name in [*columns, "pseudo labels: fg", "precision", "recall"]:
        table.add_column(name, justify="right")
    best = max(range(len(records)), key=lambda k: records[k].get("average_mAP", -records[k]["validation_loss"]))
    for index, record in enumerate(records):
        cells = [str(record["iteration"]), f"{record['validation_loss']:.4f}", str(record["best_epoch"])]
        cells += [f"{100 * record['mAP'][key]:.2f}" for key in shown]
        if thresholds:
            cells.append(f"{100 * record['average_mAP']:.2f}")
        pseudo = (record.get("pseudo_labels") or {}).get("train", {})
        cells += [f"{pseudo[key]:.2f}" if key in pseudo else "-" for key in ("foreground", "precision", "recall")]
        table.add_row(*cells, style="bold" if index == best else None)
    return table
