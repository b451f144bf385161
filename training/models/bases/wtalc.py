"""W-TALC (Paul, Roy, Roy-Chowdhury, ECCV 2018), with a background-foreground head for the refinement to supervise.

Its class activations come from a hidden layer and a linear layer. It learns from the mean of each class's highest
logits (multiple-instance learning) and from pairs of videos that share a class (co-activity similarity). W-TALC has no
attention, so we add a head that gives Ā^bf. The head's foreground is multiplied with the class logits that make the
video score, and with the C̄ that makes segments; docs/explanation/base-models.md says why.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from refineloc.training.models.base_model import BaseModel, Outputs
from refineloc.training.models.layers.activations import Activations
from refineloc.training.models.layers.co_activity import paired_order, similarity_losses
from refineloc.training.models.layers.gate import gated_activations, gated_top_mean, open_gate
from refineloc.training.settings.bases.wtalc import Options

__all__ = ["WTALC", "build"]


class WTALC(BaseModel):
    """Features [S, D] -> hidden [S, D] -> class logits [S, N], and -> hidden [S, D / 2] -> head [S, 2].

    State-dict keys: `hidden`, `classifier`, `head_hidden`, `head`, each `.weight` and `.bias`.

    Args:
        width: D.
        classes: N.
        options: its settings; those of the paper if left out.
    """

    layers, attention_values, unit_videos = 2, 2, 2
    pools_by_attention = False

    def __init__(self, width: int, classes: int, options: Options | None = None) -> None:
        super().__init__()
        options = options or Options()
        self._options = options
        self.longest = options.longest
        self.hidden = nn.Linear(width, width)
        self.dropout = nn.Dropout(options.dropout)
        self.classifier = nn.Linear(width, classes)
        # The head does not share the hidden layer: with a shared layer, pseudo labels made the classification worse.
        half = max(width // 2, 1)
        self.head_hidden = nn.Linear(width, half)
        self.head = nn.Linear(half, 2)
        open_gate(self.head)

    def forward(self, features: Tensor, lengths: Tensor) -> Outputs:
        """Logits of each snippet by itself, and the hidden layer, by which pairs of videos are compared."""
        hidden = self.dropout(F.relu(self.hidden(features)))
        head = self.head(self.dropout(F.relu(self.head_hidden(features))))
        return Outputs(self.classifier(hidden), head, (hidden,))

    def activations(self, outputs: Outputs, lengths: Tensor, *, exact: bool = False) -> Activations:
        """C̄ of a snippet sums to its foreground; ŷ is the softmax of the mean of the highest gated logits."""
        return gated_activations(outputs, lengths, self._options.one_of, exact=exact)

    def video_losses(self, outputs: Outputs, activations: Activations, targets: Tensor, lengths: Tensor) -> Tensor:
        """λ · multiple-instance loss + (1 - λ) · co-activity similarity loss of the pair that a video is in.

        In evaluation mode the first term alone, with the same weight against the pseudo loss as in training.
        """
        options = self._options
        video_logits = gated_top_mean(outputs, lengths, options.one_of)
        losses = -(1 - options.similarity) * (targets * F.log_softmax(video_logits, dim=1)).sum(dim=1)
        if not self.training or not options.similarity:
            return losses
        (hidden,) = outputs.other
        similarity = similarity_losses(hidden, outputs.class_logits, targets, lengths, options.margin)
        return losses + options.similarity * similarity

    def order(self, targets: Tensor, generator: torch.Generator) -> Tensor:
        """A random order in which neighbours (0 and 1, 2 and 3, ...) share a label, as far as there are such pairs."""
        return paired_order(targets, generator)


def build(options: Options, width: int, classes: int) -> WTALC:
    """A fresh network, drawn from torch's global generator."""
    return WTALC(width, classes, options)
