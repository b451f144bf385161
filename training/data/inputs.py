"""The data of a run: both splits as they are trained on, what the run records of them, and their times apart."""

import contextlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from refineloc.runtime.annotations import Annotations, annotation_text, parse_annotations
from refineloc.runtime.cli.common import progress
from refineloc.runtime.errors import InputError
from refineloc.training.data.record import DataRecord
from refineloc.training.data.split import Split, load_split
from refineloc.training.data.truth import Truth, with_snippet_frames
from refineloc.training.settings.config import Config

__all__ = ["Files", "Inputs", "read_inputs"]


@dataclass(frozen=True, slots=True)
class Files:
    """What a run is trained on: the options of refineloc-train of the same names."""

    features: Path
    labels: Path
    val_features: Path
    val_labels: Path
    fps: float | None = None
    allow_missing: bool = False


@dataclass(frozen=True, slots=True)
class Inputs:
    """Files that were read.

    Attributes:
        train, val: the splits.
        labels: of the validation videos, without times.
        truth: the times, where the files have them: for the scores that are shown and for references, never trained on.
        record: what config.toml says of them.
        dropped: classes of the training labels that no training video with features has.
    """

    train: Split
    val: Split
    labels: Annotations
    truth: Truth
    record: DataRecord
    dropped: tuple[str, ...]


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
    # Without times, so that nothing in training can depend on them.
    texts = [(path, annotation_text(path)) for path in (files.labels, files.val_labels)]
    labels, val_labels = (parse_annotations(path, text, times=False) for path, text in texts)
    load = partial(load_split, config=config, fps=files.fps, allow_missing=files.allow_missing)
    videos = len(labels) + len(val_labels)
    shown = progress("reading features", videos, "videos") if show else contextlib.nullcontext(lambda steps: None)
    with shown as advance:
        train = load(files.features, labels, memory=memory, advance=advance)
        left = memory - train.bytes_held
        config = with_snippet_frames(config, train)  # which both splits have
        val = load(files.val_features, val_labels, classes=train.classes, memory=left, advance=advance)
    if val.file_width != train.file_width:
        raise InputError(
            f"{val.source}: features have width {val.file_width}, those of {train.source} {train.file_width}"
        )
    record = DataRecord(
        train_features=str(files.features),
        train_labels=str(files.labels),
        val_features=str(files.val_features),
        val_labels=str(files.val_labels),
        classes=train.classes,
        width=train.width,
        fps=files.fps or 0.0,
        train_digest=train.digest,
        val_digest=val.digest,
    )
    truth = Truth(*(_with_times(path, text) for path, text in texts))
    dropped = tuple(sorted(set(labels.classes) - set(train.classes)))
    return Inputs(train, val, val_labels, truth, record, dropped)


def _with_times(path: Path, text: str) -> Annotations | None:
    annotations = parse_annotations(path, text)
    return annotations if annotations.has_times else None
