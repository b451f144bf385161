"""A background-foreground head for base models without attention, and how it enters their scores.

The head's foreground is multiplied with the class logits that make the video score, so that it learns from video labels
too, and with the C̄ that makes segments (docs/explanation/base-models.md says why).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from refineloc.training.models.base_model import Outputs
from refineloc.training.models.layers.activations import Activations, time_attention
from refineloc.training.models.layers.packing import membership, video_of
from refineloc.training.models.layers.top_mean import top_mean

__all__ = ["ForegroundHead", "gated_activations", "gated_top_mean", "open_gate"]

_UNSEEN = 3.0  # initial foreground logit of a head: a foreground of 0.95 leaves the base model nearly as it is


def open_gate(head: nn.Linear) -> None:
    """Set the bias of a head's last layer, [2], so that untaught it gates little."""
    with torch.no_grad():
        head.bias.copy_(torch.tensor([0.0, _UNSEEN]))


class ForegroundHead(nn.Module):
    """Features [S, D] -> hidden [S, D / 2] -> background and foreground logits [S, 2].

    It shares no layer with the classifier: with a shared one, pseudo labels made the classification worse.

    Args:
        width: D.
        dropout: of the hidden layer, while training.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        half = max(width // 2, 1)
        self.hidden = nn.Linear(width, half)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(half, 2)
        open_gate(self.out)

    def forward(self, features: Tensor) -> Tensor:
        """`features` [S, D] -> [S, 2]."""
        logits: Tensor = self.out(self.dropout(F.relu(self.hidden(features))))
        return logits


def gated_activations(outputs: Outputs, lengths: Tensor, one_of: int, *, exact: bool = False) -> Activations:
    """C̄ of a snippet sums to its foreground; ŷ is the softmax of the mean of the highest gated logits.

    Args:
        outputs: class logits [S, N], and the head's [S, 2].
        lengths: int64 [V].
        one_of: of how many snippets one counts in a video's class score.
        exact: as for `BaseModel.activations`.
    """
    foreground = torch.softmax(outputs.attention_logits, dim=1)[:, 1]
    video_logits = gated_top_mean(outputs, lengths, one_of, exact=exact)
    has_snippets = (lengths > 0)[:, None]
    return Activations(
        torch.softmax(outputs.class_logits, dim=1) * foreground[:, None],
        foreground,
        time_attention(foreground, lengths, exact=exact),
        torch.softmax(video_logits, dim=1) * has_snippets.to(video_logits.dtype),
    )


def gated_top_mean(outputs: Outputs, lengths: Tensor, one_of: int, *, exact: bool = False) -> Tensor:
    """The mean of each class's highest gated logits, [V, N]; arguments as for `gated_activations`."""
    # Logits are counted from the least of their video: a gate near 0 would otherwise raise negative logits.
    above_least = outputs.class_logits - _least(outputs.class_logits, lengths)
    gated = torch.softmax(outputs.attention_logits, dim=1)[:, 1:] * above_least
    return top_mean(gated, lengths, one_of, exact=exact)


def _least(class_logits: Tensor, lengths: Tensor) -> Tensor:
    """The least logit of any class in each snippet's video, [S, 1]. No gradient flows through it."""
    inside = membership(lengths, class_logits)
    least = torch.where(inside, class_logits.detach().amin(dim=1), torch.inf).amin(dim=1)
    return least[video_of(lengths, class_logits)][:, None]
