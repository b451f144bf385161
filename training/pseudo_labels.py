"""The pseudo-label generators: scores of an iteration become snippet-level labels for the next (section 3.2)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from refineloc.runtime.errors import ConfigError
from refineloc.runtime.segments.postprocess import segments
from refineloc.runtime.segments.rules import Boundaries, ManyThresholds, Rules, changed
from refineloc.runtime.segments.values import Scores, Segments
from refineloc.training.losses import UNLABELLED
from refineloc.training.settings.config import PseudoConfig
from refineloc.training.settings.own_files import own_file, plain_name

__all__ = ["Labels", "PseudoLabels", "generate", "precision_and_recall", "sample", "taught_segments"]

Labels = npt.NDArray[np.int64]
_LEAST, _MOST = 0.02, 0.85  # shares of foreground; true ones beyond are rare, and such labels teach one kind alone
_CURES = {"foreground": "raise it, or see attention_order", "background": "lower it, or see attention_order"}


@dataclass(frozen=True, slots=True)
class PseudoLabels:
    """Pseudo labels of a split.

    Attributes:
        labels: int64 [S]: 1 foreground, 0 background (none is left out before `sample`).
        classes: how much each class covers a foreground snippet, float32 [S, N], whose rows sum to 1, or to 0 where
            the snippet is background; None of generators that give no classes.
        targets: foreground that the labels teach, float32 [S], in [0, 1]; None: the labels.
        segments: that a student learns, whose snippets the labels are; None for all other models.
        warning: that they are all, or nearly all, of one kind, and which setting caused it; "" where they are not.
    """

    labels: Labels
    warning: str = ""
    classes: npt.NDArray[np.float32] | None = None
    targets: npt.NDArray[np.float32] | None = None
    segments: Segments | None = None


def generate(
    config: PseudoConfig,
    detection: Rules,
    scores: Scores,
    lengths: npt.NDArray[np.int64],
    rng: np.random.Generator,
    truth: npt.NDArray[np.bool_] | None = None,
    known: npt.NDArray[np.bool_] | None = None,
) -> PseudoLabels:
    """Label every snippet of a split.

    Args:
        config: the generator and its thresholds.
        detection: profile and joining of the segment generator's post-processing; its thresholds are `config`'s.
        scores: of the iteration's model, S snippets.
        lengths: int64 [V].
        rng: of the random generators.
        truth: the true foreground, bool [S]; the oracle needs it.
        known: the labels of each video, bool [V, N]; the generator fused needs them.

    Raises:
        ConfigError: the oracle without known times, or distribution-aware without a share; or a generator of the
            user's own that was not named, or gives something else than bool [S].
    """
    total = int(lengths.sum())
    classes = None
    match config.generator:
        case "uniform":
            foreground = rng.random(total) < 0.5
        case "distribution-aware":
            if config.foreground_share is None:
                raise ConfigError("pseudo.foreground_share: not known; set it", parameter="setting")
            foreground = rng.random(total) < config.foreground_share
        case "class-activation":
            foreground = scores.class_scores.max(axis=1) >= np.float32(config.max_class_activation)
        case "attention":
            # Ā^time sums to 1 over a video: relative to 1/T a threshold means the same for every length.
            foreground = scores.attention * np.repeat(lengths, lengths) >= config.attention
        case "segment":
            foreground = _inside_segments(config, detection, scores, lengths)
        case "fused":
            cover = _cover(detection, scores, lengths, known)
            cover[cover.max(axis=1) <= config.fused_threshold] = 0.0
            classes = cover / np.maximum(cover.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
            foreground = cover.max(axis=1) > 0
        case "oracle":
            if truth is None:
                raise ConfigError("pseudo.generator: oracle needs segments with times in the labels of every video")
            foreground = truth
        case name:
            foreground = _own(name, scores, lengths, known, rng)
    targets = None
    if config.softness and config.generator == "fused":
        # Hard labels alone would teach nothing of how sure the teacher was near an action's ends.
        own = np.float32(config.softness) * scores.foreground
        targets = np.float32(1 - config.softness) * foreground.astype(np.float32) + own
    return PseudoLabels(foreground.astype(np.int64), _one_kind(config, detection, foreground), classes, targets)


def _own(
    name: str,
    scores: Scores,
    lengths: npt.NDArray[np.int64],
    known: npt.NDArray[np.bool_] | None,
    rng: np.random.Generator,
) -> npt.NDArray[np.bool_]:
    """What a generator of the user's own says."""
    total = int(lengths.sum())
    foreground = np.asarray(own_file(name, "generator").module.generate(scores, lengths, known, rng))
    if foreground.shape != (total,) or foreground.dtype != np.bool_:
        raise ConfigError(
            f"{plain_name(name)}: generate gave {foreground.dtype} {list(foreground.shape)}, expected which snippets "
            f"are foreground, bool [{total}]"
        )
    return foreground


def _inside_segments(
    config: PseudoConfig, detection: Rules, scores: Scores, lengths: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    thresholds: dict[str, Any] = (
        # One threshold: the lowest of many covers nearly all of a video.
        {"thresholds": (config.normalised,)}
        if isinstance(detection, ManyThresholds)
        else {"alpha_a": 1.0 - config.foreground, "alpha_c": config.class_activation}
    )
    every: dict[str, Any] = {"suppression": "none", "min_score": None, "max_detections": 0}
    rules = changed(detection, {"top_k": config.top_k, "widen": config.widen, **every, **thresholds})
    covered = segments(scores, lengths, rules)
    starts = np.cumsum(lengths) - lengths
    first, last = _snippets(covered)
    first = starts[covered.video] + first
    last = starts[covered.video] + np.minimum(last + config.past_end, lengths[covered.video] - 1)
    # +1 where a segment begins, -1 after its end: covered snippets have a running sum above 0.
    steps = np.zeros(int(lengths.sum()) + 1, dtype=np.int64)
    np.add.at(steps, first, 1)
    np.add.at(steps, last + 1, -1)
    return np.cumsum(steps[:-1]) > 0


def _cover(
    detection: Rules, scores: Scores, lengths: npt.NDArray[np.int64], known: npt.NDArray[np.bool_] | None
) -> npt.NDArray[np.float32]:
    """For each snippet and class the score of the best detection that covers it, over the best score of its video.

    The detections are those of the run's own rules (`_of_known`). float32 [S, N], in [0, 1].
    """
    detected = _of_known(detection, scores, lengths, known)
    share = _shares(detected.score, detected.video)
    starts = (np.cumsum(lengths) - lengths)[detected.video]
    first, last = (starts + part for part in _snippets(detected))
    cover = np.zeros(scores.class_scores.shape, dtype=np.float32)
    for index in np.flatnonzero(share > 0):
        covered = cover[first[index] : last[index] + 1, detected.label[index]]
        np.maximum(covered, np.float32(share[index]), out=covered)
    return cover


def _of_known(
    detection: Rules, scores: Scores, lengths: npt.NDArray[np.int64], known: npt.NDArray[np.bool_] | None
) -> Segments:
    """The rules' detections of the known labels, without `length_power`."""
    if isinstance(detection, ManyThresholds) and detection.length_power:
        detection = changed(detection, {"length_power": 0.0})  # long segments have more background at their ends
    return segments(scores, lengths, detection, known)


def _shares(score: npt.NDArray[np.float64], group: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Scores over the best of their group (a video, or a class); at most 0 where that is."""
    best = np.zeros(1 + int(group.max(initial=0)))
    np.maximum.at(best, group, score)
    shares: npt.NDArray[np.float64] = score / np.where(best > 0, best, np.inf)[group]
    return shares


def taught_segments(
    threshold: float,
    detection: Rules,
    scores: Scores,
    lengths: npt.NDArray[np.int64],
    known: npt.NDArray[np.bool_],
    *,
    inward: float = 0.0,
) -> PseudoLabels:
    """What a student learns: the detections of an iteration of each video's own labels.

    Args:
        threshold: least score of a segment, as a share of the best of its class in all videos, which becomes its score.
        detection: the iteration's rules; `length_power` is left out.
        scores: of its model.
        lengths: int64 [V].
        known: the labels of each video, bool [V, N].
        inward: each end is moved inward by this share of the segment's length, below 0.5: segments of thresholds reach
            a little past the action, as their scores ask for surroundings without foreground. Those of a student stay.
    """
    detected = _of_known(detection, scores, lengths, known)
    detected = detected._replace(score=_shares(detected.score, detected.label))
    taught = detected.take(np.flatnonzero((detected.score >= threshold) & (detected.score > 0)))
    if not isinstance(detection, Boundaries):
        cut = inward * (taught.last + 1 - taught.first)
        taught = taught._replace(first=taught.first + cut, last=taught.last - cut)
    labels = np.zeros(int(lengths.sum()), dtype=np.int64)
    starts = (np.cumsum(lengths) - lengths)[taught.video]
    for first, last in zip(*(starts + part for part in _snippets(taught)), strict=True):
        labels[first : last + 1] = 1
    warning = "" if len(taught.first) else "no segment to teach a student: the iteration before detects nothing"
    return PseudoLabels(labels, warning, segments=taught)


def _snippets(detected: Segments) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First and last snippet of each segment in its video: those whose centre is inside, as fused ones end within."""
    first, last = (np.ceil(part - 0.5).astype(np.int64) for part in (detected.first, detected.last))
    return first, last


def _one_kind(config: PseudoConfig, detection: Rules, foreground: npt.NDArray[np.bool_]) -> str:
    share = float(foreground.mean()) if foreground.size else 0.5
    if _LEAST <= share <= _MOST:
        return ""
    kind = "foreground" if share > _MOST else "background"
    cause = {
        "segment": f"pseudo.normalised = {config.normalised:g}"
        if isinstance(detection, ManyThresholds)
        else f"pseudo.foreground = {config.foreground:g} with pseudo.class_activation = {config.class_activation:g}",
        "fused": f"pseudo.fused_threshold = {config.fused_threshold:g}",
        "class-activation": f"pseudo.max_class_activation = {config.max_class_activation:g}",
        "attention": f"pseudo.attention = {config.attention:g}",
        "distribution-aware": f"pseudo.foreground_share = {config.foreground_share or 0:g}",
    }.get(config.generator, f"pseudo.generator = {plain_name(config.generator)}")
    if share in (0.0, 1.0):
        return f"all pseudo labels are {kind}: {cause} separates nothing; training goes on with what they can teach"
    if config.generator == "oracle":
        return ""
    # Rounded away from 0 and 100 %.
    shown = f"{max(100 * share, 0.1):.1f}" if share < _LEAST else f"{min(100 * share, 99.9):.1f}"
    return f"{shown} % of the pseudo labels are foreground: {cause} separates little; {_CURES[kind]}"


def sample(labels: Labels, lengths: npt.NDArray[np.int64], share: float, rng: np.random.Generator) -> Labels:
    """Keep the pseudo label of a random share of each video's snippets, drawn without replacement (S of section 3.2).

    Args:
        labels: int64 [S].
        lengths: int64 [V].
        share: of each video's snippets; round(share * T) keep theirs.

    Returns:
        int64 [S], -1 where a snippet has no label.
    """
    # The rank of a random number among those of its video is a random permutation of each video at once.
    video = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((rng.random(len(labels)), video))
    rank = np.empty(len(labels), dtype=np.int64)
    rank[order] = np.arange(len(labels)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    kept = rank < np.rint(share * lengths)[video]
    return np.where(kept, labels, UNLABELLED)


def precision_and_recall(labels: Labels, truth: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Of the snippets labelled foreground: the share that is, and the share of the true foreground they are.

    NaN-free: 0 where there is nothing to divide by.
    """
    hits = float(((labels == 1) & truth).sum())
    labelled, true = float((labels == 1).sum()), float((truth & (labels != UNLABELLED)).sum())
    return hits / labelled if labelled else 0.0, hits / true if true else 0.0
