"""Doing the blocks of a job, in this process or in some of its own."""

from collections.abc import Generator, Sequence

from refineloc.runtime.jobs.blocks import Block, Step, Work
from refineloc.runtime.jobs.parts import write_part

__all__ = ["run_blocks"]


def run_blocks(work: Work, blocks: Sequence[Block], *, workers: int = 1) -> Generator[Step]:
    """Do blocks, and write their parts.

    Args:
        work: what is done.
        blocks: those that are not done yet.
        workers: processes; with 1 this one works.

    Closing the iterator early ends the processes.

    Yields:
        A step when a part is written; of this process also for each video.

    Raises:
        RefineLocError: what `work` raises; or the process of a block ended three times (EngineError). Parts that are
            written stay.
    """
    if workers == 1:
        for block in blocks:
            yield from write_part(block, work.process(block))
    else:
        # Imported here: one process needs no multiprocessing, which takes time to load.
        from refineloc.runtime.jobs.processes import in_processes

        yield from in_processes(work, blocks, workers)
