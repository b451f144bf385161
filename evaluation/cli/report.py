"""`refineloc-report`: what detections look like, alone or beside the ground truth, and why they are wrong."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import numpy as np
import typer

from refineloc import __version__
from refineloc.evaluation import Diagnosis, diagnose, match_detections
from refineloc.evaluation.cli.common import (
    DropRepeated,
    Subset,
    Tiou,
    parse_tious,
    read_named,
    warn_of_odd,
    warn_of_unknown,
)
from refineloc.evaluation.diagnosis import Bins
from refineloc.evaluation.pictures.diagnosis import is_of_diagnosis, write_diagnosis
from refineloc.evaluation.pictures.timeline import FORMATS, Curves, draw_timeline, score_curves, videos_of_detections
from refineloc.evaluation.report import detections_data, film_addresses, report_data, write_report
from refineloc.runtime.annotations import Annotations, read_annotations
from refineloc.runtime.cli.common import VersionOption, new_app, note, progress, run_app
from refineloc.runtime.detections import Detections
from refineloc.runtime.errors import ConfigError, FeatureError, InputError, counted
from refineloc.runtime.files import check_writable, claim_folder, is_folder
from refineloc.runtime.names import why_unmatched
from refineloc.runtime.segments.agreement import TimedVideo, check_times
from refineloc.runtime.segments.times import video_times

__all__ = ["main"]

app = new_app("refineloc-report")

ByVideo = Mapping[str, Detections]


# Of the options in the help.
GROUPS = {
    "What to make": ("out", "diagnosis", "timeline"),
    "Ground truth": (),
    "Shown beside": ("model", "features", "fps", "films"),
}


@app.command()
def report_command(
    detections: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]DETECTIONS...",
            help="Detections: ActivityNet JSON, CSV or JSON lines. Several are compared, such as those of iterations; "
            "the last is the main one.",
        ),
    ],
    truth: Annotated[
        Path | None,
        typer.Option(
            metavar="LABELS",
            help="Annotations with times: released CSV or ActivityNet JSON. Without: what was found.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="OUT.html",
            help="Write the page here (default: report.html, unless --diagnose or --timeline is given).",
        ),
    ] = None,
    diagnosis: Annotated[
        Path | None,
        typer.Option("--diagnose", metavar="DIR", help="Write DETAD's three analyses here: pictures and JSON."),
    ] = None,
    timeline: Annotated[
        tuple[str, Path] | None,
        typer.Option(metavar="VIDEO OUT", help="Draw one video's time line (.png, .svg or .pdf)."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="With --features: draw this model's attention and class scores below the time lines."),
    ] = None,
    features: Annotated[Path | None, typer.Option(help="With --model: the videos' features.")] = None,
    fps: Annotated[
        float | None, typer.Option(help="With --features: frames a second, where neither they nor LABELS state it.")
    ] = None,
    films: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Video files, which the page then plays from a segment on.")
    ] = None,
    tiou: Tiou = "0.5:0.95:0.05",
    subset: Subset = None,
    drop_repeated: DropRepeated = False,
    bins: Annotated[
        Literal["auto", "activitynet", "thumos14", "quantile"],
        typer.Option(help="The groups of annotations in the analyses."),
    ] = "auto",
    bootstrap: Annotated[
        int, typer.Option(min=0, metavar="N", help="The page's 95 % intervals are from N resamples of the videos.")
    ] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the resamples.")] = 0,
    _version: VersionOption = False,
) -> None:
    """One HTML page that shows what a detector does; or its diagnosis, or one video's time line, as pictures.

    The scores are those of refineloc-eval. docs/how-to/diagnosis.md says how to read the rest.
    """
    tious = parse_tious(tiou)
    if out is None and diagnosis is None and timeline is None:
        out = Path("report.html")
    if (model is None) != (features is None) or (model is not None and timeline is None and out is None):
        raise ConfigError("--model and --features: both together, and with --timeline or the page")
    if fps is not None and features is None:
        raise ConfigError("--fps: only with --features")
    if films is not None and out is None:
        raise ConfigError("--films: only with the page; give its name with -o")
    if bins != "auto" and out is None and diagnosis is None:
        raise ConfigError("--bins: only with the page (-o) or --diagnose")
    if truth is None:
        _need_truth(
            {"--diagnose": diagnosis, "--subset": subset, "--drop-repeated": drop_repeated, "--bins": bins != "auto"}
        )
    # Before the work, which can take minutes.
    if timeline is not None:
        check_writable(timeline[1], FORMATS)
    if out is not None:
        check_writable(out, (".html", ".htm"))
    if films is not None and not is_folder(films, InputError):
        raise InputError(f"{films}: no such folder of films")
    annotations = None if truth is None else read_annotations(truth, subset=subset)
    named = read_named(detections)
    videos = videos_of_detections(list(named.values())) if annotations is None else annotations
    if timeline is not None and timeline[0] not in videos:
        first = next(iter(videos), None)
        why = why_unmatched([timeline[0]], videos) or f"; the first is {first!r}"
        raise InputError(f"--timeline: {truth or detections[-1]} has no video {timeline[0]!r}{why}")
    curves: dict[str, Curves] = {}
    if model is not None and features is not None:
        wanted = list(videos) if out is not None else [timeline[0]] if timeline else []
        curves, videos = _with_curves(model, features, videos, wanted, fps)
    if timeline is not None:
        _write_timeline(*timeline, named, videos, curves)
    if out is None and diagnosis is None:
        return
    shown: dict[str, Any] = {"films": films, "relative_to": out.parent if out else ".", "curves": curves}
    shown["footer"] = _footer(detections, truth, model, features, films)
    main_set = list(named)[-1]
    if annotations is None:
        diagnoses: dict[str, Diagnosis] = {}
        data = detections_data(named, videos, title=f"{main_set}: what was found", **shown)
    else:
        warn_of_odd(named, annotations)
        targets = {} if diagnosis is None else _diagnosis_folders(diagnosis, list(named))
        matchings = {
            name: match_detections(by_video, videos, tious, drop_repeated=drop_repeated)
            for name, by_video in named.items()
        }
        for name, matching in matchings.items():
            warn_of_unknown(matching, name)
        groups: Bins | None = None if bins == "auto" else bins
        diagnoses = {name: diagnose(matching, bins=groups) for name, matching in matchings.items()}
        if diagnosis is not None:
            _write_diagnoses(targets, diagnoses)
        if out is None:
            return
        title = f"{main_set} on {annotations.path.stem}"
        data = report_data(matchings, title=title, resamples=bootstrap, seed=seed, **shown)
    if out is not None:
        write_report(out, data, diagnoses)
        linked = sum("file" in row for row in data["videos"])
        note(
            f"{out}: report of {counted(len(videos), 'video')}"
            + (f", {linked} with a film" if films is not None else "")
        )
        if films is not None and not linked:
            why = why_unmatched(list(videos), list(film_addresses(films, ".")))
            note(f"warning: {films}: no film is called as a video is, such as {next(iter(videos), '')}.mp4{why}")


def _need_truth(options: Mapping[str, object]) -> None:
    for name, value in options.items():
        if value:
            raise ConfigError(f"{name}: needs the ground truth; give --truth LABELS")


def _footer(
    detections: Sequence[str], truth: Path | None, model: Path | None, features: Path | None, films: Path | None
) -> list[tuple[str, str]]:
    """What made the page, of what."""
    made = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z")
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    lines = [("made", f"refineloc {__version__}, {made}"), ("command", command), ("folder", str(Path.cwd()))]
    files = {"detections": ", ".join(detections), "ground truth": truth, "model": model, "features": features}
    files["films"] = films
    return [*lines, *((name, str(path)) for name, path in files.items() if path is not None)]


def _diagnosis_folders(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """Where the diagnosis of each set of detections goes: into the folder where there is one, else one of its name.

    Made before the work, which can take minutes.

    Raises:
        ConfigError: two sets would have one folder.
        OutputError: a folder cannot be made, or holds something else.
    """
    if len(names) == 1:
        return {names[0]: claim_folder(folder, is_of_diagnosis, "a diagnosis")}
    targets: dict[str, Path] = {}
    for name in names:
        target = folder / _file_name(name)
        if target in targets.values():
            other = next(known for known, path in targets.items() if path == target)
            raise ConfigError(f"--diagnose: {other!r:.80} and {name!r:.80} would both be {target}; give NAME=FILE")
        targets[name] = target
    own = {path.name for path in targets.values()}

    def is_ours(name: str) -> bool:
        return is_of_diagnosis(name) or name in own or (folder / name / "diagnosis.json").is_file()

    claim_folder(folder, is_ours, "a diagnosis")
    return {name: claim_folder(target, is_of_diagnosis, "a diagnosis") for name, target in targets.items()}


def _write_diagnoses(targets: Mapping[str, Path], diagnoses: Mapping[str, Diagnosis]) -> None:
    for name, diagnosis in diagnoses.items():
        written = write_diagnosis(targets[name], diagnosis, title=name)
        note(f"{targets[name]}: {', '.join(path.name for path in written)}")


def _write_timeline(
    video: str, out: Path, named: Mapping[str, ByVideo], videos: Annotations, curves: Mapping[str, Curves]
) -> None:
    """One video's ground truth, its detections of each set, and, with a model and features, its scores by snippet."""
    nothing = Detections(np.empty(0), np.empty(0), np.empty(0), np.empty(0, dtype=np.int64), ())
    rows = {name: by_video.get(video, nothing) for name, by_video in named.items()}
    draw_timeline(out, videos[video], rows, curves=curves.get(video))
    note(f"{out}: time line of {video}")


def _with_curves(
    model: Path, features: Path, videos: Annotations, wanted: Sequence[str], fps: float | None
) -> tuple[dict[str, Curves], Annotations]:
    """What the model says of each snippet of the wanted videos, and the videos with their lengths where these were
    not known.

    Raises:
        InputError: none of the videos has features, or the fps of one is not known.
    """
    # Imported here: only curves need the engine and HDF5.
    from refineloc.runtime.detector import Detector
    from refineloc.runtime.features.opening import open_features

    detector = Detector(model, provider="cpu")
    curves: dict[str, Curves] = {}
    described = dict(videos)
    timed = []
    with open_features(features) as store:
        names = [name for name in wanted if name in store.names]
        if not names:
            why = why_unmatched(wanted, store.names)
            raise InputError(
                f"{features}: has no video {wanted[0]!r}{why}" if wanted else f"{features}: no video is wanted"
            )
        with progress("scores", len(names), "videos") as advance:
            for name in names:
                video, info = videos[name], store.info(name)
                stride = info.stride_frames or detector.metadata.stride_frames
                grid = video_times(info, video, fps=fps).grid(detector.metadata.snippet_frames, stride)
                if grid is None:
                    raise InputError(f"video {name!r}: its fps is in neither {features} nor the labels; give --fps X")
                timed.append(TimedVideo(info, video, grid))
                try:
                    scores = detector.scores(store.read(name))
                except FeatureError as error:
                    raise FeatureError(f"{features}: video {name!r}: {error}") from error
                curves[name] = score_curves(scores, grid, video, detector.classes)
                if video.duration_s is None:
                    _, end = grid.seconds(*2 * [np.array([info.snippets - 1])])
                    described[name] = replace(video, duration_s=float(end[0]))
                advance(1)
    check_times(timed, features, videos.path)
    return curves, Annotations(described, videos.path)


def _file_name(name: str) -> str:
    return (
        "".join(letter if letter.isalnum() or letter in "-_. " else "_" for letter in name).strip(". ") or "detections"
    )


def main() -> NoReturn:
    """Entry point of the console script."""
    run_app(app, {"subset": "--subset"}, groups=GROUPS)


if __name__ == "__main__":
    main()
