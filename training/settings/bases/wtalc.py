"""Settings of W-TALC (section 4.1 of Paul, Roy, Roy-Chowdhury, ECCV 2018)."""

from typing import Any

from pydantic import Field

from refineloc.training.settings.section import Section

__all__ = ["DEFAULTS", "Options"]

DEFAULTS: dict[str, Any] = {
    # Section 3.5: activations above the middle between their least and their largest; the score is the peak.
    "detection": {
        "profile": "multi-threshold",
        "thresholds": [0.5],
        "scoring": "peak",
        "video_weight": 0.7,
        "max_gap": 0,
        "widen": 0,
    },
    # W-TALC has no refinement; these values were chosen on the sample data (docs/explanation/base-models.md).
    # Labels are not widened, as detections are not.
    "pseudo": {"beta": 0.3, "normalised": 0.5, "top_k": 1, "widen": 0},
    "training": {"learning_rate": 1e-4, "weight_decay": 5e-4},
}


class Options(Section):
    """Settings of W-TALC."""

    dropout: float = Field(0.7, ge=0, lt=1, description="of the hidden layer, while training")
    one_of: int = Field(8, ge=1, description="of how many snippets one counts in a video's class score (s)")
    similarity: float = Field(0.5, ge=0, lt=1, description="1 - λ, weight of the co-activity similarity loss")
    margin: float = Field(0.5, ge=0, description="δ, of the ranking hinge on cosine distances")
    longest: int = Field(750, ge=1, description="snippets a video in training: a window drawn anew each epoch")
