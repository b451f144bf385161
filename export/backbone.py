"""Any torch module that turns frames or sound into features, as one ONNX file (docs/how-to/videos.md)."""

import copy
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from refineloc import __version__
from refineloc.export.graph import check_valid, content_of, trace
from refineloc.runtime.errors import ConfigError, ModelError, first_line
from refineloc.runtime.files import atomic_path
from refineloc.runtime.video.backbone import Backbone, BackboneMetadata

__all__ = ["Layout", "WrittenBackbone", "export_backbone", "export_sound_backbone", "read_options"]

# How a module takes frames. B snippets of F frames; C is RGB.
Layout = Literal["BCFHW", "BFCHW", "images"]

# A share of the largest feature: several times what convolutions in another order give.
_TOLERANCE = 1e-3
_SNIPPETS = 2  # that parity is measured on


@dataclass(frozen=True, slots=True)
class WrittenBackbone:
    """An exported backbone.

    Attributes:
        metadata: as in the file.
        size: in bytes.
        difference: the largest of any feature between the module and the file, as a share of the largest feature.
    """

    metadata: BackboneMetadata
    size: int
    difference: float


def export_backbone(
    module: nn.Module,
    path: str | os.PathLike[str],
    *,
    frames: int = 16,
    stride: int | None = None,
    fps: float = 0.0,
    size: int | tuple[int, int] = 112,
    short_side: int | tuple[int, int] | None = None,
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
    layout: Layout = "BCFHW",
    source: str = "",
    licence: str = "",
) -> WrittenBackbone:
    """Write a network over frames as a backbone.

    Args:
        module: float32 frames -> features [B, D], or [B, D, ...], of which the mean over the rest is taken.
        path: of the ONNX file, which appears whole or not at all.
        frames: F, of a snippet.
        stride: from the first frame of a snippet to that of the next; None: F.
        fps: frames a second at which films are read; 0: at each film's own.
        size: pixels of the crop from the middle that the module takes: of both sides, or height and width.
        short_side: pixels to which the shorter side of a frame is scaled before, or height and width; None: `size`.
        mean, std: of RGB, for values from 0 to 1.
        layout: how the module takes them: [B, 3, F, H, W], [B, F, 3, H, W], or as single images [B F, 3, H, W], whose
            features are averaged over a snippet.
        source, licence: for the metadata.

    Raises:
        ConfigError: sizes that do not fit together.
        ModelError: it cannot be traced, or the file gives other features.
        OutputError: it cannot be written.
    """
    crop = (size, size) if isinstance(size, int) else tuple(size)
    scaled = short_side if short_side is not None else (size if isinstance(size, int) else crop)
    sides = (scaled,) if isinstance(scaled, int) else tuple(scaled)
    if any(side < part for side, part in zip((sides * 2)[:2], crop, strict=True)):
        raise ConfigError(f"short_side: frames of {list(sides)} pixels are smaller than the crop of {list(crop)}")
    if len(mean) != 3 or len(std) != 3 or not all(value > 0 for value in std):
        raise ConfigError("mean, std: expected three numbers each, those of std above 0")
    wrapped = _Frames(_own(module), (crop[0], crop[1]), mean, std, layout)
    height, width = (sides * 2)[:2]
    # No side is the crop's own, or the exporter would take the crop for nothing.
    example = torch.zeros((2, frames, height, width + (len(sides) == 1) * 7, 3), dtype=torch.uint8)
    dynamic: dict[int, Any] = {0: torch.export.Dim("snippets")} | (
        {2: torch.export.Dim("height", max=4096), 3: torch.export.Dim("width", max=65536)} if len(sides) == 1 else {}
    )
    return _write(
        wrapped,
        path,
        example,
        dynamic,
        kind="video",
        fps=fps,
        snippet_frames=frames,
        stride_frames=stride or frames,
        size=sides,
        source=source or type(module).__name__,
        licence=licence,
    )


def export_sound_backbone(
    module: nn.Module,
    path: str | os.PathLike[str],
    *,
    samples: int,
    rate: int,
    stride: int | None = None,
    source: str = "",
    licence: str = "",
) -> WrittenBackbone:
    """Write a network over sound as a backbone.

    Args:
        module: float32 samples [B, samples] of one channel -> features [B, D].
        path: of the ONNX file.
        samples: of a snippet.
        rate: samples a second.
        stride: from the first sample of a snippet to that of the next; None: `samples`.
        source, licence: for the metadata.

    Raises:
        ModelError, OutputError: as `export_backbone`.
    """
    example = torch.zeros((2, samples))
    return _write(
        _Sound(_own(module)),
        path,
        example,
        {0: torch.export.Dim("snippets")},
        kind="audio",
        fps=float(rate),
        snippet_frames=samples,
        stride_frames=stride or samples,
        size=(),
        source=source or type(module).__name__,
        licence=licence,
    )


def read_options(assignments: Sequence[str]) -> dict[str, Any]:
    """The arguments of `export_backbone` or `export_sound_backbone` from texts such as "size=224,224".

    Raises:
        ConfigError: an unknown argument, or a value of another type.
    """
    options: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or key not in _OPTIONS:
            raise ConfigError(f"{assignment!r}: expected KEY=VALUE with one of {', '.join(_OPTIONS)}")
        try:
            values = tuple(
                map(_OPTIONS[key], text.split(",") if key in ("size", "short_side", "mean", "std") else [text])
            )
        except ValueError:
            raise ConfigError(f"{assignment!r}: expected a number, or several with commas") from None
        options[key] = values[0] if len(values) == 1 else values
    if options.get("layout", "BCFHW") not in get_args(Layout):
        raise ConfigError(f"layout: expected one of {', '.join(get_args(Layout))}, got {options['layout']!r}")
    allowed = {"samples", "rate", "stride", "source", "licence"} if "samples" in options else _OPTIONS.keys() - {"rate"}
    if wrong := sorted(options.keys() - allowed):
        raise ConfigError(f"{', '.join(wrong)}: not for {'sound' if 'samples' in options else 'frames'}")
    if "samples" in options and "rate" not in options:
        raise ConfigError("samples: needs rate=N, samples a second")
    return options


# Their names, and the type of each value.
_OPTIONS: Mapping[str, Callable[[str], Any]] = {
    **dict.fromkeys(("frames", "stride", "size", "short_side", "samples", "rate"), int),
    **dict.fromkeys(("fps", "mean", "std"), float),
    **dict.fromkeys(("layout", "source", "licence"), str),
}


class _Frames(nn.Module):
    """uint8 [B, F, H, W, 3] -> [B, D]."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, module: nn.Module, crop: tuple[int, int], mean: Sequence[float], std: Sequence[float], layout: Layout
    ) -> None:
        super().__init__()
        self.module, self.crop, self.layout = module, crop, layout
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32) * 255)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32) * 255)

    def forward(self, frames: Tensor) -> Tensor:
        height, width = self.crop
        top, left = (frames.shape[2] - height) // 2, (frames.shape[3] - width) // 2
        frames = frames.narrow(2, top, height).narrow(3, left, width)
        # Up to 2.12, torch's exporter does not see the sizes that `narrow` gives.
        torch._check(frames.shape[2] == height)  # type: ignore[no-untyped-call]
        torch._check(frames.shape[3] == width)  # type: ignore[no-untyped-call]
        values = (frames.float() - self.mean) / self.std
        if self.layout == "BCFHW":
            return _pooled(self.module(values.permute(0, 4, 1, 2, 3)))
        values = values.permute(0, 1, 4, 2, 3)
        if self.layout == "BFCHW":
            return _pooled(self.module(values))
        features = _pooled(self.module(values.flatten(0, 1)))
        return features.reshape(-1, frames.shape[1], features.shape[1]).mean(1)


class _Sound(nn.Module):
    """float32 [B, samples] -> [B, D]."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, samples: Tensor) -> Tensor:
        return _pooled(self.module(samples))


def _pooled(features: Tensor) -> Tensor:
    return features.flatten(2).mean(2) if features.ndim > 2 else features


def _own(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).to("cpu", torch.float32).eval()


def _write(
    wrapped: nn.Module,
    path: str | os.PathLike[str],
    example: Tensor,
    dynamic: dict[int, Any],
    *,
    kind: Literal["video", "audio"],
    fps: float,
    snippet_frames: int,
    stride_frames: int,
    size: tuple[int, ...],
    source: str,
    licence: str,
) -> WrittenBackbone:
    wrapped.eval()
    name = "frames" if kind == "video" else "samples"
    try:
        with torch.inference_mode():
            features = wrapped(example)
    except Exception as error:  # of any module
        raise ModelError(
            f"the module cannot be run on {name} of shape {list(example.shape)}: {first_line(error)}"
        ) from error
    if features.ndim != 2 or len(features) != len(example):
        raise ModelError(f"the module gives features of shape {list(features.shape)}; expected [{len(example)}, D]")
    metadata = BackboneMetadata(
        kind=kind,
        width=features.shape[1],
        fps=fps,
        snippet_frames=snippet_frames,
        stride_frames=stride_frames,
        size=size,
        source=source,
        weights_sha256=_hash(wrapped),
        licence=licence,
        producer=f"refineloc {__version__}",
    )
    graph = trace(wrapped, (example,), [name], ["features"], {name: dynamic})
    _named(graph)
    check_valid(graph)
    with atomic_path(path) as aside:
        content = content_of(graph, metadata.to_props(), metadata.producer, "refineloc backbone; docs/how-to/videos.md")
        aside.write_bytes(content)
        difference = _difference(wrapped, Backbone(aside, provider="cpu"), example)
        if not difference <= _TOLERANCE:
            raise ModelError(
                f"{path}: not written: its features differ from the module's by {difference:.1e} of the largest, above "
                f"{_TOLERANCE:.0e}; does the module depend on something that a graph cannot hold?"
            )
    return WrittenBackbone(metadata, len(content), difference)


def _difference(wrapped: nn.Module, backbone: Backbone, example: Tensor) -> float:
    generator = np.random.default_rng(0)
    shape = (_SNIPPETS, *example.shape[1:])
    if example.dtype == torch.uint8:
        inputs = generator.integers(0, 256, shape, dtype=np.uint8)
    else:
        inputs = generator.uniform(-0.5, 0.5, shape).astype(np.float32)
    with torch.inference_mode():
        expected = wrapped(torch.from_numpy(inputs)).numpy()
    if not np.isfinite(expected).all():
        raise ModelError("the module gives features that are not finite, on random input")
    largest = max(float(np.abs(expected).max()), 1e-12)
    return float(np.abs(backbone.features(inputs) - expected).max()) / largest


def _hash(module: nn.Module) -> str:
    # What `_Frames` does before the module, beside its buffers, changes features as weights do.
    reading = f"{module.crop} {module.layout}\n" if isinstance(module, _Frames) else ""
    digest = hashlib.sha256(reading.encode())
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _named(graph: onnx.ModelProto) -> None:
    """Tell the sizes by name, where the exporter has made up its own."""
    graph.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "snippets"
