"""The losses, as pure functions of a packed batch (RefineLoc, sections 3.1 and 3.2; docs/explanation/method.md)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from refineloc.training.models.layers.packing import membership

__all__ = ["UNLABELLED", "class_losses", "class_weights", "pseudo_losses"]

UNLABELLED = -1  # a snippet without a pseudo label; 0 is background, 1 foreground


def pseudo_losses(
    attention_logits: Tensor,
    labels: Tensor,
    lengths: Tensor,
    weights: Tensor,
    *,
    release: bool = False,
    targets: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of Ā^bf with the pseudo labels: weighted mean over a video's labelled snippets, [V].

    Args:
        attention_logits: A [S, 2] or [S, 1].
        labels: int64 [S]: 0 background, 1 foreground, -1 none.
        lengths: int64 [V].
        weights: of background and foreground, float [2].
        release: with one value, as the released code weighs: background by 1, foreground by the square root of its
            weight, divided by the number of labels.
        targets: foreground that the labels teach, float [S], in [0, 1]; None: the labels. Weights are the labels'.

    A video without any labelled snippet (or with none of weight above 0) adds 0.
    """
    labelled = labels >= 0
    target = labels.clamp_min(0)
    taught = target.to(attention_logits.dtype) if targets is None else targets.to(attention_logits.dtype)
    if attention_logits.shape[1] == 1:
        losses = F.binary_cross_entropy_with_logits(attention_logits[:, 0], taught, reduction="none")
    elif targets is None:
        losses = F.cross_entropy(attention_logits, target, reduction="none")
    else:
        losses = F.cross_entropy(attention_logits, torch.stack([1 - taught, taught], dim=1), reduction="none")
    weights = weights.to(losses.dtype)
    by_count = release and attention_logits.shape[1] == 1
    if by_count:
        weights = torch.stack([torch.ones_like(weights[0]), weights[1].sqrt()])
    weight = weights[target] * labelled
    one_hot = membership(lengths, losses).to(losses.dtype)
    total = one_hot @ (labelled.to(losses.dtype) if by_count else weight)
    return (one_hot @ (weight * losses)) / torch.where(total > 0, total, 1.0)


def class_losses(class_logits: Tensor, classes: Tensor, labels: Tensor, lengths: Tensor) -> Tensor:
    """Cross-entropy of C̄ with the classes of foreground snippets: the mean over a video's such snippets, [V].

    Args:
        class_logits: C [S, N], or more columns (a background class).
        classes: float [S, N], a row sums to 1 where the snippet is foreground.
        labels: int64 [S]: 0 background, 1 foreground, -1 none.
        lengths: int64 [V].

    A video without any foreground snippet adds 0.
    """
    losses = -(classes * F.log_softmax(class_logits, dim=1)[:, : classes.shape[1]]).sum(dim=1)
    foreground = (labels == 1).to(losses.dtype)
    one_hot = membership(lengths, losses).to(losses.dtype)
    return (one_hot @ (foreground * losses)) / (one_hot @ foreground).clamp_min(1.0)


def class_weights(labels: Tensor, weighted: bool) -> Tensor:
    """Weights of background and foreground: [1 - w, w], w the share of background among all pseudo labels of a split.

    Args:
        labels: int64 [S] of the split, 0, 1 or -1.
        weighted: False weighs both the same.

    With labels of one kind only that formula would weigh the only kind with 0, and nothing would be learned; both then
    weigh the same.
    """
    background = int((labels == 0).sum())
    total = int((labels >= 0).sum())
    if not weighted or background in (0, total):
        return torch.ones(2, device=labels.device)
    share = background / total
    return torch.tensor([1.0 - share, share], device=labels.device)
