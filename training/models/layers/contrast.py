"""Contrast of features: a query should be nearer to its key than to what it is not (InfoNCE; He et al., MoCo)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from refineloc.training.models.layers.packing import membership

__all__ = ["contrast_losses"]


def contrast_losses(
    queries: Tensor, keys: Tensor, embeddings: Tensor, negatives: Tensor, lengths: Tensor, temperature: float
) -> Tensor:
    """-log of the share that the key has in the similarities of the query, for each video, [V].

    Args:
        queries, keys: [V, K].
        embeddings: [S, K].
        negatives: bool [S], which snippets the query of their video is held against.
        lengths: int64 [V], which sum to S.
        temperature: cosines are divided by it.
    """
    unit, others = F.normalize(queries, dim=1), F.normalize(embeddings, dim=1)
    positive = (unit * F.normalize(keys, dim=1)).sum(dim=1, keepdim=True) / temperature
    held = membership(lengths, embeddings) & negatives
    negative = torch.where(held, unit @ others.T / temperature, -torch.inf)
    return torch.logsumexp(torch.cat([positive, negative], dim=1), dim=1) - positive[:, 0]
