"""Checks of arrays of features, from files and from callers; each message begins with the file and the video."""

from typing import Any

import numpy as np
import numpy.typing as npt

from refineloc.runtime.errors import FeatureError

__all__ = ["DAMAGED", "check_array", "check_finite"]

# What h5py raises on files that are damaged inside; a FeatureError is a ValueError too, and is let through first.
DAMAGED = (OSError, RuntimeError, KeyError, TypeError, ValueError, OverflowError, AttributeError, IndexError)


def check_finite(features: npt.NDArray[Any], where: str) -> None:
    """Refuse features [T, D] with NaN or infinite values; the message says which snippet."""
    # A sum is one fast pass without a temporary. Only if it is not finite (it may overflow), the rows are checked.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(features.sum(dtype=np.float32 if features.dtype == np.float16 else None)):
            return
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        first = int(np.argmax(bad))
        value = features[first][~np.isfinite(features[first])][0]
        raise FeatureError(
            f"{where}: snippet {first} holds {value} ({int(bad.sum())} of {len(bad)} snippets do); "
            "extract this video's features again or leave it out"
        )


def check_array(shape: tuple[int, ...] | None, dtype: np.dtype[Any], where: str) -> None:
    if shape is None or len(shape) != 2:
        raise FeatureError(f"{where}: expected features of shape T x D, got shape {shape}")
    if dtype.kind != "f":
        raise FeatureError(f"{where}: expected float32 or float16 features, got dtype {dtype}")
    if shape[1] == 0:
        raise FeatureError(f"{where}: features have width 0")
