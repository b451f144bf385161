"""3C-Net (Narayan and others, ICCV 2019): classification and centre losses of two streams, fused class by class.

Its third loss compares counts of actions, which are stronger labels than ours, so it is left out.

3C-Net has no attention that pseudo labels could supervise. As for W-TALC, a head beside the streams gives Ā^bf; it
enters the video score and C̄ (docs/explanation/base-models.md says how and why).
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from refineloc.training.models.base_model import BaseModel, Outputs
from refineloc.training.models.layers.activations import Activations
from refineloc.training.models.layers.centre_loss import CentreLoss
from refineloc.training.models.layers.gate import ForegroundHead, gated_activations, gated_top_mean
from refineloc.training.models.layers.top_mean import top_mean
from refineloc.training.models.layers.two_streams import halves, widths
from refineloc.training.settings.bases.threecnet import Options

__all__ = ["ThreeCNet", "build"]


class _Stream(nn.Module):
    """One stream: two layers of its width, and class logits."""

    def __init__(self, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width, classes)
        self.centre_loss = CentreLoss(classes, width)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Embedding [S, width] and class logits [S, N]."""
        embedding = self.dropout(F.relu(self.second(F.relu(self.first(features)))))
        return embedding, self.classifier(embedding)


class ThreeCNet(BaseModel):
    """Fused class logits [S, N], and a head [S, 2] with a hidden layer of its own.

    State-dict keys: `streams.{0,1}.{first,second,classifier}` and `head.{hidden,out}`, each `.weight` and `.bias`,
    `streams.{0,1}.centre_loss.centres` and `shares` [2, N], the weight of each stream's logits.

    Args:
        width: D; the first half of the columns is one stream, the second the other.
        classes: N.
        options: its settings; those of the paper if left out.
    """

    layers, attention_values = 3, 2
    pools_by_attention = False

    def __init__(self, width: int, classes: int, options: Options | None = None) -> None:
        super().__init__()
        options = options or Options()
        self._options = options
        self.streams = nn.ModuleList(_Stream(half, classes, options.dropout) for half in widths(width))
        self.shares = nn.Parameter(torch.ones(2, classes))
        self.head = ForegroundHead(width, options.dropout)

    def forward(self, features: Tensor, lengths: Tensor) -> Outputs:
        """Each snippet by itself; in training mode the streams' embeddings and logits too, as `other`."""
        first, second = (stream(half) for stream, half in zip(self.streams, halves(features), strict=True))
        fused = self.shares[0] * first[1] + self.shares[1] * second[1]
        return Outputs(fused, self.head(features), (*first, *second) if self.training else ())

    def activations(self, outputs: Outputs, lengths: Tensor, *, exact: bool = False) -> Activations:
        """C̄ of a snippet sums to its foreground; ŷ is the softmax of the mean of the highest gated logits."""
        return gated_activations(outputs, lengths, self._options.one_of, exact=exact)

    def video_losses(self, outputs: Outputs, activations: Activations, targets: Tensor, lengths: Tensor) -> Tensor:
        """Cross-entropy of the fused logits, gated, and of each stream's; centre losses of both streams.

        In evaluation mode the first term alone.
        """
        options = self._options
        fused = gated_top_mean(outputs, lengths, options.one_of)
        losses = _cross_entropy(fused, targets)
        if not outputs.other:
            return losses
        for stream, (embedding, logits) in zip(self.streams, (outputs.other[:2], outputs.other[2:]), strict=True):
            losses = losses + _cross_entropy(top_mean(logits, lengths, options.one_of), targets)
            losses = losses + options.centre * cast(_Stream, stream).centre_loss(embedding, logits, targets, lengths)
        return losses


def _cross_entropy(video_logits: Tensor, targets: Tensor) -> Tensor:
    return -(targets * F.log_softmax(video_logits, dim=1)).sum(dim=1)


def build(options: Options, width: int, classes: int) -> ThreeCNet:
    """A fresh network, drawn from torch's global generator."""
    return ThreeCNet(width, classes, options)
