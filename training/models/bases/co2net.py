"""CO2-Net (Hong and others, ACM MM 2021): two streams, each filtered with the help of the other.

Of each stream the time mean and the other stream's neighbourhood give a gate; gated streams have an attention each, and
together class logits with a background class. The attention is the mean of both and is Ā^bf_fg, which the refinement
supervises. With `evidence` it learns as DELU (Chen and others, ECCV 2022): class activations are evidence, and snippets
that are certain weigh most at first.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from refineloc.runtime.model.metadata import WHOLE_CONTEXT
from refineloc.training.models.base_model import BaseModel, Outputs
from refineloc.training.models.layers.activations import Activations, time_attention
from refineloc.training.models.layers.co_activity import paired_order, similarity_losses
from refineloc.training.models.layers.packing import video_of
from refineloc.training.models.layers.ranks import highest, ranks
from refineloc.training.models.layers.sums import video_means, video_sums
from refineloc.training.models.layers.targets import labels_of, with_background
from refineloc.training.models.layers.temporal_conv import TemporalConv
from refineloc.training.models.layers.top_mean import top_mean
from refineloc.training.models.layers.two_streams import halves, widths
from refineloc.training.settings.bases.co2net import Options

__all__ = ["CO2Net", "build", "evidence_curve", "evidence_losses", "uncertainty"]

_SLOPE = 0.2  # of all leaky rectifiers, as in the released code
_WIDEST = 512  # of the attention's hidden layers
_STEEP, _LIMIT = 0.7, 10.0  # of the curve of weights, and of the logits that are evidence (DELU)


class _Stream(nn.Module):
    """One stream filtered with the help of the other, and its attention logit."""

    def __init__(self, own: int, other: int, options: Options) -> None:
        super().__init__()
        hidden = options.attention_width or min(own + other, _WIDEST)
        # A convolution of width 3 over the single snippet of a time mean is a linear layer.
        self.whole = nn.Linear(own, own)
        self.local = TemporalConv(other, own)
        self.gate_dropout = nn.Dropout(options.gate_dropout)
        self.first = TemporalConv(own, hidden)
        self.second = TemporalConv(hidden, hidden)
        self.attention = nn.Linear(hidden, 1)
        self.dropout = nn.Dropout(options.gate_dropout)

    def forward(self, own: Tensor, other: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The filtered stream, and the logit of its attention [S, 1]."""
        means = video_means(own, lengths, exact=not self.training)
        whole = self.gate_dropout(F.leaky_relu(self.whole(means), _SLOPE))[video_of(lengths, own)]
        local = self.gate_dropout(F.leaky_relu(self.local(other, lengths), _SLOPE))
        filtered = torch.sigmoid(whole * local) * own
        hidden = self.dropout(F.leaky_relu(self.first(filtered, lengths), _SLOPE))
        hidden = self.dropout(F.leaky_relu(self.second(hidden, lengths), _SLOPE))
        return filtered, self.attention(hidden)


class _Other(NamedTuple):
    """The attention [S], and what the losses of training need: base logits [S, N + 1], features [S, K], attentions [S].

    The attention is the sigmoid of the outputs' logit, but a logarithm in ONNX Runtime depends on what lies beside it.
    """

    attention: Tensor
    base_logits: Tensor
    features: Tensor
    first: Tensor
    second: Tensor


class CO2Net(BaseModel):
    """Suppressed class logits [S, N + 1], the last of the background, and a foreground logit [S, 1].

    A snippet's scores depend on the whole video, through the time mean of the streams.

    State-dict keys: `streams.{0,1}.{whole,attention}` and `streams.{0,1}.{local,first,second}.product`, `fusion`,
    `hidden.product` and `classifier`, each `.weight` and `.bias`.

    Args:
        width: D; the first half of the columns is one stream, the second the other.
        classes: N.
        options: its settings; those of the paper if left out.
    """

    layers, attention_values, unit_videos = 3, 1, 2
    context_snippets = WHOLE_CONTEXT
    pools_by_attention = False

    def __init__(self, width: int, classes: int, options: Options | None = None) -> None:
        super().__init__()
        options = options or Options()
        self._options = options
        hidden = options.hidden or width
        first, second = widths(width)
        self.streams = nn.ModuleList([_Stream(first, second, options), _Stream(second, first, options)])
        self.fusion = nn.Linear(first + second, hidden)
        self.hidden = TemporalConv(hidden, hidden)
        self.dropout = nn.Dropout(options.dropout)
        self.classifier = nn.Linear(hidden, classes + 1)

    def forward(self, features: Tensor, lengths: Tensor) -> Outputs:
        """Suppressed logits and the foreground's; the attention and, in training, what the losses need, as `other`."""
        first, second = halves(features)
        filtered_first, logit_first = self.streams[0](first, second, lengths)
        filtered_second, logit_second = self.streams[1](second, first, lengths)
        fused = F.leaky_relu(self.fusion(torch.cat([filtered_first, filtered_second], dim=1)), _SLOPE)
        hidden = F.leaky_relu(self.hidden(self.dropout(fused), lengths), _SLOPE)
        base_logits = self.classifier(self.dropout(hidden))
        # The logit of the mean of both attentions, without the loss of digits near 0 and 1.
        logit = _log_mean(logit_first, logit_second) - _log_mean(-logit_first, -logit_second)
        least = base_logits.amin(dim=1, keepdim=True)
        first_attention, second_attention = torch.sigmoid(logit_first), torch.sigmoid(logit_second)
        attention = (first_attention + second_attention) / 2
        suppressed = attention * (base_logits - least) + least
        if not self.training:
            return Outputs(suppressed, logit, (attention[:, 0],))
        other = _Other(attention[:, 0], base_logits, fused, first_attention[:, 0], second_attention[:, 0])
        return Outputs(suppressed, logit, other)

    def activations(self, outputs: Outputs, lengths: Tensor, *, exact: bool = False) -> Activations:
        """Softmaxes over N + 1 classes without the last, so a snippet's C̄ and a video's ŷ sum to less than 1."""
        foreground = outputs.other[0]
        video_logits = top_mean(outputs.class_logits, lengths, self._options.one_of, exact=exact)
        has_snippets = (lengths > 0)[:, None]
        return Activations(
            torch.softmax(outputs.class_logits, dim=1)[:, :-1],
            foreground,
            time_attention(foreground, lengths, exact=exact),
            torch.softmax(video_logits, dim=1)[:, :-1] * has_snippets.to(video_logits.dtype),
        )

    def video_losses(self, outputs: Outputs, activations: Activations, targets: Tensor, lengths: Tensor) -> Tensor:
        """Cross-entropy of both kinds of logits, co-activity, agreement of the streams, norm and guide of attentions.

        In evaluation mode the cross-entropy of the suppressed logits alone.
        """
        options = self._options
        without_background = F.pad(targets, (0, 1))
        losses = self._cross_entropy(outputs.class_logits, without_background, lengths)
        if len(outputs.other) == 1:
            return losses
        _, base_logits, features, first, second = outputs.other
        losses = losses + self._cross_entropy(base_logits, with_background(targets), lengths)
        if options.similarity:
            similarity = similarity_losses(features, outputs.class_logits, targets, lengths, options.margin)
            losses = losses + options.similarity * similarity
        agreement = (first - second.detach()).square() + (second - first.detach()).square()
        attentions = torch.stack([activations.foreground, first, second], dim=1)
        background = torch.softmax(base_logits, dim=1)[:, -1:]
        guide = (1 - attentions - background).abs().mean(dim=1)
        snippets = options.agreement * agreement + options.norm * attentions.mean(dim=1)
        guide_weight = options.guide
        if options.evidence:
            guide_weight = options.evidence_guide
            unsure = uncertainty(outputs.class_logits[:, :-1])
            curve = evidence_curve(unsure, lengths, self.progress)
            snippets = snippets + options.evidence_guide * curve * guide
            evident = evidence_losses(outputs.class_logits, activations.foreground, targets, lengths, options.evident)
            losses = losses + options.evidence * evident
        snippets = snippets + guide_weight * guide
        return losses + video_means(snippets[:, None], lengths)[:, 0]

    def order(self, targets: Tensor, generator: torch.Generator) -> Tensor:
        """A random order in which neighbours (0 and 1, 2 and 3, ...) share a label, as far as there are such pairs."""
        return paired_order(targets, generator)

    def _cross_entropy(self, class_logits: Tensor, targets: Tensor, lengths: Tensor) -> Tensor:
        log_scores = F.log_softmax(top_mean(class_logits, lengths, self._options.one_of), dim=1)
        return -(targets * log_scores).sum(dim=1)


def uncertainty(class_logits: Tensor) -> Tensor:
    """N over the sum of the Dirichlet distribution's parameters, exp z + 1 (DELU), [S] of logits [S, N]."""
    evidence = class_logits.clamp(-_LIMIT, _LIMIT).exp()
    return class_logits.shape[1] / (evidence + 1).sum(dim=1)


def evidence_losses(class_logits: Tensor, foreground: Tensor, targets: Tensor, lengths: Tensor, one_of: int) -> Tensor:
    """DELU's video loss: the evidence of the labels against all evidence, [V].

    Args:
        class_logits: [S, N + 1], the last of the background, which takes no part.
        foreground: [S].
        targets: [V, N].
        lengths: int64 [V].
        one_of: ceil(T / one_of) snippets of the highest foreground make a video's logits, by their mean.
    """
    chosen = highest(foreground, lengths, one_of)[:, None].to(class_logits.dtype)
    counts = video_sums(chosen, lengths).clamp_min(1)
    logits = video_sums(chosen * class_logits[:, :-1], lengths) / counts
    strength = logits.clamp(-_LIMIT, _LIMIT).exp() + 1
    total = strength.sum(dim=1, keepdim=True)
    labels = labels_of(targets).to(strength.dtype)
    count = labels.sum(dim=1, keepdim=True)
    share = (labels / strength).detach()
    share = share / share.sum(dim=1, keepdim=True).clamp_min(torch.finfo(share.dtype).tiny)
    certainty = 1 - labels.shape[1] / total.detach()
    weights = certainty * count * share
    return (weights * (total.log() - strength.log())).sum(dim=1)


def evidence_curve(unsure: Tensor, lengths: Tensor, progress: float) -> Tensor:
    """The weight of each snippet, [S]: those that are certain weigh most at first, those that are not at the end.

    Args:
        unsure: the uncertainty of each snippet, [S]; no gradient flows through it.
        lengths: int64 [V], which sum to S.
        progress: share of the training that is done, 0 to 1.

    0.7 tanh(θ δ) + 1 with θ from 1 for the most certain snippet of a video to -1 for the least, and δ from 1 to -1.
    """
    place = ranks(-unsure, lengths).to(unsure.dtype)
    count = lengths[video_of(lengths, unsure)].to(unsure.dtype)
    theta = 1 - 2 * place / (count - 1).clamp_min(1)
    return _STEEP * torch.tanh(theta * (1 - 2 * progress)) + 1


def _log_mean(first: Tensor, second: Tensor) -> Tensor:
    """log of sigmoid(first) + sigmoid(second)."""
    return torch.logaddexp(F.logsigmoid(first), F.logsigmoid(second))


def build(options: Options, width: int, classes: int) -> CO2Net:
    """A fresh network, drawn from torch's global generator."""
    return CO2Net(width, classes, options)
