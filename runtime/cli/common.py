"""Shared by the command-line programs: errors as one line with exit code 2, and progress on a terminal only."""

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from functools import partial, wraps
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from refineloc.runtime.addresses import as_path
from refineloc.runtime.cli.plain import plain_arguments
from refineloc.runtime.cli.streams import end_of_output, prepare_streams, visible
from refineloc.runtime.errors import RefineLocError
from refineloc.runtime.files import reason

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

__all__ = [
    "VersionOption", "fail", "new_app", "note", "notes_to", "parse_numbers", "progress", "run_app", "run_main",
    "time_left",
]  # fmt: skip


def new_app(name: str) -> typer.Typer:
    """A typer application for one program: plain help, no rich tracebacks."""
    return typer.Typer(name=name, pretty_exceptions_enable=False, rich_markup_mode=None)


def run_app(
    app: typer.Typer,
    options: Mapping[str, str] = MappingProxyType({}),
    groups: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> NoReturn:
    """Run a program whose command line typer declares (see `run_main`).

    Args:
        app: with one command.
        options: see `run_main`.
        groups: of the options in the help, see `runtime/cli/help.py`.
    """
    (declared,) = app.registered_commands
    command = declared.callback = _with_addresses(declared.callback) if declared.callback else None
    name = app.info.name or ""
    # A shell that completes a line asks with this variable, and no arguments.
    completing = f"_{name}_complete".replace("-", "_").upper() in os.environ
    arguments = plain_arguments(command, sys.argv[1:]) if command and not completing else None
    if command and arguments is not None:
        run_main(partial(command, **arguments), options)

    from refineloc.runtime.cli.help import grouped

    declared.cls = grouped(groups)
    declared.context_settings = {"help_option_names": ["-h", "--help"]}
    run_main(partial(app, standalone_mode=True, prog_name=name), options)


def _with_addresses(command: Callable[..., None]) -> Callable[..., None]:
    """The command, with paths that are addresses made such (`as_path`): typer makes plain paths of them."""

    @wraps(command)
    def called(**arguments: Any) -> None:
        command(**{name: _with_address(value) for name, value in arguments.items()})

    return called


def _with_address(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_address(each) for each in value]
    return as_path(value) if isinstance(value, Path) else value


def run_main(main: Callable[[], None], options: Mapping[str, str] = MappingProxyType({})) -> NoReturn:
    """Run a program. An error that a user can cause ends in one line on stderr and exit code 2, without a traceback.

    Streams that are closed or full do not end the work (`streams.py`); results that could not be printed are an error
    at the end.

    Args:
        main: the program.
        options: the program's options by parameter of the library, such as {"fps": "--fps X"}. The option is appended
            to an error that names its parameter.
    """
    prepare_streams()
    warnings.showwarning = _show_warning
    code: int | str | None
    try:
        code = _run(main, options)
    except SystemExit as ended:
        code = ended.code
    failure = end_of_output()
    if failure is not None and not code:
        fail(f"standard output: cannot be written: {reason(failure)}")
    sys.exit(code)


def _run(main: Callable[[], None], options: Mapping[str, str]) -> int:
    try:
        main()
    except typer.Exit as ended:
        return ended.exit_code
    except RefineLocError as error:
        option = options.get(error.parameter)
        fail(f"{error} ({option})" if option else error)
    except KeyboardInterrupt:
        note("interrupted")
        return 130
    except MemoryError:
        fail("out of memory; use a smaller batch (see --help), or a machine with more")
    except OSError as error:
        if error.filename is None:
            raise
        fail(f"{error.filename}: {reason(error)}")
    return 0


def fail(message: Any) -> NoReturn:
    """Print one error line and end with exit code 2."""
    note("error: " + " ".join(str(message).split()))
    sys.exit(2)


# Where notes go instead of stderr.
_taken: ContextVar[Callable[[str], None] | None] = ContextVar("notes", default=None)


def note(message: str) -> None:
    """Print to stderr, as stdout is for results; or give it to who takes notes (`notes_to`)."""
    take = _taken.get()
    if take is not None:
        take(message)
        return
    print(visible(message), file=sys.stderr)


@contextlib.contextmanager
def notes_to(take: Callable[[str], None]) -> Iterator[None]:
    """Take what `note` is told in this thread: the library does not print where its caller wants no words."""
    token = _taken.set(take)
    try:
        yield
    finally:
        _taken.reset(token)


@contextlib.contextmanager
def progress(
    what: str, total: int, unit: str, *, also: Callable[[], str] = lambda: ""
) -> Iterator[Callable[[int], None]]:
    """A progress bar with rate and time left on a terminal, nothing in a pipe; gives the function that advances it.

    `also` gives a text that is shown too, and is asked again and again: what is done within a long step.
    """
    if not sys.stderr.isatty():
        yield lambda steps: None
        return
    # Imported here, as a program without a terminal does not need it.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn
    from rich.text import Text

    class Also(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(also())

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{unit}  {{task.fields[rate]}}"),
        Also(),
        *time_left(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total, rate="")

        def advance(steps: int) -> None:
            bar.advance(task, steps)
            speed = bar.tasks[0].speed
            bar.update(task, rate=f"{speed:.0f}/s" if speed else "")

        yield advance


def time_left() -> "tuple[ProgressColumn, ProgressColumn]":
    """The clock of every progress bar: the time that is left."""
    from rich.progress import TextColumn, TimeRemainingColumn

    return TimeRemainingColumn(), TextColumn("left")


def parse_numbers(text: str) -> list[float]:
    """`0.5:0.95:0.05` (FIRST:LAST:STEP, both ends included) or `0.3,0.5` as numbers; empty if it is neither.

    More than 1,000 numbers are refused, as a typing error could ask for hours of work.
    """
    try:
        if ":" not in text:
            return [float(part) for part in text.split(",")]
        first, last, step = (float(part) for part in text.split(":"))
        count = round((last - first) / step) + 1
    except (ValueError, OverflowError, ZeroDivisionError):
        return []
    if not (step > 0 and count <= 1_000):
        return []
    # Rounded to the decimal that is meant: 0.5 + 3 * 0.05 is 0.6500000000000001.
    return [round(first + step * index, 10) for index in range(count)]


def _print_version(show: bool) -> None:
    if show:
        from refineloc import __version__

        print(f"refineloc {__version__}")
        raise typer.Exit


# The option --version, which every program has.
VersionOption = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
]


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning as one line, without the source line that Python adds."""
    note(f"warning: {message}")
