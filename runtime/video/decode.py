"""Frames of a film at given times, whatever its own rate, gaps, rotation and damage (PyAV, the extra `video`).

Times are those of a player: 0 is where the film begins. Each wanted time gets the last frame that is shown at or before
it. So a variable rate, a gap, a start other than 0 and an odd rate need no case of their own.

The film is read as a stream, and is only decoded forwards: memory does not grow with its length.
"""

import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt

from refineloc.runtime.addresses import as_path
from refineloc.runtime.errors import ConfigError, MissingExtraError, StoreError, VideoError, first_line
from refineloc.runtime.features.checks import file_state
from refineloc.runtime.files import status_of

__all__ = ["FILM_SUFFIXES", "SOUND_SUFFIXES", "Film", "FilmInfo"]

# What a file of a film is called, for folders of films; any file that is named is tried.
FILM_SUFFIXES = (
    *(".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf"),
    *(".ogv", ".ts", ".vob", ".webm", ".wmv"),
)
SOUND_SUFFIXES = (".aac", ".aif", ".aiff", ".flac", ".m4a", ".mp3", ".oga", ".ogg", ".opus", ".wav", ".wma")

_DAMAGED_SHARE = 0.05  # of the packets: above it, too much of the film is missing
_LONG_GAP_S = 5.0  # longer ones are told of
_MOST_HOURS = 48  # a time stamp beyond is damaged; a film that long can be cut
# Formats that name other files or addresses, which a file from a stranger must not make us open, and those of still
# images. By FFmpeg's names.
_LISTS = {"hls", "concat", "dash", "sdp", "rtsp", "imf", "webvtt", "tedcaptions", "lavfi", "vapoursynth", "avisynth"}
_STILL = {"image2", "image2pipe", "ico"}
_SAFE = {"protocol_whitelist": "none"}
# Tags of encrypted streams in MP4.
_ENCRYPTED = {"encv", "enca", "drmi", "drms"}


@dataclass(frozen=True, slots=True)
class FilmInfo:
    """What a film says of itself, before anything is decoded.

    Attributes:
        fps: frames a second, on average.
        duration_s: in seconds, None where the header does not say.
        width, height: in pixels, the shape of pixels applied; before it is turned upright.
    """

    fps: float
    duration_s: float | None
    width: int
    height: int


class Film:
    """An open film::

        with Film("game.mp4") as film:
            for frame in film.frames(rate=25.0, short_side=128):
                ...
        film.duration_s, film.damaged

    One Film decodes once. Close it, or use it as a context manager.

    Args:
        path: of the film, a file on this machine.
        threads: for decoding; 0 takes what FFmpeg takes, one a core.

    Attributes:
        path: as it was given.
        began_s: what the file calls time 0.
        duration_s: in seconds: how far it was decoded so far, up to the end of the last frame.
        packets, damaged: how many packets were read, and how many of these could not be decoded, which were skipped.

    Raises:
        VideoError: it cannot be opened, or it has neither pictures nor sound.
        MissingExtraError: PyAV is not installed.
    """

    def __init__(self, path: str | os.PathLike[str], *, threads: int = 0) -> None:
        self.path = as_path(path)
        self._threads = threads
        self.duration_s = 0.0
        self.packets = 0
        self.damaged = 0
        self._gap = (0.0, 0.0)  # the longest time without a frame, and where it begins
        self._stated: float | None = None
        self._av = _load_av()
        status = status_of(self.path, VideoError)
        if status is None:
            raise VideoError(f"{self.path}: no such film")
        if not stat.S_ISREG(status.st_mode):
            raise VideoError(f"{self.path}: is a folder, pipe or device; give the file of a film")
        if not status.st_size:
            raise VideoError(f"{self.path}: is empty (0 bytes); its recording or download failed")
        self._file: IO[bytes] = self.path.open("rb")
        try:
            self._container = self._open()
        except BaseException:
            self._file.close()
            raise
        self._size = self._size_now()
        self.began_s = _seconds(self._container.start_time, Fraction(1, self._av.time_base))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._container.close()
        self._file.close()

    def info(self) -> FilmInfo:
        """What the header says.

        Raises:
            VideoError: the film has no pictures.
        """
        stream = self._video()
        width, height = _shown_size(stream)
        return FilmInfo(self._own_rate(stream), self._stated_duration(stream), width, height)

    def frames(
        self, rate: float | None = None, *, short_side: int | None = None, size: tuple[int, int] | None = None
    ) -> Iterator[npt.NDArray[np.uint8]]:
        """The frames at 0, 1 / rate, 2 / rate ... seconds, up to the film's end.

        Args:
            rate: frames a second; None takes the film's own average rate.
            short_side: pixels to which the shorter side is scaled, the shape kept. None: as it is.
            size: (height, width) to which frames are scaled instead, whatever their shape.

        Yields:
            RGB, uint8 [H, W, 3], upright; a frame that is shown at several wanted times is given as the same array.

        Raises:
            VideoError: no pictures, no frame that can be decoded, above 5 % of the packets damaged (found at the end),
                or the film was changed meanwhile.
        """
        stream = self._video()
        if rate is None:
            rate = self._own_rate(stream)
        if not 0 < rate < 1e4:
            raise ConfigError(f"rate: expected frames a second above 0 and below 10,000, got {rate:g}")
        self._stated = self._stated_duration(stream)
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = self._threads
        scale = _Scaler(self._av, stream, short_side, size)
        slack = self._slack(stream)
        index = 0
        shown: Any = None  # the frame that lasts until the next one
        picture: npt.NDArray[np.uint8] | None = None  # of it, once it was wanted
        for start, frame in self._times(stream):
            while shown is not None and index / rate + slack < start:
                picture = scale(shown) if picture is None else picture
                yield picture
                index += 1
            shown, picture = frame, None
        if shown is None:
            raise VideoError(f"{self.path}: none of its {self.packets} packets gives a frame; the film is damaged")
        while index / rate + slack < self.duration_s or index == 0:
            picture = scale(shown) if picture is None else picture
            yield picture
            index += 1
        self._check_end()

    def samples(self, rate: int) -> Iterator[npt.NDArray[np.float32]]:
        """The sound as one channel at `rate` samples a second, from time 0 on, in parts of any length.

        Where the film has no sound for a while there is silence.

        Yields:
            float32 [n], values from -1 to 1.

        Raises:
            VideoError: no sound, above 5 % of the packets damaged (found at the end), or the film was changed
                meanwhile.
        """
        if not 1 <= rate <= 768_000:
            raise ConfigError(f"rate: expected samples a second from 1 to 768,000, got {rate!r:.40}")
        if not self._container.streams.audio:
            raise VideoError(f"{self.path}: has no sound")
        stream = self._checked(self._container.streams.audio[0])
        resampler = self._av.AudioResampler(format="flt", layout="mono", rate=rate)
        given = 0  # samples so far
        shift = -self.began_s
        for part in self._decoded(stream):
            time = given / rate if part.pts is None else _seconds(part.pts, part.time_base) + shift
            if time < given / rate - 1.0:  # the clock was set anew
                shift += given / rate - time
                time = given / rate
            if time > _MOST_HOURS * 3600:
                raise self._too_late(time)
            missing = round((time - given / rate) * rate)
            if missing > rate // 10:  # what is less is rounding, or the delay of an encoder
                for begin in range(0, missing, 2**20):
                    yield np.zeros(min(missing - begin, 2**20), dtype=np.float32)
                given += missing
            part.pts = None  # times are ours; the resampler would fill gaps of its own
            for resampled in resampler.resample(part):
                array = resampled.to_ndarray().reshape(-1)
                given += len(array)
                yield array
            self.duration_s = given / rate
        for resampled in resampler.resample(None):
            array = resampled.to_ndarray().reshape(-1)
            given += len(array)
            yield array
        self.duration_s = given / rate
        if not given:
            raise VideoError(f"{self.path}: none of its {self.packets} packets gives a sound; the film is damaged")
        self._check_end()

    @property
    def has_pictures(self) -> bool:
        """Whether there is a video stream; the cover of a recording is none."""
        return any(not _is_cover(self._av, stream) for stream in self._container.streams.video)

    def pixel_shape(self) -> float:
        """Width of a pixel through its height."""
        return _pixel_shape(self._video())

    def near_s(self) -> float:
        """Seconds that are too few to matter for where a stretch begins or ends: half a frame, at most 20 ms."""
        return min(0.5 / self._own_rate(self._video()), 0.02)

    def key_before(self, time_s: float) -> float | None:
        """Go to the last key frame at or before a time, and give its time.

        Without an index, or times in the file, this is the beginning, and None.
        """
        stream = self._video()
        late = time_s + self._slack(stream)
        for earlier in (0.0, 2.0, 20.0):  # an index is of times of decoding, which are before those of showing
            if not self._seek(stream, time_s - earlier):
                break
            _, packets = self.timed_packets()
            key = next((time for time, packet in packets if packet.stream == stream and packet.is_keyframe), None)
            if key is not None and key <= late and self._seek(stream, time_s - earlier):  # again, as packets were taken
                return key
        self._container.close()
        self._file.seek(0)
        self._container = self._open()
        return None

    def stretch(self, start_s: float, end_s: float) -> Iterator[tuple[float, Any]]:
        """The frames that are shown in a stretch, to `near_s`; PyAV's, neither upright nor scaled.

        Each comes with its time; the first one may have begun before `start_s`, and gets that. Call `key_before` first.
        """
        stream = self._video()
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = self._threads
        slack = self.near_s()
        shown: Any = None  # the last frame before the stretch
        for time, frame in self._times(stream):
            if time >= end_s - slack:
                break
            if time <= start_s + slack:
                shown = frame
                continue
            if shown is not None:
                yield start_s, shown
                shown = None
            yield time, frame
        if shown is not None and self.duration_s > start_s + slack:
            yield start_s, shown

    def sound(self, start_s: float, end_s: float) -> Iterator[tuple[float, Any]]:
        """The parts of sound that overlap a stretch, each with its time; PyAV's. None where the film has no sound."""
        if not self._container.streams.audio:
            return
        stream = self._container.streams.audio[0]
        # A little earlier: decoders need some parts to begin.
        self._seek(stream, start_s - 0.2)
        for part in self._decoded(stream):
            if part.pts is None:
                continue
            time = _seconds(part.pts, part.time_base) - self.began_s
            if time >= end_s:
                break
            if time + part.samples / part.sample_rate > start_s:
                yield time, part

    def timed_packets(self) -> tuple[list[Any], Iterator[tuple[float, Any]]]:
        """Its picture stream, and its sound if it has any; and their packets from here on, each with its time."""
        streams = [self._video(), *self._container.streams.audio[:1]]

        def timed() -> Iterator[tuple[float, Any]]:
            packets = self._container.demux(streams)
            while True:
                try:
                    packet = next(packets)
                except StoreError:
                    raise
                except (StopIteration, self._av.error.FFmpegError, OSError):  # what follows cannot be found
                    return
                if packet.size and packet.pts is not None:
                    yield _seconds(packet.pts, packet.time_base) - self.began_s, packet

        return streams, timed()

    def notes(self) -> list[str]:
        """What a user should know of a film that was decoded to its end, one line each."""
        notes = []
        if self.damaged:
            notes.append(f"{self.path}: {self.damaged} of its {self.packets} packets are damaged and were skipped")
        length, begin = self._gap
        if length > _LONG_GAP_S:
            notes.append(f"{self.path}: nothing was recorded for {length:.1f} s from {begin:.1f} s on")
        if self._stated is not None and self.duration_s < (1 - _DAMAGED_SHARE) * self._stated - 1.0:
            notes.append(
                f"{self.path}: its header says {self._stated:.1f} s, and it ends at {self.duration_s:.1f} s; it may "
                "have been cut short by a copy or download"
            )
        return notes

    def _seek(self, stream: Any, time_s: float) -> bool:
        ticks = math.floor((max(time_s, 0.0) + self.began_s) / (stream.time_base or Fraction(1)))
        try:
            self._container.seek(ticks, stream=stream)
        except StoreError:
            raise
        except (self._av.error.FFmpegError, OSError):  # such as raw streams
            return False
        return True

    def _slack(self, stream: Any) -> float:
        """Times in files are rounded to ticks, to milliseconds in Matroska: half a tick late is in time."""
        return float(stream.time_base or 0) / 2 + 1e-6

    def _times(self, stream: Any) -> Iterator[tuple[float, Any]]:
        """The frames in the order in which they are shown, each with its time, which never falls."""
        step = 1.0 / self._own_rate(stream)
        last, shift = -math.inf, -self.began_s
        for frame in self._decoded(stream):
            # Raw streams and some AVI files have no times: frames follow at the film's rate.
            time = _seconds(frame.pts, frame.time_base) + shift if frame.pts is not None else max(last + step, 0.0)
            if time < last - 1.0:  # the clock was set anew, as where two recordings were joined
                shift += last + step - time
                time = last + step
            if last >= 0:
                self._gap = max(self._gap, (time - last, last))
            last = max(time, last)
            if last > _MOST_HOURS * 3600:
                raise self._too_late(last)
            lasts = float(frame.duration * frame.time_base) if frame.duration else step
            # A wrong duration of the last frame would repeat it for ever.
            self.duration_s = max(self.duration_s, last + (lasts if lasts < 10 * step + 1.0 else step))
            yield last, frame

    def _decoded(self, stream: Any) -> Iterator[Any]:
        """Frames, or parts of sound; what cannot be decoded is counted and skipped."""
        packets = self._container.demux(stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except StoreError:
                raise
            except (self._av.error.FFmpegError, OSError):  # what follows in the file cannot be found
                self.damaged += 1
                return
            if packet.size:
                self.packets += 1
            try:
                frames = packet.decode()
            except self._av.error.FFmpegError:
                self.damaged += 1
                continue
            damaged = False
            for frame in frames:
                damaged |= bool(getattr(frame, "is_corrupt", False))
                yield frame
            self.damaged += damaged

    def _too_late(self, time: float) -> VideoError:
        return VideoError(
            f"{self.path}: something is shown at {time / 3600:,.0f} hours; its times are damaged, or it is to be cut "
            f"into parts of at most {_MOST_HOURS} hours"
        )

    def _check_end(self) -> None:
        if self._size_now() != self._size:
            raise VideoError(f"{self.path}: was changed while it was read; is it still being written? Start again then")
        # One packet is lost at every cut; a share says something of long films only.
        if self.damaged > max(1, _DAMAGED_SHARE * self.packets):
            raise VideoError(
                f"{self.path}: {self.damaged} of its {self.packets} packets are damaged, above {_DAMAGED_SHARE:.0%}; "
                "times of what was found would be of little use: get the film again, or repair it (ffmpeg -i IN OUT)"
            )

    def _size_now(self) -> int:
        return file_state(self._file)[0]

    def _open(self) -> Any:
        try:
            # A file object: FFmpeg itself opens nothing, and a list inside cannot name other files or addresses.
            container = self._av.open(
                self._file, buffer_size=2**18, io_open=_refused, metadata_errors="replace", options=_SAFE
            )
        except StoreError:
            raise
        except (self._av.error.FFmpegError, ValueError, OSError) as error:
            why = getattr(error, "strerror", None) or first_line(error)  # without its number, and the path once more
            raise VideoError(
                f"{self.path}: not a film that FFmpeg reads, cut short, or still being written: {why}"
            ) from error
        names = set(container.format.name.split(","))
        problem = None
        if names & _LISTS:
            problem = f"a list that names other files ({container.format.name}); give the films themselves"
        elif names & _STILL or all(name.endswith("_pipe") for name in names):
            problem = "a still image; give a film"
        if problem is not None:
            container.close()
            raise VideoError(f"{self.path}: is {problem}")
        return container

    def _video(self) -> Any:
        # Covers of albums are streams of one picture.
        streams = [stream for stream in self._container.streams.video if not _is_cover(self._av, stream)]
        if not streams:
            sound = " (sound alone)" if self._container.streams.audio else ""
            raise VideoError(f"{self.path}: has no video stream{sound}")
        return self._checked(max(streams, key=lambda stream: (stream.width or 0) * (stream.height or 0)))

    def _checked(self, stream: Any) -> Any:
        context = stream.codec_context
        if context is None:
            raise VideoError(f"{self.path}: FFmpeg has no decoder for its {stream.type} stream")
        if str(getattr(context, "codec_tag", "")).lower() in _ENCRYPTED:
            raise VideoError(f"{self.path}: is encrypted; refineloc has no key")
        return stream

    def _own_rate(self, stream: Any) -> float:
        for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
            if rate and 0.1 <= rate <= 1000:
                return float(rate)
        return 25.0  # of a stream that states none, such as raw video: what FFmpeg assumes

    def _stated_duration(self, stream: Any) -> float | None:
        if stream.duration:
            return _seconds(stream.duration, stream.time_base)
        if self._container.duration:
            return _seconds(self._container.duration, Fraction(1, self._av.time_base))
        return None


class _Scaler:
    """Makes a frame upright RGB of the wanted size."""

    def __init__(self, av: Any, stream: Any, short_side: int | None, size: tuple[int, int] | None) -> None:
        self._reformatter = av.video.reformatter.VideoReformatter()
        self._pixel = _pixel_shape(stream)
        self._short_side, self._size = short_side, size  # height and width of what is shown

    def __call__(self, frame: Any) -> npt.NDArray[np.uint8]:
        turns = round(frame.rotation / 90) % 4  # quarter turns to the left that make it upright
        if self._size is None:  # of the first frame; where the size changes later, as in calls, all have this one
            self._size = self._scaled(frame, turns)
        height, width = self._size if turns % 2 == 0 else self._size[::-1]
        scaled = self._reformatter.reformat(frame, width, height, "rgb24", interpolation="AREA", threads=1)
        picture: npt.NDArray[np.uint8] = np.ascontiguousarray(np.rot90(scaled.to_ndarray(), turns))
        return picture

    def _scaled(self, frame: Any, turns: int) -> tuple[int, int]:
        height, width = frame.height, frame.width * self._pixel
        if turns % 2:
            height, width = width, height
        factor = 1.0 if self._short_side is None else self._short_side / min(height, width)
        return max(round(height * factor), 1), max(round(width * factor), 1)


def _shown_size(stream: Any) -> tuple[int, int]:
    """Width and height of the shown picture."""
    # Rotation is known with the first frame only, so both are those of the stream.
    return round(stream.width * _pixel_shape(stream)), stream.height


def _pixel_shape(stream: Any) -> float:
    """Width of a pixel through its height; 1 where it is not stated, or not believable."""
    shape = float(stream.sample_aspect_ratio or 1)
    return shape if 0.1 <= shape <= 10 else 1.0


def _is_cover(av: Any, stream: Any) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _seconds(ticks: int | None, base: Fraction | None) -> float:
    return float(ticks * base) if ticks is not None and base is not None else 0.0


def _refused(url: str, *_: object) -> Any:
    raise VideoError(f"it names another file or address ({url!r:.80}), which is not opened")


def _load_av() -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("films need PyAV: pip install 'refineloc[video]'") from error
    # PyAV drops what FFmpeg logs; what fails is raised. No level is set: FFmpeg's threads would call into Python, and a
    # film that is closed in the middle could wait for them for ever (PyAV issue 751).
    return av
