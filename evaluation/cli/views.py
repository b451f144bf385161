"""What `refineloc-eval` draws: the diagnosis, a video's time line, the report; loaded only where one is asked for."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from refineloc.evaluation.diagnosis import Bins
from refineloc.evaluation.matching import Matching
from refineloc.runtime.annotations import Annotations, VideoAnnotation
from refineloc.runtime.cli.common import note
from refineloc.runtime.detections import Detections, read_detections
from refineloc.runtime.errors import ConfigError, InputError, OutputError
from refineloc.runtime.files import check_writable
from refineloc.runtime.segments.grid import SnippetGrid

if TYPE_CHECKING:
    from refineloc.evaluation.pictures.timeline import Curves

__all__ = [
    "RESAMPLES",
    "check_places",
    "check_timeline",
    "named_runs",
    "write_diagnoses",
    "write_report_page",
    "write_timeline",
]

RESAMPLES = 1000  # of a report, where --bootstrap does not say


def check_places(
    diagnose: Path | None, timeline: tuple[str, Path] | None, report: Path | None, videos: Path | None
) -> None:
    """Whether all that will be written can be.

    Raises:
        InputError: another ending, or no such folder of videos.
        OutputError: a place that cannot be written.
    """
    if timeline is not None:
        from refineloc.evaluation.pictures.timeline import FORMATS

        check_writable(timeline[1], FORMATS)
    if report is not None:
        check_writable(report, (".html", ".htm"))
    if videos is not None and not videos.is_dir():
        raise InputError(f"{videos}: no such folder of videos")
    if diagnose is not None:
        there = next(place for place in (diagnose, *diagnose.resolve().parents) if place.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            why = "is no folder" if not there.is_dir() else "cannot be written"
            raise OutputError(f"{diagnose}: cannot be made a folder: {there} {why}")


def check_timeline(video: str, truth: Annotations, model: Path | None, features: Path | None) -> None:
    """Whether there is such a video, and the files that its curves come from.

    Raises:
        InputError: there is not.
    """
    if video not in truth:
        raise InputError(f"--timeline: {truth.path} has no video {video!r}; the first is {next(iter(truth))!r}")
    for option, path in (("--model", model), ("--features", features)):
        if path is not None and not path.exists():
            raise InputError(f"{option}: {path}: no such file")


def named_runs(
    main: str | Path, found: Mapping[str, Detections], compare: Sequence[str]
) -> dict[str, Mapping[str, Detections]]:
    """All sets of detections by name, those to compare with first, the main one last.

    Args:
        main: the name of `found`, or the file that names it.
        found: its detections.
        compare: files, or NAME=FILE.

    Raises:
        ConfigError: two of one name.
        DetectionError: a file that cannot be read.
    """
    runs: dict[str, Mapping[str, Detections]] = {}
    for text in compare:
        name, equals, path = text.partition("=")
        # A name is taken for one only where the whole text is no file: paths may hold "=" too.
        if not equals or Path(text).exists():
            name, path = _name_of(Path(text)), text
        if name in runs:
            raise ConfigError(f"--compare: two are called {name!r}; name them: --compare NAME=FILE")
        runs[name] = read_detections(path)
    name = main if isinstance(main, str) else _name_of(main)
    if name in runs:
        raise ConfigError(f"--compare: two are called {name!r}; name the other: --compare NAME=FILE")
    return {**runs, name: found}


def write_diagnoses(folder: Path, matchings: Mapping[str, Matching], *, bins: Bins | None) -> None:
    """The diagnosis of each set of detections: in the folder where there is one, else in a folder of its name."""
    from refineloc.evaluation.diagnosis import diagnose
    from refineloc.evaluation.pictures.diagnosis import write_diagnosis

    for name, matching in matchings.items():
        target = folder if len(matchings) == 1 else folder / _file_name(name)
        written = write_diagnosis(target, diagnose(matching, bins=bins), title=name)
        note(f"{target}: {', '.join(path.name for path in written)}")


def write_timeline(
    video: str,
    out: Path,
    sets: Mapping[str, Mapping[str, Detections]],
    truth: Annotations,
    *,
    model: Path | None,
    features: Path | None,
) -> None:
    """One video's ground truth, its detections of each set, and, with a model and features, its scores by snippet."""
    from refineloc.evaluation.pictures.timeline import draw_timeline

    curves = None
    if model is not None and features is not None:
        curves = _curves(model, features, truth[video])
    rows = {name: detections[video] if video in detections else _nothing() for name, detections in sets.items()}
    draw_timeline(out, truth[video], rows, curves=curves)
    note(f"{out}: time line of {video}")


def write_report_page(
    out: Path,
    matchings: Mapping[str, Matching],
    truth: Annotations,
    *,
    bins: Bins | None,
    resamples: int,
    seed: int,
    videos: Path | None,
) -> None:
    """The HTML report."""
    from refineloc.evaluation.report import report_data, write_report

    data = report_data(
        matchings,
        title=f"{list(matchings)[-1]} on {truth.path.stem}",
        bins=bins,
        resamples=resamples,
        seed=seed,
        videos=videos,
        relative_to=out.parent,
    )
    write_report(out, data)
    linked = sum("file" in row for row in data["videos"])
    note(f"{out}: report of {len(truth)} videos" + (f", {linked} with a video file" if videos is not None else ""))


def _curves(model: Path, features: Path, video: VideoAnnotation) -> "Curves":
    from refineloc.evaluation.pictures.timeline import score_curves
    from refineloc.runtime.detector import Detector
    from refineloc.runtime.features.opening import open_features

    detector = Detector(model, provider="cpu")
    with open_features(features) as store:
        if video.name not in store.names:
            raise InputError(f"{features}: has no video {video.name!r}")
        scores = detector.scores(store.read(video.name))
        fps = store.info(video.name).fps or video.fps
    if fps is None:
        raise InputError(f"video {video.name!r}: its fps is in neither {features} nor the annotations")
    grid = SnippetGrid(fps, detector.metadata.snippet_frames, video.duration_s)
    return score_curves(scores, grid, video, detector.classes)


def _name_of(path: Path) -> str:
    """A run's file is called detections.json; its folder says which iteration it is."""
    return path.resolve().parent.name if path.stem == "detections" else path.stem


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_. " else "_" for letter in name).strip(". ") or "run"


def _nothing() -> Detections:
    import numpy as np

    return Detections(np.empty(0), np.empty(0), np.empty(0), np.empty(0, dtype=np.int64), ())
