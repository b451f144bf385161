"""Clips: their frames and sound are those of the film at these times, copied or encoded anew."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

av = pytest.importorskip("av")

from films import number_of, numbered, write_film, write_sound  # noqa: E402

from refineloc.runtime.errors import OutputError, VideoError  # noqa: E402
from refineloc.runtime.video.clips import cut_clip  # noqa: E402
from refineloc.runtime.video.decode import Film  # noqa: E402

BASE = Fraction(1, 1000)


def shown(path: Path) -> tuple[list[int], np.ndarray]:
    """The numbers and the times of the frames of a film."""
    with Film(path) as film:
        frames = list(film.stretch(0.0, 1e6))
    return [number_of(frame.to_ndarray(format="rgb24")) for _, frame in frames], np.array([time for time, _ in frames])


def film(path: Path, ticks: Sequence[int] = range(0, 4000, 40), codec: str = "mpeg4", **more: object) -> Path:
    """By default of 4 s, 25 frames a second, with a key frame every 12 frames."""
    return write_film(path, ticks, BASE, codec=codec, options={"g": "12", "bf": "0"}, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["f.mp4", "f.mkv", "f.avi"])
def test_a_stretch_between_key_frames_is_encoded_anew(tmp_path: Path, name: str) -> None:
    path = film(tmp_path / name) if name != "f.avi" else write_film(tmp_path / name, range(100), Fraction(1, 25))
    clip = cut_clip(path, 1.0, 2.2, tmp_path / "clip")
    assert clip == (tmp_path / "clip.mp4", "re-encoded")
    numbers, times = shown(clip.path)
    assert numbers == list(range(25, 55))
    assert times == pytest.approx(np.arange(30) / 25, abs=1e-3)


@pytest.mark.parametrize(("name", "made"), [("f.mp4", "clip.mp4"), ("f.mkv", "clip.mkv"), ("f.ts", "clip.mkv")])
def test_a_stretch_from_a_key_frame_on_is_copied(tmp_path: Path, name: str, made: str) -> None:
    path = film(tmp_path / name, codec="mpeg4" if name != "f.ts" else "libx264")
    with Film(path) as opened:
        _, packets = opened.timed_packets()
        whole = [bytes(packet) for _, packet in packets]
    clip = cut_clip(path, 0.481, 1.201, tmp_path / "clip")  # key frames at 12 and 24
    assert clip == (tmp_path / made, "copied")
    assert shown(clip.path)[0] == list(range(12, 30))
    with Film(clip.path) as opened:
        _, packets = opened.timed_packets()
        if name != "f.ts":  # Matroska keeps H.264 in another form
            assert [bytes(packet) for _, packet in packets] == whole[12:30]


def test_a_copy_has_the_frames_that_others_in_it_need(tmp_path: Path) -> None:
    path = write_film(
        tmp_path / "f.mp4", range(0, 4000, 40), BASE, codec="libx264", options={"g": "25", "bf": "3", "b_strategy": "0"}
    )
    clip = cut_clip(path, 1.0, 2.4, tmp_path / "clip")
    assert clip.made == "copied"
    numbers, _ = shown(clip.path)
    assert numbers[:34] == list(range(25, 59))
    assert set(numbers[34:]) <= set(range(59, 63))  # shown a little longer


def test_variable_rates_and_other_starts(tmp_path: Path) -> None:
    ticks = np.array([0, 100, 1500, 1540, 1580, 2600, 2640])
    path = write_film(tmp_path / "f.mkv", (ticks + 60_000).tolist(), BASE, options={"g": "99"})
    numbers, times = shown(cut_clip(path, 1.0, 2.63, tmp_path / "clip").path)
    assert numbers[0] == 1  # begun before, and shown still
    assert numbers[1:4] == [2, 3, 4]
    assert times[:5] == pytest.approx([0.0, 0.5, 0.54, 0.58, 1.6], abs=1e-3)


@pytest.mark.parametrize("start_s", [0.0, 1.0])
def test_rotation_and_the_shape_of_pixels_stay(tmp_path: Path, start_s: float) -> None:
    path = film(tmp_path / "f.mp4", turned=90, pixel=Fraction(2, 1))
    clip = cut_clip(path, start_s, start_s + 1, tmp_path / "clip")
    assert clip.made == ("re-encoded" if start_s else "copied")
    pictures = []
    for each, at in ((path, round(start_s * 25)), (clip.path, 0)):
        with Film(each) as opened:
            pictures.append(list(opened.frames(25.0))[at].astype(int))
    assert pictures[0].shape == pictures[1].shape == (192, 64, 3)
    assert np.abs(pictures[0] - pictures[1]).mean() < 12


def test_odd_sizes_and_ten_bits(tmp_path: Path) -> None:
    path = write_film(
        tmp_path / "f.mkv",
        range(0, 2000, 40),
        BASE,
        codec="ffv1",
        size=(65, 97),
        pix_fmt="yuv422p10le",
        options={"g": "1"},
    )
    clip = cut_clip(path, 0.52, 1.5, tmp_path / "clip")
    assert clip.made == "copied"  # all frames are key frames
    path = write_film(tmp_path / "g.mkv", range(0, 2000, 40), BASE, codec="libx264", size=(65, 97), pix_fmt="yuv444p")
    clip = cut_clip(path, 0.52, 1.52, tmp_path / "clip")
    assert clip.made == "re-encoded"
    with Film(clip.path) as opened:
        assert (opened.info().width, opened.info().height) == (96, 64)
    assert shown(clip.path)[0] == list(range(13, 38))


def test_a_stream_without_an_index(tmp_path: Path) -> None:
    path = write_film(tmp_path / "f.h264", range(50), Fraction(1, 25), codec="libx264", options={"g": "10", "bf": "0"})
    clip = cut_clip(path, 1.2, 1.6, tmp_path / "clip")
    assert clip.made == "re-encoded"
    assert shown(clip.path)[0] == list(range(30, 40))


def test_what_a_format_cannot_hold_is_encoded_anew(tmp_path: Path) -> None:
    path = film(tmp_path / "f.mp4").rename(tmp_path / "f.webm")  # WebM holds no MPEG-4
    clip = cut_clip(path, 0.0, 1.0, tmp_path / "clip")
    assert clip == (tmp_path / "clip.mp4", "re-encoded")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["clip.mp4", "f.webm"]


def with_sound(path: Path, rate: int = 8000) -> Path:
    """2 s of pictures, and of silence but from 1 s to 1.5 s."""
    sound = np.zeros(2 * rate, dtype=np.float32)
    sound[rate : rate * 3 // 2] = 0.5 * np.sin(np.arange(rate // 2) * 2 * np.pi * 440 / rate)
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("mpeg4", rate=25, options={"g": "12"})
        pictures.height, pictures.width, pictures.pix_fmt = 64, 96, "yuv420p"
        audio = container.add_stream("aac", rate=rate, layout="mono")
        for number in range(50):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(pictures.encode(frame))
        part = av.AudioFrame.from_ndarray((sound * 32767).astype(np.int16)[None], format="s16", layout="mono")
        part.sample_rate, part.pts, part.time_base = rate, 0, Fraction(1, rate)
        for stream, frames in ((audio, [part, None]), (pictures, [None])):
            for each in frames:
                container.mux(stream.encode(each))
    return path


@pytest.mark.parametrize(("start_s", "made"), [(0.48, "copied"), (0.6, "re-encoded")])
def test_sound_stays_with_its_pictures(tmp_path: Path, start_s: float, made: str) -> None:
    clip = cut_clip(with_sound(tmp_path / "f.mp4"), start_s, 1.8, tmp_path / "clip")
    assert clip.made == made
    with Film(clip.path) as opened:
        sound = np.concatenate(list(opened.samples(8000)))
    loud = np.flatnonzero(np.abs(sound) > 0.1) / 8000
    # To two parts of 1,024 samples, of which AAC is made.
    assert (loud[0], loud[-1]) == pytest.approx((1.0 - start_s, 1.5 - start_s), abs=0.26)
    assert loud[-1] - loud[0] == pytest.approx(0.5, abs=0.05)


def test_recordings_are_cut_to_the_sample(tmp_path: Path) -> None:
    sound = np.random.default_rng(0).uniform(-0.9, 0.9, 40_000).astype(np.float32)
    path = write_sound(tmp_path / "s.wav", sound, 8000)
    clip = cut_clip(path, 1.2345, 3.0, tmp_path / "clip")
    assert clip == (tmp_path / "clip.wav", "re-encoded")
    with Film(clip.path) as opened:
        cut = np.concatenate(list(opened.samples(8000)))
    assert cut == pytest.approx(sound[9876:24_000], abs=1e-4)
    with pytest.raises(VideoError, match=r"ends before 7\.00 s"):
        cut_clip(path, 7.0, 8.0, tmp_path / "none")


def test_a_film_that_was_cut_short(tmp_path: Path) -> None:
    path = write_film(
        tmp_path / "f.mp4", range(0, 4000, 40), BASE, options={"g": "12"}, container_options={"movflags": "faststart"}
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    assert shown(cut_clip(path, 1.0, 1.4, tmp_path / "clip").path)[0] == list(range(25, 35))
    with pytest.raises(VideoError, match="ends before"):
        cut_clip(path, 3.5, 4.0, tmp_path / "late")


def test_what_cannot_be_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = film(tmp_path / "f.mp4")
    with pytest.raises(VideoError, match=r"f.mp4: ends before 9.00 s, where a clip is to begin"):
        cut_clip(path, 9.0, 10.0, tmp_path / "clip")
    with pytest.raises(VideoError, match="no such film"):
        cut_clip(tmp_path / "gone.mp4", 0.0, 1.0, tmp_path / "clip")
    with pytest.raises(OutputError, match="cannot be written: no such file or directory"):
        cut_clip(path, 1.0, 2.0, tmp_path / "nowhere/clip")
    monkeypatch.setattr("refineloc.runtime.video.clips._ENCODER", "libnone")
    with pytest.raises(OutputError, match=r"clip.mp4: FFmpeg cannot write it: .*libnone"):
        cut_clip(path, 1.0, 2.0, tmp_path / "clip")
    assert [each.name for each in tmp_path.iterdir()] == ["f.mp4"]
