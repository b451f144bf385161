"""Names that do not match, of videos and classes: what the likely reason is, for messages.

Names are compared as they are. A match that would need a guess is never made: the message shows both names and how they
differ, and the user renames one side.
"""

import re
from collections.abc import Callable, Collection, Iterable

from refineloc.runtime.text import differing, spelling

__all__ = ["first_names", "nothing_shared", "why_unmatched"]

_ENDINGS = re.compile(r"\.(mp4|mkv|avi|mov|webm|m4v|mpg|mpeg|wmv|flv|ts|npy|npz|h5|hdf5|csv|json)$", re.IGNORECASE)


def _without_stream(name: str) -> str:
    return re.sub(r"[_-](rgb|flow|i3d|features?)$", "", name, flags=re.IGNORECASE)


# What programs do to names: what to take away from both, and how to call it.
_CHANGES: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("the folder", lambda name: re.split(r"[/\\]", name)[-1]),
    ("the file's ending", lambda name: _ENDINGS.sub("", name)),
    ("the prefix 'v_'", lambda name: name.removeprefix("v_").removeprefix("V_")),
    ("the addition of a stream or encoder", _without_stream),
    ("leading zeros", lambda name: re.sub(r"(?<!\d)0+(?=\d)", "", name)),
    ("'-' and '_'", lambda name: name.replace("-", "_")),
)


def first_names(names: Iterable[str], count: int = 3) -> str:
    """The first names in their order, quoted, for a message."""
    ordered = sorted(names)
    shown = ", ".join(map(repr, ordered[:count]))
    return f"{shown}, ..." if len(ordered) > count else shown


def nothing_shared(kind: str, where: object, names: Collection[str], there: object, others: Collection[str]) -> str:
    """A message: two files that should be of the same videos (or classes) share none."""
    firsts = f"{min(names, default='')!r} and {min(others, default='')!r}"
    return f"{where} and {there} have no {kind} in common: the first are {firsts}{why_unmatched(names, others)}"


def why_unmatched(missing: Collection[str], others: Collection[str]) -> str:
    """Why names may be missing among others, to be added to a message: "; 'v_a' is there as 'a': ..."; or nothing.

    Args:
        missing: names that the others do not have.
        others: names on the other side.
    """
    known: dict[str, str] = {}
    for other in sorted(others):
        known.setdefault(_bare(other), other)
    for name in sorted(missing):
        like = known.get(_bare(name), name)
        if like != name:
            return f"; {name!r} is {like!r} there ({_difference(name, like)}): give both the same name"
    return ""


def _bare(name: str) -> str:
    for _, change in _CHANGES:
        name = change(name)
    return spelling(name)


def _difference(name: str, other: str) -> str:
    reasons = []
    for reason, change in _CHANGES:
        if spelling(name) == spelling(other):
            break
        changed, other_changed = change(name), change(other)
        if (changed, other_changed) != (name, other):
            reasons.append(reason)
        name, other = changed, other_changed
    if name != other:
        reasons.append(differing(name, other))
    return "they differ in " + " and ".join(reasons)
