"""Video scores over the snippets of the highest foreground: by hand, and the twin on generated inputs."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twins import video_scores as twin

from refineloc._ext.video_scores import best_snippet_scores


def test_by_hand() -> None:
    c = np.float32([[1, 0], [0, 1], [0.5, 0], [0.25, 0.5]])
    f = np.float32([0.9, 0.1, 0.9, 0.5])
    for share, expected in (
        (0.01, [1, 0]),  # one snippet: the earlier of the equal ones
        (0.25, [1, 0]),
        (0.26, [0.75, 0]),
        (0.75, [1.75 / 3, 0.5 / 3]),
        (1.0, [1.75 / 4, 1.5 / 4]),
    ):
        scores = best_snippet_scores(c, f, np.array([0, 4, 0]), share=share)
        assert scores.tolist() == [[0, 0], np.float32(expected).tolist(), [0, 0]]


@given(
    seed=st.integers(0, 2**32 - 1),
    lengths=st.lists(st.integers(0, 12) | st.integers(0, 400), max_size=5),
    classes=st.integers(1, 5),
    levels=st.sampled_from([0, 1, 5]),
    share=st.sampled_from([1e-9, 0.15, 0.5, 1.0]) | st.floats(1e-3, 1.0),
)
@settings(max_examples=300, deadline=None)
def test_equals_its_twin_to_the_bit(seed: int, lengths: list[int], classes: int, levels: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    c = rng.random((sum(lengths), classes), np.float32)
    # Of any sign and size, though the foreground lies in [0, 1]: the order is that of float32.
    f = np.float32(rng.standard_normal(sum(lengths)) * 10.0 ** rng.integers(-40, 30, sum(lengths)))
    if levels:
        f = np.float32(rng.integers(-1, levels, sum(lengths)) / levels)
        f[f < 0] = -0.0  # equal to 0.0
    packed = np.array(lengths, np.int64)
    ours = best_snippet_scores(c, f, packed, share=share)
    assert ours.tolist() == twin.best_snippet_scores(c, f, packed, share=share).tolist()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"class_scores": np.zeros((5, 2))}, TypeError, "class_scores: expected float32, got float64"),
        ({"class_scores": np.zeros(5, np.float32)}, ValueError, "class_scores: expected 2 dimensions"),
        ({"foreground": np.zeros(4, np.float32)}, ValueError, "foreground: expected 5 snippets .*, got 4"),
        ({"foreground": np.full(5, np.nan, np.float32)}, ValueError, "foreground: holds NaN"),
        ({"lengths": np.array([3, 2], np.int32)}, TypeError, "lengths: expected int64"),
        ({"lengths": np.array([3, 3])}, ValueError, "sum to 5"),
        ({"lengths": np.array([6, -1])}, ValueError, "at least 0"),
        ({"lengths": np.array([3, 1])}, ValueError, "sum to 5"),
        ({"share": 0.0}, ValueError, "share: expected a number above 0, at most 1, got 0.0"),
        ({"share": 1.1}, ValueError, "share"),
        ({"share": float("nan")}, ValueError, "share"),
    ],
)
def test_wrong_arguments_are_named(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {
        "class_scores": np.zeros((5, 2), np.float32),
        "foreground": np.zeros(5, np.float32),
        "lengths": np.array([3, 2]),
        "share": 0.5,
    }
    with pytest.raises(error, match=message):
        best_snippet_scores(**arguments | changes)


def test_read_only_arrays_are_taken() -> None:
    arrays: list[npt.NDArray[Any]] = [np.ones((3, 2), np.float32), np.ones(3, np.float32), np.array([3])]
    for array in arrays:
        array.flags.writeable = False
    assert best_snippet_scores(*arrays, share=1.0).tolist() == [[1, 1]]
