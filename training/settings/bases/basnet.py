"""Settings of BaS-Net (section 4.1 of Lee, Uh, Byun, AAAI 2020)."""

from typing import Any

from pydantic import Field

from refineloc.runtime.segments.rules import ManyThresholds
from refineloc.training.settings.section import Section

__all__ = ["DEFAULTS", "OF_AUTO", "Options"]

DEFAULTS: dict[str, Any] = {
    # Section 4.1: thresholds from 0 in steps of 0.025, outer-inner contrast, suppression of overlaps at tIoU 0.7.
    "detection": {
        "profile": "multi-threshold",
        "thresholds": ManyThresholds().thresholds,
        "scoring": "contrast",
        "outer": 0.25,
        "video_weight": 0.2,
        "suppression": "hard",
        "tiou": 0.7,
        "max_gap": 0,
        "widen": 0,
    },
    # BaS-Net has no refinement; these values were chosen on the sample data (docs/explanation/base-models.md). β is
    # low because the video loss is a mean over classes. Labels are not widened, as detections are not.
    "pseudo": {"beta": 0.5, "normalised": 0.5, "top_k": 1, "widen": 0},
    "training": {"learning_rate": 1e-4, "weight_decay": 5e-4},
}
# Half of auto's: its network has the most layers.
OF_AUTO: dict[str, Any] = {"training": {"learning_rate": 5e-4}}


class Options(Section):
    """Settings of BaS-Net."""

    hidden: int = Field(0, ge=0, description="width of the two temporal convolutions; 0: D (2048 in the paper)")
    filter_width: int = Field(512, ge=1, description="of the filtering module's hidden layer")
    dropout: float = Field(0.7, ge=0, lt=1, description="before the last layer, while training")
    one_of: int = Field(8, ge=1, description="of how many snippets one counts in a video's class score")
    sparsity: float = Field(1e-4, ge=0, description="weight of the foreground weights' L1 norm")
