"""Files of code that a user names: a base model or a pseudo-label generator of one's own.

Code runs only where the user names its file: as `base` or `generator`. A name that comes with a run or in a file of
settings may be a stranger's. It is looked up among the files that were named, by its SHA-256, and never run itself.

In settings such a file is PATH.py#SHA256: a run goes on, and is exported, with the file that it was trained with.
"""

import hashlib
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from refineloc.runtime.errors import ConfigError, first_line
from refineloc.runtime.files import read_content

__all__ = ["OWN_PAGES", "OwnFile", "is_own", "name_own", "own_file", "plain_name", "same_file"]

Kind = Literal["base", "generator"]
_NEEDS = {"base": "build(options, width, classes)", "generator": "generate(scores, lengths, known, rng)"}
OWN_PAGES = {"base": "docs/how-to/own-base.md", "generator": "docs/how-to/own-generator.md"}  # how each is written


@dataclass(frozen=True, slots=True)
class OwnFile:
    """A file that was run.

    Attributes:
        path: as the user named it.
        sha256: of its contents, in hexadecimal.
        module: what it defines.
    """

    path: Path
    sha256: str
    module: ModuleType


_named: dict[str, OwnFile] = {}  # by SHA-256


def is_own(name: Any) -> bool:
    """Whether a base model or a generator is a file of one's own and none of ours."""
    return isinstance(name, str) and plain_name(name).endswith(".py")


def plain_name(name: str) -> str:
    """The name without a SHA-256."""
    return name.partition("#")[0]


def same_file(name: Any, other: Any) -> bool:
    """Whether two names in settings are of the same contents, wherever these lie."""
    return is_own(name) and is_own(other) and name.partition("#")[2] == other.partition("#")[2]


def name_own(path: str, kind: Kind) -> str:
    """Run a file, as the user has named it; gives its name for settings.

    The same contents are run once.

    Raises:
        ConfigError: it cannot be read or loaded, or lacks the function that it is named for.
    """
    source = Path(path)
    content = read_content(source, ConfigError, "give a file of Python code")
    digest = hashlib.sha256(content).hexdigest()
    file = _named.get(digest) or OwnFile(source, digest, _run(source, content, digest))
    function = _NEEDS[kind]
    if not callable(getattr(file.module, function.partition("(")[0], None)):
        raise ConfigError(
            f"{source}: has no function {function}, which a {kind} needs ({OWN_PAGES[kind]})", parameter=kind
        )
    _named[digest] = file
    return f"{source}#{digest}"


def own_file(name: str, kind: Kind) -> OwnFile:
    """The file of a name in settings, which the user has named before.

    Raises:
        ConfigError: the user has not, or has named one of other contents.
    """
    path, _, digest = name.partition("#")
    if digest in _named:
        return _named[digest]
    others = [file for file in _named.values() if digest and file.path.name == Path(path).name]
    if others:
        raise ConfigError(
            f"{others[-1].path}: has changed since the run began: its SHA-256 begins with {others[-1].sha256[:8]}, "
            f"that of the run's {kind} with {digest[:8]}; put it back as it was, or begin another run",
            parameter=kind,
        )
    raise ConfigError(
        f"{path}: a {kind} that is code runs only where you name its file yourself: give {kind}", parameter=kind
    )


def _run(path: Path, content: bytes, digest: str) -> ModuleType:
    module = ModuleType(f"refineloc_own_{path.stem}_{digest[:12]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where dataclasses and pydantic look names up
    try:
        exec(compile(content, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        where = f"{path}: line {line}" if line else f"{path}"
        raise ConfigError(f"{where}: cannot be loaded: {type(error).__name__}: {first_line(error)}") from error
    return module
