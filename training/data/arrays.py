"""Features and labels that are in memory already, in the forms that training reads from files."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from refineloc.runtime.addresses import as_path
from refineloc.runtime.annotations import Annotations, VideoAnnotation
from refineloc.runtime.errors import AnnotationError, FeatureError, InputError
from refineloc.runtime.features.checks import as_array, check_names, two_dimensional
from refineloc.runtime.features.store import FeatureInfo, FeatureStore

__all__ = ["ArrayStore", "LabelMapping", "as_features", "as_labels"]

# VIDEO -> its class, its classes, or all that is known of it.
LabelMapping = Mapping[str, str | Sequence[str] | VideoAnnotation]


class ArrayStore(FeatureStore):
    """Features in memory, or of a mapping that loads them when they are asked for.

    Args:
        videos: T x D by name; of any library (`as_array`).
        name: of the parameter they were given as, for messages.
    """

    def __init__(self, videos: Mapping[str, npt.ArrayLike], name: str) -> None:
        for video in videos:
            if not isinstance(video, str):
                raise InputError(f"{name}: expected names of videos as keys, got {video!r:.40}")
        if not videos:
            raise FeatureError(f"{name}: holds no video; expected T x D features by name")
        self.path = Path(name)
        self.names = check_names(videos, self.path)
        self._videos = videos
        self._infos: dict[str, FeatureInfo] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._videos

    def info(self, name: str) -> FeatureInfo:
        if name not in self._infos:
            array = self._array(name)
            self._infos[name] = FeatureInfo(name, array.shape[0], array.shape[1], array.dtype)
        return self._infos[name]

    def _read(self, name: str, out: npt.NDArray[Any], columns: slice) -> None:
        out[...] = self._array(name)[:, columns]

    def _array(self, name: str) -> npt.NDArray[Any]:
        if name not in self._videos:
            raise FeatureError(f"{self.path}: has no video {name!r}")
        where = f"{self.path}: video {name!r}"
        return two_dimensional(as_array(self._videos[name], where), where)

    def room(self, name: str, shape: tuple[int, int], dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
        """An empty array; what is in memory already has no limit."""
        return np.empty(shape, dtype=dtype)


def as_features(features: Any, name: str) -> Path | FeatureStore:
    """What a caller gave as features: a path, a store, or a mapping of arrays.

    Raises:
        InputError: something else, or a mapping of something else.
    """
    if isinstance(features, (str, os.PathLike)):
        return as_path(features)
    if isinstance(features, FeatureStore):
        return features
    if isinstance(features, Mapping):
        return ArrayStore(features, name)
    raise InputError(
        f"{name}: expected a path, a store of open_features or a mapping of arrays by video, "
        f"got {type(features).__name__}"
    )


def as_labels(labels: Any, name: str) -> Path | Annotations:
    """What a caller gave as labels: a path, annotations, or a mapping of classes by video.

    Raises:
        InputError: something else, or a video whose classes are no text.
    """
    if isinstance(labels, (str, os.PathLike)):
        return as_path(labels)
    if isinstance(labels, Annotations):
        return labels
    if not isinstance(labels, Mapping):
        raise InputError(
            f"{name}: expected a path, annotations or a mapping of classes by video, got {type(labels).__name__}"
        )
    if not labels:
        raise AnnotationError(f"{name}: holds no video; expected its classes by name")
    return Annotations({video: _annotation(video, stated, name) for video, stated in labels.items()}, name)


def _annotation(video: Any, stated: Any, name: str) -> VideoAnnotation:
    if isinstance(stated, VideoAnnotation):
        return stated
    classes = [stated] if isinstance(stated, str) else stated
    if not (
        isinstance(video, str)
        and isinstance(classes, (list, tuple, set, frozenset, np.ndarray))
        and all(isinstance(label, str) and label.strip() for label in classes)
    ):
        raise AnnotationError(f"{name}: video {video!r}: expected its classes, such as ['run'], got {stated!r:.60}")
    return VideoAnnotation(video, tuple(sorted({str(label) for label in classes})))
