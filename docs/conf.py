"""The documentation site: `make docs` builds it into build/docs, which opens offline.

The pages are plain Markdown that the hosting site shows too, so their links lead to files of the repository. Here they
become links of the site (`site_links`), and a link to nothing is an error.
"""

import importlib
import posixpath
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy.typing
from docutils.nodes import Node, Text
from sphinx.application import Sphinx
from sphinx.util.typing import stringify_annotation

sys.path.insert(0, str(Path(__file__).parent))
import generate

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCE = PROJECT["urls"]["Source"]

# Files outside docs/ that are pages of the site. The file docs/PAGE.md only links to it, for the hosting site.
PAGES = {
    "reference/results": "benchmarks/RESULTS.md",
    "reference/studies": "benchmarks/STUDIES.md",
    "reference/changelog": "CHANGELOG.md",
    "contributing": "CONTRIBUTING.md",
}

project = "refineloc"
author = "the refineloc authors"
copyright = "the refineloc authors, MIT licence"
version = release = re.search(r'__version__ = "(.*)"', (ROOT / "refineloc/__init__.py").read_text()).group(1)

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_static"]
nitpicky = True
# Names of other projects: their inventories are not fetched, so that the site builds without a network.
nitpick_ignore_regex = [("py:.*", r"(?!refineloc\b).*")]
suppress_warnings = ["ref.python"]  # fields of one name in several classes
smartquotes = False  # options begin with two hyphens
highlight_language = "text"  # of indented blocks

myst_heading_anchors = 4

copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True

autodoc_member_order = "bysource"
maximum_signature_line_length = 100
autodoc_typehints = "signature"
napoleon_use_ivar = True  # dataclasses show their fields once
napoleon_attr_annotations = False  # their texts have dtypes and shapes
default_role = "code"  # docstrings have Markdown's single backticks

html_theme = "furo"
html_title = f"refineloc {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b6b61", "color-brand-content": "#0b6b61"},
    "dark_css_variables": {"color-brand-primary": "#58c7b8", "color-brand-content": "#58c7b8"},
}

LINK = re.compile(r"(?<=\]\()(?!\w+:|#|<)([^)\s#]+)(#[^)\s]*)?(?=\))")


def site_links(text: str, folder: str, page: str) -> str:
    """Links between files of the repository as links between pages of the site.

    Files that are no pages are copied into the site; folders, and pages of examples, are links to the repository.

    Args:
        folder: that the links are relative to, in the repository.
        page: the page that has them, such as how-to/scale.
    """
    pages = {file: name for name, file in PAGES.items()}
    here = posixpath.dirname(page) or "."

    def link(match: re.Match[str]) -> str:
        target, anchor = posixpath.normpath(posixpath.join(folder, match[1])), match[2] or ""
        if target in pages:
            return posixpath.relpath(pages[target], here) + ".md" + anchor
        if target.startswith("docs/"):
            return posixpath.relpath(target, f"docs/{here}") + anchor
        if (ROOT / target).is_dir():
            return f"{SOURCE}/tree/main/{target}"
        if (ROOT / target).is_file() and target.endswith(".md"):
            return f"{SOURCE}/blob/main/{target}{anchor}"
        if (ROOT / target).is_file():
            return "path:" + posixpath.relpath(target, f"docs/{here}")
        return match[0]  # Sphinx says that it is missing

    return LINK.sub(link, text)


def read_page(app: Sphinx, page: str, text: list[str]) -> None:
    """Before Sphinx reads a page."""
    if generate.MARK.search(text[0]):
        app.env.note_reread()  # the code may have changed
        text[0] = generate.insert(text[0])
    if page in PAGES:
        app.env.note_dependency(str(ROOT / PAGES[page]))
        text[0] = (ROOT / PAGES[page]).read_text(encoding="utf-8")
        text[0] = site_links(text[0], posixpath.dirname(PAGES[page]) or ".", page)
    else:
        text[0] = site_links(text[0], posixpath.join("docs", posixpath.dirname(page)), page)


# The packages of the reference, in the order of what they need.
PACKAGES = ("runtime", "evaluation", "training", "export")


def public_name(app: Sphinx, env: Any, node: Any, content: Node) -> Node | None:
    """A type in a signature has the name of its module: link it to where its package shows it."""
    if node.get("refdomain") != "py" or not node["reftarget"].startswith("refineloc."):
        return None
    name = node["reftarget"].rpartition(".")[2]
    for package in PACKAGES:
        if name in importlib.import_module(f"refineloc.{package}").__all__:
            target = f"refineloc.{package}.{name}"
            found = env.get_domain("py").resolve_xref(env, node["refdoc"], app.builder, "obj", target, node, content)
            if found is not None:
                return found
    return content  # a name that is not public, such as that of a union of types


def read_docstring(_app: Sphinx, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Pages that a docstring names become links."""
    lines[:] = [re.sub(r"docs/([\w/-]+)\.md", r":doc:`/\1`", line) for line in lines]


ARRAY = re.compile(r"~numpy\.ndarray\[tuple\[~typing\.Any, \.\.\.\], ~numpy\.dtype\[(.*?)\]\]")


def array_names(text: str | None) -> str | None:
    """The names of array types, which autodoc spells out."""
    if text is None:
        return None
    for name in ("ArrayLike", "DTypeLike"):
        text = text.replace(stringify_annotation(getattr(numpy.typing, name), "smart"), f"~numpy.typing.{name}")
    return ARRAY.sub(r"~numpy.typing.NDArray[\1]", text.replace("<factory>", "..."))


def read_signature(*event: Any) -> tuple[str | None, str | None]:
    signature, returns = event[-2:]
    return array_names(signature), array_names(returns)


def dashes(_app: Sphinx, document: Any) -> None:
    """Between a parameter and its meaning; `smartquotes` would make dashes of options as well."""
    for text in [text for text in document.findall(Text) if text == " -- "]:
        text.parent.replace(text, Text(" – "))


def setup(app: Sphinx) -> None:
    app.connect("doctree-read", dashes)
    app.connect("autodoc-process-signature", read_signature)
    app.connect("autodoc-process-docstring", read_docstring)
    app.connect("source-read", read_page)
    app.connect("missing-reference", public_name)
