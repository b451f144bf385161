"""What all tables of settings share: strict values, known keys, and the source of a layer of settings."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

__all__ = ["OF_A_KEY", "Layer", "Section", "meant"]

OF_A_KEY = "of_a_key"  # the type of our errors about one key of a table; their context has the key


def meant(name: str, known: Iterable[str]) -> str:
    """ "; did you mean ...?" where a name, in any case, is nearly a known one; "" where none is near."""
    by_lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.7)
    return f"; did you mean {by_lower[near[0]]}?" if near else ""


class Layer(NamedTuple):
    """Settings that lie over other settings.

    Attributes:
        source: where they are from, in words.
        settings: by section and key. A layer need not be complete.
    """

    source: str
    settings: Mapping[str, Any]


class Section(BaseModel):
    """A table of settings. Unknown keys, values of another type, infinity and NaN are refused."""

    # Strict: `true` and "3" are not numbers.
    model_config = ConfigDict(frozen=True, validate_default=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys_only(cls, settings: Any) -> Any:
        if isinstance(settings, Mapping):
            for key in settings:
                if key not in cls.model_fields:
                    known = ", ".join(cls.model_fields)
                    raise PydanticCustomError(OF_A_KEY, "unknown setting; known: {known}", {"key": key, "known": known})
        return settings
