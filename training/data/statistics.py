"""Mean and scale of each column of a split's features, for models that standardise them."""

import torch
from torch import Tensor

from refineloc.training.data.split import Split
from refineloc.training.machine import parallel

__all__ = ["column_statistics"]

_CONSTANT = 1e-10  # variance of a column, as a share of its mean square, below which float32 features do not vary


def column_statistics(split: Split) -> tuple[Tensor, Tensor]:
    """The mean of each column over all snippets, and 1 / its standard deviation; 1 for a column that does not vary.

    Of several processes each reads its share of the videos.

    Returns:
        float32 [D] each, on the split's device.
    """
    sums = torch.zeros(2, split.width, dtype=torch.float64, device=split.device)
    for batch in split.batches(parallel.share(split.chunks())):
        features = batch.features.double()
        sums += torch.stack([features.sum(dim=0), features.square().sum(dim=0)])
    mean, mean_square = parallel.add(sums) / split.snippets
    variance = mean_square - mean.square()
    varies = variance > _CONSTANT * mean_square
    scale = torch.where(varies, variance.clamp_min(torch.finfo(torch.float64).tiny).rsqrt(), 1.0)
    return mean.float(), scale.float()
