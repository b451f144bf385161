"""A run that was trained, as Python and notebooks have it."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from refineloc.runtime.annotations import Annotations
from refineloc.runtime.detections import Detections
from refineloc.runtime.errors import InputError
from refineloc.training.data.record import DataRecord
from refineloc.training.data.split import Split
from refineloc.training.models.base_model import BaseModel
from refineloc.training.run.choice import best_of
from refineloc.training.run.display import iterations_table
from refineloc.training.run.files import Run
from refineloc.training.run.memory import RunInMemory
from refineloc.training.settings.config import Config

__all__ = ["TrainedIteration", "TrainedRun"]


class TrainedIteration:
    """One iteration of a run.

    Attributes:
        number: from 0 on.
        record: its losses, mAP where times are known, and how good its pseudo labels were (docs/reference/runs.md).
    """

    def __init__(self, run: Run | RunInMemory, number: int) -> None:
        self._run, self.number = run, number
        self.record: Mapping[str, Any] = run.records[number]

    @property
    def model(self) -> BaseModel:
        """The network, a torch module on the CPU, in evaluation mode.

        Raises:
            ModelError: its file is damaged, of a run with a folder.
        """
        return self._run.model(self.number)

    @property
    def detections(self) -> dict[str, Detections]:
        """Of the validation videos, by name.

        Raises:
            InputError: the fps of a video is not known, and seconds need it.
        """
        detections = self._run.detections(self.number)
        if detections is None:
            raise InputError("detections: the fps of a validation video is not known; train with fps", parameter="fps")
        return detections

    def __repr__(self) -> str:
        score = f", average mAP {100 * self.record['average_mAP']:.1f} %" if "average_mAP" in self.record else ""
        return f"<iteration {self.number}: validation loss {self.record['validation_loss']:.4f}{score}>"


class TrainedRun:
    """What `refineloc.training.train` gives: the iterations of a run, and which of them to take.

    Attributes:
        folder: of its files; None of a run in memory.
        val: the validation videos as they were trained with.
        truth: their times, for the scores; None where they are not known.
    """

    def __init__(self, run: Run | RunInMemory, val: Split, truth: Annotations | None) -> None:
        self._run, self.val, self.truth = run, val, truth
        self.folder: Path | None = run.folder

    @property
    def config(self) -> Config:
        """All settings, as they were resolved; `to_toml()` writes them."""
        return self._run.config

    @property
    def data(self) -> DataRecord:
        """What it was trained on."""
        return self._run.data

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the model's outputs."""
        return self._run.data.classes

    @property
    def records(self) -> Sequence[dict[str, Any]]:
        """The record of each iteration, as in iterations.json (docs/reference/runs.md)."""
        return self._run.records

    @property
    def epochs(self) -> list[dict[str, Any]]:
        """A record an epoch, as in metrics.jsonl (docs/reference/runs.md)."""
        return self._run.epochs

    @property
    def iterations(self) -> tuple[TrainedIteration, ...]:
        """All that were trained, M_0 first."""
        return tuple(TrainedIteration(self._run, number) for number in range(len(self.records)))

    @property
    def scores(self) -> list[dict[str, float]]:
        """A flat record an iteration: its losses and, where times are known, mAP by tIoU and its mean."""
        rows = []
        for record in self.records:
            row = {name: value for name, value in record.items() if isinstance(value, (int, float))}
            rows.append(row | {f"mAP@{tiou}": value for tiou, value in record.get("mAP", {}).items()})
        return rows

    @property
    def best(self) -> int:
        """The number of the best iteration, chosen without times (docs/explanation/training.md).

        Raises:
            ModelError: the records do not tell: a run of an earlier version.
        """
        return best_of(self.records, str(self.folder or "the run")).iteration

    @property
    def detections(self) -> dict[str, Detections]:
        """Those of the best iteration in the validation videos, by name.

        Raises:
            InputError: see `TrainedIteration.detections`.
        """
        return self.iterations[self.best].detections

    def __repr__(self) -> str:
        """The table of the iterations."""
        shown = io.StringIO()
        console = Console(file=shown, width=80, color_system=None, force_jupyter=False, force_terminal=False)
        console.print(iterations_table(self.records, "best"))
        return "\n".join(line.rstrip() for line in shown.getvalue().rstrip().split("\n"))
