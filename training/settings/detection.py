"""The section [detection] of a run's settings: the runtime's definition, with its defaults, checks and descriptions."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator
from pydantic_core import PydanticCustomError

from refineloc.runtime.errors import ConfigError
from refineloc.runtime.segments.rules import OneThreshold, Rules, changed, every_setting, profiles_with
from refineloc.training.settings.section import OF_A_KEY

__all__ = ["Detection", "replaced"]


def _rules(value: Any) -> Rules:
    if isinstance(value, Rules):
        return value
    if not isinstance(value, Mapping):
        raise PydanticCustomError("table", "expected a table of settings")
    try:
        return changed(OneThreshold(), {key: _stated(key, each) for key, each in value.items()})
    except ConfigError as error:
        key, _, text = str(error).partition(": ")
        raise PydanticCustomError(OF_A_KEY, "{text}", {"key": key, "text": text}) from error


def _stated(key: str, value: Any) -> Any:
    """TOML has no value for "none", so it is a word there."""
    return None if value == "none" and key in _OR_NONE else value


_OR_NONE = {setting.name for setting in every_setting() if setting.type == float | None}

Detection = Annotated[Rules, PlainValidator(_rules), PlainSerializer(asdict)]


def replaced(below: Any, above: Any) -> list[str]:
    """The settings of the table `below` that the table `above` replaces by asking for another kind of rule."""
    if not (isinstance(below, Mapping) and isinstance(above, Mapping) and "profile" in above):
        return []
    return [name for name in below if profiles_with(name) and above["profile"] not in profiles_with(name)]
