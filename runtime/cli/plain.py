"""Plain command lines, read without typer's pydantic, which takes as long to import as Python with NumPy to start.

typer reads the rest: help, errors, arguments that are lists, and whatever else is not plain.
"""

import re
import typing
from collections.abc import Callable, Sequence
from inspect import Parameter, signature
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal

from typer.models import ArgumentInfo

__all__ = ["plain_arguments"]

_NUMBERS = {int: re.compile("[0-9]{1,15}"), float: re.compile(r"[0-9]{1,15}(\.[0-9]{1,15})?")}


def plain_arguments(command: Callable[..., Any], words: Sequence[str]) -> dict[str, Any] | None:
    """The arguments with which typer would call `command`; None where typer itself has to look.

    Plain are positional texts and paths, flags, and options with a text, path, number or choice (`--option VALUE`).

    Args:
        command: a function with parameters that typer declares, each an Annotated.
        words: of the command line, without the program.
    """
    parameters = signature(command).parameters
    hints = typing.get_type_hints(command, include_extras=True)
    if not all(hasattr(hints.get(name), "__metadata__") for name in parameters):
        return None
    arguments = {name: parameter.default for name, parameter in parameters.items()}
    positional = [name for name in parameters if isinstance(_declared(hints[name]), ArgumentInfo)]
    options = {word: name for name in parameters if name not in positional for word in _options(name, hints[name])}
    given: set[str] = set()
    rest = iter(words)
    for word in rest:
        if word.startswith("-"):
            name = options.get(word, "")
            text = None if not name or _kind(hints[name]) is bool else next(rest, "")
        else:
            name, text = next((name for name in positional if name not in given), ""), word
        many = bool(name) and name not in positional and typing.get_origin(_kind(hints[name])) is list
        if not name or (name in given and not many):
            return None
        try:
            value = _value(hints[name], text)
        except ValueError:
            return None
        arguments[name] = [*(arguments[name] if name in given else ()), value] if many else value
        given.add(name)
    return None if Parameter.empty in arguments.values() else arguments


def _declared(hint: Any) -> Any:
    """What typer.Option or typer.Argument gave."""
    return hint.__metadata__[0]


def _kind(hint: Any) -> Any:
    """The type without None."""
    kind = hint.__origin__
    if typing.get_origin(kind) not in (UnionType, typing.Union):
        return kind
    kinds = [member for member in typing.get_args(kind) if member is not NoneType]
    return kinds[0] if len(kinds) == 1 else kind


def _options(name: str, hint: Any) -> list[str]:
    # In an Annotated, typer takes the first name where a default would be.
    words = [word for word in (_declared(hint).default, *_declared(hint).param_decls) if str(word).startswith("-")]
    # typer makes its own name if none is long.
    return words if any(word.startswith("--") for word in words) else [*words, "--" + name.replace("_", "-").strip("-")]


def _value(hint: Any, text: str | None) -> Any:
    """The value of a text, or of a flag (None); of an option that may be given again, the next one.

    Raises:
        ValueError: the text is not plain, or not allowed.
    """
    kind, declared = _kind(hint), _declared(hint)
    if declared.callback is not None:
        raise ValueError
    if text is None:
        return True
    if not text or text.startswith("-"):
        raise ValueError
    if typing.get_origin(kind) is list and not isinstance(declared, ArgumentInfo):
        (kind,) = typing.get_args(kind)
    if kind is str or kind is Path:
        text.encode()  # a ValueError where it is no text
        return kind(text)
    if kind in _NUMBERS:
        if not _NUMBERS[kind].fullmatch(text):
            raise ValueError
        number = kind(text)
        if (declared.min is not None and number < declared.min) or (declared.max is not None and number > declared.max):
            raise ValueError
        return number
    if typing.get_origin(kind) is Literal and text in typing.get_args(kind):
        return text
    raise ValueError
