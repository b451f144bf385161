"""Settings of the student: the detector of segments that later iterations may be (docs/explanation/student.md)."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from refineloc.runtime.segments.rules import Boundaries, Rules, Suppression, changed
from refineloc.training.settings.section import Section

__all__ = ["STUDENT", "StudentConfig", "student_rules"]

_MOST = 200  # segments of a video
STUDENT = "student"  # in the place of a base model's name


class StudentConfig(Section):
    """From which iteration on models are students, what they are taught, and their network."""

    first: Annotated[int | None, BeforeValidator(lambda value: None if value == "none" else value)] = Field(
        None,
        ge=1,
        description='first iteration whose model is a student, which learns segments; "none": none is (paper)',
    )
    threshold: float = Field(
        0.35, ge=0, le=1, description="least score of a segment that is taught, as a share of the best of its class"
    )
    inward: float = Field(
        0.05,
        ge=0,
        lt=0.5,
        description="each end of a taught segment moves inward by this share of its length, unless a student found it "
        "(ours)",
    )
    video_weight: float = Field(0.3, ge=0, description="weight of the loss of video labels, beside that of segments")
    suppression: Suppression = Field(
        "soft-vote",
        description="as detection.suppression; a segment that many points find is surer (ActionFormer: soft)",
    )
    tiou: float = Field(0.65, ge=0, le=1, description="as detection.tiou")
    epochs_factor: int = Field(3, ge=1, description="times the epochs of the other iterations (ours)")
    learning_rate: float = Field(1e-3, gt=0, description="as training.learning_rate (ActionFormer: 1e-4)")
    weight_decay: float = Field(0.0, ge=0, description="as training.weight_decay (ActionFormer: 0.05, of AdamW)")
    ema: float = Field(0.999, ge=0, lt=1, description="as training.ema (FuSTAL: 0.999)")
    hidden: int = Field(64, ge=1, description="width of all layers (ActionFormer: 512)")
    levels: int = Field(
        5, ge=1, le=12, description="of the pyramid; level l finds segments of about 2^(l+2) to 2^(l+3) snippets"
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="of hidden values, while training")
    input_dropout: float = Field(
        0.35, ge=0, lt=1, description="of the features' columns, for a whole video at a time, while training"
    )
    exchanged_means: float = Field(
        0.5, ge=0, le=1, description="as that option of the base model refineloc, for all that the network sees"
    )


def student_rules(rules: Rules, suppression: Suppression, tiou: float) -> Rules:
    """The rule of a student in a run of these rules: what both kinds share is kept, but for its own suppression.

    Neighbouring points find the same segment, and every point finds one. So the best 200 of a video are kept where a
    run keeps all (ActionFormer).
    """
    own: dict[str, object] = {"profile": Boundaries().profile, "suppression": suppression, "tiou": tiou}
    if not rules.max_detections:
        own["max_detections"] = _MOST
    return changed(rules, own)
