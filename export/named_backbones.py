"""Backbones by name for the command line: networks of torchvision, or a function of the user's that makes a module."""

import importlib
import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from refineloc.runtime.errors import ConfigError, MissingExtraError, ModelError, first_line
from refineloc.runtime.files import is_file

__all__ = ["NamedBackbone", "find_backbone"]

# Networks of torchvision over frames: its name -> the part that is left out, so that features come out; frames a
# snippet; frames a second that it was trained with (torchvision's references and the papers).
_TORCHVISION: Mapping[str, tuple[str, int, float]] = {
    "r2plus1d_18": ("fc", 16, 15.0),
    "s3d": ("classifier", 16, 15.0),
    "mvit_v2_s": ("head", 16, 7.5),
    "swin3d_t": ("head", 32, 15.0),
}


@dataclass(frozen=True, slots=True)
class NamedBackbone:
    """A module that makes features, and how it is to be exported.

    Attributes:
        module: frames, or sound -> features.
        options: arguments for `export_backbone`; the user's own go over them.
    """

    module: nn.Module
    options: Mapping[str, Any] = field(default_factory=dict)


def find_backbone(name: str, weights: str | os.PathLike[str] | None = None) -> NamedBackbone:
    """The module of a name.

    Args:
        name: "torchvision:NETWORK", or "FILE.py:FUNCTION" or "PACKAGE.MODULE:FUNCTION": a function without arguments
            that gives a torch module. The function is run.
        weights: a state dict (.pth, .pt or .safetensors) to load into it. Of torchvision's networks it is needed:
            nothing is fetched.

    Raises:
        ConfigError: no such network or function, or a function that gives something else.
        ModelError: weights that cannot be read, or are of another network.
        MissingExtraError: torchvision is not installed.
    """
    kind, _, function = name.rpartition(":")
    if not kind or not function:
        raise ConfigError(
            f"backbone {name!r}: expected torchvision:NETWORK ({', '.join(_TORCHVISION)}), or FILE.py:FUNCTION of a "
            "function that gives a torch module"
        )
    found = _torchvision(function, weights) if kind == "torchvision" else NamedBackbone(_made(name, kind, function))
    if weights is not None:
        _load(found.module, Path(weights))
    if kind == "torchvision":  # after its weights, which have the part that is left out
        setattr(found.module, _TORCHVISION[function][0], nn.Identity())
    return found


def _torchvision(network: str, weights: str | os.PathLike[str] | None) -> NamedBackbone:
    if network not in _TORCHVISION:
        raise ConfigError(f"backbone torchvision:{network}: expected one of {', '.join(_TORCHVISION)}")
    try:
        from torchvision.models import get_model, get_model_weights
    except (ImportError, RuntimeError) as error:  # of a build that does not fit the installed torch
        raise MissingExtraError(
            f"torchvision does not import here ({first_line(error)}): pip install torchvision, of the version that "
            "fits the installed torch"
        ) from error
    known = get_model_weights(network).DEFAULT
    if weights is None:
        raise ConfigError(
            f"backbone torchvision:{network}: needs its weights, and nothing is fetched for you: download {known.url} "
            "and give that file",
            parameter="weights",
        )
    _, frames, fps = _TORCHVISION[network]
    reading = known.transforms()
    return NamedBackbone(
        get_model(network),
        {
            "frames": frames,
            "fps": fps,
            "size": tuple(reading.crop_size),
            "short_side": reading.resize_size[0] if len(reading.resize_size) == 1 else tuple(reading.resize_size),
            "mean": tuple(reading.mean),
            "std": tuple(reading.std),
            "source": f"torchvision {network}, {Path(weights).name}",
        },
    )


def _made(name: str, place: str, function: str) -> nn.Module:
    try:
        if place.endswith(".py"):
            if not is_file(place, ConfigError):
                raise ConfigError(f"backbone {name!r}: no such file: {place}")
            spec = importlib.util.spec_from_file_location("refineloc_backbone", place)
            assert spec is not None
            assert spec.loader is not None
            source = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(source)
        else:
            source = importlib.import_module(place)
        make = getattr(source, function, None)
        if not callable(make):
            raise ConfigError(f"backbone {name!r}: {place} has no function {function!r}")
        module = make()
    except ConfigError:
        raise
    except Exception as error:  # of the user's own code
        raise ConfigError(f"backbone {name!r}: {type(error).__name__}: {first_line(error)}") from error
    if not isinstance(module, nn.Module):
        raise ConfigError(f"backbone {name!r}: {function}() gives a {type(module).__name__}, expected a torch module")
    return module


def _load(module: nn.Module, path: Path) -> None:
    if not is_file(path, ModelError):
        raise ModelError(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)  # a stranger's pickle runs nothing
    except Exception as error:  # of any kind of damage
        raise ModelError(f"{path}: cannot be read as weights: {first_line(error)}") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    try:
        module.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: weights of another network: {first_line(error)}") from error
