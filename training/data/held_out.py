"""A share of the videos held out for validation, where no validation files are given."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from refineloc.runtime.errors import InputError

__all__ = ["HeldOut", "hold_out"]

_DRAWS = 20  # a draw that cannot put a class in both parts may be unlucky
_NO_LABEL = ""  # the videos without one are shared out like a class


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Videos that were drawn.

    Attributes:
        names: of the validation videos; all others train.
        single: classes of one video, which stay in training.
        unshared: classes of two videos or more whose videos are all needed in training by other classes.
    """

    names: frozenset[str]
    single: tuple[str, ...] = ()
    unshared: tuple[str, ...] = ()


def hold_out(labels: Mapping[str, Sequence[str]], share: float, seed: int = 0) -> HeldOut:
    """Draw a share of the videos so that every class is trained, and is validated where it has two videos or more.

    Where videos have several labels there may be no such draw. Then training has every class, and most are validated.
    Classes are shared out alike beyond that: the class that lacks most videos gives the next one.

    Args:
        labels: of each video; the order of the videos does not matter.
        share: of the videos, above 0 and below 1. More are drawn where the classes need it.
        seed: of the draw.

    Raises:
        InputError: every video is the only one of a class.
    """
    videos = {name: tuple(labels[name]) or (_NO_LABEL,) for name in sorted(labels)}
    rng = np.random.default_rng(seed)
    best = _draw(videos, share, rng)
    for _ in range(_DRAWS - 1):
        if not best.unshared:
            break
        best = min(best, _draw(videos, share, rng), key=lambda held: len(held.unshared))
    if not best.names:
        raise InputError(
            "no video can be held out for validation: each is the only one of a class; "
            "give val_features and val_labels",
            parameter="val_features",
        )
    return best


def _draw(videos: Mapping[str, tuple[str, ...]], share: float, rng: np.random.Generator) -> HeldOut:
    names = [list(videos)[index] for index in rng.permutation(len(videos))]
    of_class: dict[str, list[str]] = {}
    for name in names:
        for label in videos[name]:
            of_class.setdefault(label, []).append(name)
    training = Counter({label: len(members) for label, members in of_class.items()})
    wanted = {label: share * count for label, count in training.items()}
    validation: Counter[str] = Counter()
    held: set[str] = set()

    def can_go(name: str) -> bool:
        return name not in held and all(training[label] > 1 for label in videos[name])

    def take(name: str) -> None:
        held.add(name)
        training.subtract(videos[name])
        validation.update(videos[name])

    # 1. Every class, the rarest first: the video that brings most classes which have none yet.
    for label in sorted(of_class, key=lambda label: len(of_class[label])):
        if not validation[label] and (there := [name for name in of_class[label] if can_go(name)]):
            take(max(there, key=lambda name: sum(not validation[each] for each in videos[name])))
    # 2. The share: a video that cannot go now never can.
    lacking = set(of_class)
    while len(held) < round(share * len(videos)) and lacking:
        label = max(sorted(lacking), key=lambda label: wanted[label] - validation[label])
        while of_class[label] and not can_go(of_class[label][-1]):
            of_class[label].pop()
        if of_class[label]:
            take(of_class[label].pop())
        else:
            lacking.discard(label)
    stated = [label for label in sorted(of_class) if label != _NO_LABEL]
    return HeldOut(
        frozenset(held),
        tuple(label for label in stated if training[label] + validation[label] == 1),
        tuple(label for label in stated if training[label] > 1 and not validation[label]),
    )
