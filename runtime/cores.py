"""How many cores there are to share."""

import os
from pathlib import Path

__all__ = ["physical_cores"]


def physical_cores() -> int:
    """Cores that this process may use; two hardware threads of one core count once."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    usable = os.sched_getaffinity(0)
    try:
        return len({Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings").read_text() for cpu in usable})
    except OSError:
        return len(usable)
