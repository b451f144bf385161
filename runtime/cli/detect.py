"""`refineloc-detect`: a file of features in, a file of detections out."""

import contextlib
import hashlib
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, get_args

import typer

from refineloc.runtime.annotations import read_annotations
from refineloc.runtime.cli.chosen import check_labelled, external_data, labels_of, without
from refineloc.runtime.cli.common import VersionOption, new_app, note, parse_numbers, run_app
from refineloc.runtime.cli.detect_films import Films, detect_in_films, film_sources
from refineloc.runtime.cli.engines import ActorsOption, EngineOption, GpusOption, processes_of
from refineloc.runtime.cli.run_of_parts import Run, beside, do_blocks, errors_line
from refineloc.runtime.cli.signs import WholeVideos, why_none
from refineloc.runtime.detections import DETECTION_ENDINGS, write_detections
from refineloc.runtime.errors import (
    ConfigError,
    FeatureError,
    counted,
)
from refineloc.runtime.features.opening import open_features
from refineloc.runtime.features.shared import shared_videos
from refineloc.runtime.features.store import FeatureStore
from refineloc.runtime.features.streams import described_columns
from refineloc.runtime.files import check_writable, claim_folder, is_stream
from refineloc.runtime.jobs.blocks import MAX_PARTS, plan_blocks
from refineloc.runtime.jobs.detection import DetectionWork, MergedDetections
from refineloc.runtime.jobs.parts import is_part, remove_parts
from refineloc.runtime.model.limits import BATCH_SNIPPETS, GPU_BATCH_SNIPPETS, MAX_BATCH_SNIPPETS, MAX_THREADS
from refineloc.runtime.segments.rules import Profile, Setting, every_setting, profiles_with

if TYPE_CHECKING:
    from refineloc.runtime.batches import Planned
    from refineloc.runtime.detector import Detector, Times

__all__ = ["main"]

app = new_app("refineloc-detect")


# Of a block: a kill costs at most one, some seconds of work. A hundred calls of the model, as it reads no block ahead.
_BLOCK_SNIPPETS = 2**18

# Typer has no options of these types: their values are texts, which `_parsed` reads. The least score may be an
# operating point of the model, which the detector looks up.
_METAVARS = {float | None: "NUMBER|none|'precision P'", tuple[float, ...]: "FIRST:LAST:STEP|LIST"}


def _with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each setting of detection, which take the place of its `**settings`."""
    signature = inspect.signature(command)
    parameters = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
    for setting in every_setting():
        metavar = _METAVARS.get(setting.type)
        profiles = profiles_with(setting.name)
        restriction = "" if profiles == get_args(Profile) else f" Of {', '.join(profiles)}."
        help_text = f"{setting.description}: {setting.expected}.{restriction}"
        option = typer.Option(help=help_text, metavar=metavar, show_default="the model's")
        annotation: Any = Annotated[(str if metavar else setting.type) | None, option]
        parameters.append(
            inspect.Parameter(setting.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        )
        command.__annotations__[setting.name] = annotation
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return command


def _parsed(setting: Setting, value: Any) -> Any:
    """The value of an option, in the type of the setting."""
    if setting.type == tuple[float, ...]:
        numbers = parse_numbers(value)
        if not numbers:
            option = "--" + setting.name.replace("_", "-")
            raise ConfigError(f"{option} {value!r}: expected FIRST:LAST:STEP or a list such as 0.1,0.2")
        return numbers
    if setting.type == float | None:
        with contextlib.suppress(ValueError):
            return None if value == "none" else float(value)
    return value


# Of the options in the help.
GROUPS = {
    "Videos": ("fps", "stride_frames", "videos", "video_labels", "allow_missing", "leave_out", "untrusted"),
    "The run": ("model", "backbone", "out", "resume", "provider", "threads", "batch_snippets", "engine_cache"),
    "Many videos": ("shard", "workers", "engine", "actors", "gpus_per_actor"),
    "Rules of detection": (),
}


@app.command()
@_with_settings
def detect(
    features: Annotated[
        Path,
        typer.Argument(
            metavar="FEATURES|FILM",
            help="HDF5 file, or folder of .npy or .npz files, with snippet features. With --backbone: a film, a folder "
            "of films or a pattern.",
        ),
    ],
    more: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILM]...", help="With --backbone: more films, folders and patterns."),
    ] = None,
    model: Annotated[
        list[Path] | None,
        typer.Option(
            help="ONNX file that refineloc-export wrote; given again, the mean scores of several decide.",
            show_default="model.onnx",
        ),
    ] = None,
    backbone: Annotated[
        Path | None,
        typer.Option(
            help="Detect in films: ONNX file that `refineloc-export --backbone` wrote, of the training features."
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="Where to write: .json (ActivityNet's form), .csv or .jsonl; - is stdout. With --shard: a folder.",
        ),
    ] = Path("detections.json"),
    fps: Annotated[float | None, typer.Option(help="Frames a second of videos whose features do not state it.")] = None,
    stride_frames: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Frames from one snippet to the next, where the features do not state it.",
            show_default="the model's",
        ),
    ] = None,
    videos: Annotated[
        Path | None,
        typer.Option(
            help="Labels CSV or JSON: detect in its videos, with its durations and, without --fps, its fps (no labels)."
        ),
    ] = None,
    video_labels: Annotated[
        Path | None,
        typer.Option(help="Labels CSV or JSON that says the classes of each video: detect all of these and no others."),
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option(help="With --videos: go on with the videos that both files have.")
    ] = False,
    provider: Annotated[
        Literal["auto", "cuda", "tensorrt", "cpu"],
        typer.Option(help="What runs the model; one that is named is used, or is an error."),
    ] = "auto",
    threads: Annotated[int, typer.Option(min=0, max=MAX_THREADS, help="CPU threads of the model; 0: one a core.")] = 0,
    batch_snippets: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_BATCH_SNIPPETS,
            help=f"Snippets a call of the model; {BATCH_SNIPPETS:,} on the CPU and {GPU_BATCH_SNIPPETS:,} on a GPU if "
            "left out.",
        ),
    ] = None,
    engine_cache: Annotated[
        Path | None, typer.Option(help="With --provider tensorrt: a folder that keeps its engines for the next run.")
    ] = None,
    leave_out: Annotated[
        list[str] | None, typer.Option(metavar="VIDEO", help="Detect in all videos but this; may be given again.")
    ] = None,
    untrusted: Annotated[
        bool, typer.Option("--untrusted", help="FEATURES come from a stranger: unpack HDF5's chunks with more checks.")
    ] = False,
    resume: Annotated[
        bool, typer.Option(help="Go on with a run that did not end, from the folder OUT.partial that it left.")
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="K/N",
            help="Detect in one of N equal shares of the videos, such as 3/64; its parts go into the folder OUT, and "
            "refineloc-convert OUT FILE merges those of all. What is done is skipped.",
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, max=MAX_THREADS, help="Processes; each takes the model and its share of the cores.")
    ] = 1,
    engine: EngineOption = "local",
    actors: ActorsOption = None,
    gpus_per_actor: GpusOption = 0.0,
    _version: VersionOption = False,
    **settings: Any,
) -> None:
    """Find actions in untrimmed videos.

    Seconds need the frame rate of each video: from the features' own attributes, from --videos, or from --fps.
    """
    from refineloc.runtime.detector import Detector

    sources = film_sources([features, *(more or [])], backbone is not None)
    if sources:
        for option, value in {"--fps": fps, "--stride-frames": stride_frames, "--untrusted": untrusted}.items():
            if value:
                raise ConfigError(f"{option}: is for features, and films were given; leave it out")
    number, shards = _shard(shard) if shard is not None else (1, 1)
    if shard is None:
        check_writable(out, suffixes=DETECTION_ENDINGS)
    elif out.suffix.lower() in DETECTION_ENDINGS or is_stream(out):
        raise ConfigError(f"--shard: writes parts into a folder, and {out} is none; give --out FOLDER")
    if resume and is_stream(out):
        raise ConfigError(f"--resume: {out} is not a file, and only a file has a folder of parts beside it")
    stated = {
        setting.name: _parsed(setting, settings[setting.name])
        for setting in every_setting()
        if settings[setting.name] is not None
    }
    models = model or [Path("model.onnx")]
    processes, threads = processes_of(engine, workers, actors, gpus_per_actor, threads)
    detector = Detector(
        models if len(models) > 1 else models[0],
        provider=provider,
        threads=threads,
        batch_snippets=batch_snippets,
        engine_cache=engine_cache,
        **stated,
    )
    if backbone is not None:
        films = Films(
            sources, backbone, provider, threads, processes, video_labels, videos, allow_missing, leave_out or []
        )
        detect_in_films(films, detector, models, out, resume, shard=(number, shards) if shard else None)
        return
    with open_features(features, untrusted=untrusted) as store:
        times: dict[str, tuple[float | None, float | None]] | None = None
        stated_by: Times | None = None
        names = store.names
        if videos is not None:
            annotations = read_annotations(videos, times=False)
            names = shared_videos(store, annotations, allow_missing=allow_missing)
            # Features are of the rate that --fps says, whatever the labels' video has.
            rates = {name: annotations[name].fps if fps is None else None for name in names}
            times = {name: (rates[name], annotations[name].duration_s) for name in names}
            stated_by = annotations if fps is None else times
        wanted = without(names, leave_out or [], store)
        labels = None
        if video_labels is not None:
            labels = labels_of(video_labels)
            check_labelled(labels, wanted, video_labels)
        options: dict[str, Any] = {"fps": fps, "stride_frames": stride_frames, "times": times, "labels": labels}
        # One run checks all videos before it reads the first. In a shard, one of a million that is bad is a row.
        stated_times = {**options, "times": stated_by}
        planned = {} if shard else {each.name: each for each in detector.plan(store, wanted, **stated_times)}
        sizes = {name: planned[name].snippets if name in planned else _snippets(store, name) for name in names}
        blocks = partial(
            plan_blocks,
            videos=sizes,
            job=_inputs(detector, models, store, sizes, one_machine=shard is None, **options),
            about={"classes": detector.classes, "external_data": external_data(detector, models)},
            limit=_BLOCK_SNIPPETS,
            shard=number,
            shards=shards,
            left_out=frozenset(leave_out or []),
        )
        if shard:
            new = [name for block in blocks(out) if not block.part.exists() for name in block.names]
            planned = _good(detector, store, new, stated_times)
        _tell_columns(detector, store, next(iter(planned.values()), None))
        reopen = partial(open_features, features, untrusted=untrusted)
        work = DetectionWork(detector, store, reopen, options, planned)
        if shard:
            claim_folder(out, is_part, "a run in shards")
            run = Run(out)
            do_blocks(run, work, blocks(out), processes)
            if run.errors:
                raise FeatureError(f"{out}: {errors_line(run)}; the same command tries again")
            note(
                f"{out}: shard {number} of {shards} is done, {counted(run.done, 'video')} "
                f"({detector.provider}{run.rate})"
            )
            return
        with beside(out, resume) as run:
            do_blocks(run, work, blocks(run.folder), processes)
            if run.errors:
                raise FeatureError(errors_line(run))
            detections = MergedDetections(run.folder)
            whole = WholeVideos(planned)
            write_detections(out, whole.counted(detections), detections.external_data)
            remove_parts(run.folder)
            if not detections.count:
                note(f"warning: no detections in any video: {why_none(detector, store, wanted[0])}")
            elif line := whole.line(detector):
                note(f"warning: {line}")
    note(
        f"{out}: {counted(detections.count, 'detection')} in {counted(len(wanted), 'video')} "
        f"({detector.provider}{run.rate})"
    )


def _tell_columns(detector: "Detector", store: FeatureStore, planned: "Planned | None") -> None:
    """Say which columns are taken of a video, where the model takes one stream."""
    if planned is not None and planned.timed is not None:
        width = planned.timed.features.width
        if line := described_columns(width, planned.columns, detector.metadata.stream):
            note(f"{store.path}: {line}")


def _inputs(
    detector: "Detector",
    models: Sequence[Path],
    store: FeatureStore,
    sizes: Mapping[str, int],
    *,
    one_machine: bool,
    **more: object,
) -> dict[str, str]:
    """Inputs and settings of a run, as texts by name: parts of other ones are refused.

    The number of snippets in a call is not among them: it changes no result, and may be what ended the run. Neither are
    the videos left out, which parts are asked for. On many machines the features may lie elsewhere on each.
    """
    state = store.path.stat()
    place = f"{store.path.resolve()}, changed at {state.st_mtime_ns} ns, " if one_machine else ""
    size = f"{state.st_size} bytes" if one_machine or store.path.is_file() else ""
    return {
        "model": " ".join(hashlib.sha256(model.read_bytes()).hexdigest() for model in models),
        "features": f"{place}{size}",
        "videos": hashlib.sha256(json.dumps(sizes).encode()).hexdigest(),
        "provider": detector.provider,
        "settings": repr(detector.settings),
        "options": hashlib.sha256(repr(more).encode()).hexdigest(),
    }


def _shard(text: str) -> tuple[int, int]:
    """`3/64` as (3, 64)."""
    match = re.fullmatch(r"([0-9]{1,7})/([0-9]{1,7})", text)
    number, shards = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= shards <= MAX_PARTS:
        raise ConfigError(f"--shard {text!r}: expected K/N with K from 1 to N, such as 3/64")
    return number, shards


def _snippets(store: FeatureStore, name: str) -> int:
    """The size of a video; 1 where it has none that can be known, which is an error only when it is read."""
    try:
        return max(store.info(name).snippets, 1)
    except FeatureError:
        return 1


def _good(
    detector: "Detector", store: FeatureStore, names: Sequence[str], options: Mapping[str, Any]
) -> "dict[str, Planned]":
    """Check videos before the first is read; one whose features cannot be used is left out, for its row to say so."""
    planned = {}
    for name in names:
        with contextlib.suppress(FeatureError):
            (planned[name],) = detector.plan(store, [name], together=False, **options)
    detector.check_times(store, list(planned.values()), options["times"])
    return planned


def main() -> NoReturn:
    """Entry point of the console script."""
    options = {"fps": "--fps X or --videos LABELS.csv", "allow_missing": "--allow-missing", "labels": "--video-labels"}
    options |= {"stride_frames": "--stride-frames N", "provider": "--provider cpu"}
    options |= {"backbone": "films themselves: --backbone backbone.onnx"}
    run_app(app, options, groups=GROUPS)


if __name__ == "__main__":
    main()
