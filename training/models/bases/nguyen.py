"""Nguyen, Ramanan, Fowlkes (ICCV 2019): what attention leaves is modelled as a class of its own, the background.

One linear classifier of N + 1 classes is for snippets, for the foreground's pooled features and for the background's.
The attention is guided by the classifier's snippets, and foreground and background are two clusters. The attention is
Ā^bf_fg, which the refinement supervises.
"""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from refineloc.training.models.base_model import BaseModel, Outputs
from refineloc.training.models.layers.activations import Activations, time_attention
from refineloc.training.models.layers.packing import moved
from refineloc.training.models.layers.sums import video_means, video_sums
from refineloc.training.models.layers.targets import labels_of
from refineloc.training.models.layers.two_streams import halves, widths
from refineloc.training.settings.bases.nguyen import Options

__all__ = ["Nguyen", "build", "cluster_losses", "guide_losses"]

_SIGMA, _REACH = 1.0, 4  # of the Gaussian over time, in snippets


class _Stream(nn.Module):
    """One network: attention, classifier, and the two clusters."""

    def __init__(self, width: int, classes: int, hidden: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, hidden)
        self.attention = nn.Linear(hidden, 1)
        self.classifier = nn.Linear(width, classes + 1, bias=False)
        self.clusters = nn.Linear(width, 2, bias=False)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits [S, N + 1] and an attention logit [S, 1]."""
        return self.classifier(features), self.attention(F.relu(self.hidden(features)))


class Nguyen(BaseModel):
    """Class logits [S, N + 1], the last of the background, and a foreground logit [S, 1]; means of both streams'.

    State-dict keys: `streams.I.{hidden,attention}.{weight,bias}` and `streams.I.{classifier,clusters}.weight`.

    Args:
        width: D; with two streams the first half of the columns is one, the second the other.
        classes: N.
        options: its settings; those of the paper if left out.
    """

    layers, attention_values = 1, 1
    pools_by_attention = False

    def __init__(self, width: int, classes: int, options: Options | None = None) -> None:
        super().__init__()
        options = options or Options()
        self._options = options
        of_streams = widths(width) if options.streams == 2 else (width,)
        self.streams = nn.ModuleList(_Stream(own, classes, options.hidden) for own in of_streams)

    def forward(self, features: Tensor, lengths: Tensor) -> Outputs:
        """Each snippet by itself; in training mode what each stream's losses need too, as `other`."""
        parts = halves(features) if len(self.streams) == 2 else (features,)
        made = [stream(part) for stream, part in zip(self.streams, parts, strict=True)]
        logits, attention = made[0]
        for more_logits, more_attention in made[1:]:
            logits, attention = logits + more_logits, attention + more_attention
        other: tuple[Tensor, ...] = ()
        if self.training:
            for part, (own_logits, own_attention) in zip(parts, made, strict=True):
                other = (*other, part, own_logits, own_attention)
        return Outputs(logits / len(made), attention / len(made), other)

    def activations(self, outputs: Outputs, lengths: Tensor, *, exact: bool = False) -> Activations:
        """C̄ is the softmax over N + 1 classes without the last, times the foreground; ŷ is of pooled features."""
        foreground = torch.sigmoid(outputs.attention_logits[:, 0])
        video_logits = _pooled(outputs.class_logits, foreground, lengths, self._options.pooling, exact=exact)
        has_snippets = (lengths > 0)[:, None].to(foreground.dtype)
        return Activations(
            torch.softmax(outputs.class_logits, dim=1)[:, :-1] * foreground[:, None],
            foreground,
            time_attention(foreground, lengths, exact=exact),
            torch.softmax(video_logits, dim=1)[:, :-1].to(foreground.dtype) * has_snippets,
        )

    def video_losses(self, outputs: Outputs, activations: Activations, targets: Tensor, lengths: Tensor) -> Tensor:
        """The losses of foreground, background, guide and clusters, a mean over the streams.

        In evaluation mode the foreground's of the streams' means alone.
        """
        options = self._options
        # A video without a label is all background.
        wanted = torch.cat([targets, 1 - targets.any(dim=1, keepdim=True).to(targets.dtype)], dim=1)
        if not outputs.other:
            pooled = _pooled(outputs.class_logits, activations.foreground, lengths, options.pooling)
            return -(wanted * F.log_softmax(pooled, dim=1)).sum(dim=1)
        total = torch.zeros_like(lengths, dtype=outputs.class_logits.dtype)
        for index, stream in enumerate(self.streams):
            features, logits, attention_logits = outputs.other[3 * index : 3 * index + 3]
            attention = torch.sigmoid(attention_logits[:, 0])
            foreground = _pooled(logits, attention, lengths, options.pooling)
            background = _pooled(logits, 1 - attention, lengths, options.pooling)
            losses = -(wanted * F.log_softmax(foreground, dim=1)).sum(dim=1)
            losses = losses - options.background * F.log_softmax(background, dim=1)[:, -1]
            losses = losses + options.guide * guide_losses(logits, attention, targets, lengths)
            clusters = cast(_Stream, stream).clusters(features)
            losses = losses + options.cluster * cluster_losses(
                _pooled(clusters, attention, lengths, options.pooling),
                _pooled(clusters, 1 - attention, lengths, options.pooling),
            )
            total = total + losses
        return total / len(self.streams)


def guide_losses(class_logits: Tensor, attention: Tensor, targets: Tensor, lengths: Tensor) -> Tensor:
    """How far the attention is from what the classifier says of each snippet, [V] (the paper's guide).

    The mean over time of |a - max over labels P_n| + |a - (1 - P_background)|, where P is the softmax over classes,
    smoothed over time by a Gaussian of 1 snippet; no gradient flows through it. A video without a label has the second
    term alone.

    Args:
        class_logits: [S, N + 1].
        attention: a [S].
        targets: [V, N].
        lengths: int64 [V].
    """
    scores = _smoothed(torch.softmax(class_logits.detach(), dim=1), lengths)
    labels = labels_of(targets)
    own = torch.repeat_interleave(labels, lengths, dim=0)
    action = torch.where(own, scores[:, :-1], 0.0).amax(dim=1)
    known = own.any(dim=1).to(attention.dtype)
    apart = known * (attention - action).abs() + (attention - (1 - scores[:, -1])).abs()
    return video_means(apart[:, None], lengths)[:, 0]


def cluster_losses(foreground: Tensor, background: Tensor) -> Tensor:
    """Cross-entropy of both pooled features with their clusters, [V], of their products with both vectors, [V, 2]."""
    return -(F.logsigmoid(foreground[:, 0] - foreground[:, 1]) + F.logsigmoid(background[:, 1] - background[:, 0]))


def _pooled(values: Tensor, weights: Tensor, lengths: Tensor, pooling: str, *, exact: bool = False) -> Tensor:
    """Σ_t w_t v_t / (Σ_t w_t + 1), or / T, of each video, [V, K]: what linear layers make of its pooled features."""
    sums = video_sums(weights[:, None] * values, lengths, exact=exact)
    if pooling == "mean":
        return sums / lengths.clamp_min(1)[:, None]
    return sums / (video_sums(weights[:, None], lengths, exact=exact) + 1)


def _smoothed(values: Tensor, lengths: Tensor) -> Tensor:
    """The Gaussian mean of each snippet's neighbours in its video, [S, K]."""
    total, weight = values, torch.ones_like(values[:, :1])
    there = torch.ones_like(values[:, :1])
    for by in range(-_REACH, _REACH + 1):
        share = math.exp(-(by**2) / (2 * _SIGMA**2))
        if by:
            total = total + share * moved(values, lengths, by)
            weight = weight + share * moved(there, lengths, by)
    return total / weight


def build(options: Options, width: int, classes: int) -> Nguyen:
    """A fresh network, drawn from torch's global generator."""
    return Nguyen(width, classes, options)
