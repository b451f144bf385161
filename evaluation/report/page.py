"""The page: the template, its style and its script from beside this file, and the data, as one HTML file."""

import base64
import hashlib
import html
import json
import os
from importlib import resources
from typing import Any

from refineloc.runtime.files import atomic_write

__all__ = ["page_of", "write_report"]


def write_report(path: str | os.PathLike[str], data: dict[str, Any]) -> None:
    """Write the page that shows the data of `report_data`.

    Raises:
        OutputError: the file cannot be written.
    """
    with atomic_write(path) as handle:
        handle.write(page_of(data))


def page_of(data: dict[str, Any]) -> str:
    """The page as text.

    The data is JSON inside a <script> element that does not run; "<" is escaped in it, as "</script>" and "<!--" would
    end or change the element. The policy allows the page's own script by its hash, and no address but local media.
    """
    here = resources.files(__package__)
    template, style, script = (
        (here / name).read_text(encoding="utf-8") for name in ("page.html", "page.css", "page.js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = {
        "{{POLICY}}": f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        "{{TITLE}}": html.escape(str(data["title"])),
        "{{STYLE}}": style,
        "{{SCRIPT}}": script,
        "{{DATA}}": json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace(
            "<", "\\u003c"
        ),
    }
    # One pass over the template, so that nothing inserted is looked at again.
    page, rest = "", template
    while rest:
        before, mark, after = rest.partition("{{")
        name, _, rest = after.partition("}}") if mark else ("", "", "")
        page += before + (parts["{{" + name + "}}"] if mark else "")
    return page
