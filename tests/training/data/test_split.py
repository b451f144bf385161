"""A split: the videos of a file of features and a file of labels."""

from pathlib import Path

import h5py

from refineloc.runtime.annotations import read_annotations
from refineloc.runtime.segments.grid import SnippetGrid
from refineloc.training.data.split import load_split
from refineloc.training.settings.config import resolve


def test_the_features_own_fps_goes_before_the_labels(data: Path) -> None:
    with h5py.File(data / "train.h5", "a") as file:
        file["train00"].attrs.update(fps=25.0, duration=90.0)
    labels = read_annotations(data / "train.csv", times=False)
    split = load_split(data / "train.h5", labels, resolve(), fps=5.0)
    assert split.grids[0] == SnippetGrid(25.0, 16, 90.0)
    assert split.grids[1] == SnippetGrid(16.0, 16, labels[split.names[1]].duration_s)
