"""RefineLoc's own base model: two multi-layer perceptrons over snippets (section 3.1)."""

from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from refineloc.training.machine.products import for_products
from refineloc.training.models.base_model import BaseModel, Outputs
from refineloc.training.models.layers.activations import Activations, activations
from refineloc.training.models.layers.changed_videos import changed_videos
from refineloc.training.models.layers.packing import membership
from refineloc.training.settings.bases.refineloc import Options

__all__ = ["RefineLoc", "build", "video_losses_paper", "video_losses_release"]


class RefineLoc(BaseModel):
    """Class and attention logits of each snippet.

    Both branches have `layers` fully connected layers with ReLU between them. Layer i maps D/2^i to D/2^(i+1), never
    below the output width, and the last layer maps to the outputs. State-dict keys:
    `classifier.{0,2,4..}.{weight,bias}` and `attention.{0,2,4..}.{weight,bias}` (the odd numbers are the ReLUs).

    Args:
        width: D.
        classes: N.
        layers: L, at least 1.
        attention_values: 2 (background, foreground: the paper) or 1 (a foreground logit: the released code's option).
        video_loss: of the paper or of the released code.
        exchanged_means: of what the class branch sees in training, see `changed_videos`; 0 leaves them as they are.
        input_dropout: of what each branch sees in training, see `changed_videos`; drawn for each branch.
    """

    def __init__(
        self,
        width: int,
        classes: int,
        layers: int = 2,
        attention_values: int = 2,
        video_loss: Literal["paper", "release"] = "paper",
        exchanged_means: float = 0.0,
        input_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.layers, self.attention_values = layers, attention_values
        self._video_loss = video_loss
        self._exchanged_means, self._input_dropout = exchanged_means, input_dropout
        self.classifier = _perceptron(width, classes, layers)
        self.attention = _perceptron(width, attention_values, layers)

    def forward(self, features: Tensor, lengths: Tensor) -> Outputs:
        """Each snippet is scored by itself; `lengths` matters in training alone, which may change whole videos."""
        classified, attended = self._seen(features, lengths)
        return Outputs(self.classifier(classified).to_dense(), self.attention(attended).to_dense())

    def activations(self, outputs: Outputs, lengths: Tensor, *, exact: bool = False) -> Activations:
        """The activations of section 3.1."""
        return activations(outputs.class_logits, outputs.attention_logits, lengths, exact=exact)

    def video_losses(self, outputs: Outputs, activations: Activations, targets: Tensor, lengths: Tensor) -> Tensor:
        """Cross-entropy of ŷ with the labels, or the released code's."""
        if self._video_loss == "release":
            return video_losses_release(activations, outputs.class_logits, targets, lengths)
        return video_losses_paper(activations, targets)

    def _seen(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What the class branch and the attention branch see."""
        means, dropped = self._exchanged_means * self.training, self._input_dropout * self.training
        changed = partial(changed_videos, features, lengths, input_dropout=dropped)
        attended = for_products(changed(exchanged_means=0.0) if dropped else features)
        classified = for_products(changed(exchanged_means=means)) if means or dropped else attended
        return classified, attended


def video_losses_paper(activations: Activations, targets: Tensor) -> Tensor:
    """Cross-entropy of ŷ with the labels of each video, [V]: -sum_n y_n log ŷ_n.

    Args:
        activations: of V videos.
        targets: float [V, N], each row sums to 1.
    """
    # ŷ is above 0 unless float32 underflows; there the logarithm's gradient would be infinite.
    smallest = torch.finfo(activations.video_scores.dtype).tiny
    return -(targets * activations.video_scores.clamp_min(smallest).log()).sum(dim=1)


def video_losses_release(activations: Activations, class_logits: Tensor, targets: Tensor, lengths: Tensor) -> Tensor:
    """The released code's, [V]: -sum_t Ā^time_t log C̄_(t,y).

    Args:
        activations: of V videos.
        class_logits: C [S, N].
        targets: float [V, N], each row sums to 1.
        lengths: int64 [V].
    """
    log_scores = F.log_softmax(class_logits, dim=1)
    one_hot = membership(lengths, class_logits).to(log_scores.dtype)
    return -(targets * (one_hot @ (activations.attention[:, None] * log_scores))).sum(dim=1)


def build(options: Options, width: int, classes: int) -> RefineLoc:
    """A fresh network, drawn from torch's global generator."""
    return RefineLoc(width, classes, **options.model_dump())


def _perceptron(width: int, outputs: int, layers: int) -> nn.Sequential:
    parts: list[nn.Module] = []
    for _ in range(layers - 1):
        hidden = max(width // 2, outputs)
        parts += [nn.Linear(width, hidden), nn.ReLU(inplace=True)]
        width = hidden
    return nn.Sequential(*parts, nn.Linear(width, outputs))
