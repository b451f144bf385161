"""`refineloc-synth`: a small, seeded sample data set, in the formats of real ones."""

from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from refineloc.runtime.cli.common import VersionOption, new_app, note, progress, run_app
from refineloc.runtime.errors import counted
from refineloc.training.sample.synth import SplitName, World, sample_files, write_sample

__all__ = ["main"]

app = new_app("refineloc-synth")


@app.command()
def synth(
    folder: Annotated[Path, typer.Argument(help="Where to write train.h5, train.csv, val.h5 and val.csv.")],
    videos: Annotated[int, typer.Option(min=1, help="Training videos.")] = 120,
    val_videos: Annotated[
        int | None, typer.Option(min=1, help="Validation videos.", show_default="half as many")
    ] = None,
    classes: Annotated[int, typer.Option(help="Classes, at least 2.")] = 6,
    dim: Annotated[int, typer.Option(help="Width of the features: two streams, temporal first, half each.")] = 128,
    seed: Annotated[int, typer.Option(help="The same seed gives the same data.")] = 0,
    dtype: Annotated[Literal["float32", "float16"], typer.Option(help="How features are stored.")] = "float32",
    force: Annotated[bool, typer.Option("--force", help="Write over existing files.")] = False,
    _version: VersionOption = False,
) -> None:
    """Make sample data: features of untrimmed videos, and the labels and times of their actions."""
    world = World(classes, dim, seed)
    counts: dict[SplitName, int] = {"train": videos, "val": val_videos or max(videos // 2, 1)}
    snippets = actions = 0
    with progress("making videos", sum(counts.values()), "videos") as advance:
        for video in write_sample(folder, world, counts, dtype=dtype, overwrite=force):
            snippets += len(video.features)
            actions += len(video.annotation.start)
            advance(1)
    for split, (features, labels) in sample_files(folder).items():
        note(f"{features}, {labels.name}: {counted(counts[split], 'video')}")
    note(f"{classes} classes, {snippets} snippets of {dim} features, {actions} actions (seed {seed})")


def main() -> NoReturn:
    """Entry point of the console script."""
    run_app(app, {"overwrite": "--force"})


if __name__ == "__main__":
    main()
