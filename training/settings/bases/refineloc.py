"""Settings of RefineLoc's own base model (sections 3.1 and 4.1)."""

from typing import Any, Literal

from pydantic import Field

from refineloc.training.settings.section import Section

__all__ = ["DEFAULTS", "Options"]

DEFAULTS: dict[str, Any] = {}


class Options(Section):
    """Settings of RefineLoc's own base model."""

    layers: int = Field(2, ge=1, le=4, description="L, fully connected layers of each branch (section 3.1)")
    attention_values: Literal[1, 2] = Field(
        2, description="outputs of the attention branch: 2 (paper), or 1 with a sigmoid (released, THUMOS14)"
    )
    video_loss: Literal["paper", "release"] = Field(
        "paper", description="paper: -log ŷ_y; release: -sum_t Ā^time_t log C̄_(t,y)"
    )
    exchanged_means: float = Field(
        0.0,
        ge=0,
        le=1,
        description="in training the class branch sees videos with the mean features of another one of the batch, by a "
        "share drawn from 0 to this (docs/explanation/method.md, Auto); 0: as they are",
    )
    input_dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="of the features' columns, for a whole video at a time, drawn for each branch, while training "
        "(docs/explanation/base-models.md)",
    )
