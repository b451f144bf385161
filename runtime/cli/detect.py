"""`refineloc-detect`: a file of features in, a file of detections out."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer

from refineloc.runtime.annotations import Annotations, read_annotations
from refineloc.runtime.cli.common import new_app, note, progress, run_app, version_callback
from refineloc.runtime.detections import Detections, write_detections
from refineloc.runtime.errors import InputError
from refineloc.runtime.features import FeatureStore, open_features
from refineloc.runtime.files import check_writable

__all__ = ["main"]

app = new_app("refineloc-detect")


@app.command()
def detect(
    features: Annotated[Path, typer.Argument(help="HDF5 file, or folder of .npy files, with snippet features.")],
    model: Annotated[Path, typer.Option(help="ONNX file that refineloc-export wrote.")] = Path("model.onnx"),
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Where to write: .json (ActivityNet's form), .csv or .jsonl.")
    ] = Path("detections.json"),
    fps: Annotated[float | None, typer.Option(help="Frames a second of videos whose features do not state it.")] = None,
    videos: Annotated[
        Path | None,
        typer.Option(
            help="Labels CSV or JSON: detect in its videos, with its fps and durations (labels are not used)."
        ),
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option(help="With --videos: go on with the videos that both files have.")
    ] = False,
    provider: Annotated[
        Literal["auto", "cuda", "tensorrt", "cpu"],
        typer.Option(help="What runs the model; one that is named is used, or is an error."),
    ] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads of the model; 0: one a core.")] = 0,
    batch_snippets: Annotated[int, typer.Option(min=1, help="Snippets a call of the model.")] = 2048,
    profile: Annotated[
        Literal["paper", "release"] | None,
        typer.Option(help="Rules of post-processing, instead of the model's."),
    ] = None,
    alpha_a: Annotated[
        float | None, typer.Option(help="α_A: most background of a kept snippet, instead of the model's.")
    ] = None,
    alpha_c: Annotated[
        float | None,
        typer.Option(help="α_C: least class activation of a kept snippet, instead of the model's."),
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Classes a video, instead of the model's.")] = None,
    widen: Annotated[int | None, typer.Option(help="Snippets added at both ends, instead of the model's.")] = None,
    nms: Annotated[
        float | None,
        typer.Option(help="Drop the weaker of two segments of a class above this tIoU (default: keep)."),
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=version_callback, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Find actions in untrimmed videos.

    Seconds need the frame rate of each video: from the features' own attributes, from --videos, or from --fps.
    """
    from refineloc.runtime.detector import Detector

    if fps is not None and videos is not None:
        raise InputError("--fps and --videos: give one of them")
    check_writable(out, suffixes=(".json", ".csv", ".jsonl"))
    detector = Detector(
        model,
        provider=provider,
        threads=threads,
        batch_snippets=batch_snippets,
        profile=profile,
        alpha_a=alpha_a,
        alpha_c=alpha_c,
        top_k=top_k,
        widen=widen,
        nms=nms,
    )
    began = time.perf_counter()
    with open_features(features) as store:
        times, names = None, store.names
        if videos is not None:
            annotations = read_annotations(videos, times=False)
            names = _common_videos(store, annotations, allow_missing)
            times = {name: (annotations[name].fps, annotations[name].duration_s) for name in names}
        found = _collect(detector.detect_many(store, names=names, fps=fps, times=times), len(names))
    write_detections(out, found, _external_data(detector, model))
    seconds = time.perf_counter() - began
    count = sum(map(len, found.values()))
    note(f"{out}: {count} detections in {len(found)} videos ({detector.provider}, {len(found) / seconds:.0f} videos/s)")


def _common_videos(store: FeatureStore, annotations: Annotations, allow_missing: bool) -> tuple[str, ...]:
    """The videos that both files have, sorted; a difference is an error unless it was allowed."""
    for missing, what, where in (
        (
            sorted(annotations.keys() - set(store.names)),
            f"videos of {annotations.path} have no features in",
            store.path,
        ),
        (
            sorted(set(store.names) - annotations.keys()),
            f"videos of {store.path} are not in",
            annotations.path,
        ),
    ):
        if missing and not allow_missing:
            raise InputError(
                f"{len(missing)} {what} {where}, the first is {missing[0]!r}; --allow-missing goes on without them"
            )
    names = tuple(sorted(annotations.keys() & set(store.names)))
    if not names:
        raise InputError(f"{store.path} and {annotations.path} have no video in common")
    return names


def _collect(found: Iterable[tuple[str, Detections]], total: int) -> dict[str, Detections]:
    collected: dict[str, Detections] = {}
    with progress("detecting", total, "videos") as advance:
        for name, detections in found:
            collected[name] = detections
            advance(1)
    return collected


def _external_data(detector: Any, model: Path) -> dict[str, Any]:
    """What a reader of the detections may want to know; ActivityNet's form has a place for it."""
    return {
        "used": False,
        "details": f"refineloc, {detector.metadata.base} iteration {detector.metadata.iteration} ({model.name})",
        "provider": detector.provider,
        "profile": detector.settings.profile,
    }


def main() -> NoReturn:
    """Entry point of the console script."""
    run_app(app)
