"""What the training tests share."""

from pathlib import Path

import numpy as np
import pytest
from small_data import write_data


@pytest.fixture
def rng() -> np.random.Generator:
    """Seeded."""
    return np.random.default_rng(11)


@pytest.fixture
def data(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A folder with train.h5, train.csv, val.h5 and val.csv."""
    return write_data(tmp_path, rng)
