"""Doing the blocks of a job: in this process, in some of its own, or in Ray."""

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

from refineloc.runtime.jobs.blocks import Block, Step, Work
from refineloc.runtime.jobs.parts import write_part

if TYPE_CHECKING:
    from refineloc.runtime.jobs.actors import Actors

__all__ = ["run_blocks"]


def run_blocks(work: Work, blocks: Sequence[Block], *, workers: "int | Actors" = 1) -> Generator[Step]:
    """Do blocks, and write their parts.

    Args:
        work: what is done.
        blocks: those that are not done yet.
        workers: processes, with 1 this one works; or Ray's actors.

    Closing the iterator early ends the processes.

    Yields:
        A step when a part is written; of this process also for each video.

    Raises:
        RefineLocError: what `work` raises; or the process of a block ended three times (EngineError). Parts that are
            written stay.
    """
    if not blocks:
        return
    if workers == 1:
        for block in blocks:
            yield from write_part(block, work.process(block))
    elif not isinstance(workers, int):
        from refineloc.runtime.jobs.actors import in_actors

        yield from in_actors(work, blocks, workers)
    else:
        # Imported here: one process needs no multiprocessing, which takes time to load.
        from refineloc.runtime.jobs.processes import in_processes

        yield from in_processes(work, blocks, workers)
