"""A video's file and address, for tools that open it: annotations and detections hold its name only."""

from pathlib import PurePosixPath
from urllib.parse import quote

__all__ = ["MEDIA_TYPES", "media_address", "media_file", "media_type"]

# By ending, which is what makes a name that of a file: "v_1.2" is a name with a dot in it.
MEDIA_TYPES = {
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

_URL = "/:?#[]@!$&'()*+,;=%~"  # characters of an address that mean something in it, or are part of an escape


def media_file(video: str) -> str:
    """The file's name: the video's, with .mp4 where it has no ending of a media file."""
    return video if PurePosixPath(video).suffix.lower() in MEDIA_TYPES else f"{video}.mp4"


def media_type(address: str) -> str:
    """The MIME type by the ending; MP4's where it says nothing."""
    return MEDIA_TYPES.get(PurePosixPath(address).suffix.lower(), "video/mp4")


def media_address(place: str, video: str) -> str:
    """The address of a video's file: `place` ("file:///my videos/", "/data/local-files/?d=") and the file's name.

    What an address cannot hold is escaped; escapes that `place` has already stay. Without a place it is the bare name.
    """
    name = media_file(video)
    return quote(place, safe=_URL) + quote(name) if place else name
