"""What the programs that compare detections with ground truth share: their options, and what they warn of."""

import contextlib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from refineloc.evaluation.matching import Matching, Regions
from refineloc.evaluation.plausibility import check_plausible
from refineloc.runtime.annotations import Annotations
from refineloc.runtime.cli.common import note, parse_numbers
from refineloc.runtime.detections import Detections, read_detections
from refineloc.runtime.errors import ConfigError, DetectionError, InputError, counted
from refineloc.runtime.files import status_of
from refineloc.runtime.names import first_names, nothing_shared, why_unmatched
from refineloc.runtime.text import no_formula

__all__ = [
    "DropRepeated",
    "Subset",
    "Tiou",
    "check_regions",
    "parse_tious",
    "read_named",
    "warn_of_odd",
    "warn_of_unknown",
]

Tiou = Annotated[str, typer.Option(help="tIoU thresholds: FIRST:LAST:STEP, or a list such as 0.3,0.5.")]
Subset = Annotated[str | None, typer.Option(help="Of an ActivityNet JSON: use this subset.")]
DropRepeated = Annotated[
    bool, typer.Option(help="Drop annotations repeated within 0.001 s first, as OpenTAD and ActionFormer do.")
]


def parse_tious(text: str) -> list[float]:
    """`0.5:0.95:0.05` or `0.3,0.5` as thresholds.

    Raises:
        ConfigError: neither form, or a threshold that is not above 0 and at most 1.
    """
    tious = parse_numbers(text)
    if not tious or not all(0 < value <= 1 for value in tious):
        raise ConfigError(f"--tiou {text!r}: expected FIRST:LAST:STEP or a list, of numbers above 0 and at most 1")
    return tious


def print_row(cells: Sequence[str]) -> None:
    """Print a row of a table whose cells are apart by tabs; a name does not become a formula or another cell."""
    print(
        "\t".join(
            cell if cell == "-" or _is_number(cell) else no_formula(re.sub(r"[\t\r\n]", " ", cell)) for cell in cells
        )
    )


def _is_number(cell: str) -> bool:
    with contextlib.suppress(ValueError):
        return math.isfinite(float(cell))
    return False


def warn_of_odd(
    detections: Mapping[str, Mapping[str, Detections]], annotations: Annotations, *, keep_empty: bool = False
) -> None:
    """A line for all that is odd in sets of detections, by name, and in the ground truth.

    Raises:
        InputError: see `check_plausible`.
    """
    options = {"subset": "--subset", "ambiguous": "--ambiguous FILE"}
    doubts = [
        doubt
        for name, by_video in detections.items()
        for doubt in check_plausible(by_video, annotations, name=name, keep_empty=keep_empty)
    ]
    for doubt in dict.fromkeys(doubts):
        note(f"warning: {doubt.text}" + (f" ({options[doubt.parameter]})" if doubt.parameter else ""))


def warn_of_unknown(matching: Matching, detections: str | Path) -> None:
    """A line for the classes, and one for the videos, that the detections have and the ground truth does not.

    Raises:
        InputError: no video, or no class, is in both: that is not what the detector found.
    """
    annotations = matching.annotations
    truth = annotations.path
    by_video = matching.detections
    classes = {video.classes[index] for video in by_video.values() for index in set(video.label_index.tolist())}
    for kind, names, known in (("video", by_video.keys(), annotations.keys()), ("class", classes, annotations.classes)):
        missing = set(names) - set(known)
        if not missing:
            continue
        if len(missing) == len(names):
            raise InputError(nothing_shared(kind, detections, names, truth, known))
        if kind == "class":
            text = (
                f"{counted(matching.unknown_labels, 'detection has', 'detections have')} a class that {truth} does "
                "not have; left out"
            )
        else:
            text = f"{counted(len(missing), 'video is', 'videos are')} not in {truth}: false positives"
        note(f"warning: {detections}: {text}; the first: {first_names(missing)}{why_unmatched(missing, known)}")


def check_regions(regions: Regions, annotations: Annotations, path: Path) -> Regions:
    """The ambiguous regions as they are.

    Raises:
        InputError: they and the ground truth share no video.
    """
    if regions and not regions.keys() & annotations.keys():
        raise InputError(nothing_shared("video", path, regions.keys(), annotations.path, annotations.keys()))
    return regions


def read_named(texts: Sequence[str]) -> dict[str, Mapping[str, Detections]]:
    """Sets of detections by name, in their order: `NAME=FILE`, or a file, whose name or folder is the set's.

    Raises:
        ConfigError: two of one name.
        DetectionError: a file that cannot be read.
    """
    named: dict[str, Mapping[str, Detections]] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        # A name is taken for one only where the whole text is no file: paths may hold "=" too.
        if not equals or status_of(text, DetectionError) is not None:
            name, path = _name_of(Path(text)), text
        if name in named:
            raise ConfigError(f"DETECTIONS: two are called {name!r}; give NAME=FILE")
        named[name] = read_detections(path)
    return named


def _name_of(path: Path) -> str:
    """A run's file is called detections.json; its folder says which iteration it is."""
    return path.resolve().parent.name if path.stem == "detections" else path.stem
