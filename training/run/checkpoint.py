"""The state of a network that is being trained, so that a killed run goes on from its last epochs; no pickle.

Tensors: `model.*`, `average.*` (where weights are averaged), `best.*` (the weights with the lowest validation loss so
far), `adam.I.*` (of the I-th parameter) and the states of the random generators. JSON: everything that is a number.
"""

import contextlib
import copy
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from refineloc.runtime.errors import ModelError
from refineloc.training.models.base_model import BaseModel

__all__ = ["Checkpoint", "Draws", "NetworkKey", "State"]


class NetworkKey(NamedTuple):
    """Which of an iteration's networks.

    Attributes:
        member: of the ensemble (`training.models`).
        attempt: the how many-th at this member; those after 0 are restarts (`training.restarts`).
    """

    member: int = 0
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """As it is kept in a file.

    Attributes:
        tensors: by name, on the device of training.
        numbers: JSON text.
    """

    tensors: dict[str, Tensor]
    numbers: str

    @property
    def epochs(self) -> int:
        """How many epochs it has behind it."""
        return int(json.loads(self.numbers)["epochs"])

    @property
    def network(self) -> NetworkKey:
        """Which network's it is."""
        return NetworkKey(*json.loads(self.numbers)["network"])


class Draws:
    """torch's global generators as one iteration has them: initial weights and dropout draw from them.

    They are this iteration's inside `with draws.active()` only, so that nothing else that draws can change a run.

    Args:
        seed: of all of them.
        device: of training.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(self._devices):
            torch.manual_seed(seed)
            self.states = self._read()

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Draw from them, and remember how far they came."""
        with torch.random.fork_rng(self._devices):
            torch.set_rng_state(self.states["random.cpu"])
            for device in self._devices:
                torch.cuda.set_rng_state(self.states["random.cuda"], device)
            yield
            self.states = self._read()

    def _read(self) -> dict[str, Tensor]:
        states = {"random.cpu": torch.get_rng_state()}
        for device in self._devices:
            states["random.cuda"] = torch.cuda.get_rng_state(device)
        return states


@dataclass(slots=True)
class State:
    """What changes from epoch to epoch.

    Attributes:
        network: which one it is.
        model, optimizer, scheduler: trained so far.
        shuffle: draws the order of the videos.
        draws: all other draws.
        epochs: behind us.
        average: has the moving average of the weights; None where there is none.
        steps: of the optimiser, behind us.
        best_loss, best_epoch, best_weights: of the lowest validation loss so far.
    """

    network: NetworkKey
    model: BaseModel
    optimizer: Optimizer
    scheduler: ReduceLROnPlateau
    shuffle: torch.Generator
    draws: Draws
    average: BaseModel | None = None
    steps: int = 0
    epochs: int = 0
    best_loss: float = math.inf
    best_epoch: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    @property
    def evaluated(self) -> BaseModel:
        """The network that is validated and kept: with the averaged weights where there are such."""
        return self.model if self.average is None else self.average

    def end_step(self, decay: float) -> None:
        """Count a step of the optimiser, and let the average follow the weights.

        The decay begins low, so that the average soon forgets the initial weights: min(decay, (1 + i) / (10 + i)) at
        step i.
        """
        if self.average is not None:
            share = 1 - min(decay, (1 + self.steps) / (10 + self.steps))
            with torch.no_grad():
                torch._foreach_lerp_([*self.average.parameters()], [*self.model.parameters()], share)
        self.steps += 1

    def end_epoch(self, validation_loss: float) -> None:
        """Count an epoch, remember the weights if they are the best so far, and adapt the learning rate."""
        self.scheduler.step(validation_loss)
        if validation_loss < self.best_loss:
            # A copy: state_dict() alone would follow the weights to the last epoch, as in the released code.
            self.best_loss, self.best_epoch = validation_loss, self.epochs
            self.best_weights = copy.deepcopy(self.evaluated.state_dict())
        self.epochs += 1

    def pack(self) -> Checkpoint:
        """All of it."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        if self.average is not None:
            tensors |= {f"average.{name}": tensor for name, tensor in self.average.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best_weights.items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{name}": tensor for name, tensor in moments.items()}
        tensors |= {"random.shuffle": self.shuffle.get_state(), **self.draws.states}
        numbers = {
            "network": self.network,
            "steps": self.steps,
            "epochs": self.epochs,
            "best_loss": self.best_loss,
            "best_epoch": self.best_epoch,
            "learning_rates": [group["lr"] for group in self.optimizer.param_groups],
            "scheduler": self.scheduler.state_dict(),
        }
        # Copies on their device: they are made after every epoch, and most are never written.
        return Checkpoint({name: tensor.detach().clone() for name, tensor in tensors.items()}, json.dumps(numbers))

    def unpack(self, checkpoint: Checkpoint) -> None:
        """Set all of it, bit for bit.

        Raises:
            ModelError: it is not that of such a model.
        """
        try:
            numbers: dict[str, Any] = json.loads(checkpoint.numbers)
            self.steps, self.epochs = numbers["steps"], numbers["epochs"]
            self.best_loss, self.best_epoch = numbers["best_loss"], numbers["best_epoch"]
            self.best_weights = _under(checkpoint.tensors, "best.")
            self.model.load_state_dict(_under(checkpoint.tensors, "model."))
            if self.average is not None:
                self.average.load_state_dict(_under(checkpoint.tensors, "average."))
            moments: dict[int, dict[str, Tensor]] = {}
            for key, tensor in _under(checkpoint.tensors, "adam.").items():
                index, _, name = key.partition(".")
                moments.setdefault(int(index), {})[name] = tensor
            groups = self.optimizer.state_dict()["param_groups"]
            for group, rate in zip(groups, numbers["learning_rates"], strict=True):
                group["lr"] = rate
            self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
            self.scheduler.load_state_dict(numbers["scheduler"])
            self.shuffle.set_state(checkpoint.tensors["random.shuffle"])
            self.draws.states = {name: checkpoint.tensors[name] for name in self.draws.states}
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise ModelError(
                f"the checkpoint does not fit the run's settings: {' '.join(str(error).split())[:200]}; "
                "delete it, and the iteration begins anew"
            ) from error


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
