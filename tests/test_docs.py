"""Links and paths in texts that `make docs` does not read: README, other Markdown files, and the code.

The pages of docs/ are checked by Sphinx.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXTS = [*ROOT.glob("*.md"), *(ROOT / ".github").rglob("*.md"), *(ROOT / "examples").glob("*/*.md")]
CODE = [
    path
    for folder in ("_ext", "runtime", "evaluation", "training", "export", "examples", "benchmarks", "tests")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".pyx", ".pyi", ".mjs", ".js", ".cpp", ".hpp", ".md") and "node_modules" not in path.parts
]
LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")


def headings(path: Path) -> set[str]:
    """The anchors that the hosting site gives to a page's headings."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ +(.*?) *$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_what_is_there(path: Path) -> None:
    for link in LINK.findall(path.read_text(encoding="utf-8")):
        if re.match(r"\w+:", link):
            continue
        target, _, anchor = link.partition("#")
        page = path.parent / target if target else path
        assert page.exists(), link
        assert not anchor or anchor in headings(page), link


def test_links_to_other_sites_have_the_form_of_one() -> None:
    """They cannot be followed here."""
    links = [
        link for path in [*TEXTS, *(ROOT / "docs").rglob("*.md")] for link in LINK.findall(path.read_text("utf-8"))
    ]
    outside = [link for link in links if re.match(r"\w+:", link)]
    assert outside
    assert [link for link in outside if not re.fullmatch(r"https://[\w.-]+(:\d+)?(/[\w./#?=&%~+@:-]*)?", link)] == []


def test_pages_that_code_names_are_there() -> None:
    name = re.compile(r"docs/[\w/-]+\.md")
    named = [(path, page) for path in CODE for page in name.findall(path.read_text(encoding="utf-8"))]
    assert len(named) > 20
    assert [(str(path), page) for path, page in named if not (ROOT / page).is_file()] == []
