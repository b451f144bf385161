"""`refineloc-extract`: films and a backbone in, a file of features out."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from refineloc.runtime.cli.common import VersionOption, new_app, note, progress, run_app
from refineloc.runtime.cli.engines import ActorsOption, EngineOption, GpusOption, processes_of
from refineloc.runtime.errors import ConfigError, RefineLocError, VideoError, counted
from refineloc.runtime.files import check_writable, is_stream, make_folder
from refineloc.runtime.jobs.blocks import MAX_PARTS, Block
from refineloc.runtime.jobs.parts import check_job, locked, remove_parts, take_over, undone
from refineloc.runtime.jobs.run import run_blocks
from refineloc.runtime.model.limits import MAX_THREADS
from refineloc.runtime.video.backbone import Backbone
from refineloc.runtime.video.extract import (
    PAYLOAD,
    ExtractionWork,
    Merging,
    film_blocks,
    seconds_counter,
    seconds_shown,
)
from refineloc.runtime.video.films import find_films, listed_films

if TYPE_CHECKING:
    from refineloc.runtime.jobs.actors import Actors

__all__ = ["main"]

app = new_app("refineloc-extract")

GROUPS = {
    "Films": ("films", "list_"),
    "The run": ("backbone", "out", "float32", "shard_mb", "provider", "threads"),
    "Many films": ("workers", "engine", "actors", "gpus_per_actor"),
}
_SHOWN = 20  # notes and errors of films


@app.command()
def extract(
    backbone: Annotated[
        Path,
        typer.Option(help="ONNX file that `refineloc-export --backbone` wrote: the network, and how it takes films."),
    ],
    films: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Films; folders, of which all films at any depth are taken; patterns such as 'day*/*.mp4'."
        ),
    ] = None,
    list_: Annotated[
        Path | None,
        typer.Option("--list", help="Text file with more of them, one a line, as on this command line; - is stdin."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="HDF5 file of features to write.")] = Path("features.h5"),
    float32: Annotated[
        bool, typer.Option("--float32", help="Store features as float32, twice the size of float16.")
    ] = False,
    shard_mb: Annotated[
        int | None,
        typer.Option(
            min=1, max=2**20, help="Write shards of so many MB into the folder OUT, with an index (index.parquet)."
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(min=1, max=MAX_THREADS, help="Films at a time, each in a process with its share of the cores."),
    ] = 1,
    provider: Annotated[
        Literal["auto", "cuda", "tensorrt", "cpu"],
        typer.Option(help="What runs the backbone; one that is named is used, or is an error."),
    ] = "auto",
    threads: Annotated[
        int,
        typer.Option(min=0, max=MAX_THREADS, help="CPU threads of decoding and of the backbone, each; 0: one a core."),
    ] = 0,
    engine: EngineOption = "local",
    actors: ActorsOption = None,
    gpus_per_actor: GpusOption = 0.0,
    _version: VersionOption = False,
) -> None:
    """Turn films into features: a row for each snippet of frames, or of sound.

    A run that was stopped goes on where it was, by the same command. A film that cannot be decoded does not end it: all
    others are written, it is listed, and the exit code is 2.
    """
    if shard_mb is None:
        check_writable(out, suffixes=(".h5", ".hdf5"))
    elif out.suffix:
        raise ConfigError(f"--shard-mb: writes shards into a folder, and {out} is none; give --out FOLDER")
    if is_stream(out):
        raise ConfigError(f"--out: HDF5 is written into a file, and {out} is none")
    sources = [*(films or []), *(listed_films(list_) if list_ is not None else [])]
    if not sources:
        raise ConfigError("no films: give films, folders of films, or --list FILE")
    processes, threads = processes_of(engine, workers, actors, gpus_per_actor, threads)
    loaded = Backbone(backbone, provider, threads)
    paths = find_films(sources, sound=loaded.metadata.kind == "audio")
    if len(paths) > MAX_PARTS:
        raise ConfigError(f"{len(paths):,} films are more than {MAX_PARTS:,}; extract them in several runs")
    dtype: Literal["float16", "float32"] = "float32" if float32 else "float16"
    identity = loaded.metadata.identity
    job = {"backbone": identity, "provider": loaded.provider, "dtype": dtype}
    with _partial(out) as folder:
        blocks = film_blocks(folder, paths, job, {"backbone": identity})
        work = ExtractionWork(
            paths,
            folder,
            loaded,
            backbone,
            provider=loaded.provider,
            threads=threads,
            dtype=dtype,
            seconds=seconds_counter(processes),
        )
        began = perf_counter()
        new = _extract(work, blocks, processes, paths)
        seconds = perf_counter() - began
        merging = Merging(folder)
        merging.write(out, 0 if shard_mb is None else shard_mb * 10**6)
        _tell([*merging.notes, *(merging.errors.values() if len(merging.errors) > 1 else ())])
        rate = f", {new / seconds:.1f} s of film a second" if new else ""
        note(
            f"{out}: {counted(merging.videos, 'film')} of {merging.seconds:.0f} s, "
            f"{counted(merging.snippets, 'snippet')} of "
            f"{loaded.metadata.width} features ({loaded.provider}{rate})"
        )
        if merging.errors:
            rest = f"{out} has the other {merging.videos}; the same command tries again, with the help of {folder}"
            raise VideoError(f"{merging.without()}; {rest}, which may be removed")
        remove_parts(folder, PAYLOAD)


def _extract(work: ExtractionWork, blocks: list[Block], workers: "int | Actors", films: Mapping[str, Path]) -> float:
    """Do the blocks that are not done yet; gives the seconds of film that were decoded."""
    folder = blocks[0].part.parent
    take_over(folder, blocks)
    check_job(folder, blocks[0])
    remaining = undone(blocks, work)
    if before := len(blocks) - len(remaining):
        note(f"{folder}: goes on after {before} of {counted(len(blocks), 'film')}")
    if workers != 1:  # the largest first, so that none is left alone at the end
        remaining.sort(key=lambda block: -_size(films[block.names[0]]))
    counter = work.seconds
    steps = run_blocks(work, remaining, workers=workers)
    shown = progress("extracting", len(remaining), "films", also=lambda: seconds_shown(counter))
    with _goes_on(folder), shown as advance, contextlib.closing(steps):
        for step in steps:
            advance(step.videos)
    return float(counter.value)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


@contextlib.contextmanager
def _partial(out: Path) -> Iterator[Path]:
    """The folder OUT.partial, which this process alone writes; it goes where it would stay without features."""
    folder = make_folder(out.with_name(out.name + ".partial"), parents=False)
    with locked(folder):
        try:
            yield folder
        finally:
            if folder.is_dir() and not any(folder.glob(f"part-*{PAYLOAD}")):
                remove_parts(folder)


@contextlib.contextmanager
def _goes_on(folder: Path) -> Iterator[None]:
    """If a run ends early and has films, say how it goes on."""
    try:
        yield
    except (KeyboardInterrupt, MemoryError, RefineLocError) as error:
        if count := len(list(folder.glob("part-*.jsonl"))):
            text = f"{folder} has {counted(count, 'film')}; the same command goes on with them"
            if isinstance(error, RefineLocError):
                raise type(error)(f"{error}; {text}", parameter=error.parameter) from error
            note(text)
        raise


def _tell(lines: list[str]) -> None:
    for line in lines[:_SHOWN]:
        note(f"warning: {line}")
    if len(lines) > _SHOWN:
        note(f"warning: and {len(lines) - _SHOWN} more")


def main() -> NoReturn:
    """Entry point of the console script."""
    run_app(app, groups=GROUPS)


if __name__ == "__main__":
    main()
