"""Settings of CMCS (Liu, Jiang, Wang, CVPR 2019)."""

from typing import Any

from pydantic import Field

from refineloc.training.settings.presets import AUTO_DETECTION, AUTO_PSEUDO
from refineloc.training.settings.section import Section

__all__ = ["DEFAULTS", "Options"]

DEFAULTS: dict[str, Any] = {
    # The paper has one threshold a curve, its mean, contrast and 0.25 of ŷ. On the sample data that is better alone;
    # refined, auto's rules and pseudo labels are better (docs/explanation/base-models.md).
    "detection": {**AUTO_DETECTION, "max_gap": 0},
    "pseudo": AUTO_PSEUDO,
    "training": {"learning_rate": 1e-4, "weight_decay": 1e-3, "batch_videos": 24},
}


class Options(Section):
    """Settings of CMCS."""

    branches: int = Field(4, ge=1, le=64, description="K, branches of the classification ")
    shared: int = Field(32, ge=1, description="width of the shared layer (ActivityNet: 256)")
    hidden: int = Field(
        16, ge=1, description="width of each branch, and of the attention's hidden layer (ActivityNet: 128)"
    )
    dropout: float = Field(0.5, ge=0, lt=1, description="share of a video's columns that is dropped, while training")
    diversity: float = Field(0.2, ge=0, description="weight of the diversity loss")
    norm: float = Field(0.2, ge=0, description="weight of the loss on the branches' sizes")
