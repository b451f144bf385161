"""The blocks of a job in Ray's actors, on this machine or on a cluster.

Ray Data is given the blocks, which name videos: features and frames never go through it. An actor does all of a block,
from opening what the work needs to writing the part. So a block that is done again, as Ray does after the end of an
actor or a machine, is a part written again.

A process of its own speaks with Ray. What Ray writes goes into a log, and its end, which takes that process with it, is
an error here.
"""

import contextlib
import importlib.util
import multiprocessing
import os
import pickle
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from refineloc.runtime.addresses import Address
from refineloc.runtime.errors import EngineError, MissingExtraError, first_line
from refineloc.runtime.jobs.blocks import Block, Outcome, Step, Work
from refineloc.runtime.jobs.processes import TRIES, start_process, videos_of, work_on

__all__ = ["Actors", "in_actors"]

# Before Ray is imported: nothing is reported to its makers, its own C++ says nothing, and actors on this machine have
# the priority of any process. With the niceness of 15 that Ray gives them, a busy machine leaves them next to nothing.
_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_worker_niceness": "0"}
_STORE = 100 * 2**20  # bytes of Ray's store of objects on this machine: blocks and outcomes are small
_END_S = 20.0  # that Ray has for its own end


@dataclass(frozen=True, slots=True)
class Actors:
    """How many actors of Ray work, and what each takes.

    Attributes:
        least: that there are from the beginning on.
        most: that there are once the machines have room.
        cpus: of each, which are its threads.
        gpus: of each; may be a share of one.
    """

    least: int
    most: int
    cpus: int = 1
    gpus: float = 0.0


def in_actors(work: Work, blocks: Sequence[Block], actors: Actors) -> Generator[Step]:
    """Do blocks in Ray (see `run_blocks`): the cluster that RAY_ADDRESS names, or a Ray on this machine.

    Raises:
        MissingExtraError: Ray is not installed.
        EngineError: Ray ended, or the actor of a block several times.
    """
    if importlib.util.find_spec("ray") is None:
        raise MissingExtraError("actors need Ray: pip install 'refineloc[ray]'")
    connection, its_end = multiprocessing.Pipe()
    descriptor, log = tempfile.mkstemp(prefix="refineloc-ray-", suffix=".log")
    os.close(descriptor)
    process = start_process(_speak_with_ray, work, tuple(blocks), actors, its_end, log)
    its_end.close()  # so that the end of the process is that of the pipe
    remaining = {block.part.name: block for block in blocks}
    told = False  # that the log is there
    end_s = 0.0  # of the process, once it has said all
    try:
        while True:
            try:
                answer = connection.recv()
            except (EOFError, OSError):
                process.join()
                told = True
                raise EngineError(f"Ray ended (exit code {process.exitcode}); {log} has its last words") from None
            if answer is None:
                end_s = _END_S
                break
            if isinstance(answer, BaseException):
                end_s = _END_S
                told = log in str(answer)
                raise answer
            name, outcomes = answer
            part = remaining.pop(name).part
            if not isinstance(part, Address) and not part.exists():
                raise EngineError(f"{part}: lies on another machine; give Ray's machines a folder they share, or s3://")
            yield Step(len(outcomes), outcomes)
        for block in remaining.values():
            told = True
            raise EngineError(f"{block.part}: the actor of its videos, {videos_of(block)}, ended {TRIES} times ({log})")
    finally:
        connection.close()
        if end_s:
            # Ray takes 2 s for its end. What comes after the job, such as merging its parts, need not wait for it.
            threading.Thread(target=_end, args=(process, end_s)).start()
        else:
            _end(process, end_s)
        if not told:
            Path(log).unlink()


def _end(process: SpawnProcess, end_s: float) -> None:
    """Wait for the process, which ends Ray; a Ray on this machine also ends where its process is killed."""
    process.join(end_s)
    if process.is_alive():
        process.kill()
        process.join()


def _speak_with_ray(work: Work, blocks: Sequence[Block], actors: Actors, connection: Connection, log: str) -> None:
    """What the process does."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    # Processes of a Ray on this machine find the modules that this one finds.
    environment = {**_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    os.environ.update({name: os.environ.get(name, value) for name, value in environment.items()})
    try:
        with contextlib.closing(_answers(work, blocks, actors)) as answers:
            for answer in answers:
                connection.send(answer)
            connection.send(None)
    except Exception as error:  # of any kind, out of Ray
        traceback.print_exc()
        with contextlib.suppress(OSError):  # where nobody takes answers any more
            connection.send(EngineError(f"Ray: {first_line(error)} ({log} has more)"))


def _answers(work: Work, blocks: Sequence[Block], actors: Actors) -> Generator[Any]:
    """The name of each part that is written and the outcomes in it; an error of the work is the last answer."""
    import ray
    import ray.data

    address = os.environ.get("RAY_ADDRESS")
    if address is None:
        # As many as the actors take, also where the machine has fewer. Ray starts a process for each at once.
        cpus = actors.most * actors.cpus
        ray.init("local", num_cpus=cpus, object_store_memory=_STORE, include_dashboard=False, log_to_driver=False)
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        if resources.get("GPU", 0.0) < actors.gpus * actors.least:
            yield EngineError(f"this machine has no GPU for {actors.least} actors with {actors.gpus:g} each")
            return
    else:
        ray.init(address, log_to_driver=False)
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.max_errored_blocks = -1  # those of actors that end, which `in_actors` sees to
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Ray deprecates max_task_retries here and has nothing in its place
            answers = ray.data.from_items(
                [{"block": pickle.dumps(block)} for block in blocks], override_num_blocks=len(blocks)
            ).map_batches(
                _Actor,
                batch_size=1,
                fn_constructor_args=(work, os.getcwd()),
                # One task each: what waits at an actor that ends has ended with it, too, and is tried once less.
                compute=ray.data.ActorPoolStrategy(
                    min_size=actors.least, max_size=actors.most, max_tasks_in_flight_per_actor=1
                ),
                num_cpus=actors.cpus,
                num_gpus=actors.gpus or None,
                max_task_retries=TRIES - 1,
            )
        for row in answers.iter_rows():
            answer = pickle.loads(row["answer"])
            yield answer
            if isinstance(answer, BaseException):
                return
    finally:
        ray.shutdown()


class _Actor:
    """What Ray makes in each of its processes."""

    def __init__(self, work: Work, folder: str) -> None:
        with contextlib.suppress(OSError):  # another machine may not have it, and needs none for addresses
            os.chdir(folder)
        self._work = work

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        block: Block = pickle.loads(batch["block"][0])
        answer: Sequence[Outcome] | Exception = work_on(self._work, block)
        named = answer if isinstance(answer, Exception) else (block.part.name, answer)
        return {"answer": [pickle.dumps(named)]}
