"""Snippets to seconds and back, on hand-computed time lines."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refineloc.runtime.errors import InputError
from refineloc.runtime.segments.grid import SnippetGrid


def test_seconds_of_hand_computed_snippets() -> None:
    # 16 frames at 32 fps: half a second a snippet.
    #   snippet   0     1     2     3
    #   second  0   0.5   1.0   1.5   2.0
    start, end = SnippetGrid(32.0, 16).seconds(np.array([0, 1, 3]), np.array([0, 2, 3]))
    assert start.tolist() == [0.0, 0.5, 1.5]
    assert end.tolist() == [0.5, 1.5, 2.0]


def test_seconds_are_clipped_to_the_duration() -> None:
    start, end = SnippetGrid(32.0, 16, duration_s=1.2).seconds(np.array([1, 3]), np.array([2, 3]))
    assert start.tolist() == [0.5, 1.2]
    assert end.tolist() == [1.2, 1.2]


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0.5, 1.5, [0, 1, 1, 0]),
        (0.25, 0.76, [1, 1, 0, 0]),  # centres 0.25 and 0.75: the start is included
        (0.26, 0.75, [0, 0, 0, 0]),  # the end is not
        (-3.0, 99.0, [1, 1, 1, 1]),
        (1.0, 1.0, [0, 0, 0, 0]),
    ],
)
def test_foreground_takes_snippets_by_their_centre(start: float, end: float, expected: list[int]) -> None:
    mask = SnippetGrid(32.0, 16).foreground(np.array([start]), np.array([end]), 4)
    assert mask.astype(int).tolist() == expected


@given(
    fps=st.floats(1, 120),
    frames=st.integers(1, 64),
    bounds=st.lists(st.tuples(st.floats(0, 100), st.floats(0, 30)), max_size=5),
    snippets=st.integers(0, 300),
)
def test_foreground_equals_the_definition(
    fps: float, frames: int, bounds: list[tuple[float, float]], snippets: int
) -> None:
    start = np.array([a for a, _ in bounds], dtype=np.float64)
    end = np.array([a + length for a, length in bounds], dtype=np.float64)
    mask = SnippetGrid(fps, frames).foreground(start, end, snippets)
    centres = np.arange(snippets) + 0.5
    for t, centre in enumerate(centres):
        distances = np.abs(np.concatenate([start, end]) * fps / frames - centre)
        if distances.size and distances.min() < 1e-9:
            continue  # on the boundary the two ways of rounding may differ
        inside = ((start * fps / frames <= centre) & (centre < end * fps / frames)).any()
        assert mask[t] == inside


@pytest.mark.parametrize(
    ("fps", "frames", "duration", "name"),
    [
        (0.0, 16, None, "fps"),
        (float("nan"), 16, None, "fps"),
        (1e-308, 16, None, "fps"),  # the seconds of its snippets are infinite
        (0.000999, 16, None, "fps"),
        (1.001e6, 16, None, "fps"),
        ("25", 16, None, "fps"),
        (None, 16, None, "fps"),
        (True, 16, None, "fps"),
        (25.0, 0, None, "snippet_frames"),
        (25.0, 2.5, None, "snippet_frames"),
        (25.0, 2**24 + 1, None, "snippet_frames"),
        (25.0, 16, -1.0, "duration_s"),
        (25.0, 16, 0.0, "duration_s"),
        (25.0, 16, float("inf"), "duration_s"),
    ],
)
def test_values_that_make_no_grid_are_refused(fps: Any, frames: Any, duration: Any, name: str) -> None:
    with pytest.raises(InputError, match=f"^{name}: expected") as caught:
        SnippetGrid(fps, frames, duration)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fps", [1e-3, 1e6, 25, np.float32(25), np.int64(25)])
def test_times_are_finite_within_the_bounds(fps: Any) -> None:
    start, end = SnippetGrid(fps, 2**24).seconds(np.array([0, 2**30]), np.array([0, 2**30]))
    assert np.isfinite([start, end]).all()
    assert (start < end).all()
