"""Signs that an iteration has collapsed, each one line that names the cause and the setting."""

from collections.abc import Iterator

from refineloc.runtime.segments.rules import Boundaries, OneThreshold, Rules
from refineloc.runtime.segments.values import Scores, Segments
from refineloc.training.criterion import whole_video_share
from refineloc.training.data.split import Split
from refineloc.training.settings.config import Config

__all__ = ["signs"]

_MOST_WHOLE = 0.5  # of the detections


def signs(order: float, config: Config, split: Split, scores: Scores, segments: Segments) -> Iterator[str]:
    """What is wrong with a model's scores of a split and its detections there; nothing where all is well.

    Args:
        order: its `attention_order` there.
        config: of the run.
        split, scores, segments: which, what the model says of it, and what it detects in it.
    """
    rules = config.detection
    is_student = isinstance(rules, Boundaries)  # which detects by its points, whatever its attention is
    if not is_student:
        yield from _of_attention(order, config, scores)
    if not len(segments.first):
        yield f"no detections at all: no snippet passes {_thresholds(rules)}"
    elif (share := whole_video_share(segments, split.lengths.numpy())) > _MOST_WHOLE:
        yield (
            f"{100 * share:.0f} % of the detections cover more than 90 % of their video, so they say nothing of when: "
            f"{_thresholds(rules)} separates nothing{'' if is_student else ', or see attention_order'}"
        )


def _of_attention(order: float, config: Config, scores: Scores) -> Iterator[str]:
    foreground = scores.foreground
    cure = "a lower training.learning_rate, more training.models or training.restarts can help"
    if len(foreground) and foreground.min() == foreground.max():
        yield f"the foreground is {foreground[0]:.2g} in every snippet, so it tells no action from the rest: {cure}"
    elif order < config.training.least_order:
        kind = (
            "inverted: lowest where the classes are seen best" if order < -0.5 else "no higher where classes are seen"
        )
        yield f"the attention has no order (attention_order {order:.2f}; a good one has more than 1), {kind}: {cure}"


def _thresholds(rules: Rules) -> str:
    if isinstance(rules, OneThreshold):
        return f"detection.alpha_a = {rules.alpha_a:g} with detection.alpha_c = {rules.alpha_c:g}"
    if isinstance(rules, Boundaries):
        return f"the student's rule with point_score = {rules.point_score:g}"
    least = f" with detection.min_score = {rules.min_score:g}" if rules.min_score is not None else ""
    return f"detection.thresholds from {min(rules.thresholds):g} to {max(rules.thresholds):g}{least}"
