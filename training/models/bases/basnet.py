"""BaS-Net (Lee, Uh, Byun, AAAI 2020): a class for the background, and a branch in which it is suppressed.

Both branches classify with the same temporal convolutions. The base branch sees the features as they are; its labels
are the video's labels and background. The suppressed branch sees features multiplied with the foreground weights of a
filtering module; its labels are the video's labels alone. The foreground weights are Ā^bf_fg, which the refinement
supervises.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from refineloc.training.models.base_model import BaseModel, Outputs
from refineloc.training.models.layers.activations import Activations, time_attention
from refineloc.training.models.layers.packing import membership
from refineloc.training.models.layers.targets import with_background
from refineloc.training.models.layers.temporal_conv import TemporalConv
from refineloc.training.models.layers.top_mean import top_mean
from refineloc.training.settings.bases.basnet import Options

__all__ = ["BaSNet", "build"]

_SLOPE = 0.01  # of all leaky rectifiers, as in the released code


class BaSNet(BaseModel):
    """Class logits [S, N + 1] of the suppressed branch, the last of the background, and a foreground logit [S, 1].

    State-dict keys: `filtering.{0,2}`, `first.product` and `second.product`, each `.weight` and `.bias`, and
    `classifier.weight`.

    Args:
        width: D.
        classes: N.
        options: its settings; those of the paper if left out.
    """

    layers, attention_values = 3, 1
    context_snippets = 2  # two convolutions of width 3
    pools_by_attention = False

    def __init__(self, width: int, classes: int, options: Options | None = None) -> None:
        super().__init__()
        options = options or Options()
        self._options = options
        hidden = options.hidden or width
        self.filtering = nn.Sequential(
            nn.Linear(width, options.filter_width), nn.LeakyReLU(_SLOPE), nn.Linear(options.filter_width, 1)
        )
        self.first = TemporalConv(width, hidden)
        self.second = TemporalConv(hidden, hidden)
        self.dropout = nn.Dropout(options.dropout)
        self.classifier = nn.Linear(hidden, classes + 1, bias=False)

    def forward(self, features: Tensor, lengths: Tensor) -> Outputs:
        """Logits of the suppressed branch; in training mode those of the base branch too, as `other`."""
        foreground = self.filtering(features)
        suppressed = torch.sigmoid(foreground) * features
        if not self.training:
            return Outputs(self._classify(suppressed, lengths), foreground)
        # Both branches in one pass, as twice as many videos.
        both = self._classify(torch.cat([suppressed, features]), torch.cat([lengths, lengths]))
        class_logits, base_logits = both.chunk(2)
        return Outputs(class_logits, foreground, (base_logits,))

    def activations(self, outputs: Outputs, lengths: Tensor, *, exact: bool = False) -> Activations:
        """Softmaxes over N + 1 classes without the last, so a snippet's C̄ and a video's ŷ sum to less than 1."""
        foreground = torch.sigmoid(outputs.attention_logits[:, 0])
        video_logits = top_mean(outputs.class_logits, lengths, self._options.one_of, exact=exact)
        has_snippets = (lengths > 0)[:, None]
        return Activations(
            torch.softmax(outputs.class_logits, dim=1)[:, :-1],
            foreground,
            time_attention(foreground, lengths, exact=exact),
            torch.softmax(video_logits, dim=1)[:, :-1] * has_snippets.to(video_logits.dtype),
        )

    def video_losses(self, outputs: Outputs, activations: Activations, targets: Tensor, lengths: Tensor) -> Tensor:
        """Binary cross-entropy of both branches, each a mean over N + 1 classes, and the foreground's L1 norm.

        In evaluation mode only the suppressed branch counts.
        """
        without_background = F.pad(targets, (0, 1))
        losses = self._cross_entropy(outputs.class_logits, without_background, lengths)
        foreground = (
            membership(lengths, activations.foreground).to(activations.foreground.dtype) @ activations.foreground
        )
        losses = losses + self._options.sparsity * foreground
        if not outputs.other:
            return losses
        (base_logits,) = outputs.other
        return losses + self._cross_entropy(base_logits, with_background(targets), lengths)

    def _classify(self, features: Tensor, lengths: Tensor) -> Tensor:
        hidden = F.leaky_relu(self.first(features, lengths), _SLOPE)
        hidden = F.leaky_relu(self.second(hidden, lengths), _SLOPE)
        logits: Tensor = self.classifier(self.dropout(hidden))
        return logits

    def _cross_entropy(self, class_logits: Tensor, targets: Tensor, lengths: Tensor) -> Tensor:
        video_scores = torch.softmax(top_mean(class_logits, lengths, self._options.one_of), dim=1)
        return F.binary_cross_entropy(video_scores, targets.to(video_scores.dtype), reduction="none").mean(dim=1)


def build(options: Options, width: int, classes: int) -> BaSNet:
    """A fresh network, drawn from torch's global generator."""
    return BaSNet(width, classes, options)
