"""Settings of CoLA (Zhang, Cao, Yang, Chen, Zou, CVPR 2021)."""

from typing import Any

from pydantic import Field

from refineloc.training.settings.section import Section

__all__ = ["DEFAULTS", "Options"]

DEFAULTS: dict[str, Any] = {
    # The paper: thresholds of the class activation from 0 and of the actionness to 0.9, in steps of 0.025; here both
    # curves have all of them. Outer-inner contrast, suppression of overlaps at tIoU 0.6.
    "detection": {
        "profile": "multi-threshold",
        "thresholds": [round(0.025 * step, 3) for step in range(37)],
        "curve": "both",
        "scoring": "contrast",
        "outer": 0.25,
        "video_weight": 0.2,
        "top_k": 10,
        "class_threshold": 0.2,
        "suppression": "hard",
        "tiou": 0.6,
        "max_gap": 0,
        "widen": 0,
    },
    "pseudo": {"beta": 0.3, "normalised": 0.5, "top_k": 1, "widen": 0},
    "training": {"learning_rate": 1e-4, "batch_videos": 16},
}


class Options(Section):
    """Settings of CoLA."""

    hidden: int = Field(0, ge=0, description="width of the embedding; 0: D (2048 in the paper)")
    dropout: float = Field(0.7, ge=0, lt=1, description="before the last layer, while training (released code)")
    easy_one_of: int = Field(5, ge=1, description="of how many snippets one is easy, and counts in a video's score")
    hard_one_of: int = Field(20, ge=1, description="of how many snippets one is hard")
    contrast: float = Field(0.01, ge=0, description="λ, weight of the snippet contrast loss")
    temperature: float = Field(0.07, gt=0, description="τ, of the contrast")
    varied: float = Field(
        0.6, ge=0, lt=1, description="share of snippets that are not chosen as easy ones, drawn anew (released code)"
    )
