"""What a file is by its first bytes, for messages where another kind was expected: arguments are often swapped."""

import os
import re
from pathlib import Path

__all__ = ["FILMS", "kind_of_bytes", "kind_of_file"]

FILMS = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".ogv", ".3gp")

_FIRST = 512  # bytes
_KINDS = (
    (rb"\x89HDF\r\n\x1a\n", "an HDF5 file, as of features"),
    (rb"\x93NUMPY", "a NumPy array (.npy), as of features"),
    (rb"PK\x03\x04", "a zip archive, as .npz, .xlsx and .pt are"),
    (rb"\x1f\x8b", "compressed with gzip"),
    (rb"\x80[\x02-\x05]", "a pickle, which is not read"),
    (rb"\xd0\xcf\x11\xe0", "an old Excel or Word file"),
    (rb"%PDF", "a PDF"),
    (rb"(?s).{4}ftyp|\x1aE\xdf\xa3|RIFF.{4}AVI ", "a film"),
    (rb"\x08[\x01-\x20](?:\x12|:)", "an ONNX model"),
    (rb"\s*(?:\xef\xbb\xbf)?\s*\{\s*\"(?:version|database|taxonomy)\"", "a JSON of labels or detections"),
    (rb"(?i)(?:\xef\xbb\xbf)?[^\n]*\bvideo[-_ ]?name\b", "a table of labels or detections"),
    (rb"(?:\xef\xbb\xbf)?\s*[\[{]", "a JSON"),
)


def kind_of_bytes(content: bytes) -> str:
    """What a file is that begins so, such as "an HDF5 file, as of features"; "" where that is not known."""
    return next((kind for pattern, kind in _KINDS if re.match(pattern, content[:_FIRST])), "")


def kind_of_file(path: str | os.PathLike[str]) -> str:
    """What a file is, by its first bytes and by the ending of a film; "" where that is not known."""
    source = Path(path)
    if source.suffix.lower() in FILMS:
        return "a film"
    try:
        with source.open("rb") as file:
            return kind_of_bytes(file.read(_FIRST))
    except OSError:
        return ""
