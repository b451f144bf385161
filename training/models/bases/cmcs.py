"""CMCS (Liu, Jiang, Wang, CVPR 2019): several branches that find different parts of an action, and their mean.

The branches are kept different by a loss on the cosine of their class activations over time, and alive by one on their
sizes. The attention is one value a snippet, whose softmax over time weighs the mean logits of the branches; its sigmoid
is Ā^bf_fg, as in RefineLoc's one-value form.

The paper also takes clips in which nothing moves as videos of the background class. It finds them by optical flow,
which files of features do not have; docs/explanation/base-models.md says what of it was tried.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from refineloc.training.models.base_model import BaseModel, Outputs
from refineloc.training.models.layers.activations import Activations, activations
from refineloc.training.models.layers.packing import video_of
from refineloc.training.models.layers.sums import video_means, video_sums
from refineloc.training.models.layers.temporal_conv import TemporalConv
from refineloc.training.settings.bases.cmcs import Options

__all__ = ["CMCS", "build", "diversity_losses", "norm_losses"]


class CMCS(BaseModel):
    """Class logits [S, N + 1], the mean of the branches', the last of the background; an attention logit [S, 1].

    State-dict keys: `shared`, `attention_hidden`, `attention`, each `.weight` and `.bias`; `branches.I.product` and
    `classifiers.I`, each `.weight` and `.bias`.

    Args:
        width: D.
        classes: N.
        options: its settings; those of the paper if left out.
    """

    layers, attention_values = 3, 1
    context_snippets = 1  # one convolution of width 3
    pools_by_attention = False

    def __init__(self, width: int, classes: int, options: Options | None = None) -> None:
        super().__init__()
        options = options or Options()
        self._options = options
        self.dropout = nn.Dropout(options.dropout)
        self.shared = nn.Linear(width, options.shared)
        self.branches = nn.ModuleList(TemporalConv(options.shared, options.hidden) for _ in range(options.branches))
        self.classifiers = nn.ModuleList(nn.Linear(options.hidden, classes + 1) for _ in range(options.branches))
        self.attention_hidden = nn.Linear(options.shared, options.hidden)
        self.attention = nn.Linear(options.hidden, 1)

    def forward(self, features: Tensor, lengths: Tensor) -> Outputs:
        """Mean class logits and the attention's; in training mode the logits of each branch too, as `other`."""
        if self.training:  # whole columns of a video are dropped
            kept = self.dropout(
                torch.ones(len(lengths), features.shape[1], dtype=features.dtype, device=features.device)
            )
            features = features * kept[video_of(lengths, features)]
        shared = F.relu(self.shared(features))
        branches = [
            classifier(F.relu(branch(shared, lengths)))
            for branch, classifier in zip(self.branches, self.classifiers, strict=True)
        ]
        total = branches[0]
        for branch in branches[1:]:
            total = total + branch
        attention = self.attention(F.relu(self.attention_hidden(shared)))
        return Outputs(total / len(branches), attention, tuple(branches) if self.training else ())

    def activations(self, outputs: Outputs, lengths: Tensor, *, exact: bool = False) -> Activations:
        """C̄ and ŷ are softmaxes over N + 1 classes without the last; ŷ of the logits, weighted by the attention."""
        made = activations(outputs.class_logits, outputs.attention_logits, lengths, exact=exact)
        video_logits = _video_logits(outputs.class_logits, made.attention, lengths, exact=exact)
        has_snippets = (lengths > 0)[:, None].to(made.class_scores.dtype)
        video_scores = torch.softmax(video_logits, dim=1)[:, :-1].to(made.class_scores.dtype) * has_snippets
        return made._replace(class_scores=made.class_scores[:, :-1], video_scores=video_scores)

    def video_losses(self, outputs: Outputs, activations: Activations, targets: Tensor, lengths: Tensor) -> Tensor:
        """Cross-entropy of the weighted logits, diversity and norm of the branches; in evaluation the first alone."""
        options = self._options
        video_logits = _video_logits(outputs.class_logits, activations.attention, lengths)
        # A video without a label is all background.
        wanted = torch.cat([targets, 1 - targets.any(dim=1, keepdim=True).to(targets.dtype)], dim=1)
        losses = -(wanted * F.log_softmax(video_logits, dim=1)).sum(dim=1)
        if not outputs.other:
            return losses
        branches = torch.stack(outputs.other)
        losses = losses + options.diversity * diversity_losses(branches, lengths)
        return losses + options.norm * norm_losses(branches, lengths)


def diversity_losses(branches: Tensor, lengths: Tensor) -> Tensor:
    """The mean cosine over time of two branches' class activations, over pairs and classes, [V].

    Args:
        branches: class logits [K, S, N + 1]; activations are their softmaxes.
        lengths: int64 [V].
    """
    count = len(branches)
    if count < 2:
        return torch.zeros_like(lengths, dtype=branches.dtype)
    scores = torch.softmax(branches, dim=2)
    sizes = video_sums(scores.square().flatten(0, 1), lengths.repeat(count)).view(count, len(lengths), -1).sqrt()
    total = torch.zeros_like(sizes[0])
    least = torch.finfo(scores.dtype).tiny
    for first in range(count):
        for second in range(first):
            shared = video_sums(scores[first] * scores[second], lengths)
            total = total + shared / (sizes[first] * sizes[second]).clamp_min(least)
    return total.mean(dim=1) / (count * (count - 1) / 2)


def norm_losses(branches: Tensor, lengths: Tensor) -> Tensor:
    """How far the branches' sizes are from their mean: of the time means of |logits|, [V].

    Args:
        branches: class logits [K, S, N + 1].
        lengths: int64 [V].
    """
    count = len(branches)
    sizes = video_means(branches.abs().flatten(0, 1), lengths.repeat(count)).view(count, len(lengths), -1)
    return (sizes - sizes.mean(dim=0)).abs().mean(dim=(0, 2))


def _video_logits(class_logits: Tensor, attention: Tensor, lengths: Tensor, *, exact: bool = False) -> Tensor:
    return video_sums(attention[:, None] * class_logits, lengths, exact=exact)


def build(options: Options, width: int, classes: int) -> CMCS:
    """A fresh network, drawn from torch's global generator."""
    return CMCS(width, classes, options)
