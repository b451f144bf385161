"""A base model of one's own: RefineLoc's network with a loss that looks most at what is not learned yet.

    refineloc-train TRAIN.h5 TRAIN.csv --base examples/own_base.py --set model.options.focus=1.5

docs/how-to/own-base.md has what such a file consists of. The loss is that of Lin et al., Focal loss (ICCV 2017).
"""

from pydantic import Field
from torch import Tensor

from refineloc.training.models.base_model import Outputs
from refineloc.training.models.bases.refineloc import RefineLoc, video_losses_paper
from refineloc.training.models.layers.activations import Activations
from refineloc.training.settings.section import Section

DEFAULTS = {"training": {"learning_rate": 1e-3}}  # over a preset, under what the user says


class Options(Section):
    """[model.options]."""

    focus: float = Field(2.0, ge=0, description="how much less a video counts whose labels are found; 0: cross-entropy")


class Focal(RefineLoc):
    """RefineLoc's base model with another loss of a video's labels."""

    def __init__(self, width: int, classes: int, options: Options) -> None:
        super().__init__(width, classes)
        self._focus = options.focus

    def video_losses(self, outputs: Outputs, activations: Activations, targets: Tensor, lengths: Tensor) -> Tensor:
        """Cross-entropy of each video, [V], times (1 - the score of its labels)^focus."""
        found = (targets * activations.video_scores).sum(dim=1).clamp(0, 1)
        return (1 - found) ** self._focus * video_losses_paper(activations, targets)


def build(options: Options, width: int, classes: int) -> Focal:
    """A fresh network, drawn from torch's global generator."""
    return Focal(width, classes, options)
