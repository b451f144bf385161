"""Processes that do not outlive their parent, and the blocks of a job in them."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from refineloc.runtime.errors import EngineError, RefineLocError
from refineloc.runtime.jobs.blocks import Block, Outcome, Step, Work
from refineloc.runtime.jobs.parts import write_part

__all__ = ["TRIES", "in_processes", "start_process", "videos_of", "work_on"]

_CONTEXT = multiprocessing.get_context("spawn")
TRIES = 3  # of a block whose process ends


def start_process(target: Callable[..., None], *arguments: Any, name: str | None = None) -> SpawnProcess:
    """Start a new Python that calls `target`; it ends when this process does, also where this one is killed.

    All processes of a terminal get Ctrl-C. Only the parent takes it: it ends the others, which start without it.
    """
    process = _CONTEXT.Process(target=_call, args=(target, *arguments), name=name, daemon=True)
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        process.start()
        return process
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return process


def in_processes(work: Work, blocks: Sequence[Block], workers: int) -> Generator[Step]:
    """Give each process a block, and the next one when that is done (see `run_blocks`).

    The block of a process that ended goes to another.
    """
    waiting = deque(blocks)
    running: dict[Connection, tuple[SpawnProcess, Block]] = {}
    ends: Counter[str] = Counter()

    def give(connection: Connection, process: SpawnProcess) -> None:
        block = waiting.popleft()
        running[connection] = process, block
        with contextlib.suppress(OSError):  # a process that has ended: `recv` says so
            connection.send(block)

    def start() -> None:
        connection, its_end = multiprocessing.Pipe()
        process = start_process(_serve, work, its_end)
        its_end.close()  # so that the end of the process is that of the pipe
        give(connection, process)

    try:
        for _ in range(min(workers, len(blocks))):
            start()
        while running:
            for connection in wait(list(running)):
                assert isinstance(connection, Connection)
                process, block = running.pop(connection)
                try:
                    answer = connection.recv()
                except (EOFError, OSError):
                    connection.close()
                    process.join()
                    ends[block.part.name] += 1
                    if ends[block.part.name] == TRIES:
                        raise EngineError(
                            f"{block.part}: the process of its videos, {videos_of(block)}, ended {TRIES} times "
                            f"(exit code {process.exitcode})"
                        ) from None
                    waiting.appendleft(block)
                    start()
                    continue
                if isinstance(answer, BaseException):
                    raise answer
                if waiting:
                    give(connection, process)
                else:
                    connection.close()
                yield Step(len(answer), answer)
    finally:
        for process, _ in running.values():
            process.kill()  # parts survive it
        for process, _ in running.values():
            process.join()


def _call(target: Callable[..., None], *arguments: Any) -> None:
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    target(*arguments)


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()  # also where the parent is killed: its end of a pipe is closed then
    os._exit(1)


def videos_of(block: Block) -> str:
    """The first and the last video of a block, for messages."""
    return " to ".join(map(repr, dict.fromkeys((*block.names[:1], *block.names[-1:]))))


def work_on(work: Work, block: Block) -> Sequence[Outcome] | Exception:
    """Write the part of a block; gives its outcomes, or the error that ends the job."""
    try:
        *_, last = write_part(block, work.process(block))
    except (RefineLocError, MemoryError) as error:
        return error
    return last.written


def _serve(work: Work, connection: Connection) -> None:
    """What a process does: blocks, until there are no more."""
    while True:
        try:
            block = connection.recv()
        except (EOFError, OSError):
            return
        answer = work_on(work, block)
        with contextlib.suppress(OSError):  # the parent has ended
            connection.send(answer)
