"""The student, a supervised detector of segments that an earlier iteration teaches.

ActionFormer's heads (Zhang and others, ECCV 2022) on the max-pooled pyramid of TemporalMaxer (Tang and others, 2023).

Level 0 has a point at every snippet, each further level at every second point of the one before. At each point two
heads tell how sure the network is of each class, and how far the segment's start and end are.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from refineloc.training.models.base_model import BaseModel, Outputs
from refineloc.training.models.layers.activations import Activations, time_attention
from refineloc.training.models.layers.changed_videos import write_changed
from refineloc.training.models.layers.convolution import Table, convolved, has_blanks, rectified
from refineloc.training.models.layers.pyramid import pyramid
from refineloc.training.models.layers.targets import labels_of
from refineloc.training.models.layers.top_mean import top_mean
from refineloc.training.settings.student import StudentConfig
from refineloc.training.targets import BatchTargets

__all__ = ["Student", "build"]

_PRIOR = 0.01  # of a class at a point, before training (focal loss: Lin and others, ICCV 2017)
_ALPHA, _GAMMA = 0.25, 2.0  # of the focal loss
_ONE_OF = 20  # of how many snippets one counts in a video's class score


class Student(BaseModel):
    """Class logits [S, N]: the largest over the levels; foreground logit [S, 1]: the largest over the classes.

    `other` of the outputs: class logits of all points [P, N], and their distances to start and end [P, 2] in snippets,
    level by level (`refineloc.training.models.layers.pyramid`); logits of the videos' classes [V, N].

    Args:
        width: D.
        classes: N.
        options: its settings.
    """

    layers, attention_values = 4, 1
    pools_by_attention = False

    def __init__(self, width: int, classes: int, options: StudentConfig | None = None) -> None:
        super().__init__()
        self._options = options = options or StudentConfig()
        hidden, self.levels = options.hidden, options.levels
        self.first, self.second = _Block(width, hidden), _Block(hidden, hidden)
        self.norms = nn.ModuleList([nn.LayerNorm(hidden) for _ in range(self.levels)])
        self.class_block, self.distance_block = _Block(hidden, hidden), _Block(hidden, hidden)
        self.classifier, self.distances = _Convolution(hidden, classes), _Convolution(hidden, 2)
        self.scales = nn.Parameter(torch.ones(self.levels))
        nn.init.constant_(self.classifier.bias, -math.log(1 / _PRIOR - 1))
        nn.init.constant_(self.distances.bias, 1.0)  # a rectifier that is closed everywhere would not learn
        # Two convolutions of snippets, the windows of the maxima, two convolutions of the last level's points, and the
        # way from a snippet to its point of that level.
        step = 2 ** (self.levels - 1)
        self.context_snippets = 2 + (step - 1) + 2 * step + (step - 1)

    def forward(self, features: Tensor, lengths: Tensor) -> Outputs:
        """All points of a packed batch; see the class."""
        points = pyramid(lengths, features, self.levels, blanks=has_blanks(features))
        values, dropout = self._seen(features, lengths, points.snippets), self._options.dropout * self.training
        for block in (self.first, self.second):
            values = block(values, points.snippets, dropout)
        of_levels = [values]
        for window in points.windows:
            of_levels.append(_largest_of_three(of_levels[-1].index_select(0, window.flatten()), points.all))
        normed = points.joined([norm(each) for norm, each in zip(self.norms, of_levels, strict=True)])
        normed, table = points.all.blanked(normed), points.all
        class_logits = table.of_points(self.classifier(self.class_block(normed, table), table))
        units = table.of_points(self.distances(self.distance_block(normed, table), table))
        steps = [2.0**level * self.scales[level].expand(size) for level, size in enumerate(points.sizes)]
        distances = F.relu(units * torch.cat(steps)[:, None])
        largest = points.largest(class_logits)
        other = [class_logits, distances]
        if not torch.compiler.is_compiling():  # a file has exact means, of which `activations` knows
            other.append(top_mean(largest, lengths, _ONE_OF))
        return Outputs(largest, largest.amax(dim=1, keepdim=True), tuple(other))

    def activations(self, outputs: Outputs, lengths: Tensor, *, exact: bool = False) -> Activations:
        """C̄ is the softmax over classes times the foreground, Ā^bf the foreground's sigmoid.

        ŷ is the sigmoid of the mean of each class's ceil(T / 20) highest logits.
        """
        foreground = torch.sigmoid(outputs.attention_logits[:, 0])
        video_logits = top_mean(outputs.class_logits, lengths, _ONE_OF, exact=True) if exact else outputs.other[2]
        has_snippets = (lengths > 0)[:, None]
        return Activations(
            torch.softmax(outputs.class_logits, dim=1) * foreground[:, None],
            foreground,
            time_attention(foreground, lengths, exact=exact),
            torch.sigmoid(video_logits) * has_snippets.to(video_logits.dtype),
        )

    def points(self, outputs: Outputs) -> tuple[Tensor, ...]:
        """The sigmoids of the class logits of all points, and their distances."""
        class_logits, distances = outputs.other[:2]
        return torch.sigmoid(class_logits), distances

    def video_losses(self, outputs: Outputs, activations: Activations, targets: Tensor, lengths: Tensor) -> Tensor:
        """Binary cross-entropy of ŷ with the labels, a mean over classes."""
        logits = outputs.other[2]
        labels = labels_of(targets).to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(dim=1)

    def segment_losses(self, outputs: Outputs, targets: BatchTargets, lengths: Tensor) -> Tensor:
        """Focal loss of all points and classes, and 1 - IoU with a term of the middles (DIoU) of those that are taught.

        A point that is not taught a class is taught that it is not there. Both are divided by the points a video.
        """
        class_logits, distances = outputs.other[:2]
        absent = (1 - _ALPHA) * torch.sigmoid(class_logits) ** _GAMMA * F.softplus(class_logits)
        taught = class_logits[targets.row, targets.label]
        present = _ALPHA * torch.sigmoid(-taught) ** _GAMMA * F.softplus(-taught)
        of_taught = targets.weight * present - absent[targets.row, targets.label]
        of_taught = of_taught + targets.ends_weight * _distance_iou(distances[targets.row], targets.distances)
        sums = torch.zeros(len(lengths), dtype=class_logits.dtype, device=lengths.device)
        sums = sums.index_add(0, targets.video, absent.sum(dim=1))
        sums = sums.index_add(0, targets.video[targets.row], of_taught)
        return sums / targets.points

    def _seen(self, features: Tensor, lengths: Tensor, table: Table) -> Tensor:
        """The features in a table; in training with exchanged means, and without some columns of each video."""
        means, dropped = self._options.exchanged_means, self._options.input_dropout
        if not self.training or not (means or dropped):
            return table.spread(features, lengths)
        seen = table.blanked(features.new_empty(table.size or len(features), features.shape[1]))
        blank = int(table.size > 0)
        write_changed(seen, features, lengths, exchanged_means=means, input_dropout=dropped, blank=blank)
        return seen


def _largest_of_three(values: Tensor, table: Table) -> Tensor:
    """Of rows one after another, [3 R, K]: the largest of three each, [R, K]."""
    if not table.size:
        return values.reshape(-1, 3, values.shape[1]).amax(dim=1)
    image = values.reshape(1, -1, 3, values.shape[1]).permute(0, 3, 1, 2)
    return F.max_pool2d(image, (1, 3)).permute(0, 2, 3, 1).reshape(-1, values.shape[1])  # its gradient is faster


def _distance_iou(got: Tensor, wanted: Tensor) -> Tensor:
    """1 - IoU + (distance of the middles / hull)^2 of segments around the same points, of distances [K, 2] >= 0."""
    overlap = torch.minimum(got, wanted).sum(dim=1)
    union = got.sum(dim=1) + wanted.sum(dim=1) - overlap
    hull = torch.maximum(got, wanted).sum(dim=1)
    apart = ((got[:, 1] - got[:, 0]) - (wanted[:, 1] - wanted[:, 0])) / 2
    return 1 - overlap / union.clamp_min(1e-6) + (apart / hull.clamp_min(1e-6)) ** 2


class _Convolution(nn.Linear):
    """A convolution of width 3 over the points of each video and level."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(3 * inputs, outputs)

    def forward(self, values: Tensor, table: Table) -> Tensor:  # type: ignore[override]
        return convolved(values, table, self.weight, self.bias)


class _Block(nn.Module):
    """A convolution, its norm and its rectifier."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.product, self.norm = _Convolution(inputs, outputs), nn.LayerNorm(outputs)

    def forward(self, values: Tensor, table: Table, dropout: float = 0.0) -> Tensor:
        return rectified(self.product(values, table), table, self.norm, dropout)


def build(options: StudentConfig, width: int, classes: int) -> Student:
    """A fresh network, drawn from torch's global generator."""
    return Student(width, classes, options)
