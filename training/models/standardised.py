"""Features brought to mean 0 and standard deviation 1 by the model itself: files and callers keep them as they are."""

from collections.abc import Callable

import torch
from torch import Tensor

from refineloc.training.models.base_model import BaseModel, Outputs
from refineloc.training.models.layers.activations import Activations
from refineloc.training.targets import BatchTargets

__all__ = ["Standardised"]


class Standardised(BaseModel):
    """A base model that sees (features - mean) / standard deviation, column by column.

    State-dict keys: `mean` and `scale`, both [D], and `model.` with the key of the base model.

    Args:
        model: the base model.
        mean: of each column, float32 [D].
        scale: what to multiply with, 1 / standard deviation, float32 [D].
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, model: BaseModel, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.model = model
        self.layers, self.attention_values = model.layers, model.attention_values
        self.unit_videos, self.longest = model.unit_videos, model.longest
        self.context_snippets, self.pools_by_attention = model.context_snippets, model.pools_by_attention
        self.levels = model.levels
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    def forward(self, features: Tensor, lengths: Tensor) -> Outputs:
        """Of features as files have them."""
        standard = (features - self.mean).mul_(self.scale)
        outputs: Outputs = self.model(standard.to(next(self.model.parameters()).dtype), lengths)
        return outputs

    def activations(self, outputs: Outputs, lengths: Tensor, *, exact: bool = False) -> Activations:
        """The base model's."""
        return self.model.activations(outputs, lengths, exact=exact)

    def video_losses(self, outputs: Outputs, activations: Activations, targets: Tensor, lengths: Tensor) -> Tensor:
        """The base model's."""
        return self.model.video_losses(outputs, activations, targets, lengths)

    def points(self, outputs: Outputs) -> tuple[Tensor, ...]:
        """The base model's."""
        return self.model.points(outputs)

    def segment_losses(self, outputs: Outputs, targets: BatchTargets, lengths: Tensor) -> Tensor:
        """The base model's."""
        return self.model.segment_losses(outputs, targets, lengths)

    def order(self, targets: Tensor, generator: torch.Generator) -> Tensor:
        """The base model's."""
        return self.model.order(targets, generator)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Standardised":
        # The statistics stay in float32 where the weights go to float16: raw features may be large, and scales too.
        mean, scale = self.mean, self.scale
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.mean, self.scale = mean.to(self.mean.device), scale.to(self.scale.device)
        return self
