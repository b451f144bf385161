"""Which iteration of a run to take, where no times say it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Choice", "choose"]


class Choice(NamedTuple):
    """An iteration, and in words why."""

    iteration: int
    reason: str


def choose(records: Sequence[Mapping[str, Any]]) -> Choice | None:
    """The iteration with the highest attention order (`refineloc.training.criterion`), the first of equals.

    Args:
        records: of iterations.json. They have other candidates too: video_loss, contrast, agreement.

    Returns:
        None where a record has no attention order: a run of an earlier version.
    """
    orders = [record.get("attention_order") for record in records]
    if not orders or None in orders:
        return None
    best = int(np.argmax(np.array(orders, dtype=np.float64)))
    return Choice(best, f"its attention order of {orders[best]:.2f} is the highest")
