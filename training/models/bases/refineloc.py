"""RefineLoc's own base model: two multi-layer perceptrons over snippets (section 3.1)."""

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel as Settings
from pydantic import ConfigDict
from torch import Tensor, nn

from refineloc.training.losses import video_losses_paper, video_losses_release
from refineloc.training.models.base_model import BaseModel, Outputs
from refineloc.training.models.layers.activations import Activations, activations
from refineloc.training.models.layers.linear import Linear

if TYPE_CHECKING:
    from refineloc.training.settings.config import Config

__all__ = ["DEFAULTS", "Options", "RefineLoc", "build"]

DEFAULTS: dict[str, Any] = {}


class Options(Settings):
    """None: its settings are the configuration's own (model.layers, model.attention_values, training.video_loss)."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RefineLoc(BaseModel):
    """Class and attention logits of each snippet.

    Each of the two has `layers` fully connected layers with ReLU between them; layer i maps D/2^i to D/2^(i+1), never
    below the output width, and the last one to the outputs. State-dict keys: `classifier.{0,2,4..}.{weight,bias}` and
    `attention.{0,2,4..}.{weight,bias}` (the odd numbers are the ReLUs).

    Args:
        width: D.
        classes: N.
        layers: L, at least 1.
        attention_values: 2 (background, foreground: the paper) or 1 (a foreground logit: the released code's option).
        release_loss: learn video labels as the released code does.
    """

    def __init__(
        self, width: int, classes: int, layers: int = 2, attention_values: int = 2, release_loss: bool = False
    ) -> None:
        super().__init__()
        self.layers, self.attention_values = layers, attention_values
        self._release_loss = release_loss
        self.classifier = _perceptron(width, classes, layers)
        self.attention = _perceptron(width, attention_values, layers)

    def forward(self, features: Tensor, lengths: Tensor) -> Outputs:
        """Snippets are scored one by one: `lengths` does not matter."""
        return Outputs(self.classifier(features), self.attention(features))

    def activations(self, outputs: Outputs, lengths: Tensor, *, exact: bool = False) -> Activations:
        """Those of section 3.1."""
        return activations(outputs.class_logits, outputs.attention_logits, lengths, exact=exact)

    def video_losses(self, outputs: Outputs, found: Activations, targets: Tensor, lengths: Tensor) -> Tensor:
        """Cross-entropy of ŷ with the labels, or the released code's."""
        if self._release_loss:
            return video_losses_release(found, outputs.class_logits, targets, lengths)
        return video_losses_paper(found, targets)


def build(config: "Config", width: int, classes: int) -> RefineLoc:
    """A fresh network, drawn from torch's global generator."""
    release_loss = config.training.video_loss == "release"
    return RefineLoc(width, classes, config.model.layers, config.model.attention_values, release_loss)


def _perceptron(width: int, outputs: int, layers: int) -> nn.Sequential:
    parts: list[nn.Module] = []
    for _ in range(layers - 1):
        hidden = max(width // 2, outputs)
        parts += [Linear(width, hidden), nn.ReLU(inplace=True)]
        width = hidden
    return nn.Sequential(*parts, Linear(width, outputs))
