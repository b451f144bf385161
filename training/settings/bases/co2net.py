"""Settings of CO2-Net (Hong and others, ACM MM 2021), with DELU (Chen and others, ECCV 2022)."""

from typing import Any

from pydantic import Field

from refineloc.training.settings.section import Section

__all__ = ["DEFAULTS", "OF_AUTO", "Options"]

DEFAULTS: dict[str, Any] = {
    # Released code: ten thresholds of the attention, outer-inner contrast of attention times class activation, and
    # scores of overlapping segments lowered (soft-NMS).
    "detection": {
        "profile": "multi-threshold",
        "thresholds": [round(0.1 * step, 1) for step in range(1, 10)],
        "curve": "foreground",
        "scored_on": "product",
        "scoring": "contrast",
        "outer": 0.25,
        "video_weight": 0.2,
        "top_k": 10,
        "class_threshold": 0.2,
        "suppression": "soft",
        "soft_sigma": 0.3,
        "max_gap": 0,
        "widen": 0,
    },
    "pseudo": {"beta": 0.3, "normalised": 0.5, "top_k": 1, "widen": 0},
    "training": {"learning_rate": 5e-5, "weight_decay": 1e-3, "batch_videos": 10},
}
# Half of auto's: its network has the most layers.
OF_AUTO: dict[str, Any] = {"training": {"learning_rate": 5e-4}}


class Options(Section):
    """Settings of CO2-Net."""

    hidden: int = Field(0, ge=0, description="width of the fused layers; 0: D (2048 in the paper)")
    attention_width: int = Field(
        0, ge=0, description="of the hidden layers of each stream's attention; 0: D, and at most 512 (512 in the paper)"
    )
    dropout: float = Field(0.7, ge=0, lt=1, description="of the fused layers, while training")
    gate_dropout: float = Field(0.5, ge=0, lt=1, description="of the gates and the attentions, while training")
    one_of: int = Field(7, ge=1, description="of how many snippets one counts in a video's class score")
    similarity: float = Field(1.0, ge=0, description="weight of the co-activity similarity loss of pairs of videos")
    margin: float = Field(0.5, ge=0, description="of the co-activity similarity loss")
    agreement: float = Field(0.5, ge=0, description="weight of the mutual loss of both streams' attentions")
    norm: float = Field(0.8, ge=0, description="weight of the attentions' L1 norm")
    guide: float = Field(0.8, ge=0, description="weight of |1 - attention - background's score|")
    evidence: float = Field(
        0.0, ge=0, description="DELU: weight of the evidence of a video (1.3 in its code); 0: CO2-Net"
    )
    evident: int = Field(9, ge=1, description="DELU: of how many snippets one counts in a video's evidence")
    evidence_guide: float = Field(
        0.4, ge=0, description="DELU: weight of the guide, and once more of the guide weighed by uncertainty"
    )
