"""Text inputs, as people's programs leave them: every text file that we read is read here.

Read as they are meant are byte order marks, UTF-16, separators other than commas, empty rows and columns, and blanks
that cannot be seen: spaces and tabs, no-break spaces and their like, and characters without width. What could be meant
in two ways is an error that says so.
"""

import codecs
import io
import json
import math
import os
import re
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from refineloc.runtime.addresses import as_path
from refineloc.runtime.errors import InputError, InputWarning, RefineLocError, counted
from refineloc.runtime.files import read_content
from refineloc.runtime.kinds import mistaken

__all__ = [
    "FURTHEST_S",
    "csv_header",
    "csv_rows",
    "differing",
    "finite_number",
    "finite_seconds",
    "is_text",
    "no_formula",
    "not_a_text",
    "numbered_lines",
    "parse_json",
    "plain_label",
    "plain_number",
    "read_names",
    "read_text",
    "spelling",
    "too_far",
    "trimmed",
    "write_csv_rows",
]

# Unicode's separators of words (category Zs), and what has no width; not the joiners U+200C and U+200D, which some
# scripts need.
_SPACES = " \u00a0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u202f\u205f\u3000"
_NO_WIDTH = "\u200b\u2060\ufeff"
_BLANKS = _SPACES + "\t" + _NO_WIDTH
_TO_PLAIN = dict.fromkeys(map(ord, _SPACES), " ") | dict.fromkeys(map(ord, _NO_WIDTH))
_TO_NOTHING = dict.fromkeys(map(ord, _BLANKS))
_LINE_END = re.compile("\r\n|\n|\r")  # not those of str.splitlines, which names may hold

_MARKS = (  # at the beginning of a file; UTF-32's begins as UTF-16's
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Bytes that are not ASCII, in Windows-1252: a letter alone, no-break spaces. Letters of the older Macs and of DOS are
# other bytes, and those of other scripts stand side by side.
_WINDOWS_1252 = re.compile(rb"\xa0*[\xc0-\xd6\xd8-\xf6\xf8-\xff]?\xa0*")

FURTHEST_S = 1e9  # 32 years: more is no time of a video, and counted in milliseconds or frames it could be too large

_SEPARATORS = (",", ";", "\t", "|")
_SEPARATOR_LINE = re.compile(r'"?sep=([,;\t|])"?[ \t,;]*(?:\r\n|\n|\r)', re.IGNORECASE)  # Excel's first line
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")
_TEXTS = ("video-name", "label")  # columns; those that are read beside them have numbers
# What spreadsheets run, the full-width signs in some countries; and what looks like it once it is written.
_FORMULA = re.compile(r"'*\s*[=+\-@＝＋－＠]")


def read_text(path: str | os.PathLike[str], error: type[RefineLocError], hint: str) -> str:
    """The text of a file or stream (see `read_content`), with its line ends as they are: quoted texts keep theirs.

    UTF-8, or UTF-16 and UTF-32 where the first bytes say so. Windows-1252 is read, with a warning, where no other
    encoding is likely: where each letter that is not ASCII stands alone.

    Raises:
        RefineLocError: of the type `error`: the file is missing or no text (the message ends with `hint`), cannot be
            read, or has another encoding.
    """
    source = as_path(path)
    content = read_content(path, error, hint)
    if other := mistaken(content, hint, texts=False):
        raise error(f"{source}: {other}")
    encoding = _encoding(content)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as problem:
        if encoding != "utf-8-sig":
            begun = f"begins as {encoding.upper()} and goes on otherwise"
            raise error(f"{source}: cannot be read as text: it {begun}; save it as UTF-8") from problem
        line = problem.object.count(b"\n", 0, problem.start)
        where = f"{source}: line {line + 1}"
        if not content.startswith(codecs.BOM_UTF8) and _is_windows_1252(content):
            text = content.decode("cp1252")
            shown = repr(trimmed(text.split("\n")[line].rstrip("\r")))
            read = f"read as Windows-1252: {shown:.80}; if that is wrong, save the file as UTF-8"
            warnings.warn(f"{where}: not UTF-8; {read}", InputWarning, stacklevel=3)
            return text
        raise error(
            f"{where}: cannot be read as text: not UTF-8 (byte 0x{problem.object[problem.start]:02x}); its program "
            "saved it in an encoding of its own: save it again, as UTF-8"
        ) from problem


def _encoding(content: bytes) -> str:
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return encoding
    # Without a mark: ASCII in UTF-16 is every other byte zero, and no text begins with a zero.
    if len(content) > 1 and bool(content[0]) != bool(content[1]):
        return "utf-16-le" if content[0] else "utf-16-be"
    return "utf-8-sig"


def _is_windows_1252(content: bytes) -> bool:
    return b"\0" not in content and all(map(_WINDOWS_1252.fullmatch, re.findall(rb"[\x80-\xff]+", content)))


def trimmed(text: str) -> str:
    """The text without the blanks at its ends that nobody sees (see the module's docstring)."""
    return text.strip(_BLANKS)


def plain_label(text: str) -> str:
    """A class as it was typed: trimmed, with plain spaces, and without characters that have no width."""
    return trimmed(text if text.isascii() else text.translate(_TO_PLAIN))


def spelling(text: str) -> str:
    """What two texts share that differ in case, in spaces or in Unicode's composition of letters alone."""
    return unicodedata.normalize("NFC", text.translate(_TO_NOTHING)).casefold()


def differing(text: str, other: str) -> str:
    """In what two texts of one `spelling` differ, for a message."""
    plain, other_plain = (unicodedata.normalize("NFC", each) for each in (text, other))
    if plain == other_plain:
        return "Unicode's form of letters (NFC, NFD)"
    if plain.casefold() == other_plain.casefold():
        return "case"
    same_case = plain.translate(_TO_NOTHING) == other_plain.translate(_TO_NOTHING)
    return "spaces" if same_case else "case and spaces"


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines of a text that hold anything, trimmed, with their numbers from 1."""
    for number, line in enumerate(_LINE_END.split(text), start=1):
        if line := trimmed(line):
            yield number, line


def read_names(path: str | os.PathLike[str], error: type[RefineLocError], hint: str) -> tuple[str, ...]:
    """The names in a text file, one a line, such as those of classes.

    Raises:
        RefineLocError: of the type `error`: see `read_text`; no name, or one that is there twice.
    """
    lines: dict[str, int] = {}
    for number, name in numbered_lines(read_text(path, error, hint)):
        name = plain_label(name)
        if name in lines:
            raise error(f"{path}: line {number}: {name!r} is in line {lines[name]} too; each name once")
        lines[name] = number
    if not lines:
        raise error(f"{path}: is empty; {hint}")
    return tuple(lines)


def csv_header(text: str, columns: tuple[str, ...]) -> list[str]:
    """The names of the columns of a CSV, as `csv_rows` has them; empty where the text is not a CSV."""
    import csv  # it takes time to load, and a detector reads none

    try:
        return _open_csv(text, columns)[0]
    except csv.Error:
        return []


def csv_rows(
    text: str, columns: tuple[str, ...], source: Path, error: type[InputError]
) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a CSV with a header: where each is ("FILE: line N"), and its texts by column, trimmed.

    The header shows what separates the columns: commas, semicolons, tabs or bars. In the names of columns case does not
    count, and "_" and " " are as good as "-". With semicolons, numbers may have decimal commas, as spreadsheets of many
    countries write them. Rows without any text are left out.

    Raises:
        InputError: of the type `error`: one of `columns` is missing or there twice, or a row has another length or is
            not CSV.
    """
    import csv

    rows, line = None, 0
    marked = "'" in text
    try:
        header, separator, rows, line = _open_csv(text, columns)
        if not set(columns) <= set(header):
            got = next((line for _, line in numbered_lines(text)), "an empty file")
            labels = "; labels have no scores (arguments swapped?)" if set(columns) - set(header) == {"score"} else ""
            raise error(f"{source}: expected a header with the columns {', '.join(columns)}, got {got:.200}{labels}")
        twice = [name for name in columns if header.count(name) > 1]
        if twice:
            raise error(f"{source}: the column {twice[0]!r} is there twice; give each value a row of its own")
        for row in rows:
            where = f"{source}: line {line + rows.line_num}"
            cells = [trimmed(_cell(cell)) for cell in row] if marked else [cell.strip(_BLANKS) for cell in row]
            if not any(cells):
                continue
            if len(cells) != len(header):
                if any(cells[len(header) :]) or len(cells) < len(header):
                    raise error(
                        f"{where}: expected {counted(len(header), 'column')}, got "
                        f"{len(row)}{_why(row, header, separator)}"
                    )
                del cells[len(header) :]
            values = dict(zip(header, cells, strict=True))
            if separator == ";":
                values = {
                    name: cell.replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell) and name not in _TEXTS else cell
                    for name, cell in values.items()
                }
            yield where, values
    except csv.Error as problem:
        number = line + (rows.line_num if rows is not None else 1)
        raise error(f"{source}: line {number}: not a CSV: {problem}") from problem


def _open_csv(text: str, columns: tuple[str, ...]) -> tuple[list[str], str, Any, int]:
    """Names of the columns, separator, the reader of the rows below, and how many lines stand before what it reads.

    Without the wanted columns they are those that commas make.
    """
    import csv

    stated = _SEPARATOR_LINE.match(text)
    body = text[stated.end() :] if stated else text
    opened = []
    for separator in (stated[1],) if stated else _SEPARATORS:
        # Not text.splitlines(), which splits at U+2028, form feeds and the line ends inside quotes, too.
        rows = csv.reader(io.StringIO(body, newline=""), delimiter=separator)
        header = next((row for row in rows if any(map(trimmed, row))), [])
        names = [re.sub("[ _]", "-", trimmed(name).lower()) for name in header]
        opened.append((names, separator, rows, 1 if stated else 0))
        if set(columns) <= set(names):
            return opened[-1]
    return opened[0]


def _why(row: list[str], header: list[str], separator: str) -> str:
    """Why a row may have another length than the header: other separators."""
    for other in _SEPARATORS:
        if len(row) == 1 and other != separator and row[0].count(other) == len(header) - 1:
            return f"; the header is separated by {separator!r}, this line by {other!r}"
    return ""


def parse_json(text: str, where: str, error: type[InputError], *, unique: bool = False) -> Any:
    """The value of a JSON text; what is wrong with it is an error of the type `error` that begins with `where`.

    Of a name that an object has twice, Python keeps the last value alone. With `unique` that is an error; it takes half
    as long again.
    """

    def checked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) < len(pairs):
            names = [name for name, _ in pairs]
            name = next(name for name in names if names.count(name) > 1)
            raise error(f"{where}: the key {name!r} is there twice; join the two, or leave one out")
        return value

    try:
        return json.loads(text, object_pairs_hook=checked if unique else None)
    except RefineLocError:
        raise
    except (ValueError, RecursionError) as problem:
        raise error(f"{where}: not valid JSON: {problem}") from problem


def finite_number(value: Any, where: str, error: type[InputError]) -> float:
    """A finite number, or the text of one; else an error of the type `error` that begins with `where`."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise error(f"{where}: expected a number, got {value!r:.60}") from None
    if not math.isfinite(number):
        raise error(f"{where}: expected a finite number, got {value!r}")
    return number


def finite_seconds(value: Any, where: str, error: type[InputError]) -> float:
    """A time of a video: a finite number (see `finite_number`) of at most 1e9 s, either side of 0."""
    number = finite_number(value, where, error)
    if abs(number) > FURTHEST_S:
        raise error(f"{where}: {too_far(number)}")
    return number


def plain_number(text: Any) -> float | None:
    """The number of a text, of at most 1e9 either side of 0; None of all else, whose error others make.

    Most numbers are plain. Where each is read, a message would be put together for each.
    """
    try:
        number = float(text)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if -FURTHEST_S <= number <= FURTHEST_S else None


def not_a_text(value: Any) -> str:
    """What is wrong with a JSON value in the place of a name, for a message."""
    if value is None:
        return "expected a text, got null"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f'expected a text, got the number {value!r:.40}; put it in quotes: "{value!r:.40}"'
    return f"expected a text, got {value!r:.60}"


def too_far(seconds: float) -> str:
    """What is wrong with a time that is too far from 0, for a message; "" where it is not."""
    if abs(seconds) <= FURTHEST_S:
        return ""
    return f"{seconds:g} s is no time of a video; give seconds from its start, at most 1e9"


def write_csv_rows(handle: IO[str], texts: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write rows of these texts and of numbers, so that `csv_rows` gives them back unchanged.

    A text that a spreadsheet would run as a formula gets an apostrophe before it, which says that it is text.
    Everything is quoted if a text has a carriage return: Python would not quote it, and readers take it for a line end.
    """
    import csv

    written = {text: no_formula(text) for text in texts}
    ends = any("\r" in text for text in written)
    writer = csv.writer(handle, lineterminator="\n", quoting=csv.QUOTE_ALL if ends else csv.QUOTE_MINIMAL)
    writer.writerows([written.get(cell, cell) for cell in row] for row in rows)


def no_formula(text: str) -> str:
    """A text for a cell of a table, with an apostrophe before it where a spreadsheet would run it as a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def is_text(value: str) -> bool:
    """Whether UTF-8 can encode it. Half a character (a lone surrogate), which JSON escapes can state, it cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _cell(text: str) -> str:
    """A cell without the apostrophe that `write_csv_rows` put before it."""
    return text[1:] if text[:1] == "'" and _FORMULA.match(text) else text
