import threading
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("av")

from films import write_film, write_sound
from small_backbone import write_backbone

from refineloc.runtime.errors import VideoError
from refineloc.runtime.video.backbone import Backbone
from refineloc.runtime.video.features import film_features


def coloured(values, size=(48, 64)):
    return [np.full((*size, 3), value, dtype=np.uint8) for value in values]


def test_rows_are_the_snippets_of_the_grid(tmp_path):
    levels = np.repeat(np.arange(0, 250, 10), 4)  # 100 frames at 25 a second: 4 s
    film = write_film(tmp_path / "film.mkv", range(0, 4000, 40), codec="ffv1", frames=coloured(levels), size=(48, 64))
    backbone = Backbone(write_backbone(tmp_path / "b.onnx"), provider="cpu")
    heard = []
    got = film_features(film, backbone, progress=heard.append)
    times = np.arange(40) / 10  # at 10 frames a second, 5 a snippet
    expected = levels[np.floor(times * 25 + 1e-6).astype(int)].reshape(8, 5).mean(axis=1) / 255
    np.testing.assert_allclose(got.features, np.repeat(expected[:, None], 3, axis=1), atol=0.01)
    assert (got.grid.fps, got.grid.snippet_frames, got.grid.stride_frames) == (10.0, 5, 5)
    assert got.grid.duration_s == pytest.approx(4.0)
    assert got.backbone == backbone.metadata.identity
    assert got.notes == ()
    assert heard
    assert heard == sorted(heard)


def test_the_rate_of_the_film_where_the_backbone_has_none(tmp_path):
    film = write_film(tmp_path / "film.mp4", range(24), Fraction(1, 12), rate=12, frames=coloured([50] * 24))
    backbone = Backbone(write_backbone(tmp_path / "b.onnx", fps=0.0, snippet_frames=6, stride_frames=3), provider="cpu")
    got = film_features(film, backbone)
    assert got.grid.fps == 12
    assert len(got.features) == 7


def test_sound(tmp_path):
    samples = np.repeat(np.float32([0.1, 0.5, -0.25]), 8000)
    sound = write_sound(tmp_path / "sound.wav", samples, 8000)
    path = write_backbone(
        tmp_path / "b.onnx", kind="audio", fps=8000.0, snippet_frames=4000, stride_frames=4000, size=()
    )
    got = film_features(sound, Backbone(path, provider="cpu"))
    np.testing.assert_allclose(got.features[:, 0], np.repeat([0.1, 0.5, -0.25], 2), atol=1e-3)
    assert got.grid.duration_s == pytest.approx(3.0)


def test_errors_come_through_and_threads_end(tmp_path):
    film = write_film(
        tmp_path / "film.mkv", range(0, 40_000, 40), codec="ffv1", frames=coloured([9] * 1000, (32, 32)), size=(32, 32)
    )
    backbone = Backbone(write_backbone(tmp_path / "b.onnx", width=4), provider="cpu")  # its graph gives 3
    with pytest.raises(Exception, match="its features have shape"):
        film_features(film, backbone)
    content = film.read_bytes()
    film.write_bytes(content[:200])
    with pytest.raises(VideoError, match=r"film\.mkv"):
        film_features(film, Backbone(write_backbone(tmp_path / "b.onnx"), provider="cpu"))
    assert not [thread for thread in threading.enumerate() if thread.name == "refineloc-decode"]


def test_memory_does_not_grow_with_the_film(tmp_path):
    backbone = Backbone(write_backbone(tmp_path / "b.onnx", fps=25.0), provider="cpu")
    peaks = []
    for frames in (200, 1000):
        film = write_film(
            tmp_path / "film.mkv",
            range(0, 40 * frames, 40),
            codec="ffv1",
            frames=coloured([9] * frames, (32, 32)),
            size=(32, 32),
        )
        tracemalloc.start()
        assert len(film_features(film, backbone).features) == frames // 5
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # 800 more frames are 2.5 MB; their features, at 3 x 4 bytes a snippet, are 2 kB.
    assert peaks[1] < peaks[0] + 500_000


def test_a_film_shorter_than_a_window_has_one_snippet(tmp_path):
    film = write_film(tmp_path / "film.mkv", [0, 100], codec="ffv1", frames=coloured([0, 250]), size=(48, 64))
    got = film_features(film, Backbone(write_backbone(tmp_path / "b.onnx"), provider="cpu"))
    np.testing.assert_allclose(got.features, np.full((1, 3), 0.8 * 250 / 255), atol=0.01)  # the last frame is repeated
