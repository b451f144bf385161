"""Pairs of videos that share a label, and how alike their activities are (W-TALC, section 3.4; CO2-Net)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from refineloc.training.models.layers.packing import membership
from refineloc.training.models.layers.targets import labels_of

__all__ = ["paired_order", "similarity_losses"]


def paired_order(targets: Tensor, generator: torch.Generator) -> Tensor:
    """A random order in which neighbours (0 and 1, 2 and 3, ...) share a label, as far as there are such pairs.

    Args:
        targets: [V, N], above 0 where a video has a label.
        generator: of the order.

    Returns:
        int64 [V].
    """
    shuffled = torch.randperm(len(targets), generator=generator).tolist()
    labels = [set(torch.nonzero(row).flatten().tolist()) for row in targets]
    pairs: list[list[int]] = []
    unpaired: dict[int, int] = {}  # label -> a video that has it and no partner yet
    for video in shuffled:
        partner = next((unpaired[label] for label in sorted(labels[video]) if label in unpaired), None)
        if partner is None:
            unpaired |= dict.fromkeys(labels[video], video)
            continue
        pairs.append([partner, video])
        unpaired = {label: other for label, other in unpaired.items() if other != partner}
    rest = list(dict.fromkeys(unpaired.values()))
    paired = {video for pair in pairs for video in pair}
    rest += [video for video in shuffled if video not in paired and video not in rest]
    pairs += [rest[index : index + 2] for index in range(0, len(rest) - 1, 2)]
    order = torch.randperm(len(pairs), generator=generator).tolist()
    last = rest[-1:] if len(rest) % 2 else []
    return torch.tensor([video for index in order for video in pairs[index]] + last, dtype=torch.int64)


def similarity_losses(hidden: Tensor, class_logits: Tensor, targets: Tensor, lengths: Tensor, margin: float) -> Tensor:
    """The co-activity similarity loss (section 3.4) of each video with its neighbour, [V]; 0 where they share no label.

    Args:
        hidden: [S, D], compared by cosine distance.
        class_logits: [S, N]; a softmax over a video's time makes them attention.
        targets: [V, N], highest where a video has a label; videos 0 and 1, 2 and 3, ... are pairs.
        lengths: int64 [V]; a video of a pair that shares a label has at least one snippet.
        margin: δ.

    For each label that a pair shares, the high-attention features of the two videos should be nearer to each other, by
    the margin, than the high-attention features of one are to the low-attention features of the other. The loss is the
    mean over both directions and over the shared labels.
    """
    videos = len(lengths) // 2 * 2
    labels = labels_of(targets)
    shared = labels[0:videos:2] & labels[1:videos:2]
    pair, label = torch.nonzero(shared, as_tuple=True)
    if not len(pair):
        return torch.zeros_like(lengths, dtype=hidden.dtype)
    both = torch.stack([2 * pair, 2 * pair + 1])  # [2, K] videos
    inside = membership(lengths, hidden)[both]  # [2, K, S]
    attention = torch.where(inside, class_logits.T[label], -torch.inf).softmax(dim=2)
    high = attention @ hidden
    other_snippets = (lengths[both] - 1).clamp_min(1)[:, :, None]
    low = (inside.to(hidden.dtype) @ hidden - high) / other_snippets

    def distance(first: Tensor, second: Tensor) -> Tensor:
        return 1 - F.cosine_similarity(first, second, dim=1)

    near = distance(high[0], high[1])
    hinges = F.relu(near - distance(high[0], low[1]) + margin) + F.relu(near - distance(low[0], high[1]) + margin)
    loss_of_label = 0.5 * hinges / shared.sum(dim=1)[pair]
    losses = torch.zeros(len(lengths), dtype=hidden.dtype, device=hidden.device)
    return losses.index_add(0, both.flatten(), loss_of_label.repeat(2))
