"""Export from Python: what `refineloc-export` does, without its words."""

import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Literal

from refineloc.export.parity import Sample, generated_sample, read_sample, sample_of
from refineloc.export.sources import Trained, from_run, from_trained
from refineloc.export.write import Written, write_model
from refineloc.runtime.annotations import read_annotations
from refineloc.runtime.errors import AnnotationError, FeatureError, InputError
from refineloc.runtime.features.opening import open_features
from refineloc.runtime.files import check_writable, status_of
from refineloc.runtime.model.metadata import Precision
from refineloc.training.run.trained import TrainedRun
from refineloc.training.settings.own_files import name_own

__all__ = ["export", "sample_of_files"]


def export(
    run: TrainedRun | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    iteration: int | Literal["best"] = "best",
    precision: Precision = "fp32",
    single: bool = False,
    allow_loss: bool = False,
    base: str | os.PathLike[str] | None = None,
    licence: str = "",
) -> Written:
    """Write a trained iteration as one ONNX file, which `refineloc.runtime.Detector` takes.

    The file is compared with the trained model on the validation videos before it takes its name.

    Args:
        run: that `refineloc.training.train` gave, or the folder of one.
        path: of the file, which ends in `.onnx`; it appears whole or not at all.
        iteration: its number, or "best" for the best without times (`TrainedRun.best`).
        precision: of weights and products: "fp32", "fp16" or "int8" (docs/reference/onnx.md).
        single: of several models of an iteration the one of the lowest validation loss.
        allow_loss: keep the file even where it is too far from the trained model.
        base: of a folder whose base model is a file of one's own, that file: it is code, and a run cannot name it.
        licence: of the model, such as "CC-BY-4.0"; the file keeps it.

    Returns:
        What was written: metadata with the measured differences, and the size.

    Raises:
        InputError: not such a run, or a path of another ending.
        ModelError: no such iteration, or the file is too far from the model.
        OutputError: it cannot be written.
    """
    if not isinstance(run, (TrainedRun, str, os.PathLike)):
        raise InputError(f"run: expected what refineloc.training.train gives, or a folder, got {type(run).__name__}")
    check_writable(path, suffixes=(".onnx",))
    if base is not None:
        name_own(os.fspath(base), "base")
    if isinstance(run, TrainedRun):
        trained = from_trained(run, iteration, single=single)
        sample = sample_of(run.val, run.truth)
    else:
        trained = from_run(Path(run), iteration, single=single)
        sample = sample_of_files(trained)
    metadata = replace(trained.metadata, licence=licence)
    return write_model(path, trained.model, metadata, sample, precision=precision, allow_loss=allow_loss)


def sample_of_files(trained: Trained, features: Path | None = None, labels: Path | None = None) -> Sample:
    """What a file is compared with the trained model on; warns where the run's own files are gone.

    Args:
        trained: the model, and the files of its run.
        features: the run's if left out; generated ones where it has none, or where they are gone.
        labels: of these features, for mAP.

    Raises:
        FeatureError, AnnotationError: files that cannot be read.
        InputError: no video in common.
    """
    subset = None
    if features is None:
        features, labels, subset = trained.features, trained.labels, trained.subset
        if features is None:
            return generated_sample(trained.model, trained.metadata)
        if status_of(features, FeatureError) is None:
            warnings.warn(
                f"{features}, which the run was validated on, is not there; compared on generated features",
                stacklevel=2,
            )
            return generated_sample(trained.model, trained.metadata)
        if labels is not None and status_of(labels, AnnotationError) is None:
            warnings.warn(
                f"{labels}, which the run was validated with, is not there; mAP is not compared", stacklevel=2
            )
            labels = None
    with open_features(features) as store:
        annotations = None if labels is None else read_annotations(labels, subset=subset)
        return read_sample(store, trained.metadata, annotations, trained.fps)
