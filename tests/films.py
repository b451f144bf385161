"""Films whose frames carry their number, made with PyAV."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

av = pytest.importorskip("av")

BITS = 12
BLOCK = 16


def numbered(number: int, height: int = 64, width: int = 96) -> np.ndarray:
    """A frame with its number in binary, white blocks on black, row by row; asymmetric, so that turning shows."""
    frame = np.zeros((height, width, 3), dtype=np.uint8)
    for bit in range(BITS):
        if number >> bit & 1:
            row, column = divmod(bit, 4)
            top, left = row * height // 4, column * width // 4
            frame[top : top + height // 4, left : left + width // 4] = 255
    frame[3 * height // 4 :, :, 0] = 255  # a red floor
    return frame


def number_of(frame: np.ndarray) -> int:
    height, width = frame.shape[:2]
    number = 0
    for bit in range(BITS):
        row, column = divmod(bit, 4)
        at = frame[row * height // 4 + height // 8, column * width // 4 + width // 8]
        number |= int(at.mean() > 128) << bit
    return number


def write_film(
    path: Path,
    ticks: Sequence[int],
    time_base: Fraction = Fraction(1, 1000),
    *,
    rate: Fraction | int = 25,
    codec: str = "mpeg4",
    size: tuple[int, int] = (64, 96),
    pix_fmt: str = "yuv420p",
    turned: float | None = None,
    pixel: Fraction | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    frames: Iterable[np.ndarray] | None = None,
    format: str | None = None,
) -> Path:
    """A film whose frame i is shown at ticks[i] x time_base seconds."""
    with av.open(str(path), "w", format=format, container_options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width, stream.pix_fmt = *size, pix_fmt
        stream.time_base = stream.codec_context.time_base = time_base
        if pixel is not None:
            stream.codec_context.sample_aspect_ratio = pixel
        if turned is not None:
            stream.set_display_rotation(turned)
        pictures = frames if frames is not None else (numbered(index, *size) for index in range(len(ticks)))
        for tick, picture in zip(ticks, pictures, strict=True):
            frame: Any = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = tick, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path: Path, samples: np.ndarray, rate: int, codec: str = "pcm_s16le") -> Path:
    """A file of sound alone; samples float32 [n] from -1 to 1."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray((samples * 32767).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        resampler = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=rate)
        for part in resampler.resample(frame):
            container.mux(stream.encode(part))
        container.mux(stream.encode())
    return path
