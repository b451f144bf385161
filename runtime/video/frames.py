"""Frames of a live source -> the features of snippets, as they become whole."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from refineloc.runtime.errors import ConfigError, VideoError
from refineloc.runtime.model.metadata import ModelMetadata
from refineloc.runtime.segments.grid import SnippetGrid
from refineloc.runtime.video.backbone import Backbone
from refineloc.runtime.video.detection import check_fits
from refineloc.runtime.video.snippets import Windows

__all__ = ["FrameSnippets"]


class FrameSnippets:
    """Cuts a running video into the windows of a backbone; keeps one window of frames.

    Args:
        model: the model that takes the features.
        backbone: of the features that the model learnt from.
        grid: of the video.

    Raises:
        ModelError, FeatureError: see `check_fits`.
        ConfigError: the grid is another than the backbone's.
    """

    def __init__(self, model: ModelMetadata, backbone: Backbone, grid: SnippetGrid) -> None:
        check_fits(model, backbone)
        metadata = backbone.metadata
        if (grid.snippet_frames, grid.stride) != (metadata.snippet_frames, metadata.stride_frames):
            raise ConfigError(
                f"snippet_frames, stride_frames: {backbone.name} makes a snippet of {metadata.snippet_frames} frames "
                f"every {metadata.stride_frames}, got {grid.snippet_frames} and {grid.stride}; leave both out"
            )
        if metadata.fps and grid.fps != metadata.fps:
            raise ConfigError(f"fps: {backbone.name} takes {metadata.fps:g} a second, got {grid.fps:g}")
        self._backbone = backbone
        self._windows = Windows(metadata.snippet_frames, metadata.stride_frames)
        self._shape: tuple[int, ...] = ()

    def push(self, frames: npt.NDArray[Any], backbone: Backbone) -> npt.NDArray[np.float32]:
        """Add frames [k, H, W, 3], or samples [k]; gives the features of the snippets that are whole now, [n, D]."""
        if backbone is not self._backbone:
            raise ConfigError("backbone: another than before; a video has one")
        self._check(frames)
        return self._features(self._windows.push(np.array(frames)))  # a copy: a camera fills its buffer again

    def finish(self) -> npt.NDArray[np.float32]:
        """The features of the snippet that the end of the video cuts, [0 or 1, D]."""
        return self._features(self._windows.finish())

    def _features(self, windows: Iterable[npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        features = [self._backbone.features(window[None]) for window in windows]
        return np.concatenate(features) if features else np.empty((0, self._backbone.metadata.width), np.float32)

    def _check(self, frames: npt.NDArray[Any]) -> None:
        metadata = self._backbone.metadata
        sound = metadata.kind == "audio"
        dtype, shape = getattr(frames, "dtype", None), tuple(getattr(frames, "shape", ()))
        right = len(shape) == 1 if sound else len(shape) == 4 and shape[3] == 3
        if dtype != (np.float32 if sound else np.uint8) or not right:
            wanted = "float32 [k]" if sound else "uint8 [k, H, W, 3]"
            raise VideoError(f"frames: expected {wanted}, got {dtype} {list(shape)}")
        if sound:
            return
        height, width = shape[1:3]
        size = metadata.size
        if (min(height, width),) != size and (height, width) != size:
            pixels = f"a shorter side of {size[0]}" if len(size) == 1 else f"{size[0]} x {size[1]}"
            raise VideoError(f"frames: {self._backbone.name} takes {pixels} pixels, got {height} x {width}; scale them")
        if self._shape not in ((), shape[1:]):
            raise VideoError(f"frames: expected {list(self._shape)} as before, got {list(shape[1:])}")
        self._shape = shape[1:]
