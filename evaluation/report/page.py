"""The page: the template, its style and its script from beside this file, figures and data, as one HTML file."""

import base64
import hashlib
import html
import json
import os
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

from refineloc.evaluation.diagnosis import Diagnosis
from refineloc.evaluation.pictures.diagnosis import diagnosis_svg
from refineloc.runtime.errors import MissingExtraError
from refineloc.runtime.files import atomic_write

__all__ = ["write_report"]

# Films beside the page: of its own server, or of the disk where it is opened from there.
_MEDIA = "media-src 'self' file:"


def write_report(path: str | os.PathLike[str], data: dict[str, Any], diagnoses: Mapping[str, Diagnosis]) -> None:
    """Write the page that shows the data of `report_data` or `detections_data`, and the figures of diagnoses.

    The data is JSON inside a <script> element that does not run; "<" is escaped in it, as "</script>" and "<!--" would
    end or change the element. Figures hold numbers and our own words only. The policy allows the page's own script by
    its hash, and no address but local media.

    Args:
        path: the HTML file.
        data: of `report_data` or `detections_data`.
        diagnoses: by the name of their detections; the page has no figures without any, and says so without Matplotlib.

    Raises:
        OutputError: the file cannot be written.
    """
    here = resources.files(__package__)
    template, style, script = (
        "".join((here / name).read_text(encoding="utf-8") for name in names)
        for names in (("page.html",), ("shared.css", "page.css"), ("shared.js", "page.js"))
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    profiles, groups = _figures(diagnoses)
    parts = {
        "POLICY": f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; {_MEDIA}",
        "TITLE": html.escape(str(data["title"])),
        "STYLE": style,
        "PROFILES": profiles,
        "GROUPS": groups,
        "SCRIPT": script,
        "DATA": json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
    }
    with atomic_write(path) as handle:
        # One pass over the template, so that nothing inserted is looked at again.
        handle.write(re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], template))


def _figures(diagnoses: Mapping[str, Diagnosis]) -> tuple[str, str]:
    """The profiles of all diagnoses, and the figures by group; the first and the last, which compare best, are open."""
    try:
        drawn = {name: diagnosis_svg(diagnosis, salt=name) for name, diagnosis in diagnoses.items()}
    except MissingExtraError as error:
        return (f'<p class="quiet">{html.escape(str(error))}</p>',) * 2
    ends = {*list(drawn)[:1], *list(drawn)[-1:]}

    def entry(name: str, *figures: str) -> str:
        shown = "".join(f'<div class="scroll figure" tabindex="0">{figure}</div>' for figure in figures)
        return f"<details{' open' * (name in ends)}><summary>{html.escape(name)}</summary>{shown}</details>\n"

    profiles = "".join(entry(name, svg["false_positives"]) for name, svg in drawn.items())
    groups = "".join(entry(name, svg["sensitivity"], svg["false_negatives"]) for name, svg in drawn.items())
    return profiles, groups
