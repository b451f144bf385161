"""Which videos two files share."""

from pathlib import Path

import numpy as np
import pytest
from small_model import write_features

from refineloc.runtime.annotations import Annotations, VideoAnnotation
from refineloc.runtime.errors import InputError
from refineloc.runtime.features.opening import open_features
from refineloc.runtime.features.shared import shared_videos


@pytest.fixture
def features(tmp_path: Path) -> Path:
    return write_features(tmp_path / "f.h5", dict.fromkeys("bac", np.ones((2, 4), np.float32)))


def labels(*names: str) -> Annotations:
    return Annotations({name: VideoAnnotation(name, ("x",)) for name in names}, "labels.csv")


def test_both_have_the_same(features: Path) -> None:
    with open_features(features) as store:
        assert shared_videos(store, labels("c", "a", "b")) == ("a", "b", "c")


@pytest.mark.parametrize(
    ("names", "shared", "message"),
    [
        (
            "abcde",
            "abc",
            r"2 videos of labels.csv have no features in .*, the first: 'd', 'e'; allow_missing goes on",
        ),
        ("c", "c", r"2 videos of .*f.h5 are not in labels.csv, the first: 'a', 'b'; allow_missing goes on"),
        (
            "abd",
            "ab",
            r"1 video of labels.csv has no .*, the first: 'd'; 1 video of .* is not .*, the first: 'c'; allow",
        ),
    ],
)
def test_a_difference_is_an_error_unless_it_is_allowed(features: Path, names: str, shared: str, message: str) -> None:
    with open_features(features) as store:
        with pytest.raises(InputError, match=message) as raised:
            shared_videos(store, labels(*names))
        assert raised.value.parameter == "allow_missing"
        assert shared_videos(store, labels(*names), allow_missing=True) == tuple(shared)


def test_labels_of_another_split_are_not_missing(features: Path) -> None:
    with open_features(features) as store:
        assert shared_videos(store, labels("a"), elsewhere={"a", "b", "c", "d"}) == ("a",)
        with pytest.raises(InputError, match=r"1 video of .*f.h5 is not in labels.csv, the first: 'c'"):
            shared_videos(store, labels("a"), elsewhere={"b"})


def test_nothing_in_common_is_an_error(features: Path) -> None:
    with (
        open_features(features) as store,
        pytest.raises(InputError, match=r"f.h5 and labels.csv have no video in common: the first are 'a' and 'x'$"),
    ):
        shared_videos(store, labels("x"), allow_missing=True)
