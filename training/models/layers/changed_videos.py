"""What training changes in the features of whole videos, so that a network cannot name them by what does not matter.

- **Means exchanged.** A classifier of snippets that learns from video labels can name a video by what all its snippets
  share: the place, the camera, the speaker. Its class activation is then as high in the background as in the action.
  Where the means of videos are exchanged at random, only what deviates from the mean can be learned. The idea is that
  of exchanged feature statistics in domain generalisation (Zhou et al., MixStyle, ICLR 2021), with means alone and over
  time.
- **Columns dropped.** A network can tell a small number of videos by a few columns of their features. Where some are
  dropped for a whole video at a time, it has to know an action by many (as whole channels are dropped by Tompson et
  al., CVPR 2015).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from refineloc.training.models.layers.packing import membership

__all__ = ["changed_videos", "write_changed"]


def changed_videos(features: Tensor, lengths: Tensor, *, exchanged_means: float, input_dropout: float) -> Tensor:
    """Each video's features, moved towards the mean of a video that is drawn from the batch, and without some columns.

    Args:
        features: of videos one after another, [S, D].
        lengths: int64 [V], which sum to S.
        exchanged_means: 0 to 1; each video is moved by a share of the way that is drawn from 0 to this.
        input_dropout: 0 to below 1; the probability with which a column is 0 in a video, and the others are divided by
            1 less this.

    Returns:
        [S, D]. Draws from torch's global generator; a video may draw itself.
    """
    changed = torch.empty_like(features)
    write_changed(changed, features, lengths, exchanged_means=exchanged_means, input_dropout=input_dropout)
    return changed


def write_changed(
    rows: Tensor, features: Tensor, lengths: Tensor, *, exchanged_means: float, input_dropout: float, blank: int = 0
) -> None:
    """Write what `changed_videos` gives to rows [R, D], with so many other rows before each video, which stay."""
    shifts = _mean_shifts(features, lengths, exchanged_means)
    factors = F.dropout(torch.ones_like(shifts), input_dropout)
    # Video by video: wide features are read and written once.
    end, parts = 0, zip(torch.split(features, lengths.tolist()), shifts * factors, factors, strict=True)
    for own, shift, factor in parts:
        begin = end + blank
        end = begin + len(own)
        torch.addcmul(shift, own, factor, out=rows[begin:end])


def _mean_shifts(features: Tensor, lengths: Tensor, most: float) -> Tensor:
    """A share of the way from each video's mean to that of another one, [V, D]."""
    if not most:
        return features.new_zeros(len(lengths), features.shape[1])
    member = membership(lengths, features).to(features.dtype)
    means = member @ features / lengths.clamp_min(1)[:, None]
    other = torch.randperm(len(lengths), device=features.device)
    share = most * torch.rand(len(lengths), 1, device=features.device, dtype=features.dtype)
    return share * (means[other] - means)
