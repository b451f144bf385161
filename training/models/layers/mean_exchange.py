"""Videos with the mean features of others: what tells a recording, and not its actions, is no help then.

A classifier of snippets that learns from video labels can name a video by what all its snippets share: the place, the
camera, the speaker. Its class activation is then as high in the background as in the action. Where the means of videos
are exchanged at random, only what deviates from the mean can be learned. The idea is that of exchanged feature
statistics in domain generalisation (Zhou et al., MixStyle, ICLR 2021), with means alone and over time.
"""

import torch
from torch import Tensor

from refineloc.training.models.layers.packing import membership, video_of

__all__ = ["mean_shifts", "with_exchanged_means"]


def with_exchanged_means(features: Tensor, lengths: Tensor, most: float) -> Tensor:
    """Each video's features, moved towards the mean of a video that is drawn from the batch.

    Args:
        features: of videos one after another, [S, D].
        lengths: int64 [V], which sum to S.
        most: 0 to 1; each video is moved by a share of the way that is drawn from 0 to this.

    Returns:
        [S, D]: features + share (mean of the other video - own mean). Draws from torch's global generator; a video may
        draw itself.
    """
    moved: Tensor = features + mean_shifts(features, lengths, most)[video_of(lengths, features)]
    return moved


def mean_shifts(features: Tensor, lengths: Tensor, most: float) -> Tensor:
    """What `with_exchanged_means` adds to the features of each video, [V, D]."""
    member = membership(lengths, features).to(features.dtype)
    means = member @ features / lengths.clamp_min(1)[:, None]
    other = torch.randperm(len(lengths), device=features.device)
    share = most * torch.rand(len(lengths), 1, device=features.device, dtype=features.dtype)
    return share * (means[other] - means)
