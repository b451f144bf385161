"""A run that is kept in memory: for Python and notebooks, where nobody asked for files."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from refineloc.runtime.detections import Detections
from refineloc.training.data.record import DataRecord
from refineloc.training.members import Network
from refineloc.training.models.base_model import BaseModel
from refineloc.training.run.checkpoint import Checkpoint, NetworkKey
from refineloc.training.settings.config import Config

__all__ = ["RunInMemory"]


class RunInMemory:
    """What `refineloc.training.run.files.Run` keeps in a folder, without the folder. It cannot be resumed.

    Args:
        config, data: what is about to be trained.

    Attributes:
        folder, tensorboard: None.
        records: of the finished iterations.
        epochs: a record an epoch, in the order of training.
        checkpoint: None.
    """

    folder = tensorboard = None
    checkpoint: Checkpoint | None = None
    epochs_behind = 0

    def __init__(self, config: Config, data: DataRecord) -> None:
        self.config, self.data = config, data
        self.records: list[dict[str, Any]] = []
        self.epochs: list[dict[str, Any]] = []
        self._models: list[Any] = []
        self._detections: list[dict[str, Detections] | None] = []

    def begin(self) -> None:
        """Nothing."""

    def add_epoch(self, record: Mapping[str, Any]) -> None:
        """Keep the record of an epoch."""
        self.epochs.append(dict(record))

    def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Nothing: what is in memory ends with the process."""

    def add_network(self, network: Network) -> None:
        """Nothing: its iteration has it."""

    def networks(self, device: torch.device) -> dict[NetworkKey, Network]:
        """None are finished before their iteration."""
        return {}

    def add_iteration(
        self, record: Mapping[str, Any], model: nn.Module, detections: Mapping[str, Detections] | None
    ) -> None:
        """Keep a finished iteration."""
        self.records.append(dict(record))
        # A copy, as `cpu` moves the model itself, which labels for the next iteration.
        self._models.append(copy.deepcopy(model).cpu().eval())
        self._detections.append(None if detections is None else dict(detections))

    def model(self, iteration: int) -> BaseModel:
        """The model of a finished iteration, on the CPU, in evaluation mode."""
        model: BaseModel = copy.deepcopy(self._models[iteration])
        return model

    def detections(self, iteration: int) -> dict[str, Detections] | None:
        """Of a finished iteration, in the validation videos; None where their fps is not known."""
        return self._detections[iteration]
