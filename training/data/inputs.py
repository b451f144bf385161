"""The data of a run: both splits as they are trained on, what the run records of them, and their times apart."""

import contextlib
import warnings
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from refineloc.runtime.annotations import Annotations, annotation_text, parse_annotations
from refineloc.runtime.cli.common import progress
from refineloc.runtime.errors import ConfigError, InputError, InputWarning
from refineloc.runtime.features.checks import check_backbone
from refineloc.runtime.features.opening import open_features
from refineloc.runtime.features.store import FeatureStore
from refineloc.training.data.labels import (
    Labels,
    Unlabelled,
    choose_subsets,
    has_validation,
    hold_out_share,
    refuse_leaks,
)
from refineloc.training.data.record import DataRecord
from refineloc.training.data.split import Split, load_split, refuse_same_features
from refineloc.training.data.truth import Truth, with_snippet_frames
from refineloc.training.settings.config import Config

__all__ = ["VAL_SHARE", "Files", "Inputs", "read_inputs"]


VAL_SHARE = 0.2  # held out where nothing is given for validation


@dataclass(frozen=True, slots=True)
class Files:
    """What a run is trained on: the options of refineloc-train of the same names, or what is in memory already.

    Attributes:
        val_features, val_labels: None where those of training have the validation videos as well.
        val_share, val_seed: of the training videos, what is held out for validation where neither these files nor
            a subset for it are given. The seed is not that of training, so that runs of several seeds compare.
        subset, val_subset: of the label files; None where none is named (`choose_subsets`).
        allow_leaks: go on with videos that are in both splits.
        unlabelled: what becomes of videos without any label (`choose_subsets`).
    """

    features: Path | FeatureStore
    labels: Path | Annotations
    val_features: Path | FeatureStore | None = None
    val_labels: Path | Annotations | None = None
    fps: float | None = None
    allow_missing: bool = False
    subset: str | None = None
    val_subset: str | None = None
    val_share: float | None = None
    val_seed: int | None = None
    allow_leaks: bool = False
    unlabelled: Unlabelled = "refuse"


@dataclass(frozen=True, slots=True)
class Inputs:
    """Files that were read.

    Attributes:
        train, val: the splits.
        labels: of both, without times.
        truth: the times, where the files have them: for the scores that are shown and for references, never trained on.
        record: what config.toml says of them.
        notes: what the user should know of them, a line each.
    """

    train: Split
    val: Split
    labels: Labels
    truth: Truth
    record: DataRecord
    notes: tuple[str, ...] = ()


def read_inputs(files: Files, config: Config, memory: int, *, show: bool = False) -> Inputs:
    """Read both splits.

    Args:
        files: where they are.
        config: stream, snippet length and which labels of a video count.
        memory: bytes that the features of both may take; with 0 their sizes are read alone.
        show: show on a terminal how far the reading is.

    Raises:
        InputError: data that cannot be used; the message names the file, the video and the cure.
    """
    val_features = files.features if files.val_features is None else files.val_features
    source = _Source(files.labels)
    val_source = source if files.val_labels in (None, files.labels) else _Source(files.val_labels)
    # Without times, so that nothing in training can depend on them.
    whole = source.annotations(times=False)
    val_whole = whole if val_source is source else val_source.annotations(times=False)
    labels = _choose(files, whole, val_whole)
    if not files.allow_leaks:
        refuse_leaks(labels.train, labels.val)
    load = partial(
        load_split,
        config=config,
        fps=files.fps,
        allow_missing=files.allow_missing,
        elsewhere={*whole, *val_whole},
    )
    videos = len(labels.train) + len(labels.val)
    shown = progress("reading features", videos, "videos") if show else contextlib.nullcontext(lambda steps: None)
    with shown as advance:
        train = load(files.features, labels.train, memory=memory, advance=advance)
        left = memory - train.bytes_held
        config = with_snippet_frames(config, train)  # which both splits have
        val = load(val_features, labels.val, classes=train.classes, memory=left, advance=advance)
    if val.file_width != train.file_width:
        raise InputError(
            f"{val.source}: features have width {val.file_width}, those of {train.source} {train.file_width}"
        )
    check_backbone(val.backbone, train.backbone, str(val.source), f"those of {train.source} are")
    if not files.allow_leaks:
        refuse_same_features(train, val, labels.val)
    record = DataRecord(
        train_features=_path_text(files.features),
        train_labels=_path_text(files.labels),
        val_features=_path_text(val_features),
        val_labels=_path_text(files.labels if files.val_labels is None else files.val_labels),
        classes=train.classes,
        width=train.width,
        backbone=train.backbone,
        fps=files.fps or 0.0,
        subset=labels.subset,
        val_subset=labels.val_subset,
        val_share=labels.share,
        val_seed=(files.val_seed or 0) if labels.share else 0,
        train_digest=train.digest,
        val_digest=val.digest,
    )
    truth = Truth(source.times_of(labels.train), val_source.times_of(labels.val))
    notes = list(labels.notes)
    for label in train.classes:
        if label.casefold() == "ambiguous":
            notes.append(
                f"warning: {whole.path}: {label!r} is trained as a class; if it marks what nobody is sure of, as in "
                "THUMOS14, take it out of the file"
            )
    if dropped := sorted(set(labels.train.classes) - set(train.classes)):
        notes.append(
            f"warning: {whole.path}: no video with features has the label {', '.join(map(repr, dropped))}; trained "
            f"without {'them' if len(dropped) > 1 else 'it'}"
        )
    if unknown := sorted({label for name in val.names for label in labels.val[name].labels} - set(train.classes)):
        videos = sum(not set(labels.val[name].labels).isdisjoint(unknown) for name in val.names)
        notes.append(
            f"warning: {val_whole.path}: labels that no training video has: {len(unknown)} (in videos: {videos}), "
            f"the first is {unknown[0]!r}; left out of the validation loss, and never detected: AP 0"
        )
    return Inputs(train, val, labels, truth, record, tuple(notes))


def _choose(files: Files, labels: Annotations, val_labels: Annotations) -> Labels:
    """Which videos train and which validate."""
    given = files.val_labels is not None or files.val_subset is not None
    if given or (files.val_share is None and has_validation(labels, files.subset)):
        for name, value in (("val_share", files.val_share), ("val_seed", files.val_seed)):
            if value is not None:
                raise ConfigError(
                    f"{name}: of what is held out of the training videos, goes without val_features, val_labels and "
                    "val_subset"
                )
        return choose_subsets(labels, val_labels, files.subset, files.val_subset, files.unlabelled)
    if files.val_features is not None:
        where = files.val_features if isinstance(files.val_features, Path) else files.val_features.path
        raise InputError(
            f"{where}: features for validation need labels of their own; give val_labels, or val_subset "
            f"of {labels.path}",
            parameter="val_labels",
        )
    share = VAL_SHARE if files.val_share is None else files.val_share
    if not 0 < share < 1:
        raise ConfigError(f"val_share: expected a share above 0 and below 1, got {share:g}")
    opened = (
        open_features(files.features) if isinstance(files.features, Path) else contextlib.nullcontext(files.features)
    )
    with opened as store:
        return hold_out_share(
            labels,
            store,
            share,
            files.val_seed or 0,
            subset=files.subset,
            allow_missing=files.allow_missing,
            unlabelled=files.unlabelled,
        )


class _Source:
    """Where labels are from: a file, which is read once as it may be a pipe, or annotations."""

    def __init__(self, source: Path | Annotations) -> None:
        self._source = source
        self._text = annotation_text(source) if isinstance(source, Path) else ""

    def annotations(self, *, times: bool = True) -> Annotations:
        """The labels; without `times` nothing can depend on segments, even where they are known."""
        if isinstance(self._source, Path):
            return parse_annotations(self._source, self._text, times=times)
        if times:
            return self._source
        none = np.empty(0)
        videos = {name: replace(video, start=none, end=none, segment_labels=()) for name, video in self._source.items()}
        return Annotations(videos, self._source.path)

    def times_of(self, labels: Annotations) -> Annotations | None:
        """The same videos with their times; None where none of them are known."""
        with warnings.catch_warnings(action="ignore", category=InputWarning):  # which reading the labels has given
            annotations = self.annotations().only(labels)
        return annotations if annotations.has_times else None


def _path_text(source: object) -> str:
    return str(source) if isinstance(source, Path) else ""
