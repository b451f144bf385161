"""A run of `refineloc-detect`: blocks that are done or to be done, the folder of its parts, and what is said of it."""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from refineloc.runtime.cli.common import note, progress
from refineloc.runtime.errors import EngineError, FeatureError, InputError, ModelError, RefineLocError, counted
from refineloc.runtime.files import is_stream, make_folder
from refineloc.runtime.jobs.blocks import Block, Work
from refineloc.runtime.jobs.parts import check_job, holds_parts, locked, remove_parts, undone
from refineloc.runtime.jobs.run import run_blocks

if TYPE_CHECKING:
    from refineloc.runtime.jobs.actors import Actors

__all__ = ["SHOWN", "Run", "beside", "do_blocks", "errors_line"]

SHOWN = 20  # errors of videos, before the last line


@dataclass(slots=True)
class Run:
    """How far a run is.

    Attributes:
        folder: of its parts.
        done: number of videos whose detections are in a part.
        errors: why others have none.
        rate: videos a second, for the message at the end.
    """

    folder: Path
    done: int = 0
    errors: dict[str, str] = field(default_factory=dict)
    rate: str = ""


def do_blocks(
    run: Run, work: Work, blocks: list[Block], workers: "int | Actors", also: Callable[[], str] = lambda: ""
) -> None:
    """Do the blocks that are not done yet."""
    check_job(run.folder, blocks[0])
    remaining = undone(blocks, work)
    count, total = (sum(len(block.names) for block in some) for some in (remaining, blocks))
    run.done = total - count
    if run.done:
        note(f"{run.folder}: goes on after {run.done} of {counted(total, 'video')}")
    began = time.perf_counter()
    steps = run_blocks(work, remaining, workers=workers)
    try:
        with progress("detecting", count, "videos", also=also) as advance, contextlib.closing(steps):
            for step in steps:
                advance(step.videos)
                errors = {name: error for name, error in step.written if error}
                run.errors |= errors
                run.done += len(step.written) - len(errors)
    except (KeyboardInterrupt, EngineError):
        if not run.done:  # a part of another process is there before its step is
            run.done = total - sum(len(block.names) for block in undone(blocks, work))
        raise
    seconds = time.perf_counter() - began
    run.rate = f", {count / seconds:.0f} videos/s" if count else ""


def errors_line(run: Run) -> str:
    """The errors of a run's videos for the last line; more than one are shown before it."""
    errors = list(run.errors.values())
    if len(errors) == 1:
        return errors[0]
    for error in errors[:SHOWN]:
        note(f"warning: {error}")
    return f"{counted(len(errors), 'video has', 'videos have')} errors, the first: {errors[0]}"


@contextlib.contextmanager
def beside(out: Path, resume: bool) -> Iterator[Run]:
    """A run with the folder OUT.partial for its parts; of a stream, which has no folder, a temporary one."""
    if is_stream(out):
        with tempfile.TemporaryDirectory(prefix="refineloc-") as temporary:
            yield Run(Path(temporary))
        return
    folder = make_folder(out.with_name(out.name + ".partial"), parents=False)
    with locked(folder):
        fresh = not holds_parts(folder)
        if not fresh and not resume:
            raise InputError(
                f"{folder}: is there from a run that did not end; --resume goes on with it, remove it to begin anew"
            )
        run = Run(folder)
        try:
            with _resume_hint(run):
                yield run
        finally:
            if fresh and not run.done:
                remove_parts(folder)


@contextlib.contextmanager
def _resume_hint(run: Run) -> Iterator[None]:
    """If a run ends early and has videos, say how it can be resumed."""
    try:
        yield
    except (KeyboardInterrupt, MemoryError):
        if run.done:
            note(f"{run.folder}: has {counted(run.done, 'video')}; --resume goes on with them")
        raise
    except RefineLocError as error:
        if not run.done or isinstance(error, ModelError):
            raise
        how = "--resume goes on with them"
        if isinstance(error, FeatureError):  # not without --leave-out: a repaired file would be another input
            how = "--resume --leave-out VIDEO goes on with them, without this one"
        elif isinstance(error, EngineError):
            how = "--resume --batch-snippets N goes on with them, in smaller calls"
        text = f"{error}; {run.folder} has {counted(run.done, 'video')}: {how}"
        raise type(error)(text, parameter=error.parameter) from error
