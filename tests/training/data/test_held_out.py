"""The share of the videos that is held out for validation."""

from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refineloc.runtime.errors import InputError
from refineloc.training.data.held_out import hold_out

CLASSES = st.sampled_from("abcdefgh")
SHARES = st.floats(0.05, 0.9)


def named(labels: list[list[str]]) -> dict[str, list[str]]:
    return {f"v{index:02}": each for index, each in enumerate(labels)}


def classes_of(videos: dict[str, list[str]], names: set[str] | frozenset[str]) -> Counter[str]:
    return Counter(label for name in names for label in videos[name])


@given(st.lists(CLASSES.map(lambda label: [label]), min_size=1, max_size=40).map(named), SHARES, st.integers(0, 5))
def test_of_one_label_a_video_every_class_of_two_is_in_both_parts(
    videos: dict[str, list[str]], share: float, seed: int
) -> None:
    count = classes_of(videos, set(videos))
    single = tuple(sorted(label for label in count if count[label] == 1))
    if len(single) == len(videos):
        with pytest.raises(InputError, match="each is the only one of a class; give val_features and val_labels"):
            hold_out(videos, share, seed)
        return
    held = hold_out(videos, share, seed)
    trained, validated = classes_of(videos, set(videos) - held.names), classes_of(videos, held.names)
    assert trained.keys() == count.keys()
    assert held.single == single
    assert validated.keys() == count.keys() - set(single)
    assert held.unshared == ()
    # The share, unless the classes need more or give less.
    possible = sum(count[label] - 1 for label in count)
    assert len(held.names) == min(max(round(share * len(videos)), len(validated)), possible)
    # The order of the file does not matter.
    assert hold_out(dict(reversed(videos.items())), share, seed) == held


@given(
    st.lists(st.lists(CLASSES, max_size=3, unique=True), min_size=2, max_size=8).map(named), SHARES, st.integers(0, 5)
)
def test_of_several_labels_all_are_trained_and_as_many_validated_as_can_be(
    videos: dict[str, list[str]], share: float, seed: int
) -> None:
    count = classes_of(videos, set(videos))
    draws = [set(names) for size in range(1, len(videos)) for names in combinations(videos, size)]
    draws = [names for names in draws if classes_of(videos, set(videos) - names).keys() == count.keys()]
    try:
        held = hold_out(videos, share, seed)
    except InputError:
        # Videos without labels are shared out like a class: the only one stays in training.
        assert all(not videos[name] for names in draws for name in names)
        return
    assert set(held.names) in draws
    validated = classes_of(videos, held.names).keys()
    assert set(held.single) == {label for label in count if count[label] == 1}
    assert set(held.unshared) == count.keys() - validated - set(held.single)
    assert len(validated) >= max(len(classes_of(videos, names).keys()) for names in draws) - 1


def test_classes_are_shared_out_alike_and_other_seeds_draw_others() -> None:
    videos = {f"{label}{index}": [label] for label, size in (("a", 50), ("b", 20), ("c", 5)) for index in range(size)}
    videos |= {f"none{index}": [] for index in range(25)}
    held = hold_out(videos, 0.2)
    assert Counter(name[0] for name in held.names) == {"a": 10, "b": 4, "c": 1, "n": 5}
    assert held == hold_out(videos, 0.2)
    assert held.names != hold_out(videos, 0.2, seed=1).names


def test_three_classes_in_a_ring_cannot_all_be_in_both_parts() -> None:
    held = hold_out({"x": ["a", "b"], "y": ["b", "c"], "z": ["a", "c"]}, 0.3)
    assert len(held.names) == 1
    assert len(held.unshared) == 1
