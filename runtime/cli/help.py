"""A program's command as typer reads it: help as plain text with options in groups, Ctrl-C answered."""

from collections.abc import Mapping, Sequence
from typing import Any

from typer import Exit
from typer.core import TyperCommand

from refineloc.runtime.cli.common import note

__all__ = ["Groups", "grouped"]

# Titles, and the parameters of each; one without any takes all that no other names.
Groups = Mapping[str, Sequence[str]]

_ABOUT = "About the program"
_OF_ALL = ("_version", "install_completion", "show_completion", "help")


def grouped(groups: Groups) -> type[TyperCommand]:
    """A command whose help shows the options under the titles of `groups`, in their order."""
    rest = next((title for title, names in groups.items() if not names), "Options")
    titles = {name: title for title, names in groups.items() for name in names} | dict.fromkeys(_OF_ALL, _ABOUT)

    class Grouped(TyperCommand):
        def invoke(self, ctx: Any) -> Any:
            try:
                return super().invoke(ctx)
            except KeyboardInterrupt:
                note("interrupted")  # typer itself ends without a word
                raise Exit(130) from None

        def format_options(self, ctx: Any, formatter: Any) -> None:
            sections: dict[str, list[tuple[str, str]]] = {"Arguments": []}
            sections |= {title: [] for title in (*groups, rest, _ABOUT)}
            for parameter in self.get_params(ctx):
                record = parameter.get_help_record(ctx)
                if record is not None:
                    of_options = titles.get(parameter.name or "", rest)
                    sections["Arguments" if parameter.param_type_name == "argument" else of_options].append(record)
            for title, records in sections.items():
                if records:
                    with formatter.section(title):
                        formatter.write_dl(records)

    return Grouped
