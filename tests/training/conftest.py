"""What the training tests share: a data set of a few small videos, made by refineloc-synth's generator or by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

CLASSES = ("dive", "jump", "run")


@pytest.fixture
def rng() -> np.random.Generator:
    """Seeded."""
    return np.random.default_rng(11)


def write_split(path: Path, rng: np.random.Generator, videos: int, width: int = 16) -> None:
    """`path`.h5 and `path`.csv: each video has one class in the middle of it, visible in the features."""
    rows = ["video-name,t-start,t-end,label,video-duration,fps,video-num-frames"]
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        for index in range(videos):
            name, label = f"{path.name}{index:02}", index % len(CLASSES)
            snippets = int(rng.integers(12, 40))
            features = rng.normal(0, 0.3, (snippets, width)).astype(np.float32)
            begin, end = snippets // 3, 2 * snippets // 3
            features[begin:end, label] += 2.0
            features[begin:end, 5] += 2.0
            file[name] = features
            # 16 frames at 16 fps: a snippet a second.
            rows.append(f"{name},{begin},{end},{CLASSES[label]},{snippets},16,{16 * snippets}")
    path.with_suffix(".csv").write_text("\n".join(rows) + "\n")


@pytest.fixture
def data(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A folder with train.h5, train.csv, val.h5 and val.csv."""
    return _write_data(tmp_path, rng)


@pytest.fixture(scope="session")
def write_data() -> Callable[[Path, np.random.Generator], Path]:
    """What `data` does, for fixtures that last longer than a test."""
    return _write_data


def _write_data(folder: Path, rng: np.random.Generator) -> Path:
    write_split(folder / "train", rng, 12)
    write_split(folder / "val", rng, 6)
    return folder


def arguments(folder: Path, **files: Any) -> list[str]:
    """The file arguments of refineloc-train."""
    paths = {
        name: folder / f"{name.replace('_', '.')}" for name in ("train_h5", "train_csv", "val_h5", "val_csv")
    } | files
    return [
        str(paths["train_h5"]), str(paths["train_csv"]),
        "--val-features", str(paths["val_h5"]), "--val-labels", str(paths["val_csv"]),
    ]  # fmt: skip
