from fractions import Fraction

import numpy as np
import pytest

av = pytest.importorskip("av")

from films import number_of, numbered, write_film, write_sound  # noqa: E402
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from refineloc.runtime.errors import VideoError  # noqa: E402
from refineloc.runtime.video.decode import Film  # noqa: E402


def numbers(path, rate=None, **options):
    with Film(path) as film:
        return [number_of(frame) for frame in film.frames(rate, **options)]


def expected(seconds, rate, duration):
    """By its definition: at each time the last frame at or before it, the first one before that."""
    count = max(int(np.ceil(duration * rate - 5.01e-4 * rate)), 1)
    return [max(np.searchsorted(seconds, k / rate + 5.01e-4, side="right") - 1, 0) for k in range(count)]


@pytest.mark.parametrize("rate", [25.0, 10.0, 12.5, 30.0, 60.0, 7.3])
def test_a_constant_film_at_any_rate(tmp_path, rate):
    film = write_film(tmp_path / "film.mp4", range(50), Fraction(1, 25))
    assert numbers(film, rate) == expected(np.arange(50) / 25, rate, 2.0)


@pytest.mark.parametrize(("name", "base"), [("a.mkv", Fraction(1, 1000)), ("a.mp4", Fraction(1, 30000))])
def test_at_its_own_odd_rate_every_frame_comes_once(tmp_path, name, base):
    rate = Fraction(30000, 1001)
    ticks = [round(index / rate / base) for index in range(90)]  # in Matroska rounded to milliseconds
    film = write_film(tmp_path / name, ticks, base, rate=rate)
    assert numbers(film, float(rate)) == list(range(90))
    assert numbers(film)[:80] == list(range(80))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    gaps=st.lists(st.integers(1, 900), min_size=1, max_size=40),
    start=st.sampled_from([0, 1400, 60_000]),
    rate=st.sampled_from([5.0, 12.5, 25.0]),
)
def test_variable_rates_gaps_and_starts(tmp_path, gaps, start, rate):
    ticks = np.concatenate([[0], np.cumsum(gaps)])
    film = write_film(tmp_path / "film.mkv", (ticks + start).tolist(), codec="ffv1")
    with Film(film) as opened:
        got = [number_of(frame) for frame in opened.frames(rate)]
        duration = opened.duration_s
    assert duration >= ticks[-1] / 1000
    assert got == expected(ticks / 1000, rate, duration)


@pytest.mark.parametrize("turned", [90, 180, 270, -90])
def test_rotation_is_applied(tmp_path, turned):
    film = write_film(tmp_path / "film.mp4", range(5), Fraction(1, 25), turned=turned)
    with Film(film) as opened:
        (frame, *_) = opened.frames()
    floor = numbered(0)
    upright = np.rot90(floor, turned // 90 % 4)
    assert frame.shape == upright.shape
    assert np.abs(frame.astype(int) - upright).mean() < 12


def test_pixels_that_are_not_square(tmp_path):
    film = write_film(tmp_path / "film.mp4", range(3), Fraction(1, 25), pixel=Fraction(2, 1))
    with Film(film) as opened:
        assert (opened.info().width, opened.info().height) == (192, 64)
        assert [frame.shape for frame in opened.frames(short_side=32)] == [(32, 96, 3)] * 3


@pytest.mark.parametrize("size", [(50, 66), (2, 2), (240, 426)])
def test_sizes(tmp_path, size):
    film = write_film(tmp_path / "film.mp4", range(3), Fraction(1, 25), size=size)
    with Film(film) as opened:
        assert next(opened.frames(short_side=24)).shape[:2] == (24, round(24 * size[1] / size[0]))
    with Film(film) as opened:
        assert next(opened.frames(size=(30, 20))).shape == (30, 20, 3)


def test_ten_bits_a_colour(tmp_path):
    film = write_film(tmp_path / "film.mkv", range(8), Fraction(1, 25), codec="ffv1", pix_fmt="yuv420p10le")
    assert numbers(film, 25.0) == list(range(8))


def test_no_duration_in_the_header(tmp_path):
    film = write_film(tmp_path / "film.ts", range(20), Fraction(1, 25), codec="mpeg2video", format="mpegts")
    with Film(film) as opened:
        assert [number_of(frame) for frame in opened.frames(25.0)] == list(range(20))


def test_a_raw_stream_without_times(tmp_path):
    film = write_film(tmp_path / "film.m4v", range(20), Fraction(1, 25), format="m4v")
    assert numbers(film, 25.0) == list(range(20))


def test_two_recordings_joined_begin_where_the_first_ends(tmp_path):
    parts = []
    for part in range(2):
        frames = [numbered(20 * part + index) for index in range(20)]
        path = write_film(
            tmp_path / f"{part}.ts",
            range(20),
            Fraction(1, 10),
            rate=10,
            codec="mpeg2video",
            format="mpegts",
            frames=frames,
        )
        parts.append(path.read_bytes())
    (tmp_path / "joined.ts").write_bytes(b"".join(parts))
    got = numbers(tmp_path / "joined.ts", 10.0)
    assert got == sorted(got)
    assert set(got) == set(range(40))


def test_the_frames_of_a_gap_are_one_array(tmp_path):
    film = write_film(tmp_path / "film.mkv", [0, 10_000])
    with Film(film) as opened:
        frames = list(opened.frames(25.0))
    assert len({id(frame) for frame in frames}) == 2
    assert len(frames) == 251


def refusal(path):
    with pytest.raises(VideoError) as error, Film(path) as film:
        list(film.frames(25.0))
    text = str(error.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    return text


def test_what_is_no_film(tmp_path):
    (tmp_path / "empty.mp4").touch()
    assert "0 bytes" in refusal(tmp_path / "empty.mp4")
    assert "no such film" in refusal(tmp_path / "none.mp4")
    assert "folder" in refusal(tmp_path)
    (tmp_path / "text.mp4").write_text("hello " * 100)
    refused = refusal(tmp_path / "text.mp4")
    assert "not a film" in refused
    assert "Errno" not in refused
    assert refused.count("text.mp4") == 1
    sound = write_sound(tmp_path / "sound.wav", np.zeros(8000, np.float32), 8000)
    assert "no video stream (sound alone)" in refusal(sound)


def test_still_images(tmp_path):
    for codec, suffix in (("png", "png"), ("mjpeg", "jpg")):
        path = tmp_path / f"picture.{suffix}"
        pixels = "rgb24" if codec == "png" else "yuvj420p"
        write_film(path, [0], Fraction(1, 25), codec=codec, pix_fmt=pixels, format="image2")
        assert "still image" in refusal(path)


def test_lists_that_name_other_files_are_not_followed(tmp_path):
    secret = write_film(tmp_path / "secret.ts", range(20), Fraction(1, 25), codec="mpeg2video", format="mpegts")
    hls = f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.0,\n{secret}\n#EXT-X-ENDLIST\n"
    for name, text in (
        ("a.m3u8", hls),
        ("a.mp4", hls),
        ("b.mp4", f"ffconcat version 1.0\nfile '{secret}'\n"),
        ("c.mp4", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"),
    ):
        (tmp_path / name).write_text(text)
        refusal(tmp_path / name)


def test_a_file_cut_short(tmp_path):
    film = write_film(tmp_path / "film.mp4", range(100), Fraction(1, 25))
    content = film.read_bytes()
    film.write_bytes(content[: len(content) // 2])  # its index, at the end, is missing
    assert "cut short, or still being written" in refusal(film)
    # Matroska can be read up to the cut.
    film = write_film(tmp_path / "film.mkv", range(0, 4000, 40))
    content = film.read_bytes()
    film.write_bytes(content[: len(content) // 2])
    got = numbers(film, 25.0)
    assert got == list(range(len(got)))
    assert 20 < len(got) < 80


def test_a_film_that_grows_meanwhile(tmp_path):
    film = write_film(tmp_path / "film.mkv", range(0, 4000, 40))
    with Film(film) as opened:
        frames = opened.frames(25.0)
        next(frames)
        with open(film, "ab") as more:
            more.write(bytes(1000))
        with pytest.raises(VideoError, match="still being written"):
            list(frames)


def damage(content, starts):
    for start in starts:
        end = content.index(b"\xff\xd9", start)
        content[start:end] = bytes(end - start)


def test_damaged_packets_are_skipped_and_counted(tmp_path):
    film = write_film(
        tmp_path / "film.mkv", range(0, 8000, 20), rate=50, codec="mjpeg", pix_fmt="yuvj420p"
    )  # each by itself
    content = bytearray(film.read_bytes())
    starts = [at for at in range(len(content) - 1) if content[at : at + 3] == b"\xff\xd8\xff"]
    damage(content, starts[20:40:10])
    film.write_bytes(content)
    with Film(film) as opened:
        got = [number_of(frame) for frame in opened.frames(50.0)]
        assert opened.damaged == 2
        assert "2 of its 400 packets are damaged" in opened.notes()[0]
    assert len(got) == 400
    assert sum(a != b for a, b in zip(got, range(400), strict=True)) == 2  # there the frame before is shown
    damage(content, starts[45::10])
    film.write_bytes(content)
    assert "packets are damaged, above 5%" in refusal(film)


def test_gaps_and_an_early_end_are_told(tmp_path):
    film = write_film(tmp_path / "gap.mkv", [0, 40, 80, 20_000, 20_040], codec="ffv1")
    with Film(film) as opened:
        list(opened.frames(5.0))
        assert opened.notes() == [f"{film}: nothing was recorded for 19.9 s from 0.1 s on"]
    film = write_film(tmp_path / "cut.mkv", range(0, 40_000, 40), codec="ffv1")
    content = film.read_bytes()
    film.write_bytes(content[: len(content) // 2])
    with Film(film) as opened:
        list(opened.frames(5.0))
        assert "its header says 40.0 s, and it ends at 20." in opened.notes()[0]


def test_encrypted(tmp_path):
    film = write_film(
        tmp_path / "film.mp4",
        range(30),
        Fraction(1, 25),
        codec="libx264",
        container_options={
            "encryption_scheme": "cenc-aes-ctr",
            "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb",
            "encryption_kid": "a7e61c373e219033c21091fa607bf3b8",
        },
    )
    assert "encrypted" in refusal(film)


def test_a_time_far_away_ends_soon(tmp_path):
    film = write_film(tmp_path / "film.mkv", [0, 40, 400 * 3600 * 1000], codec="ffv1")
    assert "at 400 hours" in refusal(film)


@pytest.mark.parametrize("name", ["a b.mp4", "it's.mp4", 'say "x".mp4', "фильм.mp4", "映画.mp4", "-o.mp4", "%03d.mp4"])
def test_names(tmp_path, name):
    film = write_film(tmp_path / name, range(3), Fraction(1, 25), format="mp4")
    assert numbers(film) == [0, 1, 2]


def test_sound_at_another_rate(tmp_path):
    tone = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000).astype(np.float32) * 0.5
    path = write_sound(tmp_path / "sound.wav", tone, 16_000)
    with Film(path) as film:
        same = np.concatenate(list(film.samples(16_000)))
    assert same.dtype == np.float32
    assert np.abs(same - tone).max() < 1e-3
    with Film(path) as film:
        half = np.concatenate(list(film.samples(8_000)))
        assert film.duration_s == pytest.approx(1.0, abs=0.01)
    assert len(half) == pytest.approx(8_000, abs=40)
    assert np.abs(half[1000:7000] - tone[::2][1000:7000]).max() < 0.02


def test_no_sound(tmp_path):
    film = write_film(tmp_path / "film.mp4", range(3), Fraction(1, 25))
    with pytest.raises(VideoError, match="has no sound"), Film(film) as opened:
        list(opened.samples(16_000))


def test_ffmpeg_never_calls_into_python(tmp_path):
    with Film(write_film(tmp_path / "film.mp4", range(5), Fraction(1, 25))):
        assert av.logging.get_level() is None  # with a level, closing a film in the middle can hang
