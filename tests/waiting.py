"""Waiting for what happens in another thread, process or browser, however slow the machine is."""

import time
from collections.abc import Callable

LAST_RESORT_S = 600.0  # what has not happened by then never will


def wait_until(condition: Callable[[], object], why: str) -> None:
    """Wait until the condition holds."""
    last = time.monotonic() + LAST_RESORT_S
    while not condition():
        assert time.monotonic() < last, f"waited in vain: {why}"
        time.sleep(0.002)
