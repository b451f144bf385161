"""Snippets to seconds and back, on hand-computed time lines."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refineloc.runtime.errors import InputError
from refineloc.runtime.segments.grid import SnippetGrid


def test_seconds_have_the_shape_of_the_snippets() -> None:
    """Of a single snippet too, which is a number and no list."""
    start, end = SnippetGrid(32.0, 16).seconds(np.int64(2), np.int64(3))  # type: ignore[arg-type]
    assert (float(start), float(end)) == (1.0, 2.0)
    start, end = SnippetGrid(32.0, 16).seconds(np.array([[0, 2]]), np.array([[1, 3]]))
    assert (start.tolist(), end.tolist()) == ([[0.0, 1.0]], [[1.0, 2.0]])


def test_seconds_of_hand_computed_snippets() -> None:
    # 16 frames at 32 fps: half a second a snippet.
    #   snippet   0     1     2     3
    #   second  0   0.5   1.0   1.5   2.0
    start, end = SnippetGrid(32.0, 16).seconds(np.array([0, 1, 3]), np.array([0, 2, 3]))
    assert start.tolist() == [0.0, 0.5, 1.5]
    assert end.tolist() == [0.5, 1.5, 2.0]


def test_seconds_of_windows_that_overlap_are_about_their_centres() -> None:
    # ActionFormer's (i * stride + window / 2) / fps at 32 fps, windows of 16 frames every 4: the centres are at frames
    # 8, 12, 16, 20 frames, and a snippet stands for 2 frames to either side of its own.
    #   snippet        0      1      2      3
    #   second     .1875  .3125  .4375  .5625  .6875
    grid = SnippetGrid(32.0, 16, stride_frames=4)
    start, end = grid.seconds(np.array([0, 1, 3]), np.array([0, 2, 3]))
    assert start.tolist() == [0.1875, 0.3125, 0.5625]
    assert end.tolist() == [0.3125, 0.5625, 0.6875]
    assert ((start + end) / 2 * 32).tolist()[::2] == [8.0, 20.0]
    assert grid.foreground(np.array([0.375]), np.array([0.5]), 4).tolist() == [False, True, False, False]


def test_seconds_of_windows_with_gaps_begin_with_the_video() -> None:
    # windows of 8 frames every 16 at 16 fps: centres 4, 20, 36 frames; the first snippet's half stride is cut.
    start, end = SnippetGrid(16.0, 8, stride_frames=16).seconds(np.array([0, 1]), np.array([0, 2]))
    assert start.tolist() == [0.0, 0.75]
    assert end.tolist() == [0.75, 2.75]


@given(fps=st.floats(1, 120), frames=st.integers(1, 64), first=st.integers(0, 2**40), more=st.integers(0, 1000))
def test_a_stride_that_is_the_window_changes_no_digit(fps: float, frames: int, first: int, more: int) -> None:
    start, end = SnippetGrid(fps, frames, None, frames).seconds(np.array([first]), np.array([first + more]))
    assert start[0] == np.float64(first) * frames / fps
    assert end[0] == (np.float64(first + more) + 1) * frames / fps
    assert SnippetGrid(fps, frames, None, frames) == SnippetGrid(fps, frames)


@pytest.mark.parametrize(
    ("grid", "snippets", "least", "most"),
    [
        # 16 frames at 32 fps: 100 snippets are 50 s; 3 snippets are 1.5 s.
        (SnippetGrid(32.0, 16), 100, 48.5, 51.5),
        # 1,000 snippets are 500 s, and 1 % of them 5 s.
        (SnippetGrid(32.0, 16), 1000, 495.0, 505.0),
        # 16 frames every 4: 100 snippets are 12.5 s, or 12.875 s with the last window whole. A window is 0.5 s.
        (SnippetGrid(32.0, 16, stride_frames=4), 100, 12.0, 13.375),
    ],
)
def test_a_duration_may_differ_by_three_snippets_a_hundredth_or_a_window(
    grid: SnippetGrid, snippets: int, least: float, most: float
) -> None:
    for duration_s, contradicts in ((least - 1e-6, True), (least, False), (most, False), (most + 1e-6, True)):
        known = SnippetGrid(grid.fps, grid.snippet_frames, duration_s, grid.stride_frames)
        assert known.contradicts(snippets) == contradicts, duration_s
    assert not grid.contradicts(snippets), "a duration that is not known"


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
