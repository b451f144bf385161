"""The model of one iteration: one network, or several that are trained one after another and scored as an ensemble."""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

from refineloc.training.fit import Epoch, Labelled, fit
from refineloc.training.models.base_model import BaseModel
from refineloc.training.models.ensemble import Ensemble
from refineloc.training.run.checkpoint import Checkpoint, NetworkKey
from refineloc.training.settings.config import Config

__all__ = ["Network", "train_members"]


@dataclass(frozen=True, slots=True)
class Network:
    """A network of an iteration that was trained.

    Attributes:
        key: which one.
        model: on the device of training.
        record: its validation loss and best epoch.
    """

    key: NetworkKey
    model: BaseModel
    record: dict[str, Any]


def train_members(
    config: Config,
    learned: Callable[[NetworkKey], tuple[Labelled, Labelled]],
    iteration: int,
    finished: Mapping[NetworkKey, Network],
    checkpoint: Checkpoint | None,
    *,
    scored: bool,
) -> Generator[Epoch | Network, None, tuple[BaseModel, dict[str, Any]]]:
    """Train the networks of an iteration that are not finished, an epoch each time the next one is asked for.

    Args:
        config: of the run.
        learned: what a network is trained on, and what chooses its epoch.
        iteration: its number.
        finished: networks of this iteration that need not be trained again.
        checkpoint: of the network that was under way; None where none was.
        scored: give scores with epochs (`fit`).

    Yields:
        Each epoch, and each network where there are several.

    Returns:
        The iteration's model, and its record. Of several networks the validation loss is the mean, the best epoch is
        that of the network with the lowest loss, and `members` has the record of each.
    """
    networks: list[Network] = []
    for member in range(config.training.models):
        key = NetworkKey(member)
        network = finished.get(key)
        if network is None:
            train, val = learned(key)
            begun = checkpoint if checkpoint is not None and checkpoint.network == key else None
            model, record = yield from fit(config, train, val, iteration, begun, network=key, scored=scored)
            network = Network(key, model, record)
            if config.training.models > 1:
                yield network
        networks.append(network)
    if len(networks) == 1:
        return networks[0].model, networks[0].record
    records = [network.record for network in networks]
    best = min(records, key=lambda record: float(record["validation_loss"]))
    loss = sum(record["validation_loss"] for record in records) / len(records)
    members = [{name: value for name, value in record.items() if name != "iteration"} for record in records]
    record = {"iteration": iteration, "validation_loss": loss, "best_epoch": best["best_epoch"], "members": members}
    return Ensemble([network.model for network in networks]), record
