"""A job without a model, for tests of parts and processes; a module, so that another process can load it."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from refineloc.runtime.errors import EngineError, InputError
from refineloc.runtime.jobs.blocks import Block, Row, Work, plan_blocks
from refineloc.runtime.jobs.processes import work_on


@dataclass(frozen=True)
class UpperCase:
    """Gives the name of a video in capital letters, `bad` as an error.

    Attributes:
        kills: where its process ends, with a file by name in `marks`; that once, or `always`.
        raises: where it raises an EngineError.
    """

    bad: str = ""
    kills: str = ""
    always: bool = False
    marks: Path = Path()
    raises: str = ""

    def process(self, block: Block) -> Iterator[Row]:
        for name in block.names:
            mark = self.marks / f"{name}.ended"
            if name == self.kills and (self.always or not mark.exists()):
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if name == self.raises:
                raise EngineError(f"{name}: out of memory")
            yield {"video": name, "error": "bad"} if name == self.bad else {"video": name, "value": name.upper()}

    def check(self, row: Row, where: str) -> None:
        if row.get("value") != row["video"].upper():
            raise InputError(f"{where}: damaged")


class Niceness(UpperCase):
    """Gives the niceness of the process that does a video."""

    def process(self, block: Block) -> Iterator[Row]:
        for name in block.names:
            yield {"video": name, "value": os.nice(0)}


def job(folder: Path, count: int = 9, *, shard: int = 1, shards: int = 3, **more: str) -> list[Block]:
    """Videos v0, v1, ...; three in a block."""
    videos = {f"v{index}": 10 for index in range(count)}
    return plan_blocks(folder, videos, {"model": "m", **more}, {"who": "me"}, limit=30, shard=shard, shards=shards)


def work_and_linger(work: Work, blocks: Sequence[Block], _actors: object, connection: Connection, _log: str) -> None:
    """Stands for the process that speaks with Ray: does the blocks, says so, and ends once there is a file `end`."""
    for block in blocks:
        connection.send((block.part.name, work_on(work, block)))
    connection.send(None)
    while not (blocks[0].part.parent / "end").exists():
        time.sleep(0.01)
