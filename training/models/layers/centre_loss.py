"""The centre loss: features of a class lie near a learned centre (Wen and others, ECCV 2016; 3C-Net)."""

import torch
from torch import Tensor, nn

from refineloc.training.models.layers.packing import membership
from refineloc.training.models.layers.targets import labels_of

__all__ = ["CentreLoss"]

_PACE = 100.0  # how much faster than the weights the centres move: Adam's step does not depend on the gradient's size


class CentreLoss(nn.Module):
    """Centres of N classes, each `width` values, which are learned with the weights of the network.

    State-dict key: `centres` [N, width], each a hundredth of its centre.

    Args:
        classes: N.
        width: of the features.
    """

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.randn(classes, width) / _PACE)

    def forward(self, features: Tensor, class_logits: Tensor, targets: Tensor, lengths: Tensor) -> Tensor:
        """The squared distance of a video's features of each label to the label's centre, summed over labels, [V].

        Args:
            features: [S, width].
            class_logits: [S, N]; their softmax over time weighs the features, as far as it reaches its mean.
            targets: [V, N], highest where a video has a label.
            lengths: int64 [V].
        """
        video, label = torch.nonzero(labels_of(targets) & (lengths > 0)[:, None], as_tuple=True)
        losses = torch.zeros_like(lengths, dtype=features.dtype)
        if not len(video):
            return losses
        inside = membership(lengths, features)[video]  # [K, S]
        attention = torch.where(inside, class_logits.T[label], -torch.inf).softmax(dim=1)
        # Where all are equal, rounding may put each below the mean.
        least = torch.minimum(1 / lengths[video].to(attention.dtype), attention.detach().amax(dim=1))
        attention = torch.where(attention >= least[:, None], attention, 0.0)
        means = (attention @ features) / attention.sum(dim=1, keepdim=True)
        distances = (means - _PACE * self.centres[label]).square().sum(dim=1)
        return losses.index_add(0, video, distances)
