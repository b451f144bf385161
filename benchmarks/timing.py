"""Times rivals side by side, and prints the table of ratios."""

import time
from collections.abc import Callable
from dataclasses import dataclass

Job = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One comparison: what was done, our time in seconds, and a rival's."""

    subject: str
    rival: str
    ours_s: float
    theirs_s: float
    aim: str = ""


def race(*jobs: Job, budget_s: float = 1.0) -> list[float]:
    """The best time of each job, in seconds. Runs alternate, so that a slow phase of the machine affects all.

    Each job gets about `budget_s` in total: one run if it is slow, up to 2,000 if it is fast.
    """
    best = []
    for job in jobs:
        begin = time.perf_counter()
        job()
        best.append(time.perf_counter() - begin)
    remaining = [min(int(budget_s / once), 2000) for once in best]
    while any(remaining):
        for index, job in enumerate(jobs):
            if remaining[index]:
                begin = time.perf_counter()
                job()
                best[index] = min(best[index], time.perf_counter() - begin)
                remaining[index] -= 1
    return best


def duration(seconds: float) -> str:
    """Three figures and a unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def ratio(row: Row) -> str:
    """How many times our time the rival takes."""
    times = row.theirs_s / row.ours_s
    return f"{times:,.0f}" if times >= 100 else f"{times:.3g}"


def table(rows: list[Row]) -> str:
    """A Markdown table with aligned columns."""
    head = ["subject", "ours", "rival", "theirs", "theirs : ours", "aim"]
    cells = [head]
    cells += [
        [row.subject, duration(row.ours_s), row.rival, duration(row.theirs_s), ratio(row), row.aim] for row in rows
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
