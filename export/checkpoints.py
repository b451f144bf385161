"""Reads the checkpoints that the paper's authors released.

Such a file is a pickle (torch's format of 2019) of {"model": state dict, "config": dict, ...} with some NumPy scalars.
A pickle can make its reader call any function. So it is read with torch's restricted unpickler, which allows the few
names that the authors' file needs and refuses others before anything is called.
"""

import _codecs
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from refineloc.runtime.annotations import read_annotations
from refineloc.runtime.errors import ModelError, counted
from refineloc.runtime.features.streams import Stream
from refineloc.runtime.files import is_file, status_of
from refineloc.runtime.text import read_names
from refineloc.training.models.bases.refineloc import RefineLoc

__all__ = ["ReleasedCheckpoint", "read_checkpoint", "read_class_names"]

# The parts of a pickled NumPy float64 or int64; the constructor of scalars has its name of NumPy 1.
_ALLOWED: list[Any] = [
    (np.float64().__reduce__()[0], "numpy.core.multiarray.scalar"),
    np.dtype,
    np.dtypes.Float64DType,
    np.dtypes.Int64DType,
    _codecs.encode,
]
_STREAMS: tuple[Stream, ...] = ("temporal", "spatial", "both")  # 0, 1 and 2 in the authors' config
_WEIGHT = re.compile(r"(fc_cas|fc_attention)\.linear_(\d{1,3})\.(weight|bias)")


@dataclass(frozen=True, slots=True)
class ReleasedCheckpoint:
    """A released checkpoint.

    Attributes:
        model: the network, in evaluation mode.
        width: D.
        classes: N.
        config: the authors' settings of detection by our names (snippet_frames, stream, alpha_a, alpha_c, top_k,
            widen), without those that the file lacks.
        iteration: the refinement iteration, 0 if the file does not state it.
    """

    model: RefineLoc
    width: int
    classes: int
    config: Mapping[str, Any]
    iteration: int


def read_checkpoint(path: str | os.PathLike[str]) -> ReleasedCheckpoint:
    """Read a checkpoint that the authors' code wrote.

    Raises:
        ModelError: the file is missing, cut short or not such a checkpoint, or a pickle that calls anything else.
    """
    source = Path(path)
    document = _unpickle(source)
    if not isinstance(document, dict):
        raise ModelError(f"{source}: not a RefineLoc checkpoint: expected a dict, got {type(document).__name__}")
    state = document.get("model", document)
    if not isinstance(state, Mapping):
        raise ModelError(f"{source}: not a RefineLoc checkpoint: 'model' is no state dict")
    classifier = _layers(source, state, "fc_cas")
    attention = _layers(source, state, "fc_attention")
    if len(attention) != len(classifier):
        raise ModelError(
            f"{source}: expected as many layers in both branches, got {len(classifier)} in fc_cas and "
            f"{len(attention)} in fc_attention"
        )
    width, classes, values = classifier[0][0].shape[1], classifier[-1][0].shape[0], attention[-1][0].shape[0]
    if values not in (1, 2):
        raise ModelError(f"{source}: expected an attention of 1 or 2 values, got {values}")
    with torch.device("meta"):  # shapes only: a file that lies about them must not allocate memory
        model = RefineLoc(width, classes, layers=len(classifier), attention_values=values).eval()
    _load(source, model.classifier, classifier, "fc_cas")
    _load(source, model.attention, attention, "fc_attention")
    config = document.get("config", {})
    if not isinstance(config, dict):
        raise ModelError(f"{source}: 'config' is no dict")
    weights = {"num_layers": len(classifier), "pseudo_gt_loss_dim": values, "num_classes": classes, "input_size": width}
    for key, value in weights.items():
        if key in config and _number(source, config, key) != value:
            raise ModelError(f"{source}: its config says {key} = {config[key]}, its weights say {value}")
    return ReleasedCheckpoint(
        model=model,
        width=width,
        classes=classes,
        config=_settings(source, config),
        iteration=_iteration(document),
    )


def read_class_names(path: str | os.PathLike[str], count: int) -> tuple[str, ...]:
    """The names of a checkpoint's classes, in the order of its columns.

    Args:
        path: a text file with one class in each line, in the order of the columns; or a labels CSV or ActivityNet JSON,
            whose labels are sorted as by the authors' code: as numbers if all are whole numbers (their THUMOS14 files
            have 0..19), else as text.
        count: number of classes of the checkpoint.

    Raises:
        ModelError: another number of classes.
        AnnotationError: the file cannot be read.
    """
    source = Path(path)
    if source.suffix.lower() in (".csv", ".json"):
        labels = read_annotations(source, times=False).classes
        numbers = all(re.fullmatch(r"[0-9]{1,9}", label) for label in labels)
        names = tuple(sorted(labels, key=int) if numbers else labels)
    else:
        names = read_names(source, ModelError, "give the classes, one a line, or a labels CSV")
    if len(names) != count:
        raise ModelError(
            f"{source}: expected {counted(count, 'class')}, as many as the checkpoint has, got {len(names)}"
        )
    return names


def _unpickle(source: Path) -> Any:
    if status_of(source, ModelError) is None:
        raise ModelError(f"{source}: no such file")
    if not is_file(source, ModelError):
        raise ModelError(f"{source}: cannot be read: not a file")  # a pipe or a device might never end
    try:
        with source.open("rb") as handle, torch.serialization.safe_globals(_ALLOWED), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns that the format is old
            return torch.load(handle, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"{source}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # damaged bytes can make the unpickler raise anything
        # A name that is not allowed, or that torch always blocks.
        forbidden = re.search(r"(?:Unsupported global: GLOBAL|unsupported GLOBAL) (\w[\w.]*\w)", str(error))
        if forbidden:
            raise ModelError(
                f"{source}: refused: it wants to call {forbidden[1]}, which no checkpoint of the released code does"
            ) from error
        raise ModelError(f"{source}: not a PyTorch checkpoint, or cut short") from error


def _layers(source: Path, state: Mapping[Any, Any], branch: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Weight [out, in] and bias [out] of each fully connected layer of a branch, in order."""
    tensors: dict[tuple[int, str], torch.Tensor] = {}
    for key, value in state.items():
        match = _WEIGHT.fullmatch(key) if isinstance(key, str) else None
        if match is None or not isinstance(value, torch.Tensor):
            raise ModelError(f"{source}: not a RefineLoc checkpoint: unexpected entry {str(key)[:60]!r} in the model")
        if match[1] == branch:
            tensors[int(match[2]), match[3]] = value
    count = len(tensors) // 2
    wanted = {(index, kind) for index in range(count) for kind in ("weight", "bias")}
    if not count or tensors.keys() != wanted:
        raise ModelError(f"{source}: not a RefineLoc checkpoint: the layers of {branch} are not complete")
    layers = [(tensors[index, "weight"], tensors[index, "bias"]) for index in range(count)]
    if any(weight.dim() != 2 or not all(weight.shape) or bias.dim() != 1 for weight, bias in layers):
        raise ModelError(f"{source}: {branch}: expected weights [out, in] and biases [out]")
    return layers


def _load(source: Path, branch: nn.Sequential, layers: list[tuple[torch.Tensor, torch.Tensor]], name: str) -> None:
    targets = [module for module in branch if isinstance(module, nn.Linear)]
    for index, (target, (weight, bias)) in enumerate(zip(targets, layers, strict=True)):
        if weight.shape != target.weight.shape or bias.shape != target.bias.shape:
            expected, got = tuple(target.weight.shape), tuple(weight.shape)
            raise ModelError(f"{source}: {name}.linear_{index}: expected shape {expected}, got {got}")
        if not all(tensor.is_floating_point() and bool(tensor.isfinite().all()) for tensor in (weight, bias)):
            raise ModelError(f"{source}: {name}.linear_{index}: expected finite numbers")
        target.weight, target.bias = nn.Parameter(weight.float()), nn.Parameter(bias.float())


def _settings(source: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """The authors' settings of detection by our names."""
    settings: dict[str, Any] = {}
    for key, name in (("snippet_size", "snippet_frames"), ("top_k_labels", "top_k"), ("padding", "widen")):
        if key in config:
            settings[name] = int(_number(source, config, key))
    if "min_cas_score" in config:
        settings["alpha_c"] = _number(source, config, "min_cas_score")
    if "min_attention_score" in config:
        # The released code keeps foreground above this; α_A bounds the background.
        settings["alpha_a"] = 1.0 - _number(source, config, "min_attention_score")
    if "stream" in config:
        number = int(_number(source, config, "stream"))
        if not 0 <= number < len(_STREAMS):
            raise ModelError(f"{source}: config: stream: expected 0, 1 or 2, got {number}")
        settings["stream"] = _STREAMS[number]
    return settings


def _number(source: Path, config: Mapping[str, Any], key: str) -> float:
    value = config[key]
    if not isinstance(value, (int, float, np.integer, np.floating)) or not np.isfinite(value):
        raise ModelError(f"{source}: config: {key}: expected a number, got {value!r}")
    return float(value)


def _iteration(document: Mapping[Any, Any]) -> int:
    """The refinement iteration: the file has a list with the mAP of every iteration up to it."""
    stats = document.get("refinement_stats")
    history = stats.get("avg_mAP_over_iterations") if isinstance(stats, dict) else None
    return max(len(history) - 1, 0) if isinstance(history, list) else 0
