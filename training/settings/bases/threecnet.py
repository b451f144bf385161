"""Settings of 3C-Net (Narayan, Cholakkal, Khan, Shao, ICCV 2019)."""

from typing import Any

from pydantic import Field

from refineloc.training.settings.section import Section

__all__ = ["DEFAULTS", "Options"]

DEFAULTS: dict[str, Any] = {
    # The paper: activations above the middle between their least and their largest; peak plus the class's mean.
    "detection": {
        "profile": "multi-threshold",
        "thresholds": [0.5],
        "scoring": "peak",
        "video_weight": 1.0,
        "class_threshold": 0.5,
        "max_gap": 0,
        "widen": 0,
    },
    "pseudo": {"beta": 0.3, "normalised": 0.5, "top_k": 1, "widen": 0},
    "training": {"learning_rate": 1e-4, "weight_decay": 5e-4},
}


class Options(Section):
    """Settings of 3C-Net."""

    dropout: float = Field(0.7, ge=0, lt=1, description="of the streams' last hidden layer and the head's, in training")
    one_of: int = Field(8, ge=1, description="of how many snippets one counts in a video's class score (s)")
    centre: float = Field(1e-3, ge=0, description="α, weight of the centre loss of each stream")
