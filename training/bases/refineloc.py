"""RefineLoc's own base model: two multi-layer perceptrons over snippets (section 3.1)."""

from torch import Tensor, nn

from refineloc.training.bases.linear import Linear

__all__ = ["RefineLoc"]


class RefineLoc(nn.Module):
    """Class and attention logits of each snippet.

    Each of the two has `layers` fully connected layers with ReLU between them; layer i maps D/2^i to D/2^(i+1), never
    below the output width, and the last one to the outputs. State-dict keys: `classifier.{0,2,4..}.{weight,bias}` and
    `attention.{0,2,4..}.{weight,bias}` (the odd numbers are the ReLUs).

    Args:
        width: D.
        classes: N.
        layers: L, at least 1.
        attention_values: 2 (background, foreground: the paper) or 1 (a foreground logit: the released code's option).
    """

    def __init__(self, width: int, classes: int, layers: int = 2, attention_values: int = 2) -> None:
        super().__init__()
        self.classifier = _perceptron(width, classes, layers)
        self.attention = _perceptron(width, attention_values, layers)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """`features` [S, D] -> class logits [S, N], attention logits [S, attention_values]."""
        return self.classifier(features), self.attention(features)


def _perceptron(width: int, outputs: int, layers: int) -> nn.Sequential:
    parts: list[nn.Module] = []
    for _ in range(layers - 1):
        hidden = max(width // 2, outputs)
        parts += [Linear(width, hidden), nn.ReLU(inplace=True)]
        width = hidden
    return nn.Sequential(*parts, Linear(width, outputs))
