"""Settings of Nguyen, Ramanan and Fowlkes (ICCV 2019)."""

from typing import Any, Literal

from pydantic import Field

from refineloc.training.settings.presets import AUTO_DETECTION, AUTO_PSEUDO
from refineloc.training.settings.section import Section

__all__ = ["DEFAULTS", "Options"]

DEFAULTS: dict[str, Any] = {
    # Alone and refined, auto's rules and pseudo labels are better on the sample data than thresholds of attention times
    # class activation (docs/explanation/base-models.md).
    "detection": AUTO_DETECTION,
    "pseudo": AUTO_PSEUDO,
    "training": {"learning_rate": 1e-4, "weight_decay": 1e-4},
}


class Options(Section):
    """Settings of Nguyen, Ramanan and Fowlkes."""

    hidden: int = Field(256, ge=1, description="of the attention")
    streams: Literal[1, 2] = Field(2, description="networks: 2, one for each half of the columns, or 1 for all columns")
    pooling: Literal["weighted", "mean"] = Field(
        "weighted", description="pooled features: divided by the sum of the weights + 1 (DGAM's code), or by T"
    )
    background: float = Field(0.1, ge=0, description="α, weight of the background's loss")
    guide: float = Field(0.1, ge=0, description="β, weight of the guide of the attention")
    cluster: float = Field(0.1, ge=0, description="γ, weight of the clustering loss")
