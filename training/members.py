"""The model of one iteration: one network, or several that are trained one after another and scored as an ensemble."""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

from refineloc.training.fit import Epoch, Labelled, fit
from refineloc.training.models.base_model import BaseModel
from refineloc.training.models.ensemble import as_one
from refineloc.training.run.checkpoint import Checkpoint, NetworkKey
from refineloc.training.settings.config import Config

__all__ = ["Network", "train_members"]


@dataclass(frozen=True, slots=True)
class Network:
    """A network of an iteration that was trained.

    Attributes:
        key: which one.
        model: on the device of training.
        record: its validation loss and best epoch, and the attention order on each split where it was judged.
    """

    key: NetworkKey
    model: BaseModel
    record: dict[str, Any]

    @property
    def order(self) -> float:
        """The lower of its attention orders; it has been judged."""
        return float(min(self.record[name] for name in ("attention_order", "training_order") if name in self.record))


def train_members(
    config: Config,
    learned: Callable[[NetworkKey], tuple[Labelled, Labelled]],
    judged: Callable[[BaseModel], dict[str, float]],
    iteration: int,
    finished: Mapping[NetworkKey, Network],
    checkpoint: Checkpoint | None,
    *,
    restarts: int,
    scored: bool,
) -> Generator[str | Epoch | Network, None, tuple[BaseModel, dict[str, Any]]]:
    """Train the networks of an iteration that are not finished, an epoch each time the next one is asked for.

    Args:
        config: of the run.
        learned: what a network is trained on, and what chooses its epoch.
        judged: the attention order of a network on each split, for the records and for restarts.
        iteration: its number.
        finished: networks of this iteration that need not be trained again.
        checkpoint: of the network that was under way; None where none was.
        restarts: how often a network without order is trained anew, at most.
        scored: give scores with epochs (`fit`).

    Yields:
        Each epoch, each network where there may be several, and warnings as text.

    Returns:
        The iteration's model, and its record. Of several networks the validation loss is the mean, the best epoch is
        that of the network with the lowest loss, and `members` has the record of each.
    """
    least, several = config.training.least_order, config.training.models > 1 or config.training.restarts > 0
    chosen: list[Network] = []
    for member in range(config.training.models):
        attempts: list[Network] = []
        while len(attempts) <= restarts and not (attempts and attempts[-1].order >= least):
            key = NetworkKey(member, len(attempts))
            network = finished.get(key)
            if network is None:
                train, val = learned(key)
                begun = checkpoint if checkpoint is not None and checkpoint.network == key else None
                model, record = yield from fit(config, train, val, iteration, begun, network=key, scored=scored)
                network = Network(key, model, record | judged(model) if several else record)
                if several:
                    yield network
            attempts.append(network)
        best = max(attempts, key=lambda network: network.order) if len(attempts) > 1 else attempts[0]
        if config.training.restarts:
            best.record["attempts"] = len(attempts)
        if len(attempts) > 1 and best.order < least:
            # More of them would cost time and change nothing: the data may be like that.
            restarts = 0
            yield (
                f"iteration {iteration}: no attention in order (attention_order of {least:g}) in {len(attempts)} "
                f"attempts; the best has {best.order:.2f} and is kept, and no other network is trained anew: see "
                "whether training.learning_rate is too high"
            )
        chosen.append(best)
    if config.training.models == 1:
        return chosen[0].model, chosen[0].record
    records = [network.record for network in chosen]
    lowest = min(records, key=lambda record: float(record["validation_loss"]))
    loss = sum(record["validation_loss"] for record in records) / len(records)
    members = [{name: value for name, value in record.items() if name != "iteration"} for record in records]
    record = {"iteration": iteration, "validation_loss": loss, "best_epoch": lowest["best_epoch"], "members": members}
    return as_one([network.model for network in chosen]), record
