"""Training from Python: what `refineloc-train` does, with features and labels that may be in memory, and no files."""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy.typing as npt

from refineloc.runtime.annotations import Annotations
from refineloc.runtime.cli.common import notes_to
from refineloc.runtime.errors import ConfigError, InputWarning
from refineloc.runtime.features.store import FeatureStore
from refineloc.training.data.arrays import LabelMapping, as_features, as_labels
from refineloc.training.data.inputs import Files
from refineloc.training.run.display import in_notebook
from refineloc.training.run.trained import TrainedRun
from refineloc.training.settings.config import resolve
from refineloc.training.settings.given import given_layers, keyword_settings, named_settings
from refineloc.training.train_run import train_run

__all__ = ["train"]


def train(
    features: Mapping[str, npt.ArrayLike] | FeatureStore | str | os.PathLike[str],
    labels: LabelMapping | Annotations | str | os.PathLike[str],
    val_features: Mapping[str, npt.ArrayLike] | FeatureStore | str | os.PathLike[str] | None = None,
    val_labels: LabelMapping | Annotations | str | os.PathLike[str] | None = None,
    *,
    val_share: float | None = None,
    val_seed: int | None = None,
    subset: str | None = None,
    val_subset: str | None = None,
    preset: str | None = None,
    base: str | None = None,
    generator: str | None = None,
    iterations: int | None = None,
    epochs: int | None = None,
    student_from: int | None = None,
    seed: int | None = None,
    settings: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    fps: float | None = None,
    allow_missing: bool = False,
    allow_leaks: bool = False,
    unlabelled: Literal["refuse", "leave-out", "negatives"] = "refuse",
    device: str = "auto",
    memory_gib: float | None = None,
    run: str | os.PathLike[str] | None = None,
    resume: bool = False,
    show: bool = True,
) -> TrainedRun:
    """Train a model from video-level labels, refined over several iterations::

        run = train({"clip": array, ...}, {"clip": "jump", ...}, iterations=4)
        print(run)
        refineloc.export.export(run, "model.onnx")

    Args:
        features: of the training videos: arrays [T, D] by name, an open store, or a path (HDF5 file or folder).
        labels: their classes: a class or a list of classes by name, annotations, or a path (CSV or ActivityNet JSON).
            Times of segments are used for the scores that are shown, and nothing is trained with them.
        val_features, val_labels: of the validation videos, which choose the epoch, in the same forms. Labels alone are
            of features among the training features.
        val_share: without them, the share of the training videos that is held out for validation; 0.2 if left out.
        val_seed: of which videos these are; 0 if left out.
        subset, val_subset: of labels with subsets, those that train and validate; else those whose names say it.
        preset: settings to begin with; "auto" if left out, "none" for the paper's and the base model's own.
        base, generator: the base model and the pseudo-label generator, by name; or a file of one's own, which is run
            (docs/how-to/own-base.md, docs/how-to/own-generator.md).
        iterations: models to train, M_0 to M_(iterations - 1).
        epochs: an iteration.
        student_from: the first iteration that is a student, which learns segments (docs/explanation/student.md).
        seed: of everything that is drawn.
        settings: any settings, over the preset's: by name, such as `{"pseudo.beta": 2.0}`, or a TOML file
            (docs/reference/settings.md).
        fps: frames a second of videos for which neither features nor labels state it. Where it is not known there are
            no detections and no mAP.
        allow_missing: go on with the videos that have both features and labels.
        allow_leaks: go on with videos that are in both splits.
        unlabelled: what becomes of videos without any label (an empty list): refused, left out, or trained as
            background throughout.
        device: "auto", "cpu", "cuda" or "cuda:N".
        memory_gib: memory for features; those of a file that take more are read for each batch. Half of what is free.
        run: a folder for all that refineloc-train leaves there. Without it nothing is written.
        resume: go on with the run in this folder.
        show: show progress: on a terminal a live display, in a notebook a line, elsewhere a line an iteration. Without
            it there are Python warnings alone.

    Raises:
        InputError: data or settings that cannot be used; the message names the video or the setting.
        TrainingError: a loss is not finite.
        OutputError: a file cannot be written.
        MissingExtraError: the train extra is not installed.
    """
    if resume and run is None:
        raise ConfigError("resume: a run without a folder leaves nothing to go on with; give run", parameter="run")
    if run is not None and not os.fspath(run).strip():
        raise ConfigError("run: expected the name of a folder, got nothing", parameter="run")
    file, further = named_settings(settings)
    keywords = keyword_settings(
        preset=preset,
        base=base,
        generator=generator,
        iterations=iterations,
        epochs=epochs,
        seed=seed,
        student_from=student_from,
    )
    config = resolve(*(layer.settings for layer in given_layers("keywords", file, keywords, *further)))
    files = Files(
        as_features(features, "features"),
        as_labels(labels, "labels"),
        None if val_features is None else as_features(val_features, "val_features"),
        None if val_labels is None else as_labels(val_labels, "val_labels"),
        fps,
        allow_missing,
        subset=subset,
        val_subset=val_subset,
        val_share=val_share,
        val_seed=val_seed,
        allow_leaks=allow_leaks,
        unlabelled=unlabelled,
    )
    folder = None if run is None else Path(run)
    with _words(show):
        return train_run(lambda: config, files, folder, device=device, resume=resume, memory_gib=memory_gib, show=show)


@contextlib.contextmanager
def _words(show: bool) -> Iterator[None]:
    """What is said: on stderr as by the program, or where it is read."""
    if not show:
        with notes_to(_warn):
            yield
    elif in_notebook():
        with notes_to(_print):  # what is on stderr has a red background there
            yield
    else:
        yield


def _print(message: str) -> None:
    print(message)
    sys.stdout.flush()


def _warn(message: str) -> None:
    """Of what is said, warnings alone."""
    kind, _, text = message.partition("warning: ")
    if text and not kind:
        warnings.warn(text, InputWarning, stacklevel=2)
