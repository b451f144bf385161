"""The method's activations: C̄, Ā^bf, Ā^time and ŷ from the logits of a packed batch (RefineLoc, section 3.1).

These lines are the only place that has this mathematics: training runs them, and the exporter traces them into the
ONNX graph. Sums over the time of each video are matrix products with a one-hot of the videos, which a tracer can
follow with any number of snippets and videos, and which runs no loop over videos and pads nothing.

A deployed model must give a video the same scores whatever it is packed with, and a product adds in an order that
depends on where in the batch the video lies. The exporter therefore asks for `exact` sums: float64, of values rounded
to a grid so fine that it is far below float32 and so coarse that no addition rounds, so no order can be seen.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from refineloc.training.models.layers.packing import membership

__all__ = ["Activations", "activations", "pooled", "time_attention"]


class Activations(NamedTuple):
    """Of a packed batch: S snippets of V videos one after another, N classes.

    Attributes:
        class_scores: C̄ [S, N], softmax over classes.
        foreground: Ā^bf_fg [S], in [0, 1].
        attention: Ā^time [S], sums to 1 over each video.
        video_scores: ŷ [V, N].
    """

    class_scores: Tensor
    foreground: Tensor
    attention: Tensor
    video_scores: Tensor


def activations(class_logits: Tensor, attention_logits: Tensor, lengths: Tensor, *, exact: bool = False) -> Activations:
    """C̄, Ā^bf, Ā^time and ŷ.

    Args:
        class_logits: C [S, N].
        attention_logits: A [S, 2] (background, foreground) or, in the released one-value form, [S, 1].
        lengths: snippets of each video, int64 [V].
        exact: add over time without rounding (up to 2^20 snippets a batch), for inference.

    With two values Ā^bf is the softmax of A over its values, and Ā^time the softmax over time of Ā^bf_fg, values that
    lie in [0, 1] already. With one value a, Ā^bf_fg = sigmoid(a) and Ā^time is the softmax of a itself over time.
    """
    member = membership(lengths, class_logits)
    class_scores = torch.softmax(class_logits, dim=1)
    if attention_logits.shape[1] == 2:
        foreground = torch.softmax(attention_logits, dim=1)[:, 1]
        weight = torch.exp(foreground)
    else:
        logit = attention_logits[:, 0]
        foreground = torch.sigmoid(logit)
        # The largest of each video is taken off: exp of an unbounded logit would overflow. It cancels, so no gradient.
        largest = torch.where(member, logit[None, :], -torch.inf).amax(dim=1)
        weight = torch.exp(logit - _spread(largest.nan_to_num(neginf=0.0), member).detach())
    attention = _normalised(weight, member, exact)
    video_scores = _pooled(attention, class_scores, member, exact)
    return Activations(class_scores, foreground, attention.to(foreground.dtype), video_scores)


def pooled(attention: Tensor, class_scores: Tensor, lengths: Tensor, *, exact: bool = False) -> Tensor:
    """ŷ [V, N], the sum over each video's time of Ā^time [S] times C̄ [S, N]."""
    return _pooled(attention.double() if exact else attention, class_scores, membership(lengths, attention), exact)


def time_attention(foreground: Tensor, lengths: Tensor, *, exact: bool = False) -> Tensor:
    """Ā^time [S], the softmax over each video's time of Ā^bf_fg [S], for base models with another video score."""
    weight = _normalised(torch.exp(foreground), membership(lengths, foreground), exact)
    return weight.to(foreground.dtype)


def _pooled(attention: Tensor, class_scores: Tensor, member: Tensor, exact: bool) -> Tensor:
    summands = attention[:, None] * class_scores
    if exact:
        summands = _on_grid(summands, 1.0)  # they sum to 1 over classes and time: below 2^53 steps of 2^-52
    return (member.to(summands.dtype) @ summands).to(class_scores.dtype)


def _normalised(weight: Tensor, member: Tensor, exact: bool) -> Tensor:
    """Weights above 0 [S], divided by their sum over the video; float64 where `exact`."""
    if exact:
        weight = _on_grid(weight.double(), 2.0**20)  # in (0, e], so the sums of 2^20 stay below 2^53 steps of 2^-32
    return weight / _spread(member.to(weight.dtype) @ weight, member)


def _on_grid(values: Tensor, large: float) -> Tensor:
    """Float64 values from 0 to `large`, rounded to multiples of the step between float64 numbers just above `large`."""
    return (values + large) - large


def _spread(values: Tensor, member: Tensor) -> Tensor:
    """The value of its video for each snippet: [V] -> [S]."""
    return values @ member.to(values.dtype)
