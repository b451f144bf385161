"""The backbone: one ONNX file that turns the frames or the sound of a snippet into features (docs/how-to/videos.md).

Its input is `frames`, uint8 [B, F, H, W, 3] (RGB), or `samples`, float32 [B, F]; its output `features`, float32 [B, D].
Cropping, scaling of values, mean and standard deviation are in the graph. Its metadata say how films are to be read.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from refineloc.runtime.errors import EngineError, ModelError, VideoError, counted, first_line
from refineloc.runtime.model.metadata import KEY_PREFIX, as_text, read_value
from refineloc.runtime.model.onnx_guard import ModelSource
from refineloc.runtime.model.session import LoadedModel, Provider

__all__ = ["BACKBONE_VERSION", "Backbone", "BackboneMetadata"]

BACKBONE_VERSION = 1
_PREFIX = "backbone."  # of its keys, after that of all keys
_MOST_FRAMES, _MOST_SIDE, _MOST_WIDTH = 2**24, 4096, 2**24
_INPUTS = {"video": ("frames", "tensor(uint8)", 5), "audio": ("samples", "tensor(float)", 2)}


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneMetadata:
    """How films are read for a backbone, and where it comes from.

    Attributes:
        kind: "video" takes frames, "audio" the sound as one channel.
        width: D, of the features.
        fps: frames (or samples) a second; 0: frames at the film's own rate.
        snippet_frames: F, frames (or samples) of a snippet.
        stride_frames: from the first frame of a snippet to that of the next.
        size: the shorter side of the frames in pixels, the shape kept; or height and width; () for sound.
        source: which network, weights and layer, in words.
        weights_sha256: of all values of the trained module, those of preprocessing too.
        licence: of the weights, "" if not known.
        producer: program and version that wrote the file.

    Raises:
        ModelError: a value out of range.
    """

    kind: Literal["video", "audio"]
    width: int
    fps: float
    snippet_frames: int
    stride_frames: int
    size: tuple[int, ...]
    source: str
    weights_sha256: str
    licence: str
    producer: str

    def __post_init__(self) -> None:
        _need(self.kind in _INPUTS, f"kind: expected video or audio, got {self.kind!r}")
        for key, high in (("width", _MOST_WIDTH), ("snippet_frames", _MOST_FRAMES), ("stride_frames", _MOST_FRAMES)):
            value = getattr(self, key)
            _need(1 <= value <= high, f"{key}: expected a number from 1 to {high}, got {value}")
        if self.kind == "video":
            _need(0 <= self.fps <= 1000, f"fps: expected 0 to 1,000 frames a second, got {self.fps}")
            good = len(self.size) in (1, 2) and all(type(side) is int and 1 <= side <= _MOST_SIDE for side in self.size)
            _need(good, f"size: expected one or two numbers of pixels up to {_MOST_SIDE}, got {list(self.size)}")
            most = max(self.size) ** 2 * 3 * self.snippet_frames
            _need(
                most <= 2**31,
                f"snippet_frames: {self.snippet_frames} of {list(self.size)} pixels take above 2 GiB a snippet",
            )
        else:
            whole = self.fps == round(self.fps) and 1 <= self.fps <= 768_000
            _need(whole, f"fps: expected a whole number of 1 to 768,000 samples a second, got {self.fps}")
            _need(self.size == (), "size: is of frames; sound has none")

    @property
    def identity(self) -> str:
        """A name for what its features are: two files of the same network, weights and reading of films share it.

        Files in other precisions do, too.
        """
        told = {key: value for key, value in asdict(self).items() if key not in ("producer", "licence", "source")}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]

    def to_props(self) -> dict[str, str]:
        """The `metadata_props` of the ONNX file."""
        values = {"version": BACKBONE_VERSION} | asdict(self)
        return {KEY_PREFIX + _PREFIX + key: as_text(value) for key, value in values.items()}

    @classmethod
    def from_props(cls, props: Mapping[str, str]) -> "BackboneMetadata":
        """Read the `metadata_props` of an ONNX file.

        Raises:
            ModelError: no backbone, or a value that has the wrong form. The message does not name the file.
        """
        if KEY_PREFIX + _PREFIX + "version" not in props:
            other = "a detection model" if KEY_PREFIX + "format_version" in props else "not of refineloc"
            raise ModelError(f"is no backbone ({other}); refineloc-export writes one of a torch module")
        version = read_value(props, _PREFIX + "version", int)
        _need(
            version == BACKBONE_VERSION,
            f"version: expected {BACKBONE_VERSION}, got {version}; "
            + ("update refineloc" if version > BACKBONE_VERSION else "export the backbone again"),
        )
        return cls(**{field.name: read_value(props, _PREFIX + field.name, field.type) for field in fields(cls)})


class Backbone(LoadedModel):
    """One loaded backbone; safe to call from many threads at once. In a forked process it goes on, as a `Detector`.

    Args:
        model: the ONNX file.
        provider, threads: as for `Detector`.

    Attributes:
        name: of the file, in messages.
        metadata: of the file.
        provider: what really runs.

    Raises:
        ModelError: not a backbone that refineloc-export wrote.
        EngineError, MissingExtraError: as for `Detector`.
    """

    def __init__(self, model: ModelSource, provider: Provider = "auto", threads: int = 0) -> None:
        super().__init__(model, provider, threads, _call_once, (1, 8))
        self.metadata = _checked(self.name, self._here())

    def features(self, windows: npt.NDArray[np.uint8 | np.float32]) -> npt.NDArray[np.float32]:
        """Features of snippets.

        Args:
            windows: uint8 [B, F, H, W, 3], or float32 [B, F] of sound.

        Returns:
            float32 [B, D].

        Raises:
            VideoError: windows of another shape.
            EngineError: ONNX Runtime fails.
            ModelError: features that are not finite.
        """
        name, _, axes = _INPUTS[self.metadata.kind]
        if (
            windows.ndim != axes
            or windows.shape[1] != self.metadata.snippet_frames
            or (axes == 5 and windows.shape[4] != 3)
        ):
            wanted = "[B, F, H, W, 3]" if axes == 5 else "[B, F]"
            raise VideoError(
                f"{name}: expected {wanted} with F = {self.metadata.snippet_frames}, got {list(windows.shape)}"
            )
        kind = np.uint8 if axes == 5 else np.float32
        session = self._here()
        try:
            (features,) = session.run(["features"], {name: np.ascontiguousarray(windows, dtype=kind)})
        except Exception as error:  # ONNX Runtime's exceptions have no public base class
            raise EngineError(
                f"{self.name}: ONNX Runtime fails on {counted(len(windows), 'snippet')}: {first_line(error)}"
            ) from error
        if features.shape != (len(windows), self.metadata.width):
            raise ModelError(
                f"{self.name}: its features have shape {features.shape}, expected "
                f"{(len(windows), self.metadata.width)}; the file is damaged, export it again"
            )
        if not np.isfinite(features.sum()):
            raise ModelError(
                f"{self.name}: gives features that are not finite; the file is damaged, or fp16 is too small"
            )
        return features  # type: ignore[no-any-return]


def _call_once(session: Any, snippets: int) -> None:
    with contextlib.suppress(ModelError):  # what is wrong with the file is told later
        metadata = BackboneMetadata.from_props(session.get_modelmeta().custom_metadata_map)
        name, _, axes = _INPUTS[metadata.kind]
        if axes == 5:
            height, width = (metadata.size * 2)[:2]
            zeros = np.zeros((snippets, metadata.snippet_frames, height, width, 3), dtype=np.uint8)
        else:
            zeros = np.zeros((snippets, metadata.snippet_frames), dtype=np.float32)
        session.run(None, {name: zeros})


def _checked(source: str, session: Any) -> BackboneMetadata:
    """The metadata, checked against the graph's input and output."""
    try:
        metadata = BackboneMetadata.from_props(session.get_modelmeta().custom_metadata_map)
    except UnicodeDecodeError as error:
        raise ModelError(f"{source}: damaged: its metadata are not UTF-8") from error
    except ModelError as error:
        raise ModelError(f"{source}: {error}") from error
    name, kind, axes = _INPUTS[metadata.kind]
    inputs = [(value.name, value.type, len(value.shape)) for value in session.get_inputs()]
    outputs = [(value.name, value.type, len(value.shape)) for value in session.get_outputs()]
    if inputs != [(name, kind, axes)] or outputs != [("features", "tensor(float)", 2)]:
        raise ModelError(f"{source}: its metadata do not fit its graph, {inputs} -> {outputs}; export it again")
    return metadata


def _need(condition: bool, message: str) -> None:
    if not condition:
        raise ModelError(f"metadata: backbone: {message}")
