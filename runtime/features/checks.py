"""Checks of arrays of features, from files and from callers; each message begins with the file and the video."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from refineloc.runtime.addresses import Ranges
from refineloc.runtime.errors import FeatureError, counted_of, first_line
from refineloc.runtime.text import is_text

__all__ = [
    "CHANGED",
    "DAMAGED",
    "STATED",
    "as_array",
    "can_be_features",
    "check_array",
    "check_backbone",
    "check_finite",
    "check_names",
    "check_stated",
    "file_state",
    "two_dimensional",
]

# What h5py raises on files that are damaged inside; a FeatureError is a ValueError too, and is let through first.
DAMAGED = (OSError, RuntimeError, KeyError, TypeError, ValueError, OverflowError, AttributeError, IndexError)

# What files state of a video, and the bounds of it: wider than real values, and narrow enough for arithmetic.
STATED: dict[str, tuple[float, float]] = {
    "fps": (1e-3, 1e6),
    "duration": (1e-3, 1e9),
    "snippet_frames": (1, 2**24),
    "stride_frames": (1, 2**24),
}

_HALF_INFINITY = 0x7C00  # the bits of infinity in float16

CHANGED = "the file changed while it was read; wait until it is complete, and start again"


def file_state(file: Any) -> tuple[int, object]:
    """Size and time of change (nanoseconds) of an open file: others than before, once a program has written to it.

    Of an object at an address, its size and mark. A change while it is read is an error of the read (`Ranges`).

    Args:
        file: any object that is open, or the descriptor of a file.
    """
    raw = getattr(file, "raw", file)
    if isinstance(raw, Ranges):
        return raw.size, raw.mark
    status = os.fstat(raw if isinstance(raw, int) else raw.fileno())
    return status.st_size, status.st_mtime_ns


def as_array(features: Any, where: str) -> npt.NDArray[Any]:
    """Features of any library as a NumPy array, from its memory where that is possible.

    Taken are what NumPy takes, torch's tensors (with gradients, in bfloat16, on a GPU) and lists of them, and what only
    DLPack moves to the CPU, such as CuPy's arrays. bfloat16 becomes float32.

    Raises:
        FeatureError: it is no array, is ragged or has masked values.
    """
    try:
        array = _numpy(_without_torch(features))
    except MemoryError:
        raise
    except Exception as error:  # of any library
        raise FeatureError(f"{where}: cannot be read as an array of T x D numbers: {first_line(error)}") from error
    if array.dtype == object:
        raise FeatureError(f"{where}: expected an array of T x D numbers, got {type(features).__name__}")
    # ml_dtypes' type, which JAX and TensorFlow have; NumPy itself has no bfloat16.
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _without_torch(features: Any) -> Any:
    """Torch's tensors as NumPy's arrays, a list of them as a list; all else as it is. Torch is not imported."""
    torch = sys.modules.get("torch")
    if torch is None:
        return features
    if isinstance(features, (list, tuple)) and features and isinstance(features[0], torch.Tensor):
        return [_without_torch(part) for part in features]
    if not isinstance(features, torch.Tensor):
        return features
    features = features.detach()
    return (features.float() if features.dtype == torch.bfloat16 else features).cpu().numpy()


def _numpy(features: Any) -> npt.NDArray[Any]:
    ma = sys.modules.get("numpy.ma")
    if ma is not None and ma.isMaskedArray(features) and ma.is_masked(features):
        raise ValueError("it has masked values; fill them or leave their snippets out")
    try:
        return np.asarray(features)
    except Exception:  # CuPy's TypeError, among others
        if not hasattr(features, "__dlpack__"):
            raise
        return np.from_dlpack(features, device="cpu")


def check_finite(features: npt.NDArray[Any], where: str) -> None:
    """Refuse features [T, D] with NaN or infinite values; the message says which snippet."""
    if features.dtype == np.float16:
        # NaN and infinity have the largest bits of their sign. To compare integers takes a tenth of a sum of halves.
        bits = features.view(np.uint16)
        if features.view(np.int16).max(initial=0) < _HALF_INFINITY and bits.max(initial=0) < _HALF_INFINITY + 0x8000:
            return
    else:
        # A sum is one fast pass without a temporary. Only if it is not finite (it may overflow), the rows are checked.
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(features.sum()):
                return
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        first = int(np.argmax(bad))
        value = features[first][~np.isfinite(features[first])][0]
        raise FeatureError(
            f"{where}: snippet {first} holds {value} "
            f"({counted_of(int(bad.sum()), len(bad), 'snippet', 'does', 'do')}); "
            "extract this video's features again or leave it out"
        )


def check_backbone(stated: str, known: str, where: str, whose: str) -> None:
    """Refuse features of another backbone than others, such as those that `whose` model learnt from.

    What states none, "", is taken.
    """
    if stated and known and stated != known:
        raise FeatureError(
            f"{where}: features of the backbone {stated}, {whose} of {known}; extract them again with that one"
        )


def check_names(names: Iterable[str], path: Path) -> tuple[str, ...]:
    """The names of videos, sorted; each must be one that any output can hold, and of one video."""
    checked = tuple(sorted(names))
    for before, name in zip(("", *checked), checked, strict=False):
        if not name.strip():
            raise FeatureError(f"{path}: video {name!r}: its name is empty")
        if not is_text(name):
            raise FeatureError(f"{path}: video {name!r}: its name is not UTF-8; give it another")
        if name == before:
            raise FeatureError(f"{path}: video {name!r}: is there twice")
    return checked


def check_stated(key: str, value: float, what: str) -> float:
    """A number of `STATED`; `what` begins the message where it cannot be meant."""
    low, high = STATED[key]
    whole = key.endswith("_frames")
    if not low <= value <= high or (whole and value != round(value)):  # refuses NaN, too
        raise FeatureError(
            f"{what} is {value:g}; expected a {'whole ' if whole else ''}number from {low:g} to {high:,.0f}"
        )
    return int(value) if whole else value


def can_be_features(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Whether `check_array` takes an array as features."""
    return dtype.kind == "f" and _two_axes(shape) is not None


def check_array(shape: tuple[int, ...] | None, dtype: np.dtype[Any], where: str) -> tuple[int, int]:
    """The axes of snippets and of columns: axes of length 1 beside them, which pooling leaves, do not count."""
    axes = _two_axes(shape)
    if shape is None or axes is None:
        raise FeatureError(f"{where}: expected features of shape T x D, got shape {shape}{_how_to_save(shape)}")
    if dtype.kind != "f":
        raise FeatureError(f"{where}: expected float32 or float16 features, got dtype {dtype}")
    if shape[axes[1]] == 0:
        raise FeatureError(f"{where}: features have width 0")
    return axes


def two_dimensional(array: npt.NDArray[Any], where: str) -> npt.NDArray[Any]:
    """Features of T x D that passed `check_array`, without the axes of length 1."""
    axes = check_array(array.shape, array.dtype, where)
    return array.reshape([array.shape[axis] for axis in axes])


def _two_axes(shape: tuple[int, ...] | None) -> tuple[int, int] | None:
    if shape is None or len(shape) < 2:
        return None
    if len(shape) == 2:
        return 0, 1
    long = [axis for axis, size in enumerate(shape) if size != 1]
    if len(long) == 2:
        return long[0], long[1]
    last = len(shape) - 1
    return (last - 1, last) if long == [last] else None  # one snippet


def _how_to_save(shape: tuple[int, ...] | None) -> str:
    """The cure for features of another shape."""
    long = [axis for axis, size in enumerate(shape or ()) if size != 1]
    crops = next((axis for axis in long[:-1] if shape and shape[axis] in (5, 10)), None)
    if len(long) == 3 and crops is not None and shape:
        return f": {shape[crops]} crops? save their mean, features.mean(axis={crops})"
    return ": save one array of T x D for each video"
