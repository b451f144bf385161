"""Clips: stretches of a film as films of their own, copied where they begin with a key frame, else encoded anew."""

import contextlib
import heapq
import itertools
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple

from refineloc.runtime.errors import OutputError, VideoError, first_line
from refineloc.runtime.files import atomic_path
from refineloc.runtime.video.decode import Film

__all__ = ["CLIP_SUFFIXES", "Clip", "cut_clip"]

_KEPT = (".mp4", ".m4v", ".mov", ".mkv", ".webm")  # formats of films whose copied clips keep theirs; others: Matroska
CLIP_SUFFIXES = (*_KEPT, ".wav")
_ENCODER = "libx264"
_QUALITY = {"crf": "20", "preset": "veryfast"}
_TICK = Fraction(1, 90_000)  # of the times in clips that are encoded anew: each frame keeps its own


class Clip(NamedTuple):
    """A clip that was written, and how."""

    path: Path
    made: Literal["copied", "re-encoded"]


def cut_clip(film: str | os.PathLike[str], start_s: float, end_s: float, stem: str | os.PathLike[str]) -> Clip:
    """Cut a stretch out of a film, with its sound.

    Where it begins with a key frame (`Film.near_s`), pictures and sound are copied as they are. Elsewhere both are
    encoded anew, as H.264 and AAC, with the frames' own times. A recording without pictures becomes a .wav file.

    Args:
        film: the film.
        start_s, end_s: of the clip; what is beyond the film's end is left out.
        stem: path of the clip without its ending, which says the format. It appears whole or not at all.

    Raises:
        VideoError: the film cannot be decoded (see `Film`), or ends before the clip begins.
        OutputError: the clip cannot be written.
        MissingExtraError: PyAV is not installed.
    """
    with Film(film) as pictures:
        if not pictures.has_pictures:
            path = Path(f"{stem}.wav")
            with atomic_path(path) as aside, _writing(path):
                _encode(None, pictures, start_s, end_s, aside)
            return Clip(path, "re-encoded")
        near_s = pictures.near_s()
        key_s = pictures.key_before(start_s + near_s)
        if key_s is not None and key_s >= start_s - near_s:
            suffix = pictures.path.suffix.lower()
            path = Path(f"{stem}{suffix if suffix in _KEPT else '.mkv'}")
            with contextlib.suppress(_CannotHoldError):
                with atomic_path(path) as aside:
                    _copy(pictures, key_s, end_s - near_s, aside)
                return Clip(path, "copied")
    path = Path(f"{stem}.mp4")
    with Film(film) as pictures, Film(film) as sound, atomic_path(path) as aside, _writing(path):
        pictures.key_before(start_s)
        _encode(pictures, sound, start_s, end_s, aside)
    return Clip(path, "re-encoded")


class _CannotHoldError(Exception):
    """A format cannot hold the streams of a film as they are."""


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """What FFmpeg says of an encoder or muxer as an error of the output; those of the system are atomic_path's."""
    import av

    try:
        yield
    except (av.error.FFmpegError, av.codec.codec.UnknownCodecError) as error:
        if isinstance(error, OSError):
            raise
        raise OutputError(f"{path}: FFmpeg cannot write it: {first_line(error)}") from error


def _copy(film: Film, key_s: float, end_s: float, aside: Path) -> None:
    """Write the packets of a stretch. Frames that are shown after it are written where others in it need them."""
    import av

    streams, packets = film.timed_packets()
    try:
        with av.open(str(aside), "w") as container:
            copies = {stream.index: container.add_stream_from_template(stream) for stream in streams}
            begins = {stream.index: round((key_s + film.began_s) / stream.time_base) for stream in streams}
            late: list[Any] = []  # packets of pictures that are shown after the stretch
            running = set(copies)
            for time, packet in packets:
                index = packet.stream_index
                ahead = 0 if packet.dts is None else float((packet.pts - packet.dts) * packet.time_base)
                if time - ahead >= end_s:  # as is all that follows
                    running.discard(index)
                    if not running:
                        break
                if index not in running or time < key_s - 1e-6:  # frames before the key frame, which need earlier ones
                    continue
                if time >= end_s:
                    late.append(packet)
                    continue
                pictures = index == streams[0].index
                for each in [*late, packet] if pictures else [packet]:
                    each.pts -= begins[index]
                    each.dts = None if each.dts is None else each.dts - begins[index]
                    each.stream = copies[index]
                    container.mux(each)
                late = [] if pictures else late
    except (av.error.FFmpegError, ValueError) as error:
        if isinstance(error, OSError):  # such as a full disk
            raise
        raise _CannotHoldError from error


def _encode(pictures: Film | None, sound: Film, start_s: float, end_s: float, aside: Path) -> None:
    import av

    frames = iter(()) if pictures is None else pictures.stretch(start_s, end_s)
    parts = _sound(sound, start_s, end_s)
    first, first_part = next(frames, None), next(parts, None)
    if first is None and (pictures is not None or first_part is None):
        raise VideoError(f"{sound.path}: ends before {start_s:.2f} s, where a clip is to begin")
    # The header is written with the first packet, so both streams are made before.
    with av.open(str(aside), "w") as container:
        video: Any = None
        audio: Any = None
        if first is not None and pictures is not None:
            video = _picture_stream(container, first[1], pictures)
        if first_part is not None:
            audio = _sound_stream(container, first_part[1], "pcm_s16le" if pictures is None else "aac")
        for time, frame in heapq.merge(_with(first, frames), _with(first_part, parts), key=lambda item: item[0]):
            if isinstance(frame, av.AudioFrame):
                container.mux(audio.encode(frame))
                continue
            picture = frame.reformat(video.width, video.height, "yuv420p")
            picture.duration = round(frame.duration * frame.time_base / _TICK)  # the last one ends, too
            picture.pts, picture.time_base, picture.pict_type = round((time - start_s) / _TICK), _TICK, 0
            container.mux(video.encode(picture))
        for stream in (video, audio):
            if stream is not None:
                container.mux(stream.encode(None))


def _picture_stream(container: Any, frame: Any, film: Film) -> Any:
    stream = container.add_stream(_ENCODER, rate=Fraction(film.info().fps).limit_denominator(1001), options=_QUALITY)
    # H.264 has even sizes.
    stream.width, stream.height = max(frame.width // 2 * 2, 2), max(frame.height // 2 * 2, 2)
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = _TICK
    stream.codec_context.sample_aspect_ratio = Fraction(film.pixel_shape()).limit_denominator(255)
    if frame.rotation:
        stream.set_display_rotation(frame.rotation)
    return stream


def _sound_stream(container: Any, part: Any, codec: str) -> Any:
    import av

    rates = av.Codec(codec, "w").audio_rates
    rate = part.sample_rate if not rates or part.sample_rate in rates else 48_000
    return container.add_stream(codec, rate=rate, layout=part.layout.name)


def _sound(film: Film, start_s: float, end_s: float) -> Iterator[tuple[float, Any]]:
    """The sound of a stretch, cut to the sample; its own times count from the stretch's start."""
    import av

    resampler = None
    for time, part in film.sound(start_s, end_s):
        rate, layout = part.sample_rate, "mono" if part.layout.nb_channels == 1 else "stereo"
        resampler = resampler or av.AudioResampler("s16", layout, rate)
        part.pts = None
        for piece in resampler.resample(part):
            samples = piece.to_ndarray().reshape(-1, piece.layout.nb_channels)
            offset = round((time - start_s) * rate)
            samples = samples[max(-offset, 0) : max(round((end_s - start_s) * rate) - offset, 0)]
            if len(samples):
                cut = av.AudioFrame.from_ndarray(samples.reshape(1, -1), "s16", layout)
                cut.sample_rate, cut.pts, cut.time_base = rate, max(offset, 0), Fraction(1, rate)
                yield max(time, start_s), cut


def _with(first: Any, others: Iterator[Any]) -> Iterator[Any]:
    return iter(()) if first is None else itertools.chain([first], others)
