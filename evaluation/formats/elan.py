"""ELAN (.eaf): segments as time-aligned annotations. One file for each video, one tier for each class."""

import os
import re
from pathlib import Path
from xml.etree import ElementTree as Xml

from refineloc.evaluation.formats.media import media_type
from refineloc.evaluation.formats.tracks import Track, track_of_rows
from refineloc.runtime.errors import InputError
from refineloc.runtime.files import atomic_write
from refineloc.runtime.text import finite_number, finite_seconds

__all__ = ["read_elan", "write_elan"]

_XSI = "http://www.w3.org/2001/XMLSchema-instance"
_SCHEMA = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"
_DATE = "1970-01-01T00:00:00+00:00"  # the format needs a date; a fixed one gives equal files for equal input


def write_elan(path: str | os.PathLike[str], track: Track, *, media: str | None = None) -> None:
    """Write the segments of one video. Segments of one class that overlap go to tiers "jump", "jump (2)", ...

    Args:
        path: the .eaf file.
        track: the segments; an annotation's text is the label, followed by the score if there is one.
        media: address of the video for ELAN to open, as `media_address` gives it ("file:///..."); its ending
            gives the MIME type.

    Raises:
        OutputError: the file cannot be written.
    """
    Xml.register_namespace("xsi", _XSI)
    root = Xml.Element(
        "ANNOTATION_DOCUMENT",
        {
            "AUTHOR": "refineloc",
            "DATE": _DATE,
            "FORMAT": "3.0",
            "VERSION": "3.0",
            f"{{{_XSI}}}noNamespaceSchemaLocation": _SCHEMA,
        },
    )
    header = Xml.SubElement(root, "HEADER", {"MEDIA_FILE": "", "TIME_UNITS": "milliseconds"})
    if media is not None:
        Xml.SubElement(header, "MEDIA_DESCRIPTOR", {"MEDIA_URL": media, "MIME_TYPE": media_type(media)})
    times = Xml.SubElement(root, "TIME_ORDER")
    count = 0
    for tier, rows in _tiers(track).items():
        element = Xml.SubElement(root, "TIER", {"LINGUISTIC_TYPE_REF": "action", "TIER_ID": tier})
        for first, last, text in rows:
            count += 1
            slots = {}
            for reference, value in (("TIME_SLOT_REF1", first), ("TIME_SLOT_REF2", last)):
                slots[reference] = f"ts{len(times) + 1}"
                Xml.SubElement(times, "TIME_SLOT", {"TIME_SLOT_ID": slots[reference], "TIME_VALUE": str(value)})
            parent = Xml.SubElement(element, "ANNOTATION")
            annotation = Xml.SubElement(parent, "ALIGNABLE_ANNOTATION", {"ANNOTATION_ID": f"a{count}", **slots})
            Xml.SubElement(annotation, "ANNOTATION_VALUE").text = text
    Xml.SubElement(
        root,
        "LINGUISTIC_TYPE",
        {"GRAPHIC_REFERENCES": "false", "LINGUISTIC_TYPE_ID": "action", "TIME_ALIGNABLE": "true"},
    )
    Xml.indent(root)
    with atomic_write(path, "wb") as handle:
        Xml.ElementTree(root).write(handle, encoding="utf-8", xml_declaration=True)


def read_elan(source: Path, text: str, video: str) -> tuple[Track, int]:
    """The time-aligned annotations of an .eaf text as segments of one video.

    An annotation's text is the label. Where it has none, its tier's name is, without the " (2)" of `write_elan`.

    Returns:
        The track, with scores if every annotation has one behind its label, as `write_elan` puts it; and how many
        scores there are otherwise, which are not read.

    Raises:
        InputError: no such XML, or an annotation without times.
    """
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # entities can make a small file fill the memory
        raise InputError(f"{source}: has a document type, which ELAN's files have not; save it by ELAN")
    try:
        root = Xml.fromstring(text)
    except Xml.ParseError as error:
        raise InputError(f"{source}: not an ELAN file: {error}") from error
    if root.tag != "ANNOTATION_DOCUMENT":
        raise InputError(f"{source}: not an ELAN file: its first element is {root.tag!r:.60}")
    slots = {slot.get("TIME_SLOT_ID"): slot.get("TIME_VALUE") for slot in root.iter("TIME_SLOT")}
    rows: list[tuple[float, float, str, float | None]] = []
    for tier in root.iter("TIER"):
        name = tier.get("TIER_ID", "")
        label_of_tier = re.sub(r" \(\d+\)$", "", name)
        for annotation in tier.iter("ALIGNABLE_ANNOTATION"):
            where = f"{source}: tier {name!r:.80}: annotation {annotation.get('ANNOTATION_ID', '')!r:.80}"
            bounds = [slots.get(annotation.get(key)) for key in ("TIME_SLOT_REF1", "TIME_SLOT_REF2")]
            if None in bounds:
                raise InputError(f"{where}: has no times; give it times in ELAN, or delete it")
            start, end = (
                finite_seconds(finite_number(bound, where, InputError) / 1000, where, InputError) for bound in bounds
            )
            label, score = (annotation.findtext("ANNOTATION_VALUE") or "").strip() or label_of_tier, None
            if scored := re.fullmatch(rf"{re.escape(label_of_tier)} (-?\d+\.\d\d)", label):
                label, score = label_of_tier, float(scored[1])
            if not label.strip():
                raise InputError(f"{where}: has neither a text nor a tier's name, which would be its label")
            rows.append((start, end, label, score))
    return track_of_rows(video, rows)


def _tiers(track: Track) -> dict[str, list[tuple[int, int, str]]]:
    """Start, end (milliseconds) and text by tier. Annotations of one tier do not overlap: ELAN does not allow it."""
    ordered = track.by_time()
    tiers: dict[str, list[tuple[int, int, str]]] = {}
    for index, label in enumerate(ordered.labels):
        first = max(round(1000 * float(ordered.start[index])), 0)
        last = max(round(1000 * float(ordered.end[index])), first + 1)
        clean = _printable(label)
        text = clean if ordered.score is None else f"{clean} {ordered.score[index]:.2f}"
        tier, number = clean, 1
        while tiers.get(tier) and tiers[tier][-1][1] > first:
            number += 1
            tier = f"{clean} ({number})"
        tiers.setdefault(tier, []).append((first, last, text))
    return tiers


def _printable(text: str) -> str:
    """The text with a space for each character that cannot be printed: XML cannot hold control characters."""
    return "".join(character if character.isprintable() else " " for character in text)
