"""The numbers of a detection rule, chosen on a few annotated videos.

A few videos say little, and a search over many numbers finds what happens to suit them. So the search changes one
setting at a time, at most `MOST_CHANGES` of them, and cross-validation says what a change so chosen gives on videos
that did not choose it. The own rule stays where that is within the noise.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from refineloc.evaluation.average_precision import evaluate
from refineloc.evaluation.matching import DEFAULT_TIOUS, match_detections
from refineloc.evaluation.rules import detect
from refineloc.runtime.annotations import Annotations
from refineloc.runtime.detections import Detections
from refineloc.runtime.errors import InputError, counted
from refineloc.runtime.segments.grid import SnippetGrid
from refineloc.runtime.segments.rules import Rules, changed, unused
from refineloc.runtime.segments.values import Scores

__all__ = ["LEAST_VIDEOS", "Choice", "Tuned", "tune"]

LEAST_VIDEOS = 3
MOST_CHANGES = 3
_MOST_FOLDS = 10  # with no more videos than this, each is a fold of its own
# Standard errors by which a gain must exceed 0: with 1, five videos took changes for the worse (docs/how-to/tune.md).
_NOISE = 1.5

# What is tried of each setting that a rule has, beside its own value.
_VALUES: Mapping[str, Sequence[object]] = {
    "alpha_a": (0.3, 0.5, 0.7, 0.9),
    "alpha_c": (0.005, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5),
    "thresholds": tuple(
        tuple(round(low + step * (high - low) / 8, 6) for step in range(9))
        for low, high in ((0.1, 0.9), (0.05, 0.45), (0.3, 0.7), (0.5, 0.9), (0.1, 0.5))
    ),
    "class_threshold": (0.0, 0.1, 0.25, 0.5),
    "video_share": (0.0, 0.05, 0.1, 0.25),
    "max_gap": (0, 1, 3),
    "widen": (0, 1, 2),
    "tiou": (0.3, 0.5, 0.7),
}


@dataclass(frozen=True, slots=True)
class Choice:
    """A network, by its place, and a rule for its scores."""

    network: int
    rules: Rules


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was chosen, and what that is worth.

    Attributes:
        choice: to be used: the best of the search, or the own one where the gain is within the noise.
        best: what the search found on all videos.
        is_better: whether the two are the same because the gain exceeds the noise.
        own_map: average mAP of the own rule on all videos, fraction of 1.
        best_map: of the best one, on the videos that chose it: too high.
        gain: cross-validated: by how much average mAP rises where each video is detected by what the others chose.
        noise: standard error of the gain, by leaving out each video in turn (jackknife).
        videos, folds: how many.
    """

    choice: Choice
    best: Choice
    is_better: bool
    own_map: float
    best_map: float
    gain: float
    noise: float
    videos: int
    folds: int


def tune(
    networks: Sequence[Mapping[str, Scores]],
    grids: Mapping[str, SnippetGrid],
    classes: tuple[str, ...],
    own: Choice,
    annotations: Annotations,
    *,
    tious: Sequence[float] = DEFAULT_TIOUS,
    seed: int = 0,
) -> Tuned:
    """Choose a network and the numbers of a rule.

    Args:
        networks: of each network the scores of each video alone; a single one has its rule chosen only.
        grids: of the same videos.
        classes: names, in the order of the score columns.
        own: what is used now.
        annotations: with times, of at least these videos.
        tious: of average mAP.
        seed: of which video is in which fold.

    Raises:
        InputError: fewer than `LEAST_VIDEOS` videos.
    """
    names = tuple(grids)
    if len(names) < LEAST_VIDEOS:
        raise InputError(
            f"{counted(len(names), 'video is', 'videos are')} too few to choose on; annotate at least {LEAST_VIDEOS}"
        )
    search = _Search(networks, grids, classes, annotations, tious)
    count = min(len(names), _MOST_FOLDS)
    order = np.random.default_rng(seed).permutation(len(names))
    folds = [[names[index] for index in order[fold::count]] for fold in range(count)]

    best = search.best(own, names)
    chosen: dict[str, Choice] = {}
    for fold in folds:
        choice = search.best(own, [name for name in names if name not in fold])
        chosen |= dict.fromkeys(fold, choice)
    before = dict.fromkeys(names, own)

    def gain(videos: Sequence[str]) -> float:
        return search.mean_ap({name: chosen[name] for name in videos}) - search.mean_ap(
            {name: before[name] for name in videos}
        )

    without = np.array([gain([name for name in names if name != left_out]) for left_out in names])
    noise = float(np.sqrt((len(names) - 1) * np.mean((without - without.mean()) ** 2)))
    value = gain(names)
    is_better = best != own and value > _NOISE * noise
    return Tuned(
        best if is_better else own,
        best,
        is_better,
        search.mean_ap(before),
        search.mean_ap(dict.fromkeys(names, best)),
        value,
        noise,
        len(names),
        count,
    )


class _Search:
    """Detections and average mAP of choices; a choice detects in a video once."""

    def __init__(
        self,
        networks: Sequence[Mapping[str, Scores]],
        grids: Mapping[str, SnippetGrid],
        classes: tuple[str, ...],
        annotations: Annotations,
        tious: Sequence[float],
    ) -> None:
        self._networks, self._grids, self._classes = networks, grids, classes
        self._annotations, self._tious = annotations, tious
        self._detections: dict[tuple[Choice, str], Detections] = {}

    def mean_ap(self, choices: Mapping[str, Choice]) -> float:
        """Average mAP where each video is detected by its choice; 0 where no video has a segment."""
        truth = Annotations({name: self._annotations[name] for name in choices}, self._annotations.path)
        if not truth.has_times:
            return 0.0
        detections = {name: self._detected(choice, name) for name, choice in choices.items()}
        return evaluate(match_detections(detections, truth, self._tious)).average_mAP

    def best(self, own: Choice, videos: Sequence[str]) -> Choice:
        """The best choice on some videos: one change after another, each the best there is."""
        best, best_map = own, self.mean_ap(dict.fromkeys(videos, own))
        for _ in range(MOST_CHANGES):
            maps = {choice: self.mean_ap(dict.fromkeys(videos, choice)) for choice in self._changed_once(best)}
            choice = max(maps, key=lambda each: maps[each])
            if maps[choice] <= best_map:
                break
            best, best_map = choice, maps[choice]
        return best

    def _changed_once(self, choice: Choice) -> Iterator[Choice]:
        rules = choice.rules
        for name, values in _VALUES.items():
            if hasattr(rules, name) and not unused(rules, [name]):
                for value in values:
                    if value != getattr(rules, name):
                        yield replace(choice, rules=changed(rules, {name: value}))
        for network in range(len(self._networks)):
            if network != choice.network:
                yield replace(choice, network=network)

    def _detected(self, choice: Choice, name: str) -> Detections:
        key = choice, name
        if key not in self._detections:
            scores = {name: self._networks[choice.network][name]}
            self._detections[key] = detect(scores, self._grids, self._classes, choice.rules)[name]
        return self._detections[key]
