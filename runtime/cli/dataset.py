"""What `refineloc-doctor FEATURES --labels LABELS` looks at: a data set, a video at a time.

A finding "fail" is what training or detection would refuse.
"""

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from refineloc.runtime.annotations import Annotations, VideoAnnotation, read_annotations
from refineloc.runtime.cli.common import progress
from refineloc.runtime.cli.findings import Finding
from refineloc.runtime.errors import FeatureError, InputError, RefineLocError, counted
from refineloc.runtime.features.opening import open_features
from refineloc.runtime.features.shared import shared_videos
from refineloc.runtime.features.store import FeatureInfo, FeatureStore
from refineloc.runtime.segments.agreement import TimedVideo, check_times, contradiction, same_length
from refineloc.runtime.segments.odd import odd_segments
from refineloc.runtime.segments.times import VideoTimes, video_times

__all__ = ["Stated", "examine_data"]

_SHOWN = 20  # values in a line
_LEAST_CLASS = 2  # videos of a class: one alone cannot be in training and validation


@dataclass(frozen=True, slots=True)
class Stated:
    """What the user says of all videos that do not state it: see the options of refineloc-doctor."""

    fps: float | None = None
    snippet_frames: int | None = None
    stride_frames: int | None = None


def examine_data(features: Path, labels: Sequence[Path], stated: Stated) -> Iterator[Finding]:
    """Everything that training and detection would stumble over in a data set, and what is only odd.

    Args:
        features: an HDF5 file or a folder.
        labels: files of labels of its videos; none where there are none.
        stated: of videos that do not state it.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        annotations = []
        for path in labels:
            try:
                annotations.append(read_annotations(path))
            except RefineLocError as error:
                yield Finding("fail", "labels", str(error))
        with contextlib.ExitStack() as closing:
            try:
                store = closing.enter_context(open_features(features))
            except RefineLocError as error:
                yield Finding("fail", "features", str(error))
                return
            infos, broken = _infos(store)
            yield Finding(
                "ok",
                "features",
                f"{features}: {counted(len(store.names), 'video')}, "
                f"{counted(sum(info.snippets for info in infos), 'snippet')}",
            )
            yield from broken
            if infos:
                yield from _shapes(infos)
                yield from _times(store, infos, annotations, stated)
                yield from _values(store, infos)
            for each in annotations:
                yield from _names(store, each, annotations)
        for each in annotations:
            yield from _labels(each)
        yield from _in_several(annotations)
    for text in dict.fromkeys(str(each.message) for each in caught):
        yield Finding("warn", "reading", text)


def _infos(store: FeatureStore) -> tuple[list[FeatureInfo], list[Finding]]:
    """What the file says of each video, and the videos of which nothing can be read."""
    infos, errors = [], []
    for name in store.names:
        try:
            infos.append(store.info(name))
        except RefineLocError as error:
            errors.append(str(error))
    empty = [info.name for info in infos if not info.snippets]
    broken = [_failed("videos", errors)] if errors else []
    if empty:
        result = f"{counted(len(empty), 'video')} without snippets, the first is {empty[0]!r}"
        broken.append(Finding("fail", "videos", result, "leave them out, or extract their features again"))
    return [info for info in infos if info.snippets], broken


def _failed(subject: str, errors: Sequence[str]) -> Finding:
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return Finding("fail", subject, f"{errors[0]}{more}")


def _shapes(infos: Sequence[FeatureInfo]) -> Iterator[Finding]:
    length = same_length(infos)
    lengths = sorted(info.snippets for info in infos)
    shown = f"{lengths[0]} to {lengths[-1]} a video, the median is {lengths[len(lengths) // 2]}"
    if length and len(infos) > 2:
        cure = "say how long they are (durations), extract them unscaled, or save them transposed"
        result = f"all videos have {length}: brought to a fixed number, or saved as D x T?"
        yield Finding("warn", "snippets", result, cure)
    else:
        yield Finding("ok", "snippets", shown)
    widths = Counter(info.width for info in infos)
    if len(widths) > 1:
        odd = next(info for info in infos if info.width != widths.most_common(1)[0][0])
        cure = "save them transposed" if length else "extract them all with one encoder, or leave these out"
        result = f"{_counts(widths)}; the first of another width is {odd.name!r}"
        yield Finding("fail", "width", result + (": saved as D x T?" if length else ""), cure)
    else:
        yield Finding("ok", "width", str(infos[0].width))
    yield Finding("ok", "dtype", _counts(Counter(str(info.dtype) for info in infos)))


def _times(
    store: FeatureStore, infos: Sequence[FeatureInfo], annotations: Sequence[Annotations], stated: Stated
) -> Iterator[Finding]:
    """fps, window, stride and duration: stated where, and whether they agree."""
    labels: dict[str, VideoAnnotation] = {}
    path: str | Path = "the labels"
    for each in annotations:
        labels |= each
        path = each.path
    for subject, of_features, of_labels in (
        ("fps", [info.fps for info in infos], [labels[info.name].fps for info in infos if info.name in labels]),
        (
            "duration",
            [info.duration_s for info in infos],
            [labels[info.name].duration_s for info in infos if info.name in labels],
        ),
    ):
        yield Finding("ok", subject, f"{_stated(of_features, 'the features')}; {_stated(of_labels, 'the labels')}")
    for subject, values, assumed in (
        ("snippet_frames", [info.snippet_frames for info in infos], stated.snippet_frames),
        ("stride_frames", [info.stride_frames for info in infos], stated.stride_frames),
    ):
        known = Counter(value for value in values if value is not None)
        if len(known) > 1:
            yield Finding("fail", subject, _counts(known), "extract all features alike, or correct the attributes")
        elif known or assumed:
            yield Finding("ok", subject, f"{next(iter(known), assumed)}")
    window = stated.snippet_frames or next((info.snippet_frames for info in infos if info.snippet_frames), None)
    if window is None:
        cure = "state it as the attribute snippet_frames, or give --snippet-frames N"
        yield Finding("warn", "snippet_frames", "not stated; the model's or 16 are taken", cure)
    videos, unknown = [], []
    for info in infos:
        label = labels.get(info.name)
        rate = VideoTimes(stated.fps if info.fps is None else info.fps, info.duration_s)
        try:
            grid = video_times(rate, label).grid(window or 16, info.stride_frames or stated.stride_frames)
        except InputError as error:
            yield Finding("fail", "times", f"{store.path}: video {info.name!r}: {error}")
            return
        if grid is None:
            unknown.append(info.name)
        else:
            videos.append(TimedVideo(info, label, grid))
    if unknown:
        result = (
            f"{counted(len(unknown), 'video')} whose fps is not known, which seconds need; the first is {unknown[0]!r}"
        )
        yield Finding("warn", "times", result, "state it in the features or labels, or give --fps X")
    with warnings.catch_warnings(record=True) as odd:
        warnings.simplefilter("always")
        try:
            check_times(videos, store.path, path)
        except InputError as error:
            apart = "" if window else ", or --snippet-frames N where snippets do not overlap"
            cures = {"stride_frames": f"--stride-frames N{apart}", "fps": "--fps X"}
            yield Finding("fail", "times", str(error), cures.get(error.parameter, ""))
            return
    if odd:
        yield Finding("warn", "times", str(odd[0].message), "correct them, or leave these videos out")
    known_durations = sum(video.grid.duration_s is not None for video in videos)
    agree = known_durations - sum(contradiction(video) != "" for video in videos)
    if known_durations:
        result = f"in {agree} of {counted(known_durations, 'video')} with a duration, snippets x stride / fps is it"
        yield Finding("ok", "times", result)
    else:
        result = "no durations are known, so nothing shows whether fps and stride are right"
        yield Finding("warn", "times", result, "state them in the features or labels")


def _values(store: FeatureStore, infos: Sequence[FeatureInfo]) -> Iterator[Finding]:
    """NaN, infinity and rows without any variation; reads one video at a time."""
    errors: list[str] = []
    constant: list[tuple[str, int]] = []
    least, most = np.inf, -np.inf
    with progress("reading features", len(infos), "videos") as advance:
        for info in infos:
            advance(1)
            try:
                features = store.read(info.name)
            except (FeatureError, MemoryError) as error:
                errors.append(str(error))
                continue
            least, most = min(least, float(features.min())), max(most, float(features.max()))
            rows = int((features == features[:, :1]).all(axis=1).sum()) if info.width > 1 else 0
            if rows:
                constant.append((info.name, rows))
    if errors:
        yield _failed("values", errors)
    if most >= least:
        yield Finding("ok", "values", f"{least:.4g} to {most:.4g}")
    if constant:
        rows, (name, first) = sum(rows for _, rows in constant), constant[0]
        where = f"{counted(len(constant), 'video')}, the first {first} in {name!r}"
        result = f"{counted(rows, 'snippet has', 'snippets have')} the same value in all columns, in {where}"
        yield Finding("warn", "constant rows", result, "were their frames read? Extract these videos again")


def _names(store: FeatureStore, labels: Annotations, every: Sequence[Annotations]) -> Iterator[Finding]:
    elsewhere = {name for each in every for name in each}
    try:
        shared = shared_videos(store, labels, elsewhere=elsewhere)
    except InputError as error:
        yield Finding(
            "fail",
            "names",
            str(error),
            "correct the names; refineloc-train's --allow-missing goes on with those of both",
        )
    else:
        yield Finding("ok", "names", f"{labels.path}: {counted(len(shared), 'video')} with features")


def _labels(labels: Annotations) -> Iterator[Finding]:
    """Classes, subsets, videos without labels and odd segments of one file."""
    where = str(labels.path)
    yield Finding("ok", "labels", f"{where}: {counted(len(labels), 'video')}, {counted(len(labels.classes), 'class')}")
    counts = Counter(label for video in labels.values() for label in video.labels)
    if len(counts) < 2:
        result = f"{where}: {len(counts)} class; labels teach nothing with fewer than 2"
        yield Finding("fail", "classes", result, "add videos of another class")
    else:
        yield Finding("ok", "classes", _counts(counts))
    few = sorted(label for label, count in counts.items() if count < _LEAST_CLASS)
    if few:
        result = f"{where}: {counted(len(few), 'class has', 'classes have')} one video, the first is {few[0]!r}"
        yield Finding("warn", "classes", result, "add videos of them, or leave these classes out")
    if labels.subsets:
        yield Finding("ok", "subsets", _counts(Counter(labels.subsets)))
    unlabelled = [name for name, video in labels.items() if not video.labels]
    if unlabelled:
        result = f"{where}: {counted(len(unlabelled), 'video')} without labels, the first is {unlabelled[0]!r}"
        cure = "label them; --leave-out-unlabelled leaves them out of training, --negatives takes them as background"
        yield Finding("fail", "unlabelled", result, cure)
    total = sum(len(video.start) for video in labels.values())
    if total:
        yield Finding("ok", "segments", f"{where}: {total:,}")
    for odd in odd_segments(labels, {name: video.duration_s for name, video in labels.items()}):
        line = odd.line("annotation", total, "training reads no times, evaluation does")
        yield Finding("warn", "segments", f"{where}: {line}", "correct them")


def _in_several(annotations: Sequence[Annotations]) -> Iterator[Finding]:
    counts = Counter(name for each in annotations for name in each)
    several = sorted(name for name, count in counts.items() if count > 1)
    if several:
        result = f"{counted(len(several), 'video')} in several of the files of labels, the first is {several[0]!r}"
        yield Finding("fail", "splits", result, "leave each out of one: what trains a model must not validate it")


def _stated(values: Sequence[float | None], where: str) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return f"{where} state none"
    span = f"{min(known):.6g}" if min(known) == max(known) else f"{min(known):.6g} to {max(known):.6g}"
    return f"{span} in {where}" + (
        f" ({len(known)} of {counted(len(values), 'video')})" if len(known) < len(values) else ""
    )


def _counts(counts: Counter[Any]) -> str:
    """The values and how often each is, the most often first: "run (12 videos), jump (9)"."""
    shown = [f"{value} ({count:,})" for value, count in counts.most_common(_SHOWN)]
    if shown:
        value, count = counts.most_common(1)[0]
        shown[0] = f"{value} ({counted(count, 'video')})"
    more = f" and {len(counts) - _SHOWN} more" if len(counts) > _SHOWN else ""
    return ", ".join(shown) + more
