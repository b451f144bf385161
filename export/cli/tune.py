"""`refineloc-tune`: a few annotated videos choose the numbers of a model's rule of detection, and its iteration."""

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from refineloc.evaluation.cli.common import Subset, Tiou, parse_tious
from refineloc.runtime.annotations import Annotations, read_annotations
from refineloc.runtime.cli.common import VersionOption, new_app, note, parse_numbers, progress, run_app
from refineloc.runtime.errors import AnnotationError, ConfigError, InputError, MissingExtraError, ModelError, counted
from refineloc.runtime.features.opening import open_features
from refineloc.runtime.features.shared import shared_videos
from refineloc.runtime.features.store import FeatureStore
from refineloc.runtime.files import atomic_write, check_writable, is_folder, is_stdout
from refineloc.runtime.model.metadata import KEY_PREFIX, ModelMetadata, OperatingScore, Tuning
from refineloc.runtime.model.onnx_guard import read_model
from refineloc.runtime.segments.rules import Rules

if TYPE_CHECKING:
    from refineloc.evaluation.tuning import Tuned
    from refineloc.export.sources import Trained
    from refineloc.runtime.detections import Detections
    from refineloc.runtime.segments.grid import SnippetGrid
    from refineloc.runtime.segments.values import Scores

__all__ = ["main", "with_metadata"]

app = new_app("refineloc-tune")

_FEW = 20  # detections, of which a share of right ones says little


@app.command()
def tune_command(
    model: Annotated[
        Path, typer.Argument(help="ONNX file that refineloc-export wrote, or the folder of a run of refineloc-train.")
    ],
    features: Annotated[Path, typer.Argument(help="Features of at least the annotated videos.")],
    labels: Annotated[Path, typer.Argument(help="A few annotated videos: labels with times, CSV or ActivityNet JSON.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="ONNX file to write; - is stdout.")] = Path("tuned.onnx"),
    precision: Annotated[
        str | None,
        typer.Option(metavar="P,...", help="Write the least score of this precision too, such as 0.9 or 0.8,0.95."),
    ] = None,
    keep_rule: Annotated[
        bool, typer.Option("--keep-rule", help="Choose no rule and no iteration, only the scores of --precision.")
    ] = False,
    tiou: Tiou = "0.5:0.95:0.05",
    subset: Subset = None,
    fps: Annotated[float | None, typer.Option(help="Frames a second of videos for which no file states it.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of which video is in which fold.")] = 0,
    _version: VersionOption = False,
) -> None:
    """Choose how scores become segments on a few annotated videos, by cross-validation.

    Of a model file, the numbers of its rule of detection; of a run, the iteration as well. The own rule stays where the
    gain may be chance. What was chosen, and on what, is written into the metadata of OUT; the graph stays as it is.
    """
    wanted = _precisions(precision)
    if keep_rule and not wanted:
        raise ConfigError("--keep-rule: goes with --precision P, as nothing else is chosen then")
    tious = parse_tious(tiou)
    check_writable(out, suffixes=(".onnx",))
    is_run = is_folder(model, ModelError)
    needed = ("torch", "onnx", "onnxscript", "pydantic", "safetensors") if is_run else ("onnx",)
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        cure = "pip install 'refineloc[train,cpu]'" if is_run else "pip install onnx"
        raise MissingExtraError(f"refineloc-tune needs {', '.join(missing)}: {cure}")
    from refineloc.evaluation.tuning import Choice, tune
    from refineloc.runtime.detector import Detector

    annotations = _timed(read_annotations(labels, subset=subset))
    with open_features(features) as store:
        shared_videos(store, annotations, allow_missing=True)  # an error where there is none
        _check_complete(store, annotations)
        exported = _iterations(model) if is_run else []
        sources: list[Path | bytes] = [content for _, content in exported] or [model]
        scores: list[dict[str, Scores]] = []
        grids: dict[str, SnippetGrid] = {}
        read: list[ModelMetadata] = []
        with progress("scoring", len(sources) * len(annotations), "videos") as advance:
            for source in sources:
                detector = Detector(source, provider="cpu")
                read.append(detector.metadata)
                scores.append({})
                planned = detector.plan(store, list(annotations), fps=fps, times=annotations)
                for name, grid, video_scores in detector.scores_planned(store, planned):
                    scores[-1][name], grids[name] = video_scores, grid
                    advance(1)
    first = _first_of_run(model) if is_run else 0
    own = Choice(first, read[first].detection)
    classes = read[first].classes
    _check_classes(annotations, classes, labels)
    choice, tuning, lines = own, None, []
    if not keep_rule:
        # Of a run with students, the iterations of the own kind of rule: its numbers mean nothing to the others.
        alike = [index for index, each in enumerate(read) if isinstance(each.detection, type(own.rules))]
        begin = Choice(alike.index(first), own.rules)
        tuned = tune([scores[index] for index in alike], grids, classes, begin, annotations, tious=tious, seed=seed)
        choice, best = (replace(each, network=alike[each.network]) for each in (tuned.choice, tuned.best))
        tuned = replace(tuned, choice=choice, best=best)
        tuning = _record(tuned, own, labels.name, tuple(grids), tiou)
        lines = _lines(tuned, own)
    metadata = replace(read[choice.network], detection=choice.rules, tuning=tuning or read[choice.network].tuning)
    points = _points(scores[choice.network], grids, metadata, annotations, min(tious), wanted, labels.name)
    if points:
        metadata = replace(metadata, operating_points=points)
    elif tuning is not None and tuning.changed:  # they were chosen for another rule
        metadata = replace(metadata, operating_points=None)
    if exported:
        _write_run(out, exported[choice.network][0], metadata, features, annotations)
    else:
        with atomic_write(out, "wb") as handle:
            handle.write(with_metadata(read_model(model)[1], metadata))
    say = note if is_stdout(out) else print
    say(f"{out}: {model}, on {counted(len(grids), 'video')} of {labels}")
    for line in [*lines, *(_point_line(point) for point in points)]:
        say(f"  {line}")


def with_metadata(content: bytes, metadata: ModelMetadata) -> bytes:
    """A model file with other metadata; the graph, and keys that are not ours, stay."""
    import onnx

    model = onnx.load_model_from_string(content)
    others = {each.key: each.value for each in model.metadata_props if not each.key.startswith(KEY_PREFIX)}
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, others | metadata.to_props())
    changed: bytes = model.SerializeToString(deterministic=True)
    return changed


def _precisions(text: str | None) -> list[float]:
    if text is None:
        return []
    numbers = parse_numbers(text)
    if not numbers or not all(0 < number <= 1 for number in numbers):
        raise ConfigError(f"--precision {text!r}: expected numbers above 0 and at most 1, such as 0.9 or 0.8,0.95")
    return sorted(set(numbers))


def _timed(annotations: Annotations) -> Annotations:
    """The videos whose actions have times; those without any action have them, too."""
    untimed = [name for name, video in annotations.items() if video.labels and not len(video.start)]
    if len(untimed) == len(annotations) or not annotations.has_times:
        raise AnnotationError(f"{annotations.path}: has labels but no segments with times, which tuning needs")
    if untimed:
        note(
            f"warning: {annotations.path}: {counted(len(untimed), 'video has', 'videos have')} labels without times "
            f"({untimed[0]!r}); left out"
        )
    return Annotations({name: annotations[name] for name in annotations if name not in untimed}, annotations.path)


def _check_complete(store: FeatureStore, annotations: Annotations) -> None:
    missing = sorted(set(annotations) - set(store.names))
    if missing:
        raise InputError(
            f"{counted(len(missing), 'video')} of {annotations.path} without features in {store.path}, the first is "
            f"{missing[0]!r}; extract them, or take their rows out"
        )


def _check_classes(annotations: Annotations, classes: Sequence[str], labels: Path) -> None:
    unknown = [label for label in annotations.classes if label not in classes]
    if len(unknown) == len(annotations.classes):
        raise InputError(f"{labels}: none of its classes is one of the model, which has {', '.join(classes[:3])}, ...")
    if unknown:
        note(
            f"warning: {labels}: {counted(len(unknown), 'class is', 'classes are')} none of the model's "
            f"({unknown[0]!r}): AP 0"
        )


def _iterations(run: Path) -> list[tuple["Trained", bytes]]:
    """Every finished iteration of a run, and the file that it would be."""
    from refineloc.export.graph import model_bytes
    from refineloc.export.precision import build
    from refineloc.export.sources import from_run
    from refineloc.training.run.files import read_records

    exported = []
    for iteration in range(max(len(read_records(run)), 1)):  # of none, from_run says what is wrong
        trained = from_run(run, iteration)
        graph = build(trained.model, trained.metadata.width, "fp32")
        exported.append((trained, model_bytes(graph, trained.metadata)))
    return exported


def _first_of_run(run: Path) -> int:
    """The iteration that is taken without times."""
    from refineloc.training.run.choice import choose
    from refineloc.training.run.files import read_records

    records = read_records(run)
    chosen = choose(records)
    return len(records) - 1 if chosen is None else chosen.iteration


def _record(tuned: "Tuned", own: Any, labels: str, videos: tuple[str, ...], tiou: str) -> Tuning:
    return Tuning(
        labels=labels,
        date=_today(),
        videos=videos,
        folds=tuned.folds,
        changed=tuple(_changes(own, tuned.choice)),
        tious=tiou,
        own_map=tuned.own_map,
        map=tuned.best_map if tuned.is_better else tuned.own_map,
        gain=tuned.gain,
        noise=tuned.noise,
    )


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def _changes(own: Any, choice: Any) -> Iterator[str]:
    """In words, what a choice changes."""
    if own.network != choice.network:
        yield f"iteration: {own.network} -> {choice.network}"
    before, now = asdict(own.rules), asdict(choice.rules)
    for name in now:
        if before[name] != now[name]:
            yield f"{name}: {_shown(before[name])} -> {_shown(now[name])}"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"{len(value)} from {min(value):g} to {max(value):g}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _lines(tuned: "Tuned", own: Any) -> list[str]:
    gain = f"cross-validated in {tuned.folds} folds: {100 * tuned.gain:+.2f} ± {100 * tuned.noise:.2f} points"
    maps = f"average mAP {100 * tuned.own_map:.2f} -> {100 * tuned.best_map:.2f} on the videos that chose; {gain}"
    changes = "; ".join(_changes(own, tuned.best))
    if tuned.is_better:
        return [changes, maps]
    if not changes:
        return [f"the own rule stays: none is better here (average mAP {100 * tuned.own_map:.2f})"]
    return [f"the own rule stays, as the gain of another may be chance ({changes})", maps]


def _points(
    scores: Mapping[str, "Scores"],
    grids: Mapping[str, "SnippetGrid"],
    metadata: ModelMetadata,
    annotations: Annotations,
    tiou: float,
    wanted: Sequence[float],
    labels: str,
) -> tuple[OperatingScore, ...]:
    """The least scores of the wanted precisions, where they are reached."""
    from refineloc.evaluation import at_precision, match_detections
    from refineloc.evaluation.rules import detect

    points: list[OperatingScore] = []
    # A least score of the file's own would hide the scores below.
    rules: Rules = replace(metadata.detection, min_score=None)
    detections: dict[str, Detections] = detect(scores, grids, metadata.classes, rules)
    matching = match_detections(detections, annotations, [tiou])
    for precision in wanted:
        point = at_precision(matching, precision).total
        if not point.is_reached or point.min_score is None:
            highest = "there are no detections" if point.precision is None else f"the highest is {point.precision:.3g}"
            note(f"warning: precision {precision:g} at tIoU {tiou:g} is not reached ({highest}); not written")
            continue
        count = point.true_positives + point.false_positives
        if count < _FEW:
            note(
                f"warning: precision {precision:g} was seen on {counted(count, 'detection')} alone; annotate more "
                "videos"
            )
        points.append(
            OperatingScore(
                precision=precision,
                min_score=point.min_score,
                tiou=tiou,
                recall=point.recall,
                false_alarms_an_hour=point.false_alarms_an_hour,
                true_positives=point.true_positives,
                false_positives=point.false_positives,
                labels=labels,
                date=_today(),
                videos=len(grids),
            )
        )
    return tuple(points)


def _point_line(point: OperatingScore) -> str:
    alarms = point.false_alarms_an_hour
    often = "" if alarms is None else f", {alarms:.3g} false alarms an hour"
    return (
        f"{point.name} at tIoU {point.tiou:g}: min_score {point.min_score:.6g} (recall {100 * point.recall:.1f} %, "
        f"{point.true_positives} right, {point.false_positives} wrong{often})"
    )


def _write_run(
    out: Path, trained: "Trained", metadata: ModelMetadata, features: Path, annotations: Annotations
) -> None:
    """Export an iteration, compared with the trained model on the same videos."""
    from refineloc.export.parity import read_sample
    from refineloc.export.write import write_model

    with open_features(features) as store:
        sample = read_sample(store, metadata, annotations, trained.fps)
    write_model(out, trained.model, metadata, sample)


def main() -> NoReturn:
    """Entry point of the console script."""
    run_app(app, {"fps": "--fps X"})


if __name__ == "__main__":
    main()
