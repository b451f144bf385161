"""The seam between a base model and all that surrounds it: refinement, export, runtime.

A base model has two files, both named as `--base` names it. training/models/bases/ has its network, with

    build       (options, width, classes) -> BaseModel

and training/settings/bases/ its settings, which are read without loading torch. The loop needs logits, the loss of
video labels, and logits that pseudo labels can supervise; the exporter and the runtime need C̄, Ā^bf, Ā^time and ŷ of a
packed batch. That is all that `BaseModel` asks for. docs/base-models.md shows how to add one.
"""

import importlib
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from refineloc.training.models import bases
from refineloc.training.models.layers.activations import Activations
from refineloc.training.settings.model import ModelConfig

__all__ = ["BaseModel", "Outputs", "build_model"]


class Outputs(NamedTuple):
    """What a base model computes of a packed batch.

    Attributes:
        class_logits: C [S, N], or more columns (a background class).
        attention_logits: A [S, 2] (background, foreground) or [S, 1] (foreground): pseudo labels supervise them.
        other: what only the model's own loss looks at, such as a hidden layer or another branch.
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
        layers, attention_values: for the model file's metadata: fully connected or convolution layers on the way to the
            class logits, and columns of the attention logits.
        unit_videos: neighbours in `order` that must stay in one batch, and in one process: 2 for losses of pairs.
        longest: snippets a video in training, a window drawn anew each time; None takes the whole video.
        context_snippets: how many snippets to each side a snippet's logits depend on: what can be known of a video that
            is still running.
    """

    layers: int
    attention_values: int
    unit_videos: int = 1
    longest: int | None = None
    context_snippets: int = 0

    @abstractmethod
    def forward(self, features: Tensor, lengths: Tensor) -> Outputs:
        """`features` [S, D] of videos one after another, `lengths` int64 [V], which sum to S."""

    @abstractmethod
    def activations(self, outputs: Outputs, lengths: Tensor, *, exact: bool = False) -> Activations:
        """C̄, Ā^bf_fg, Ā^time and ŷ; `exact`: sums over time that no order of videos can change, for export."""

    @abstractmethod
    def video_losses(self, outputs: Outputs, activations: Activations, targets: Tensor, lengths: Tensor) -> Tensor:
        """The loss of each video against its labels, [V]; `targets` float [V, N], each row sums to 1.

        In evaluation mode, where videos come in no chosen order, without what compares videos.
        """

    def order(self, targets: Tensor, generator: torch.Generator) -> Tensor:
        """The training videos in the order of an epoch, int64: cut into batches from its beginning."""
        return torch.randperm(len(targets), generator=generator)


def build_model(settings: ModelConfig, width: int, classes: int) -> BaseModel:
    """A fresh network of a base model, drawn from torch's global generator.

    Args:
        settings: which base model, and its options.
        width: D, values a snippet.
        classes: N.
    """
    module = importlib.import_module(f"{bases.__name__}.{settings.base}")
    model: BaseModel = module.build(settings.options, width, classes)
    return model
