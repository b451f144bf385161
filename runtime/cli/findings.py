"""What a program finds when it looks at something: a line each, with its cure."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from refineloc.runtime.cli.streams import visible

__all__ = ["Finding", "Level", "show"]

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        level: "ok"; "warn", the work goes on, though not as it could; "fail", it cannot.
        subject: what was checked.
        result: one line.
        cure: what to do, "" where nothing is to be done.
    """

    level: Level
    subject: str
    result: str
    cure: str = ""


def show(findings: Iterable[Finding]) -> bool:
    """Print findings, as a table on a terminal; gives whether nothing failed."""
    shown = list(findings)
    if sys.stdout.isatty():
        _print_rich(shown)
    else:
        for finding in shown:
            print(f"{finding.level:<4}  {finding.subject:<22}  {visible(' '.join(finding.result.split()))}")
            if finding.cure:
                print(f"{'':<4}  {'':<22}  cure: {visible(finding.cure)}")
    return not any(finding.level == "fail" for finding in shown)


def _print_rich(findings: list[Finding]) -> None:
    # Imported here: a program in a pipe does not pay for it.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    table = Table(box=None, show_header=False, pad_edge=False)
    for finding in findings:
        # Text, so that a bracket in a file's name is not markup.
        result = Text(visible(" ".join(finding.result.split())))
        if finding.cure:
            result.append(f"\ncure: {visible(finding.cure)}", style="bold")
        table.add_row(Text(finding.level, style=colours[finding.level]), Text(finding.subject), result)
    Console().print(table)
