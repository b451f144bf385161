"""`refineloc-detect` in films: their features go from the backbone to the model and are never written."""

import hashlib
import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from refineloc.runtime.annotations import read_annotations
from refineloc.runtime.cli.chosen import check_labelled, external_data, labels_of, without
from refineloc.runtime.cli.common import note
from refineloc.runtime.cli.run_of_parts import SHOWN, Run, beside, do_blocks, errors_line
from refineloc.runtime.detections import write_detections
from refineloc.runtime.errors import ConfigError, VideoError, counted
from refineloc.runtime.features.shared import shared_videos
from refineloc.runtime.files import claim_folder
from refineloc.runtime.jobs.detection import MergedDetections
from refineloc.runtime.jobs.parts import is_part, remove_parts, take_over

if TYPE_CHECKING:
    from refineloc.runtime.detector import Detector
    from refineloc.runtime.jobs.actors import Actors

__all__ = ["Films", "detect_in_films", "film_sources"]


class Films(NamedTuple):
    """Films as they were given, which of them are meant, and how they are decoded; options of the command line."""

    sources: list[Path]
    backbone: Path
    provider: Literal["auto", "cuda", "tensorrt", "cpu"]
    threads: int
    workers: "int | Actors"
    video_labels: Path | None
    videos: Path | None
    allow_missing: bool
    leave_out: list[str]


class _Place(NamedTuple):
    """Videos, and where they are, for messages."""

    path: str
    names: tuple[str, ...]


def film_sources(sources: list[Path], backbone: bool) -> list[Path]:
    """What films are to be found in; none where features were given."""
    from refineloc.runtime.video.films import is_film

    if backbone:
        return sources
    film = next((source for source in sources if is_film(source)), None)
    if film is not None:
        raise ConfigError(f"{film}: is a film; give --backbone, the ONNX file that turns films into features")
    if len(sources) > 1:
        raise ConfigError(f"{sources[1]}: several are for films, with --backbone; give one file or folder of features")
    return []


def detect_in_films(
    given: Films,
    detector: "Detector",
    models: Sequence[Path],
    out: Path,
    resume: bool,
    *,
    shard: tuple[int, int] | None,
) -> None:
    """Detect in films; one that cannot be decoded does not stop the others."""
    # Imported here, as detection from features needs none of it.
    from refineloc.runtime.video.backbone import Backbone
    from refineloc.runtime.video.detection import FilmDetectionWork, check_fits
    from refineloc.runtime.video.extract import film_blocks, seconds_counter, seconds_shown
    from refineloc.runtime.video.films import find_films

    backbone = Backbone(given.backbone, given.provider, given.threads)
    check_fits(detector.metadata, backbone)
    films = find_films(given.sources, sound=backbone.metadata.kind == "audio")
    place = _Place(", ".join(map(str, given.sources[:3])), tuple(films))
    if given.videos is not None:
        annotations = read_annotations(given.videos, times=False)
        films = {name: films[name] for name in shared_videos(place, annotations, allow_missing=given.allow_missing)}
    wanted = without(tuple(films), given.leave_out, place)
    labels = None
    if given.video_labels is not None:
        labels = labels_of(given.video_labels)
        check_labelled(labels, wanted, given.video_labels)
        labels = {name: labels[name] for name in wanted}
    job = {
        "model": " ".join(hashlib.sha256(model.read_bytes()).hexdigest() for model in models),
        "backbone": backbone.metadata.identity,
        "provider": f"{detector.provider} {backbone.provider}",
        "settings": repr(detector.settings),
    }
    if shard:  # the same films on all machines
        job["films"] = hashlib.sha256(json.dumps(list(films)).encode()).hexdigest()
    about = {"classes": detector.classes, "external_data": external_data(detector, models)}
    seconds = seconds_counter(given.workers)
    work = FilmDetectionWork(
        detector,
        films,
        backbone,
        given.backbone,
        provider=backbone.provider,
        threads=given.threads,
        labels=labels,
        seconds=seconds,
    )
    blocks = partial(film_blocks, films=films, job=job, about=about, left_out=frozenset(given.leave_out))
    if shard:
        claim_folder(out, is_part, "a run in shards")
        run = Run(out)
        do_blocks(run, work, blocks(out, shard=shard[0], shards=shard[1]), given.workers)
        if run.errors:
            raise VideoError(f"{out}: {errors_line(run)}; the same command tries again")
        films_done = counted(run.done, "film")
        note(f"{out}: shard {shard[0]} of {shard[1]} is done, {films_done} ({detector.provider})")
        return
    detections = None
    with beside(out, resume) as run:
        began = time.perf_counter()
        take_over(run.folder, blocks(run.folder))
        do_blocks(
            run,
            work,
            blocks(run.folder),
            given.workers,
            also=lambda: seconds_shown(seconds),
        )
        rate = seconds.value / (time.perf_counter() - began)
        if run.done:
            detections = MergedDetections(run.folder)
            write_detections(out, detections, detections.external_data)
            remove_parts(run.folder)
    if detections is None:
        raise VideoError(errors_line(run))
    for line in detections.notes[:SHOWN]:
        note(f"warning: {line}")
    if not detections.count:
        note("warning: no detections in any film; does it show what the model knows?")
    speed = f", {rate:.1f} s of film a second" if rate else ""
    note(f"{out}: {counted(detections.count, 'detection')} in {counted(run.done, 'film')} ({detector.provider}{speed})")
    if run.errors:
        raise VideoError(f"{errors_line(run)}; {out} has the other {run.done}")
