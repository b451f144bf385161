"""Which base model a run trains, and the settings of that base model."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field, SerializeAsAny, ValidationInfo, field_validator

from refineloc.runtime.errors import ConfigError
from refineloc.training.settings import bases
from refineloc.training.settings.bases import base_names
from refineloc.training.settings.own_files import is_own, own_file
from refineloc.training.settings.section import Section, meant

__all__ = ["Base", "ModelConfig", "base_lines", "find_base"]


@dataclass(frozen=True, slots=True)
class Base:
    """The settings of one base model: a file of training/settings/bases/, or one of the user's own.

    Attributes:
        name: of the file, and for `--base`.
        options: its own settings.
        defaults: the other settings that it changes. They lie over a preset and under the user's settings.
        of_auto: what it changes of the preset auto (`refineloc.training.settings.presets.auto_for`).
    """

    name: str
    options: type[Section]
    defaults: Mapping[str, Any]
    of_auto: Mapping[str, Any]


def base_lines() -> dict[str, str]:
    """All base models by name, each with a line that says what it is."""
    modules = {name: importlib.import_module(f"{bases.__name__}.{name}") for name in base_names()}
    return {
        name: (module.__doc__ or "").splitlines()[0].removeprefix("Settings of ") for name, module in modules.items()
    }


def find_base(name: str) -> Base:
    """The settings of a base model by name.

    Raises:
        ConfigError: no such base model. The message lists those that there are. Or a file that the user has not named
            itself (`own_file`).
    """
    if is_own(name):
        own = own_file(name, "base")
        for table in ("DEFAULTS", "OF_AUTO"):
            if not isinstance(getattr(own.module, table, {}), Mapping):
                raise ConfigError(f"{own.path}: {table}: expected a dictionary of settings", parameter="base")
        module = own.module
        return Base(
            name, getattr(module, "Options", Section), getattr(module, "DEFAULTS", {}), getattr(module, "OF_AUTO", {})
        )
    if name not in base_names():
        near = meant(str(name), base_names())
        raise ConfigError(f"base model {name!r}: not known{near}; there are {', '.join(base_names())}")
    module = importlib.import_module(f"{bases.__name__}.{name}")
    return Base(name, module.Options, module.DEFAULTS, getattr(module, "OF_AUTO", {}))


class ModelConfig(Section):
    """The base model."""

    base: str = Field(
        "refineloc",
        description="base model (section 3.1; Table 5), by the name of its file, or a file of one's own",
    )
    options: SerializeAsAny[Section] = Field(
        Section(), description="of the base model (docs/explanation/base-models.md)"
    )

    @field_validator("options", mode="before")
    @classmethod
    def _those_of_the_base(cls, options: Any, info: ValidationInfo) -> Any:
        if "base" not in info.data:  # the base is not valid itself, and that is the error to report
            return Section()
        settings = dict(options) if isinstance(options, Section) else options
        return find_base(info.data["base"]).options.model_validate(settings)
