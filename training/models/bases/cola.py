"""CoLA (Zhang and others, CVPR 2021): snippets at the edges of actions learn from those that are easy to tell.

A temporal convolution embeds the snippets; class activations are rectified, and their sum over classes is the
actionness. The video score is the softmax of the mean of each class's highest activations. Hard snippets, just inside
and just outside of where the actionness is high, are drawn by contrast to the easy ones of the same kind.

CoLA has no attention that pseudo labels could supervise, and needs none: the class activations before the rectifier, z,
say how much of any action a snippet has. With a background class whose logit is log N, the foreground is 1 less the
background's softmax, Σ_n exp z_n / (N + Σ_n exp z_n): 0.5 where all are 0, and above where any activation is. So
iteration 0 is CoLA as published, and no weights are added.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from refineloc.training.models.base_model import BaseModel, Outputs
from refineloc.training.models.layers.activations import Activations, time_attention
from refineloc.training.models.layers.contrast import contrast_losses
from refineloc.training.models.layers.packing import moved, video_of
from refineloc.training.models.layers.ranks import highest
from refineloc.training.models.layers.sums import video_sums
from refineloc.training.models.layers.temporal_conv import TemporalConv
from refineloc.training.models.layers.top_mean import top_mean
from refineloc.training.settings.bases.cola import Options

__all__ = ["CoLA", "build", "snippet_contrast_losses"]

_NARROW, _WIDE = 3, 6  # m and M: snippets that the masks of both rings span


class CoLA(BaseModel):
    """Features [S, D] -> embedding [S, hidden] -> class logits z [S, N]; the foreground's logit [S, 1] is of them.

    State-dict keys: `embedding.product`, `.weight` and `.bias`, and `classifier.weight`.

    Args:
        width: D.
        classes: N.
        options: its settings; those of the paper if left out.
    """

    layers, attention_values = 2, 1
    context_snippets = 1  # one convolution of width 3
    pools_by_attention = False

    def __init__(self, width: int, classes: int, options: Options | None = None) -> None:
        super().__init__()
        options = options or Options()
        self._options = options
        hidden = options.hidden or width
        self.embedding = TemporalConv(width, hidden)
        self.dropout = nn.Dropout(options.dropout)
        self.classifier = nn.Linear(hidden, classes, bias=False)
        self.varied = nn.Dropout(options.varied)

    def forward(self, features: Tensor, lengths: Tensor) -> Outputs:
        """Class logits before the rectifier; in training mode the embedding too, as `other`."""
        embedding = F.relu(self.embedding(features, lengths))
        class_logits = self.classifier(self.dropout(embedding))
        foreground = torch.logsumexp(class_logits, dim=1, keepdim=True) - math.log(class_logits.shape[1])
        return Outputs(class_logits, foreground, (embedding,) if self.training else ())

    def activations(self, outputs: Outputs, lengths: Tensor, *, exact: bool = False) -> Activations:
        """A snippet's C̄ sum to its foreground; ŷ is the softmax of the mean of the highest rectified logits."""
        classes = outputs.class_logits.shape[1]
        background = torch.full_like(outputs.class_logits[:, :1], math.log(classes))
        scores = torch.softmax(torch.cat([outputs.class_logits, background], dim=1), dim=1)
        foreground = 1 - scores[:, -1]
        video_scores = torch.softmax(self._video_logits(outputs.class_logits, lengths, exact), dim=1)
        has_snippets = (lengths > 0)[:, None]
        return Activations(
            scores[:, :-1],
            foreground,
            time_attention(foreground, lengths, exact=exact),
            video_scores * has_snippets.to(video_scores.dtype),
        )

    def video_losses(self, outputs: Outputs, activations: Activations, targets: Tensor, lengths: Tensor) -> Tensor:
        """Binary cross-entropy of ŷ, a mean over classes, and the contrast of snippets; in evaluation the first alone.

        A video without a label has no actions to tell apart: the first alone too.
        """
        options = self._options
        losses = F.binary_cross_entropy(
            activations.video_scores, targets.to(activations.video_scores.dtype), reduction="none"
        ).mean(dim=1)
        if not outputs.other or not options.contrast:
            return losses
        (embedding,) = outputs.other
        # Which snippets are easy and hard varies: a dropped one is neither.
        kept = self.varied(torch.ones_like(outputs.class_logits[:, 0]))
        contrasts = snippet_contrast_losses(
            embedding,
            F.relu(outputs.class_logits.detach()).sum(dim=1),
            lengths,
            options.easy_one_of,
            options.hard_one_of,
            options.temperature,
            kept,
        )
        return losses + options.contrast * contrasts * targets.any(dim=1)

    def _video_logits(self, class_logits: Tensor, lengths: Tensor, exact: bool) -> Tensor:
        return top_mean(F.relu(class_logits), lengths, self._options.easy_one_of, exact=exact)


def snippet_contrast_losses(
    embedding: Tensor,
    actionness: Tensor,
    lengths: Tensor,
    easy_one_of: int,
    hard_one_of: int,
    temperature: float,
    kept: Tensor | None = None,
) -> Tensor:
    """The contrast of hard snippets with easy ones, [V].

    Args:
        embedding: E [S, K].
        actionness: [S], at least 0; no gradient flows through it.
        lengths: int64 [V], which sum to S.
        easy_one_of, hard_one_of: of how many snippets of a video one is easy, or hard.
        temperature: of the contrast.
        kept: [S], what the actionness and its complement are multiplied with for the choice of easy snippets; None: 1.

    Hard actions are the snippets of the highest actionness in the ring inside of where it is above its median, hard
    backgrounds those in the ring outside. A kind that a video has no hard snippets of adds 0.
    """
    actionness = actionness.detach()
    video = video_of(lengths, actionness)
    most, median = _most_and_median(actionness, lengths)
    kept = torch.ones_like(actionness) if kept is None else kept
    easy_action = highest(actionness * kept, lengths, easy_one_of)
    easy_background = highest((most[video] - actionness) * kept, lengths, easy_one_of)
    high = actionness > median[video]
    inner = _eroded(high, lengths, _NARROW) & ~_eroded(high, lengths, _WIDE)
    outer = _dilated(high, lengths, _WIDE) & ~_dilated(high, lengths, _NARROW)
    total = torch.zeros_like(lengths, dtype=embedding.dtype)
    for ring, own, other in ((inner, easy_action, easy_background), (outer, easy_background, easy_action)):
        hard = highest(torch.where(ring, actionness, -1.0), lengths, hard_one_of) & ring
        hard_mean, own_mean = (_mean_of(embedding, chosen, lengths) for chosen in (hard, own))
        there = video_sums(hard[:, None].to(embedding.dtype), lengths)[:, 0] > 0
        total = total + there * contrast_losses(hard_mean, own_mean, embedding, other, lengths, temperature)
    return total


def _mean_of(embedding: Tensor, chosen: Tensor, lengths: Tensor) -> Tensor:
    """The mean embedding of each video's chosen snippets, [V, K]."""
    weights = chosen[:, None].to(embedding.dtype)
    return video_sums(embedding * weights, lengths) / video_sums(weights, lengths).clamp_min(1)


def _most_and_median(values: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """The largest value of each video and the median, the mean of both middle ones, [V] each; 0 without snippets."""
    video = video_of(lengths, values)
    order = torch.argsort(values, stable=True)
    ordered = values[order[torch.argsort(video[order], stable=True)]]
    ends = torch.cumsum(lengths, dim=0)
    starts = ends - lengths
    last = max(len(values) - 1, 0)
    lower, upper, top = (
        ordered[place.clamp(0, last)] for place in (starts + (lengths - 1) // 2, starts + lengths // 2, ends - 1)
    )
    return top * (lengths > 0), (lower + upper) / 2 * (lengths > 0)


def _dilated(mask: Tensor, lengths: Tensor, size: int) -> Tensor:
    """Whether any of `size` snippets around, one fewer before than after where `size` is even, is in the mask."""
    grown = mask
    for by in range(-((size - 1) // 2), size // 2 + 1):
        grown = grown | (moved(mask.float(), lengths, by) > 0)
    return grown


def _eroded(mask: Tensor, lengths: Tensor, size: int) -> Tensor:
    """Whether all of `size` snippets around, one fewer after than before where it is even, are there and in it."""
    shrunk = mask
    for by in range(-(size // 2), (size - 1) // 2 + 1):
        shrunk = shrunk & (moved(mask.float(), lengths, by) > 0)
    return shrunk


def build(options: Options, width: int, classes: int) -> CoLA:
    """A fresh network, drawn from torch's global generator."""
    return CoLA(width, classes, options)
