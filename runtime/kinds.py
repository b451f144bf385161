"""What a file is by its first bytes, for messages where another kind was expected: arguments are often swapped."""

import os
import re

from refineloc.runtime.addresses import as_path

__all__ = ["first_bytes", "mistaken"]

_FIRST = 512  # bytes
_SWAPPED = "arguments swapped?"
_AS_CSV = "save the table as CSV"
_TEXTS = (  # what a file is, by its first bytes, and a cure where another kind was expected
    (rb"\{\s*\"(?:version|database|taxonomy|results|external_data)\"", "a JSON of labels or detections", _SWAPPED),
    (rb"(?i)[^\n]*\bvideo[-_ ]?name\b", "a table of labels or detections", _SWAPPED),
    (rb"[\[{]", "a JSON", _SWAPPED),
    (rb"version https://git-lfs", "a pointer of Git LFS, without the file itself", "git lfs pull"),
    (rb"(?i)<!doctype html|<html", "a web page", "download the file itself"),
)
_BINARIES = (
    (rb"\x89HDF\r\n\x1a\n", "an HDF5 file, as of features", _SWAPPED),
    (rb"\x93NUMPY", "a NumPy array (.npy), as of features", _SWAPPED),
    (rb"PK\x03\x04.{26}[^\0]{0,400}?\.npy", "NumPy arrays (.npz), as of features", _SWAPPED),
    (rb"PK\x03\x04.{26}(?:\[Content_Types\]|_rels/|docProps/|xl/)", "a file of Excel or Word", _AS_CSV),
    (rb"PK\x03\x04.{26}[^\0]{0,400}?/(?:data\.pkl|\.data/|\.format)", "PyTorch's (.pt), which is not read", ""),
    (rb"PK\x03\x04", "a zip archive", "unpack it"),
    (rb"\x1f\x8b", "compressed with gzip", "unpack it"),
    (rb"\x80[\x02-\x05]", "a pickle, which is not read", ""),
    (rb"\xd0\xcf\x11\xe0", "an old file of Excel or Word", _AS_CSV),
    (rb"%PDF", "a PDF", ""),
    (rb"\0.{3}ftyp|\x1aE\xdf\xa3|RIFF.{4}AVI ", "a film", ""),
    (rb"\x08[\x01-\x20](?:\x12|:)", "an ONNX model", _SWAPPED),
    (rb".{7}\0\{\"", "the weights of a run (.safetensors)", "refineloc-export writes a model of them"),
)


def mistaken(content: bytes, expected: str, *, own: str = "", texts: bool = True) -> str:
    """What a file is that begins so, such as "is an ONNX model; give labels (arguments swapped?)".

    Args:
        content: the file's first bytes.
        expected: what to give instead.
        own: how the kind begins that was expected: such a file is damaged.
        texts: look for kinds of text, too.

    Returns:
        The end of a message; "" where nothing is known.
    """
    begin = content[:_FIRST]
    text = begin.removeprefix(b"\xef\xbb\xbf").lstrip()
    for kinds, part in ((_BINARIES, begin), (_TEXTS if texts else (), text)):
        for pattern, kind, cure in kinds:
            if re.match(pattern, part, re.DOTALL):
                return "" if own and kind.startswith(own) else f"is {kind}; {expected}{cure and f' ({cure})'}"
    return ""


def first_bytes(path: str | os.PathLike[str]) -> bytes:
    """Enough of a file to know its kind; nothing where it cannot be read."""
    try:
        with as_path(path).open("rb") as file:
            return file.read(_FIRST)
    except OSError:
        return b""
