"""What the command-line programs share: errors as one line with exit code 2, and progress on a terminal only."""

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NoReturn

import typer

from refineloc.runtime.errors import RefineLocError

__all__ = ["fail", "new_app", "note", "parse_numbers", "progress", "run_app", "version_callback"]


def new_app(name: str) -> typer.Typer:
    """A typer application for one program: no rich tracebacks, no completion options."""
    return typer.Typer(name=name, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def run_app(app: typer.Typer, options: Mapping[str, str] = MappingProxyType({})) -> NoReturn:
    """Run a program; what a user can cause ends in one line on stderr and exit code 2, never in a traceback.

    Args:
        app: the program.
        options: what the program calls a parameter of the library, such as {"fps": "--fps X"}; appended to errors that
            this parameter would cure.
    """
    warnings.showwarning = _show_warning
    try:
        app(standalone_mode=True)
    except RefineLocError as error:
        option = options.get(error.parameter)
        fail(f"{error} ({option})" if option else error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output (head, less) went away: nothing to tell, and no second error at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except MemoryError:
        fail("out of memory; use a smaller batch (see --help), or a machine with more")
    sys.exit(0)


def fail(message: Any) -> NoReturn:
    """Print one error line and end with exit code 2."""
    print("error: " + " ".join(str(message).split()), file=sys.stderr)
    sys.exit(2)


def note(message: str) -> None:
    """Say what was done, on stderr, so that stdout stays for results."""
    print(message, file=sys.stderr)


@contextlib.contextmanager
def progress(what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """A progress bar with rate and time left on a terminal, nothing in a pipe; gives the function that advances it."""
    if not sys.stderr.isatty():
        yield lambda steps: None
        return
    # Imported here: a program in a pipe does not pay for it.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{unit}  {{task.fields[rate]}}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total, rate="")

        def advance(steps: int) -> None:
            bar.advance(task, steps)
            speed = bar.tasks[0].speed
            bar.update(task, rate=f"{speed:.0f}/s" if speed else "")

        yield advance


def parse_numbers(text: str) -> list[float]:
    """`0.5:0.95:0.05` (FIRST:LAST:STEP, both ends included) or `0.3,0.5` as numbers; empty where it is neither.

    At most 1,000 of them: so that a slip of a digit is an error, not hours of work.
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
    # Rounded as the decimal that was meant: 0.5 + 3 * 0.05 is 0.65, not 0.6500000000000001.
    return [round(first + step * index, 10) for index in range(count)]


def version_callback(show: bool) -> None:
    """The callback of `--version`."""
    if show:
        from refineloc import __version__

        print(f"refineloc {__version__}")
        raise typer.Exit


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning is one line, without the source line that Python adds."""
    print(f"warning: {message}", file=sys.stderr)
