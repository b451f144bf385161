"""How a run is shown: live on a terminal and in a notebook, plain lines elsewhere, TensorBoard, a table at the end.

Iterations and epochs have the numbers that they have in the files: from 0 on.
"""

import contextlib
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text
from torch.utils.tensorboard import SummaryWriter

from refineloc.runtime.cli.common import note, time_left
from refineloc.runtime.errors import OutputError
from refineloc.runtime.files import writing
from refineloc.training.run.choice import choose
from refineloc.training.run.files import Run, best_iteration
from refineloc.training.run.memory import RunInMemory

__all__ = ["RunReporter", "Silent", "epoch_texts", "in_notebook", "iterations_table"]

_SPLITS = {"train": "train", "val": "validation"}  # as they are named on a terminal, and in metrics.jsonl
_BAR, _BESIDE = 40, 52  # characters of the bar, at most, and of what stands beside it


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this process: what is printed goes to a page, which has no cursor to move."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


class Silent:
    """Shows nothing."""

    def __enter__(self) -> "Silent":
        return self

    def __exit__(self, *_: object) -> None: ...

    def epoch(self, record: Mapping[str, Any]) -> None: ...

    def iteration(self, record: Mapping[str, Any]) -> None: ...

    def warning(self, message: str) -> None: ...


class RunReporter:
    """Shows epochs and iterations live where that can be, writes one line an iteration elsewhere, and TensorBoard.

    Args:
        run: with its settings; what it has already is not waited for; TensorBoard's files go into its folder, if any.
        console: where it is shown; stderr, or a notebook's output, if left out.
        show: show epochs and iterations; without it warnings alone are said.

    Raises:
        OutputError: TensorBoard's files cannot be written; so do all methods.
    """

    def __init__(self, run: Run | RunInMemory, console: Console | None = None, *, show: bool = True) -> None:
        self._config = run.config
        total = run.config.epochs_before(run.config.training.iterations)
        self._done = len(run.records)
        self._seen = 0
        self._began = time.perf_counter()
        self._folder, self._writer = run.tensorboard, None
        if self._folder is not None:
            with writing(self._folder):
                self._writer = SummaryWriter(str(self._folder))
        self._console = console or Console(stderr=True)
        self._progress: _Live | None = None
        self._mAP = ""  # of the last epoch that has it
        self._line: _Line | None = None
        self._show = show
        if show and console is None and in_notebook():
            self._line = _Line(total, run.epochs_behind)
        elif show and (self._console.is_terminal if console else sys.stderr.isatty()):
            bar = BarColumn(min(max(self._console.width - _BESIDE, 8), _BAR))
            columns = (TextColumn("{task.fields[place]}", markup=False), bar, *time_left())
            self._progress = _Live(*columns, console=self._console, transient=True)
            self._task = self._progress.add_task("", total=total, completed=run.epochs_behind, place="begins")

    def __enter__(self) -> "RunReporter":
        if self._progress:
            self._progress.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._progress:
            self._progress.stop()
        if self._line:
            self._line.clear()
        if self._writer is not None and self._folder is not None:
            # Of two errors the first one counts.
            with contextlib.suppress(OutputError) if kind else contextlib.nullcontext(), writing(self._folder):
                self._writer.close()

    def epoch(self, record: Mapping[str, Any]) -> None:
        """After each epoch."""
        settings = self._config.of_iteration(record["iteration"]).training
        of_networks = record.get("member", 0) * settings.epochs
        step = self._config.epochs_before(record["iteration"]) + of_networks + record["epoch"]
        self._write({f"epoch/{name}": value for name, value in record.items()}, step)
        if not (self._progress or self._line):
            return
        if "average_mAP" in record:
            self._mAP = f" mAP {100 * record['average_mAP']:.1f} %"
        elif not record["epoch"]:
            self._mAP = ""
        width = self._console.width if self._progress else 0
        last = {"iteration": settings.iterations - 1, "member": settings.models - 1, "epoch": settings.epochs - 1}
        place, losses = epoch_texts(record, last, width - len(self._mAP))
        if self._line:
            self._line.show(f"{place}  {losses}{self._mAP}")
        elif self._progress:
            self._progress.losses = losses + self._mAP
            self._progress.update(self._task, advance=1, place=place)

    def iteration(self, record: Mapping[str, Any]) -> None:
        """After each iteration."""
        self._seen += 1
        scalars = {f"iteration/{name}": record.get(name) for name in ("validation_loss", "average_mAP")}
        for split, shares in (record.get("pseudo_labels") or {}).items():
            scalars |= {f"pseudo_labels/{split}_{name}": value for name, value in shares.items()}
        self._write(scalars, record["iteration"])
        score = f", average mAP {100 * record['average_mAP']:.2f} %" if "average_mAP" in record else ""
        now = time.perf_counter()
        took = "read, not trained again" if self._seen <= self._done else f"{now - self._began:.0f} s"
        self._began = now
        if not self._show:
            return
        self._say(
            f"iteration {record['iteration']}: validation loss {record['validation_loss']:.4f} "
            f"{_epoch_text(record)}{score}, {took}"
        )

    def warning(self, message: str) -> None:
        """Something the user should know."""
        self._say(f"warning: {message}")

    def _say(self, message: str) -> None:
        if self._progress:
            self._progress.console.print(message, highlight=False, markup=False, emoji=False)
        else:
            if self._line:
                self._line.clear()
            note(message)

    def _write(self, scalars: Mapping[str, Any], step: int) -> None:
        if self._writer is None or self._folder is None:
            return
        with writing(self._folder):
            for name, value in scalars.items():
                if isinstance(value, float):
                    self._writer.add_scalar(name, value, step)
            self._writer.flush()


class _Line:
    """One line of a notebook's output, written anew after each epoch.

    Plain text: rich's live display there needs ipywidgets, and leaves an empty page where that is missing.

    Args:
        total: epochs that are planned.
        behind: of these, those that need not be trained.
    """

    def __init__(self, total: int, behind: int) -> None:
        self._left = total - behind
        self._began, self._trained = time.perf_counter(), 0
        self._length = 0

    def show(self, text: str) -> None:
        self._trained += 1
        left = (time.perf_counter() - self._began) / self._trained * max(self._left - self._trained, 0)
        self._write(f"{text}  {int(left) // 60}:{int(left) % 60:02} left")

    def clear(self) -> None:
        """Leave an empty line, for what is printed next."""
        self._write("")
        print(end="\r")

    def _write(self, text: str) -> None:
        print("\r" + text.ljust(self._length), end="", flush=True)
        self._length = len(text)


class _Live(Progress):
    """The bar, and below it the losses."""

    losses = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.losses:
            yield Text(self.losses, no_wrap=True, overflow="ellipsis")


def _epoch_text(record: Mapping[str, Any]) -> str:
    """Where an iteration's validation loss is from."""
    members = record.get("members", ())
    return f"(mean of {len(members)} models)" if members else f"at epoch {record['best_epoch']}"


def epoch_texts(record: Mapping[str, Any], last: Mapping[str, int], width: int) -> tuple[str, str]:
    """Where the training is, and its losses; with their parts, the video loss and the pseudo loss (without β).

    Args:
        record: its line of metrics.jsonl.
        last: numbers of the last iteration, member and epoch that are planned.
        width: characters that the losses may have; the parts are left out where there is no room for them.
    """
    place = " ".join(f"{name} {record[name]}/{number}" for name, number in last.items() if name in record)
    whole = [f"{name} loss {record[f'{split}_loss']:.2f}" for name, split in _SPLITS.items()]
    if "train_pseudo_loss" not in record:
        return place, " ".join(whole)
    parts = [
        f"{name} {record[f'{split}_loss']:.2f}"
        f" (video {record[f'{split}_video_loss']:.2f} pseudo {record[f'{split}_pseudo_loss']:.2f})"
        for name, split in _SPLITS.items()
    ]
    return place, next(
        (text for text in ("loss: " + " ".join(parts), " ".join(parts)) if len(text) <= width), " ".join(whole)
    )


def iterations_table(records: Sequence[Mapping[str, Any]], best_name: str = "--iter best") -> Table:
    """The table at the end of a run, 80 columns at most: a row an iteration.

    Columns: validation loss and its epoch; attention order; mAP at a few tIoU thresholds and its average over all,
    where times are known; the pseudo labels that the iteration was trained with: share of foreground, precision and
    recall (training videos). Bold: the best by average mAP, where it is known. Below: the one to
    take where it is not, under the name that the reader can ask for it by.
    """
    thresholds = sorted(records[0]["mAP"]) if records and "mAP" in records[0] else []
    shown = [key for key in thresholds if key in ("0.50", "0.70", "0.90")]
    scores = f", mAP in % at tIoU and its mean ({thresholds[0]}:{thresholds[-1]})" if thresholds else ""
    table = Table(
        title=f"Refinement: validation loss{scores}; pseudo labels of the training videos in %",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    columns = ["iter", "loss", "epoch", "order", *(f"@{float(key):g}" for key in shown)]
    columns += ["mean"] if thresholds else []
    for name in [*columns, "fg", "prec.", "recall"]:
        table.add_column(name, justify="right", no_wrap=True)
    known = all("average_mAP" in record for record in records)
    choice = choose(records)
    if choice is None:
        best = best_iteration(records, "mAP" if known else "loss") if records else 0
    else:
        best = best_iteration(records, "mAP") if known else choice.iteration
        table.caption = f"{best_name}, without times: iteration {choice.iteration}, since {choice.reason}"
        table.caption_justify = "left"
    for index, record in enumerate(records):
        cells = [str(record["iteration"]), f"{record['validation_loss']:.4f}", str(record["best_epoch"])]
        cells.append(f"{record['attention_order']:.2f}" if "attention_order" in record else "-")
        cells += [_percent(record.get("mAP", {}), key, 2) for key in shown]
        if thresholds:
            cells.append(_percent(record, "average_mAP", 2))
        pseudo = (record.get("pseudo_labels") or {}).get("train", {})
        cells += [_percent(pseudo, key, 0) for key in ("foreground", "precision", "recall")]
        table.add_row(*cells, style="bold" if index == best else None)
    return table


def _percent(values: Mapping[str, float], key: str, digits: int) -> str:
    return f"{100 * values[key]:.{digits}f}" if key in values else "-"
