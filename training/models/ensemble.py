"""Several networks of one base model as one model: its scores are the means of theirs.

Features are standardised once for all of them: `Standardised` is outside `Ensemble`, so that the networks read the same
values and the exporter can join their first layers.
"""

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from refineloc.training.models.base_model import BaseModel, Outputs, build_model
from refineloc.training.models.layers.activations import Activations, pooled
from refineloc.training.models.standardised import Standardised
from refineloc.training.settings.config import Config

__all__ = ["Ensemble", "as_one", "build_models", "build_network", "members_of"]


class Ensemble(BaseModel):
    """K networks of one base model, or K students, trained each by itself.

    C̄, Ā^bf and Ā^time are the members' means. ŷ is pooled with them as in a single network: the sum over time of
    Ā^time times C̄. Where the base model has a video score of its own (`pools_by_attention` is False), ŷ is the
    members' mean too. So K equal networks give the scores of one.

    State-dict keys: `members.I.` and the key of the I-th network.

    Args:
        members: at least one, all of the same base model with the same options, width and classes.
    """

    def __init__(self, members: Sequence[BaseModel]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        first = members[0]
        self.layers, self.attention_values = first.layers, first.attention_values
        self.context_snippets, self.pools_by_attention = first.context_snippets, first.pools_by_attention
        self.levels = first.levels

    def forward(self, features: Tensor, lengths: Tensor) -> Outputs:
        """The members' logits beside each other: class logits [S, K x columns], attention logits [S, K x values].

        Of `other` one member's after another's.
        """
        outputs: list[Outputs] = [member(features, lengths) for member in self.members]
        return Outputs(
            torch.cat([each.class_logits for each in outputs], dim=1),
            torch.cat([each.attention_logits for each in outputs], dim=1),
            tuple(part for each in outputs for part in each.other),
        )

    def activations(self, outputs: Outputs, lengths: Tensor, *, exact: bool = False) -> Activations:
        """The means of the members' activations."""
        parts = [member.activations(own, lengths, exact=exact) for member, own in self._each(outputs)]
        means = Activations(*map(_mean, zip(*parts, strict=True)))
        if not self.pools_by_attention:
            return means
        return means._replace(video_scores=pooled(means.attention, means.class_scores, lengths, exact=exact))

    def points(self, outputs: Outputs) -> tuple[Tensor, ...]:
        """The means of the members' class scores and distances, point by point."""
        return tuple(map(_mean, zip(*(member.points(own) for member, own in self._each(outputs)), strict=True)))

    def video_losses(self, outputs: Outputs, activations: Activations, targets: Tensor, lengths: Tensor) -> Tensor:
        """Not defined: members are trained one after another."""
        raise NotImplementedError("an ensemble is not trained as a whole")

    def _each(self, outputs: Outputs) -> Iterator[tuple[BaseModel, Outputs]]:
        """Each member and the outputs of its own `forward`."""
        count = len(self.members)
        share = len(outputs.other) // count
        columns = outputs.class_logits.chunk(count, 1), outputs.attention_logits.chunk(count, 1)
        for index, (member, class_logits, attention_logits) in enumerate(zip(self.members, *columns, strict=True)):
            own = outputs.other[index * share : (index + 1) * share]
            yield cast(BaseModel, member), Outputs(class_logits, attention_logits, own)


def _mean(values: Sequence[Tensor]) -> Tensor:
    return sum(values[1:], start=values[0]) / len(values)  # ONNX Runtime is slow to stack and reduce


def as_one(networks: Sequence[BaseModel]) -> BaseModel:
    """The model of one network, which is itself, or of several: their `Ensemble`, standardised where they are.

    Args:
        networks: at least one, trained on the same videos, so that all have the same statistics.
    """
    if len(networks) == 1:
        return networks[0]
    first = networks[0]
    if not isinstance(first, Standardised):
        return Ensemble(networks)
    inner = [network.model for network in networks if isinstance(network, Standardised)]
    return Standardised(Ensemble(inner), first.mean, first.scale)


def members_of(model: BaseModel) -> list[BaseModel]:
    """The networks that `as_one` was given."""
    if isinstance(model, Standardised):
        return [Standardised(member, model.mean, model.scale) for member in members_of(model.model)]
    return [cast(BaseModel, member) for member in model.members] if isinstance(model, Ensemble) else [model]


def build_network(config: Config, width: int, classes: int) -> BaseModel:
    """A fresh network of a run, for weights to be loaded into."""
    model = build_model(config.model, width, classes)
    return Standardised(model, torch.zeros(width), torch.ones(width)) if config.features.standardise else model


def build_models(config: Config, width: int, classes: int) -> BaseModel:
    """The fresh model of an iteration, for weights to be loaded into: a network, or several as one."""
    return as_one([build_network(config, width, classes) for _ in range(config.training.models)])
