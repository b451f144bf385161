"""File names and addresses of videos, for tools that open them. Annotations and detections have names only."""

from pathlib import PurePosixPath
from urllib.parse import quote

__all__ = ["MEDIA_ENDINGS", "media_address", "media_type", "video_of_file"]

# A name is a file name only if it has one of these endings: "v_1.2" is a name with a dot.
_TYPES = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/quicktime",
    ".mkv": "video/x-matroska",
    ".webm": "video/webm",
    ".ogv": "video/ogg",
    ".avi": "video/x-msvideo",
    ".mpg": "video/mpeg",
    ".mpeg": "video/mpeg",
    ".wav": "audio/x-wav",
    ".mp3": "audio/mpeg",
}

MEDIA_ENDINGS = tuple(_TYPES)
_URL = "/:?#[]@!$&'()*+,;=%~"  # characters with a meaning in an address, and % of escapes


def media_type(address: str) -> str:
    """The MIME type by the ending; video/mp4 for an unknown one."""
    return _TYPES.get(PurePosixPath(address).suffix.lower(), "video/mp4")


def video_of_file(name: str) -> str:
    """The name of the video in a media file: the file's, without the ending of a media file."""
    path = PurePosixPath(name)
    return path.stem if path.suffix.lower() in _TYPES else name


def media_address(base: str, video: str) -> str:
    """The address of a video's file: `base` ("file:///my videos/", "/data/local-files/?d=") and the file name.

    The file name is the video's, with .mp4 where that does not end as a media file's does. Characters that an address
    cannot hold are escaped; escapes in `base` stay. Without a `base` it is the file name.
    """
    name = video if PurePosixPath(video).suffix.lower() in _TYPES else f"{video}.mp4"
    return quote(base, safe=_URL) + quote(name) if base else name
