"""`refineloc-detect`: a file of features in, a file of detections out."""

import contextlib
import hashlib
import inspect
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, get_args

import typer

from refineloc.runtime.annotations import read_annotations
from refineloc.runtime.cli.common import VersionOption, new_app, note, parse_numbers, progress, run_app
from refineloc.runtime.cli.journal import Journal
from refineloc.runtime.detections import DETECTION_ENDINGS, write_detections
from refineloc.runtime.errors import ConfigError, EngineError, FeatureError, InputError, ModelError, RefineLocError
from refineloc.runtime.features.opening import open_features
from refineloc.runtime.features.shared import shared_videos
from refineloc.runtime.features.store import FeatureStore
from refineloc.runtime.files import check_writable, is_stream
from refineloc.runtime.model.limits import BATCH_SNIPPETS, MAX_BATCH_SNIPPETS, MAX_THREADS
from refineloc.runtime.segments.rules import OneThreshold, Profile, Setting, every_setting, profiles_with

if TYPE_CHECKING:
    from refineloc.runtime.detector import Detector, Times

__all__ = ["main"]

app = new_app("refineloc-detect")


# Typer has no options of these types: their values are texts, which `_parsed` reads.
_METAVARS = {float | None: "NUMBER|none", tuple[float, ...]: "FIRST:LAST:STEP|LIST"}


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


@app.command()
@_with_settings
def detect(
    features: Annotated[Path, typer.Argument(help="HDF5 file, or folder of .npy files, with snippet features.")],
    model: Annotated[
        list[Path] | None,
        typer.Option(
            help="ONNX file that refineloc-export wrote; given again, the mean scores of several decide.",
            show_default="model.onnx",
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Where to write: .json (ActivityNet's form), .csv or .jsonl; - is stdout."),
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
            help="Labels CSV or JSON: detect in its videos, with its fps and durations (labels are not used)."
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
        int, typer.Option(min=1, max=MAX_BATCH_SNIPPETS, help="Snippets a call of the model.")
    ] = BATCH_SNIPPETS,
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
        bool, typer.Option(help="Go on with a run that did not end, from the OUT.partial that it left.")
    ] = False,
    _version: VersionOption = False,
    **settings: Any,
) -> None:
    """Find actions in untrimmed videos.

    Seconds need the frame rate of each video: from the features' own attributes, from --videos, or from --fps.
    """
    from refineloc.runtime.detector import Detector

    if fps is not None and videos is not None:
        raise InputError("--fps and --videos: give one of them")
    check_writable(out, suffixes=DETECTION_ENDINGS)
    if resume and is_stream(out):
        raise ConfigError(f"--resume: {out} is not a file, and only a file has a journal beside it")
    stated = {
        setting.name: _parsed(setting, settings[setting.name])
        for setting in every_setting()
        if settings[setting.name] is not None
    }
    models = model or [Path("model.onnx")]
    detector = Detector(
        models if len(models) > 1 else models[0],
        provider=provider,
        threads=threads,
        batch_snippets=batch_snippets,
        engine_cache=engine_cache,
        **stated,
    )
    with open_features(features, untrusted=untrusted) as store:
        times: Times | None = None
        names = store.names
        if videos is not None:
            annotations = read_annotations(videos, times=False)
            names = shared_videos(store, annotations, allow_missing=allow_missing)
            times = {name: (annotations[name].fps, annotations[name].duration_s) for name in names}
        wanted = _without(names, leave_out or [], store)
        labels = None
        if video_labels is not None:
            labels = _labels(video_labels)
            _check_labelled(labels, wanted, video_labels)
        inputs = _inputs(
            detector, models, store, names, fps=fps, stride_frames=stride_frames, times=times, labels=labels
        )
        with (
            _journal_beside(out) as beside,
            Journal(beside, inputs, classes=len(detector.classes), resume=resume) as journal,
            _resume_hint(journal) if beside == out else contextlib.nullcontext(),
        ):
            remaining = _remaining(journal, wanted)
            began = time.perf_counter()
            with progress("detecting", len(remaining), "videos") as advance:
                for batch in detector.detect_batches(
                    store, names=remaining, fps=fps, stride_frames=stride_frames, times=times, labels=labels
                ):
                    journal.add(batch)
                    advance(len(batch))
            seconds = time.perf_counter() - began
            detections = journal.read(detector.classes, detector.provider)
            write_detections(out, detections, _external_data(detector, models))
            journal.remove()
            if not journal.count:
                note(f"warning: no detections in any video: {_why_none(detector, store, wanted[0])}")
    rate = f", {len(remaining) / seconds:.0f} videos/s" if remaining else ""
    note(f"{out}: {journal.count} detections in {len(journal.names)} videos ({detector.provider}{rate})")


def _why_none(detector: "Detector", store: FeatureStore, name: str) -> str:
    """The likely cause, by one of the videos."""
    foreground = detector.scores(store.read(name)).foreground
    least, most = float(foreground.min()), float(foreground.max())
    if len(foreground) > 1 and least == most:
        return (
            f"the foreground is {least:.2g} in every snippet of {name!r}, so the model tells no action from the rest; "
            "export another iteration (refineloc-export --iter best), or train again"
        )
    rules = detector.settings
    thresholds = (
        f"--alpha-a {rules.alpha_a:g} with --alpha-c {rules.alpha_c:g}"
        if isinstance(rules, OneThreshold)
        else f"--thresholds from {min(rules.thresholds):g}"
    )
    least_score = f" and --min-score {rules.min_score:g}" if rules.min_score is not None else ""
    return f"nothing passes {thresholds}{least_score}; the foreground of {name!r} goes from {least:.2g} to {most:.2g}"


def _inputs(
    detector: "Detector", models: Sequence[Path], store: FeatureStore, names: Sequence[str], **more: object
) -> dict[str, str]:
    """Inputs and settings of a run, as texts by name: --resume needs the same ones.

    The number of snippets in a call is not among them: it changes no result, and may be what ended the run. Neither are
    the videos left out: the names in the journal are compared instead.
    """
    state = store.path.stat()
    return {
        "model": " ".join(hashlib.sha256(model.read_bytes()).hexdigest() for model in models),
        "features": f"{store.path.resolve()}, {state.st_size} bytes, changed at {state.st_mtime_ns} ns",
        "videos": hashlib.sha256(json.dumps(list(names)).encode()).hexdigest(),
        "provider": detector.provider,
        "settings": repr(detector.settings),
        "options": hashlib.sha256(repr(more).encode()).hexdigest(),
    }


@contextlib.contextmanager
def _journal_beside(out: Path) -> Iterator[Path]:
    """The output that the journal lies beside: `out`; for a stream, which has no folder, a name in a temporary one."""
    if not is_stream(out):
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="refineloc-") as folder:
        yield Path(folder, "detections")


@contextlib.contextmanager
def _resume_hint(journal: Journal) -> Iterator[None]:
    """If a run ends early and its journal has videos, say how it can be resumed."""
    try:
        yield
    except (KeyboardInterrupt, MemoryError):
        if journal.names:
            note(f"{journal.path}: has {len(journal.names)} videos; --resume goes on with them")
        raise
    except RefineLocError as error:
        if not journal.names or isinstance(error, ModelError):
            raise
        how = "--resume goes on with them"
        if isinstance(error, FeatureError):  # not without --leave-out: a repaired file would be another input
            how = "--resume --leave-out VIDEO goes on with them, without this one"
        elif isinstance(error, EngineError):
            how = "--resume --batch-snippets N goes on with them, in smaller calls"
        text = f"{error}; {journal.path} has {len(journal.names)} videos: {how}"
        raise type(error)(text, parameter=error.parameter) from error


def _labels(path: Path) -> dict[str, tuple[str, ...]]:
    """The classes of each video of a file of labels."""
    return {name: video.labels for name, video in read_annotations(path, times=False).items()}


def _check_labelled(labels: Mapping[str, Sequence[str]], names: Sequence[str], path: Path) -> None:
    for name in names:
        if not labels.get(name):
            raise InputError(f"{path}: video {name!r}: has no label; add its classes, or leave it out (--leave-out)")


def _without(names: Sequence[str], leave_out: Sequence[str], store: FeatureStore) -> tuple[str, ...]:
    unknown = [name for name in leave_out if name not in names]
    if unknown:
        raise InputError(f"--leave-out: video {unknown[0]!r} is not among those of {store.path}")
    kept = tuple(name for name in names if name not in leave_out)
    if not kept:
        raise InputError(f"--leave-out: leaves no video of {store.path}")
    return kept


def _remaining(journal: Journal, names: Sequence[str]) -> Sequence[str]:
    """The videos that are not in the journal."""
    done = len(journal.names)
    if journal.names != list(names[:done]):
        raise InputError(f"{journal.path}: has other videos than this run (--leave-out?); remove it to begin anew")
    if done:
        note(f"{journal.path}: goes on after {done} of {len(names)} videos")
    return names[done:]


def _external_data(detector: "Detector", models: Sequence[Path]) -> dict[str, Any]:
    """Model, provider and profile, for ActivityNet's field `external_data`."""
    files = ", ".join(model.name for model in models)
    return {
        "used": False,
        "details": f"refineloc, {detector.metadata.base} iteration {detector.metadata.iteration} ({files})",
        "provider": detector.provider,
        "profile": detector.settings.profile,
    }


def main() -> NoReturn:
    """Entry point of the console script."""
    options = {"fps": "--fps X or --videos LABELS.csv", "allow_missing": "--allow-missing", "labels": "--video-labels"}
    options |= {"stride_frames": "--stride-frames N"}
    run_app(app, options)


if __name__ == "__main__":
    main()
