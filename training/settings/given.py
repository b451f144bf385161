"""The settings that a user gives, as layers: what options and keywords mean, for the program and for Python."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from refineloc.runtime.errors import ConfigError
from refineloc.training.settings.config import read_toml
from refineloc.training.settings.own_files import is_own, name_own
from refineloc.training.settings.presets import default_preset
from refineloc.training.settings.section import Layer

__all__ = ["given_layers", "keyword_settings", "named_settings"]


def given_layers(source: str, file: Path | None, *settings: Mapping[str, Any], default: bool = True) -> list[Layer]:
    """The layers that a user gives, the lowest first.

    Args:
        source: where `settings` are from, in words.
        file: a TOML file of settings, under all others.
        settings: by section and key; later ones win.
        default: begin with the preset auto, where no other is named (`default_preset`).

    Raises:
        ConfigError: the file cannot be read.
    """
    given = [Layer(f"settings file {file}", read_toml(file))] if file else []
    given += [Layer(source, each) for each in settings]
    return [*(default_preset(given) if default else []), *given]


def keyword_settings(
    *,
    preset: str | None = None,
    profile: str | None = None,
    base: str | None = None,
    generator: str | None = None,
    iterations: int | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    student_from: int | None = None,
) -> dict[str, Any]:
    """The settings that have an option and a keyword of their own, by section; those that are None are left out.

    A file that is given as base model or generator is run: here the user names it.

    Raises:
        ConfigError: it cannot be (`name_own`).
    """
    if is_own(base):
        base = name_own(str(base), "base")
    if is_own(generator):
        generator = name_own(str(generator), "generator")
    # Whoever says how many epochs means so many, whatever the preset's least number of steps.
    training = {"iterations": iterations, "epochs": epochs, "min_steps": None if epochs is None else 0, "seed": seed}
    given = _given({"preset": preset, "profile": profile})
    return given | {
        "model": _given({"base": base}),
        "pseudo": _given({"generator": generator}),
        "training": _given(training),
        "student": _given({"first": student_from}),
    }


def named_settings(settings: Mapping[str, Any] | str | os.PathLike[str] | None) -> tuple[Path | None, list[Any]]:
    """What a caller gave as settings: the file, if it is one, and layers of settings.

    Args:
        settings: a TOML file; or values by names such as `pseudo.beta`, by section, or both.

    Raises:
        ConfigError: something else.
    """
    if settings is None or isinstance(settings, (str, os.PathLike)):
        return None if settings is None else Path(settings), []
    if not isinstance(settings, Mapping):
        raise ConfigError(
            f"settings: expected a mapping such as {{'pseudo.beta': 2.0}} or a TOML file, got {type(settings).__name__}"
        )
    layers = []
    for name, value in settings.items():
        if not isinstance(name, str):
            raise ConfigError(f"settings: expected names such as 'pseudo.beta', got {name!r}")
        layer = _as_toml(value)
        for part in reversed(name.split(".")):
            layer = {part: layer}
        layers.append(layer)
    return None, layers


def _as_toml(value: Any) -> Any:
    """A value as a TOML file would have it: "none" for None, a list for a tuple."""
    if isinstance(value, Mapping):
        return {key: _as_toml(item) for key, item in value.items()}
    return "none" if value is None else list(value) if isinstance(value, tuple) else value


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
