"""The seam between a base model and all that surrounds it: refinement, export, runtime.

The refinement needs logits, the loss of video labels, and logits that pseudo labels can supervise. The exporter and the
runtime need C̄, Ā^bf, Ā^time and ŷ of a packed batch. `BaseModel` asks for no more.

A base model has two files of the same name: its network in training/models/bases/, with a function
`build(options, width, classes) -> BaseModel`, and its settings in training/settings/bases/, which are read without
loading torch. docs/how-to/own-base.md shows how to add one.
"""

import importlib
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from refineloc.runtime.errors import ConfigError
from refineloc.training.models import bases
from refineloc.training.models.layers.activations import Activations
from refineloc.training.settings.model import ModelConfig
from refineloc.training.settings.own_files import is_own, own_file, plain_name
from refineloc.training.settings.student import STUDENT
from refineloc.training.targets import BatchTargets

__all__ = ["BaseModel", "Outputs", "build_model"]


class Outputs(NamedTuple):
    """What a base model computes of a packed batch.

    Attributes:
        class_logits: C [S, N], or more columns (a background class).
        attention_logits: A [S, 2] (background, foreground) or [S, 1] (foreground): pseudo labels supervise them.
        other: tensors for the model's own loss, such as a hidden layer or another branch.
    """

    class_logits: Tensor
    attention_logits: Tensor
    other: tuple[Tensor, ...] = ()

    def float(self) -> "Outputs":
        """In float32."""
        other = tuple(part.float() for part in self.other)
        return Outputs(self.class_logits.float(), self.attention_logits.float(), other)


class BaseModel(nn.Module, ABC):
    """A network that scores the snippets of packed videos, and how it learns from video labels.

    Attributes:
        layers: fully connected or convolution layers on the way to the class logits, for the model file's metadata.
        attention_values: columns of the attention logits, for the model file's metadata.
        unit_videos: neighbours in `order` that must stay in one batch and in one process; 2 for losses of pairs.
        longest: snippets of a video that training sees at once, a window drawn anew each epoch; None: the whole video.
        context_snippets: snippets to each side that a snippet's logits depend on; `WHOLE_CONTEXT`: all of its video.
        levels: of the points at which it finds segments itself (`segment_losses`); 0 for all but a student.
        pools_by_attention: whether ŷ is the sum over time of Ā^time times C̄; else the model has a ŷ of its own.
        progress: the share of its epochs that are done, 0 to 1, for losses whose weights change; training sets it.
    """

    layers: int
    attention_values: int
    unit_videos: int = 1
    longest: int | None = None
    context_snippets: int = 0
    levels: int = 0
    pools_by_attention: bool = True
    progress: float = 0.0

    @abstractmethod
    def forward(self, features: Tensor, lengths: Tensor) -> Outputs:
        """`features` [S, D] of videos one after another, `lengths` int64 [V], which sum to S."""

    @abstractmethod
    def activations(self, outputs: Outputs, lengths: Tensor, *, exact: bool = False) -> Activations:
        """C̄ [S, N], Ā^bf_fg [S], Ā^time [S] and ŷ [V, N] from the outputs of `forward`.

        With `exact`, which the exporter asks for, sums over time must not depend on what a video is packed with.
        """

    @abstractmethod
    def video_losses(self, outputs: Outputs, activations: Activations, targets: Tensor, lengths: Tensor) -> Tensor:
        """The loss of each video against its labels, [V]; `targets` is float [V, N].

        Each row sums to 1, or to 0 where a video has no label: then nothing in it is an action.

        Targets may be smoothed (`training.label_smoothing`): `labels_of` tells which classes are labels.

        In evaluation mode videos come in any order, so terms that compare videos are left out.
        """

    def points(self, outputs: Outputs) -> tuple[Tensor, ...]:
        """The parts of `refineloc.runtime.Points` from the outputs of `forward`; none of a model without levels."""
        return ()

    def segment_losses(self, outputs: Outputs, targets: BatchTargets, lengths: Tensor) -> Tensor:
        """The loss of each video against the segments that it is taught, [V]; of a student alone."""
        raise NotImplementedError(f"{type(self).__name__} learns no segments")

    def videos_in_batch(self, at_most: int) -> int:
        """Videos of a batch: units of `unit_videos`, as many as there may be, at least one."""
        return max(at_most // self.unit_videos, 1) * self.unit_videos

    def order(self, targets: Tensor, generator: torch.Generator) -> Tensor:
        """The training videos in the order of an epoch, int64 [V]. Batches are cut from its beginning."""
        return torch.randperm(len(targets), generator=generator)


def build_model(settings: ModelConfig, width: int, classes: int) -> BaseModel:
    """A fresh network of a base model, drawn from torch's global generator.

    Args:
        settings: which base model, and its options.
        width: D, values a snippet.
        classes: N.

    Raises:
        ConfigError: a file of the user's own that was not named, or that builds something else.
    """
    if is_own(settings.base):
        module = own_file(settings.base, "base").module
    elif settings.base == STUDENT:  # which is no base model: nothing but segments teaches it
        module = importlib.import_module("refineloc.training.models.student")
    else:
        module = importlib.import_module(f"{bases.__name__}.{settings.base}")
    model: BaseModel = module.build(settings.options, width, classes)
    if not isinstance(model, BaseModel):
        raise ConfigError(f"{plain_name(settings.base)}: build gave {type(model).__name__}, expected a BaseModel")
    return model
