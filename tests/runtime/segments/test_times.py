"""Which fps and duration a video has, in every place that asks."""

import numpy as np
import pytest

from refineloc.runtime.annotations import VideoAnnotation
from refineloc.runtime.errors import InputError
from refineloc.runtime.features.store import FeatureInfo
from refineloc.runtime.segments.grid import SnippetGrid
from refineloc.runtime.segments.times import VideoTimes, video_times


def info(fps: float | None = None, duration_s: float | None = None) -> FeatureInfo:
    return FeatureInfo("v", 10, 4, np.dtype(np.float32), fps=fps, duration_s=duration_s)


def test_the_features_go_first_then_the_labels_then_the_parameter() -> None:
    labels = VideoAnnotation("v", ("x",), duration_s=30.0, fps=50.0)
    assert video_times(info(25.0, 60.0), labels, fps=10.0) == (25.0, 60.0)
    assert video_times(info(25.0), labels, fps=10.0) == (25.0, 30.0)
    assert video_times(info(None, 60.0), labels, fps=10.0) == (50.0, 60.0)
    assert video_times(info(), labels) == (50.0, 30.0)
    assert video_times(info(), VideoAnnotation("v", ("x",)), fps=10.0) == (10.0, None)
    assert video_times(info()) == video_times(None) == (None, None)
    assert video_times(None, VideoTimes(5.0), fps=10.0) == (5.0, None)


def test_what_is_stated_is_checked_and_not_passed_over() -> None:
    """0 frames a second are no missing value."""
    assert video_times(None, VideoTimes(0.0, 0.0), fps=10.0) == (0.0, 0.0)
    with pytest.raises(InputError, match="fps: expected a positive number"):
        VideoTimes(0.0).grid(16)


def test_a_grid_needs_the_fps() -> None:
    assert VideoTimes(25.0, 60.0).grid(16) == SnippetGrid(25.0, 16, 60.0)
    assert VideoTimes(None, 60.0).grid(16) is None
