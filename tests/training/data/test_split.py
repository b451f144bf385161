"""A split: the videos of a file of features and a file of labels."""

from pathlib import Path

import h5py
import pytest

from refineloc.runtime.annotations import read_annotations
from refineloc.runtime.errors import FeatureError, InputError
from refineloc.runtime.segments.grid import SnippetGrid
from refineloc.training.data.split import load_split
from refineloc.training.data.truth import with_snippet_frames
from refineloc.training.settings.config import resolve


def test_the_features_own_fps_goes_before_the_labels(data: Path) -> None:
    labels = read_annotations(data / "train.csv", times=False)
    duration = (labels["train00"].duration_s or 0) - 0.5
    with h5py.File(data / "train.h5", "a") as file:
        file["train00"].attrs.update(fps=16.5, duration=duration)
    split = load_split(data / "train.h5", labels, resolve(), fps=5.0)
    assert split.grids[0] == SnippetGrid(16.5, 16, duration)
    assert split.grids[1] == SnippetGrid(16.0, 16, labels[split.names[1]].duration_s)


def test_the_frames_of_a_snippet_are_what_the_features_state_unless_they_are_set(data: Path) -> None:
    labels = read_annotations(data / "train.csv", times=False)
    with h5py.File(data / "train.h5", "a") as file:
        for video in file.values():
            video.attrs.update(snippet_frames=8, fps=8)
    split = load_split(data / "train.h5", labels, resolve(), fps=5.0)
    assert split.snippet_frames == 8
    assert {grid.snippet_frames for grid in split.grids if grid} == {8}
    assert with_snippet_frames(resolve(), split).features.snippet_frames == 8
    with pytest.raises(FeatureError, match=r"'train00': its snippets have 8 frames, not the 16 .*snippet_frames=8"):
        load_split(data / "train.h5", labels, resolve({"features": {"snippet_frames": 16}}), fps=5.0)


def test_times_that_contradict_the_number_of_snippets_are_refused(data: Path) -> None:
    """A snippet is a second: 16 frames at 16 fps."""
    labels = read_annotations(data / "train.csv", times=False)
    with pytest.raises(
        InputError, match=r"train.h5: video 'train00': .*x 4 frames at 16 fps .*is the stride 16 frames"
    ) as caught:
        load_split(data / "train.h5", labels, resolve({"features": {"stride_frames": 4}}))
    assert caught.value.parameter == "setting"
    with h5py.File(data / "train.h5", "a") as file:
        for video in file.values():
            video.attrs["fps"] = 32.0
    with pytest.raises(InputError, match=r"x 16 frames at 32 fps .*with the 16 fps of .*train.csv it fits"):
        load_split(data / "train.h5", labels, resolve())


def test_the_rate_of_the_features_can_be_a_setting(data: Path) -> None:
    labels = read_annotations(data / "train.csv", times=False)
    split = load_split(data / "train.h5", labels, resolve({"features": {"fps": 16.25}}), fps=5.0)
    assert {grid.fps for grid in split.grids if grid} == {16.25}


def test_features_saved_as_columns_are_told_so(data: Path) -> None:
    labels = read_annotations(data / "train.csv", times=False)
    with h5py.File(data / "train.h5", "a") as file:
        for name in list(file):
            features = file[name][:]
            del file[name]
            file[name] = features.T
    with pytest.raises(FeatureError, match=r"all videos have 16 rows: are they saved as D x T"):
        load_split(data / "train.h5", labels, resolve())


def test_the_stride_is_what_the_features_state_unless_it_is_set(data: Path) -> None:
    labels = read_annotations(data / "train.csv", times=False)

    def stride_of(**settings: int) -> tuple[int, set[int | None], int | None]:
        split = load_split(data / "train.h5", labels, resolve({"features": settings}))
        grids = {grid.stride_frames for grid in split.grids if grid}
        return split.stride_frames, grids, with_snippet_frames(resolve(), split).features.stride_frames

    assert stride_of() == (16, {16}, None)
    assert stride_of(snippet_frames=15) == (15, {15}, None)
    assert stride_of(snippet_frames=32, stride_frames=16) == (16, {16}, 16)
    with h5py.File(data / "train.h5", "a") as file:
        for video in file.values():
            video.attrs.update(snippet_frames=32, stride_frames=16)
    assert stride_of() == (16, {16}, 16)
    with pytest.raises(FeatureError, match=r"'train00': its snippets have a stride of 16 .*stride_frames=16"):
        stride_of(stride_frames=8)
