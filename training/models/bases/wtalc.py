"""W-TALC (Paul, Roy, Roy-Chowdhury, ECCV 2018), with a background-foreground head for the refinement to supervise.

Its class activations come from a hidden layer and a linear layer. It learns from the mean of each class's highest
logits (multiple-instance learning) and from pairs of videos that share a class (co-activity similarity). W-TALC has no
attention, so we add a head that gives Ā^bf. The head's foreground is multiplied with the class logits that make the
video score, and with the C̄ that makes segments; docs/base-models.md says why.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from refineloc.training.models.base_model import BaseModel, Outputs, labels_of
from refineloc.training.models.layers.activations import Activations, time_attention
from refineloc.training.models.layers.packing import membership, video_of
from refineloc.training.models.layers.top_mean import top_mean
from refineloc.training.settings.bases.wtalc import Options

__all__ = ["WTALC", "build", "similarity_losses"]

_UNSEEN = 3.0  # initial foreground logit of the head: a foreground of 0.95 leaves W-TALC nearly as it is


class WTALC(BaseModel):
    """Features [S, D] -> hidden [S, D] -> class logits [S, N], and -> hidden [S, D / 2] -> head [S, 2].

    State-dict keys: `hidden`, `classifier`, `head_hidden`, `head`, each `.weight` and `.bias`.

    Args:
        width: D.
        classes: N.
        options: its settings; those of the paper if left out.
    """

    layers, attention_values, unit_videos = 2, 2, 2
    pools_by_attention = False

    def __init__(self, width: int, classes: int, options: Options | None = None) -> None:
        super().__init__()
        options = options or Options()
        self._options = options
        self.longest = options.longest
        self.hidden = nn.Linear(width, width)
        self.dropout = nn.Dropout(options.dropout)
        self.classifier = nn.Linear(width, classes)
        # The head does not share the hidden layer: with a shared layer, pseudo labels made the classification worse.
        half = max(width // 2, 1)
        self.head_hidden = nn.Linear(width, half)
        self.head = nn.Linear(half, 2)
        with torch.no_grad():
            self.head.bias.copy_(torch.tensor([0.0, _UNSEEN]))

    def forward(self, features: Tensor, lengths: Tensor) -> Outputs:
        """Logits of each snippet by itself, and the hidden layer, by which pairs of videos are compared."""
        hidden = self.dropout(F.relu(self.hidden(features)))
        head = self.head(self.dropout(F.relu(self.head_hidden(features))))
        return Outputs(self.classifier(hidden), head, (hidden,))

    def activations(self, outputs: Outputs, lengths: Tensor, *, exact: bool = False) -> Activations:
        """C̄ of a snippet sums to its foreground; ŷ is the softmax of the mean of the highest gated logits."""
        foreground = torch.softmax(outputs.attention_logits, dim=1)[:, 1]
        video_logits = self._video_logits(outputs, lengths, exact)
        has_snippets = (lengths > 0)[:, None]
        return Activations(
            torch.softmax(outputs.class_logits, dim=1) * foreground[:, None],
            foreground,
            time_attention(foreground, lengths, exact=exact),
            torch.softmax(video_logits, dim=1) * has_snippets.to(video_logits.dtype),
        )

    def video_losses(self, outputs: Outputs, activations: Activations, targets: Tensor, lengths: Tensor) -> Tensor:
        """λ · multiple-instance loss + (1 - λ) · co-activity similarity loss of the pair that a video is in.

        In evaluation mode the first term alone, with the same weight against the pseudo loss as in training.
        """
        options = self._options
        video_logits = self._video_logits(outputs, lengths)
        losses = -(1 - options.similarity) * (targets * F.log_softmax(video_logits, dim=1)).sum(dim=1)
        if not self.training or not options.similarity:
            return losses
        (hidden,) = outputs.other
        similarity = similarity_losses(hidden, outputs.class_logits, targets, lengths, options.margin)
        return losses + options.similarity * similarity

    def _video_logits(self, outputs: Outputs, lengths: Tensor, exact: bool = False) -> Tensor:
        # Logits are counted from the least of their video: a gate near 0 would otherwise raise negative logits.
        above_least = outputs.class_logits - _least(outputs.class_logits, lengths)
        gated = torch.softmax(outputs.attention_logits, dim=1)[:, 1:] * above_least
        return top_mean(gated, lengths, self._options.one_of, exact=exact)

    def order(self, targets: Tensor, generator: torch.Generator) -> Tensor:
        """A random order in which neighbours (0 and 1, 2 and 3, ...) share a label, as far as there are such pairs."""
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


def _least(class_logits: Tensor, lengths: Tensor) -> Tensor:
    """The least logit of any class in each snippet's video, [S, 1]. No gradient flows through it."""
    inside = membership(lengths, class_logits)
    least = torch.where(inside, class_logits.detach().amin(dim=1), torch.inf).amin(dim=1)
    return least[video_of(lengths, class_logits)][:, None]


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


def build(options: Options, width: int, classes: int) -> WTALC:
    """A fresh network, drawn from torch's global generator."""
    return WTALC(width, classes, options)
