"""Which iteration of a run to take, where no times say it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from refineloc.runtime.errors import ModelError

__all__ = ["Choice", "best_of", "choose"]


class Choice(NamedTuple):
    """An iteration, and in words why."""

    iteration: int
    reason: str


# Least attention order of an attention in order: the default of training.least_order.
_IN_ORDER = 0.2
# Refined models are a little less sure of a video's class, and better: how far above the lowest a video loss may be.
_ROOM = 0.04


def choose(records: Sequence[Mapping[str, Any]]) -> Choice | None:
    """The last iteration whose attention is in order and whose video loss is near the lowest of those.

    Where none is in order, the most in order. The video loss alone would not do: it falls in a collapse as well.
    docs/explanation/training.md has what the choice costs.

    Where there are students, one of them: neither figure of theirs can be compared with those of a base model, as their
    scores of classes do not sum to 1, and order says little of what finds segments by their ends.

    Args:
        records: of iterations.json (`refineloc.training.criterion` has the figures).

    Returns:
        None where a record has no attention order: a run of an earlier version.
    """
    if not records or any("attention_order" not in record for record in records):
        return None
    orders = [float(record["attention_order"]) for record in records]
    students = [k for k, record in enumerate(records) if record.get("student")]
    ordered = [k for k, order in enumerate(orders) if order >= _IN_ORDER and "video_loss" in records[k]]
    if students or ordered:
        losses = {k: float(records[k]["video_loss"]) for k in students or ordered}
        lowest = min(losses.values())
        last = max(k for k, loss in losses.items() if loss <= (1 + _ROOM) * lowest)
        loss = f"video loss, {losses[last]:.3f}"
        near = f"the lowest {loss}" if losses[last] == lowest else f"a {loss}, near the lowest, {lowest:.3f}"
        return Choice(last, f"it is the last {'student' if students else 'in order'} with {near}")
    best = int(np.argmax(orders))
    return Choice(best, f"its attention order of {orders[best]:.2f} is the highest")


def best_of(records: Sequence[Mapping[str, Any]], where: str) -> Choice:
    """What `choose` gives.

    Raises:
        ModelError: it gives none; the message begins with `where`, the run.
    """
    if not records:
        raise ModelError(f"{where}: has no finished iteration; resume its training first")
    choice = choose(records)
    if choice is None:
        raise ModelError(f"{where}: its records have no attention order to choose by; name an iteration by its number")
    return choice
