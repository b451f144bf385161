"""Who does the blocks of a run, as options: processes of this machine, or Ray's actors."""

import re
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from refineloc.runtime.cores import physical_cores
from refineloc.runtime.errors import ConfigError

if TYPE_CHECKING:
    from refineloc.runtime.jobs.actors import Actors

__all__ = ["ActorsOption", "Engine", "EngineOption", "GpusOption", "processes_of"]

Engine = Literal["local", "ray"]

EngineOption = Annotated[
    Engine,
    typer.Option(help="What gives the work to processes; ray: actors on this machine or a cluster (RAY_ADDRESS)."),
]
ActorsOption = Annotated[
    str | None,
    typer.Option(
        metavar="N|MIN:MAX", help="With --engine ray: actors, each with --threads CPUs.", show_default="one a core"
    ),
]
GpusOption = Annotated[float, typer.Option(min=0.0, help="With --engine ray: GPUs of an actor, such as 0.25.")]


def processes_of(
    engine: Engine, workers: int, actors: str | None, gpus: float, threads: int
) -> "tuple[int | Actors, int]":
    """The processes or actors, and the threads of each: its share of the cores, where none are given."""
    if engine == "local":
        if actors is not None or gpus:
            raise ConfigError("--actors and --gpus-per-actor: are for --engine ray; give that too, or --workers N")
        return workers, threads or (max(physical_cores() // workers, 1) if workers > 1 else 0)
    if workers > 1:
        raise ConfigError("--workers: is for --engine local; give --actors N")
    from refineloc.runtime.jobs.actors import Actors

    match = re.fullmatch(r"([0-9]{1,5})(?::([0-9]{1,5}))?", actors or f"{physical_cores()}")
    least, most = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= least <= most:
        raise ConfigError(f"--actors {actors!r}: expected N or MIN:MAX, such as 4 or 2:16")
    threads = threads or max(physical_cores() // most, 1)
    return Actors(least, most, threads, gpus), threads
