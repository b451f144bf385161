"""What all pictures share: figures, fonts of any script, and the ways to write them.

Matplotlib is imported inside, so that nothing else needs it (install `refineloc[plot]`).
"""

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from refineloc.runtime.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["inline_svg", "new_figure", "pictures", "save_picture"]

_DPI = 260  # of a picture in pixels: sharp on a screen with two to a point, and in print

_NO_GLYPH = re.compile(r"Glyph (\d+) .*missing from")

# Fonts with the letters that Matplotlib's own one lacks; those that are installed follow it.
_MORE_FONTS = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans JP", "Noto Sans SC", "Noto Sans KR", "Source Han Sans",
    "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "IPAGothic", "TakaoGothic", "UnBatang",
    "PingFang SC", "Hiragino Sans", "Microsoft YaHei", "MS Gothic", "Malgun Gothic", "Arial Unicode MS", "Noto Sans",
    "Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Devanagari", "Noto Sans Thai", "Noto Emoji", "Symbola",
)  # fmt: skip

# Greys of a figure, and the variables of the page's style that replace them: they differ in light and dark.
_PAGE_COLOURS = {
    "#000000": "var(--text)",
    "#4c4c4c": "var(--quiet)",
    "#666666": "var(--quiet)",
    "#e6e6e6": "var(--line)",
    "#ffffff": "var(--page)",
}

# What an element inside a page must not have: a style for the whole page, names that several figures share, and a font.
_NOT_INLINE = re.compile(
    r"<metadata>.*?</metadata>|<style.*?</style>| id=\"[\w.]+_\d+\"|font-family: [^;\"]+;? ?", re.DOTALL
)


@contextlib.contextmanager
def pictures(*, math: bool = False) -> Iterator[None]:
    """Matplotlib's settings for texts from files, of any script; around making figures and writing them.

    Args:
        math: whether "$" begins a formula; in names it does not.

    Raises:
        MissingExtraError: Matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401 (for new_figure)
        from matplotlib import font_manager, rc_context, rcParams
    except ImportError as error:
        raise MissingExtraError("pictures need Matplotlib: pip install 'refineloc[plot]'") from error
    installed = set(font_manager.get_font_names())
    families = [*rcParams["font.family"], *(name for name in _MORE_FONTS if name in installed)]
    with rc_context({"text.parse_math": math, "font.family": families}):
        yield


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure, whose parts arrange themselves; width and height in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def save_picture(figure: "Figure", target: Path | IO[str], kind: str, **options: Any) -> None:
    """Write a figure; all letters that no installed font has are one warning, not one each."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figure.savefig(target, format=kind, **options)
    missing = {glyph[1] for warning in caught if (glyph := _NO_GLYPH.match(str(warning.message)))}
    for warning in caught:
        if not _NO_GLYPH.match(str(warning.message)):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if missing:
        letters = "".join(chr(int(code)) for code in sorted(missing, key=int)[:5])
        warnings.warn(
            f"no installed font has {letters!r}{' and others' * (len(missing) > 5)}: boxes in the picture; "
            "install one that has, such as Noto Sans CJK",
            stacklevel=2,
        )


def inline_svg(figure: "Figure", salt: str) -> str:
    """A figure as an <svg> element for an HTML page that defines --text, --quiet, --line and --page.

    Texts stay texts, in the page's font, and the background is the page's. The same figure gives the same element.

    Args:
        figure: to write.
        salt: makes the identifiers inside differ from those of other figures on the page.
    """
    from matplotlib import rc_context

    written = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        save_picture(figure, written, "svg", transparent=True, metadata={"Date": None})
    text = written.getvalue()
    text = _NOT_INLINE.sub("", text[text.index("<svg") :])
    text = re.sub(r"\s*\n\s*", " ", text)
    return re.sub("|".join(_PAGE_COLOURS), lambda colour: _PAGE_COLOURS[colour[0]], text)
