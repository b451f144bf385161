"""From films to detections: the same as from features that were extracted before, in files and in running video."""

import copy
import pickle
import signal
import warnings
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

pytest.importorskip("av")

from films import write_film, write_sound
from programs import Program, run
from small_backbone import write_backbone
from small_model import WIDTH, write_model

from refineloc.runtime.detections import as_written, read_detections
from refineloc.runtime.detector import Detector
from refineloc.runtime.errors import ConfigError, FeatureError, InputWarning, ModelError, RefineLocError, VideoError
from refineloc.runtime.model.session import EngineWarning
from refineloc.runtime.streaming import StreamingDetector
from refineloc.runtime.video.backbone import Backbone
from refineloc.runtime.video.decode import Film
from refineloc.runtime.video.features import film_features

OF_MODEL: dict[str, Any] = {"width": WIDTH, "snippet_frames": 16, "stride_frames": 16, "fps": 16.0}
SETTINGS: dict[str, Any] = {"alpha_a": 0.5, "alpha_c": 0.1, "top_k": 5, "max_gap": 0, "widen": 0}


def film(path: Path, seed: int, ticks: range | list[int] = range(0, 40_000, 500)) -> Path:
    """Forty seconds of colours that change twice a second."""
    colours = np.random.default_rng(seed).integers(0, 256, (len(ticks), 1, 1, 3), dtype=np.uint8)
    frames: Iterator[np.ndarray] = (np.broadcast_to(colour, (32, 48, 3)).copy() for colour in colours)
    return write_film(path, ticks, codec="ffv1", size=(32, 48), rate=Fraction(2), frames=frames)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "films").mkdir()
    write_backbone(tmp_path / "b.onnx", **OF_MODEL)
    write_model(tmp_path / "model.onnx", **SETTINGS)
    film(tmp_path / "films/a.mkv", 1)
    film(tmp_path / "films/b c.mkv", 2)
    return tmp_path


def test_a_film_is_detected_in_as_its_features_are(folder: Path) -> None:
    detector = Detector(folder / "model.onnx", provider="cpu")
    backbone = Backbone(folder / "b.onnx", provider="cpu")
    found = film_features(folder / "films/a.mkv", backbone)
    expected = detector.detect(found.features, fps=16.0, duration_s=found.grid.duration_s)
    assert len(expected) > 2
    assert len(set(expected.start)) > 2
    assert list(detector.detect_video(folder / "films/a.mkv", backbone)) == list(expected)
    one = detector.detect_video(folder / "films/a.mkv", backbone, labels=["walk"])
    assert {each.label for each in one} == {"walk"}
    with warnings.catch_warnings():
        warnings.simplefilter("error", EngineWarning)  # the backbone's file runs on the detector's provider
        assert list(detector.detect_video(folder / "films/a.mkv", folder / "b.onnx")) == list(expected)


def test_the_file_of_a_backbone_is_loaded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on TensorRT, which takes minutes for it."""
    loaded = []
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *a, **more: loaded.append(1) or real(*a, **more))
    monkeypatch.chdir(folder)
    detector, path = Detector(folder / "model.onnx", provider="cpu"), folder / "b.onnx"

    def detect(by: Detector, backbone: Path | str) -> list[Any]:
        return [list(by.detect_video(each, backbone)) for each in sorted((folder / "films").iterdir())]

    expected = detect(detector, path)
    assert min(map(len, expected)) > 2
    assert detect(detector, "b.onnx") == expected
    assert len(loaded) == 2  # with the model
    for copied in (pickle.loads(pickle.dumps(detector)), copy.deepcopy(detector)):
        assert detect(copied, path) == expected
    assert len(loaded) == 6
    detector._loaded(path)._leave_behind()  # as in a forked process
    assert detect(detector, path) == expected
    assert len(loaded) == 7
    # Another file in its place; none; and what is no path.
    write_backbone(path, **{**OF_MODEL, "stride_frames": 8})
    with pytest.raises(ModelError, match="16 frames every 8"):
        detector.detect_video(folder / "films/a.mkv", path)
    path.unlink()
    with pytest.raises(ModelError, match="no such file"):
        detector.detect_video(folder / "films/a.mkv", path)
    with pytest.raises(ConfigError, match="expected a path"):
        detector.detect_video(folder / "films/a.mkv", None)  # type: ignore[arg-type]


def test_what_is_odd_in_a_film_is_a_warning(folder: Path) -> None:
    late = film(folder / "late.mkv", 1, [*range(0, 20_000, 500), *range(40_000, 60_000, 500)])
    detector = Detector(folder / "model.onnx", provider="cpu")
    with pytest.warns(InputWarning, match=r"late\.mkv: nothing was recorded for 20\.\d s"):
        detector.detect_video(late, Backbone(folder / "b.onnx", provider="cpu"))


@pytest.mark.parametrize(
    ("backbone", "model", "kind", "message"),
    [
        ({"width": 3}, {}, FeatureError, r"b\.onnx: features have width 3, the model expects 24"),
        ({"stride_frames": 8}, {}, ModelError, r"b\.onnx: its snippets are 16 frames every 8, .* 16 every 16"),
        (
            {},
            {"backbone": "ab12"},
            ModelError,
            r"is the backbone [0-9a-f]{32} \(mean colour\), and .* of ab12",
        ),
    ],
)
def test_a_backbone_of_other_features_is_refused(
    tmp_path: Path, backbone: dict[str, Any], model: dict[str, Any], kind: type[RefineLocError], message: str
) -> None:
    path = write_backbone(tmp_path / "b.onnx", **{**OF_MODEL, **backbone})
    detector = Detector(write_model(tmp_path / "m.onnx", **model), provider="cpu")
    with pytest.raises(kind, match=message):
        detector.detect_video(tmp_path / "film.mkv", Backbone(path, provider="cpu"))


ARGUMENTS = ("films", "--backbone", "b.onnx", "--provider", "cpu")


def test_the_program_takes_films(folder: Path) -> None:
    done = run("refineloc-detect", *ARGUMENTS, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["b.onnx", "detections.json", "films", "model.onnx"]
    both = read_detections(folder / "detections.json")
    assert list(both) == ["a", "b c"]
    assert f"detections.json: {sum(map(len, both.values()))} detections in 2 films (cpu, " in done.stderr
    # The same by way of a file of features.
    assert run("refineloc-extract", *ARGUMENTS, "--float32", cwd=folder).returncode == 0
    assert run("refineloc-detect", "features.h5", "--provider", "cpu", "-o", "f.json", cwd=folder).returncode == 0
    for name, detections in read_detections(folder / "f.json").items():
        assert list(detections) == list(both[name])
        assert len(detections) > 2


def test_a_bad_film_does_not_stop_the_others(folder: Path) -> None:
    (folder / "none.mp4").touch()
    done = run("refineloc-detect", "none.mp4", *ARGUMENTS, "-o", "d.csv", cwd=folder)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "error: none.mp4: is empty (0 bytes); its recording or download failed; d.csv has the other 2"
    )
    assert list(read_detections(folder / "d.csv")) == ["a", "b c"]
    done = run("refineloc-detect", "none.mp4", *ARGUMENTS[1:], "-o", "e.csv", cwd=folder)
    assert done.returncode == 2
    assert not list(folder.glob("e.csv*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["films/a.mkv"], "films/a.mkv: is a film; give --backbone, the ONNX file that turns films into features"),
        (["films"], "films: holds no video; it holds films (2 .mkv), whose features refineloc-extract makes; "),
        (["f.h5", "g.h5"], "g.h5: several are for films, with --backbone"),
        ([*ARGUMENTS, "--fps", "25"], "--fps: is for features, and films were given; leave it out"),
        ([*ARGUMENTS, "--untrusted"], "--untrusted: is for features"),
        ([*ARGUMENTS, "--leave-out", "z"], "--leave-out: video 'z' is not among those of films"),
        ([*ARGUMENTS, "--videos", "one.csv"], "1 video of films is not in one.csv, the first: 'b c'"),
        ([*ARGUMENTS, "--videos", "other.csv"], "3 videos of other.csv have no features in films"),
        ([*ARGUMENTS, "--video-labels", "one.csv"], "one.csv: video 'b c': has no label"),
        ([*ARGUMENTS, "--shard", "1/2", "-o", "d.json"], "--shard: writes parts into a folder, and d.json is none"),
        (["films", "gone.mkv", *ARGUMENTS[1:]], "gone.mkv: no such film or folder"),
        (["films", "--backbone", "model.onnx"], "model.onnx: is no backbone (a detection model)"),
    ],
)
def test_wrong_calls(folder: Path, arguments: list[str], message: str) -> None:
    (folder / "one.csv").write_text("video-name,label\na,walk\n")
    (folder / "other.csv").write_text("video-name,label\na,walk\nb c,run\nx,run\ny,run\nz,run\n")
    done = run("refineloc-detect", *arguments, cwd=folder)
    assert done.returncode == 2
    assert f"error: {message}" in done.stderr
    assert not list(folder.glob("detections*"))


def test_some_of_the_films_and_their_classes(folder: Path) -> None:
    film(folder / "films/d.mkv", 3)
    (folder / "labels.csv").write_text("video-name,label\na,walk\nd,run\nd,jump\n")
    options = ("--videos", "labels.csv", "--allow-missing", "--video-labels", "labels.csv")
    assert run("refineloc-detect", *ARGUMENTS, *options, cwd=folder).returncode == 0
    some = read_detections(folder / "detections.json")
    assert list(some) == ["a", "d"]
    assert {each.label for each in some["a"]} == {"walk"}
    assert {each.label for each in some["d"]} <= {"run", "jump"}
    options = ("--leave-out", "b c", "--leave-out", "d", "-o", "o.json")
    assert run("refineloc-detect", *ARGUMENTS, *options, cwd=folder).returncode == 0
    assert list(read_detections(folder / "o.json")) == ["a"]


@pytest.mark.long
def test_shards_and_workers_give_what_one_run_gives(folder: Path) -> None:
    film(folder / "films/d.mkv", 3)
    assert run("refineloc-detect", *ARGUMENTS, cwd=folder).returncode == 0
    assert run("refineloc-detect", *ARGUMENTS, "--workers", "2", "-o", "two.json", cwd=folder).returncode == 0
    for shard in ("1/2", "2/2"):
        done = run("refineloc-detect", *ARGUMENTS, "--shard", shard, "-o", "parts", cwd=folder)
        assert done.returncode == 0, done.stderr
    assert done.stderr == "parts: shard 2 of 2 is done, 2 films (cpu)\n"
    assert run("refineloc-convert", "parts", "merged.json", cwd=folder).returncode == 0
    whole = (folder / "detections.json").read_bytes()
    assert (folder / "two.json").read_bytes() == (folder / "merged.json").read_bytes() == whole
    film(folder / "films/e.mkv", 4)  # all shards are of the same films
    done = run("refineloc-detect", *ARGUMENTS, "--shard", "1/2", "-o", "parts", cwd=folder)
    assert "is of a run that was given something else (films)" in done.stderr


WAITS = """
import signal
import warnings
from refineloc.runtime.jobs import run
write_part = run.write_part
def waits(block, rows):
    if block.names == ("b c",): signal.pause()
    yield from write_part(block, rows)
run.write_part = waits
"""


def test_a_run_goes_on_with_films_that_came_and_changed_meanwhile(folder: Path) -> None:
    film(folder / "films/a2.mkv", 5)
    with Program("refineloc-detect", *ARGUMENTS, cwd=folder, before=WAITS) as program:
        program.wait_until(lambda: len(list(folder.glob("detections.json.partial/part-*.jsonl"))) == 2)
        program.send_signal(signal.SIGKILL)
    film(folder / "films/a1.mkv", 3)
    film(folder / "films/a2.mkv", 4)  # another film of the same name
    done = run("refineloc-detect", *ARGUMENTS, "--resume", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "detections.json.partial: goes on after 1 of 4 videos" in done.stderr
    assert run("refineloc-detect", *ARGUMENTS, "-o", "again.json", cwd=folder).returncode == 0
    assert (folder / "again.json").read_bytes() == (folder / "detections.json").read_bytes()


def test_sound(folder: Path) -> None:
    """In recordings, by the program and from Python, and as it comes."""
    rate, of_sound = 64, {"kind": "audio", "width": WIDTH, "size": (), "snippet_frames": 4, "stride_frames": 2}
    backbone = write_backbone(folder / "s.onnx", **{**of_sound, "fps": float(rate)})
    model = write_model(folder / "s-model.onnx", **SETTINGS, snippet_frames=4, stride_frames=2)
    levels = np.random.default_rng(0).uniform(-0.5, 0.5, (80, 2)).astype(np.float32)
    write_sound(folder / "r.wav", np.tile(levels, (1, 2)).reshape(-1), rate)
    arguments = ("--model", "s-model.onnx", "--backbone", "s.onnx", "--provider", "cpu")
    done = run("refineloc-detect", "r.wav", *arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    found = read_detections(folder / "detections.json")["r"]
    assert len(found) > 2
    assert len(set(found.start)) > 2
    detector, loaded = Detector(model, provider="cpu"), Backbone(backbone, provider="cpu")
    expected = detector.detect_video(folder / "r.wav", loaded)
    assert list(found) == list(as_written(expected))
    stream = StreamingDetector(detector, fps=rate, stride_frames=2)
    with Film(folder / "r.wav") as opened:
        yielded = [each for part in opened.samples(rate) for each in stream.push_frames(part, loaded)]
    assert len(yielded + stream.finish()) == len(expected)
    np.testing.assert_allclose(stream.detections().start, expected.start)


@pytest.mark.parametrize("portion", [1, 5, 100])
def test_frames_of_a_running_video(folder: Path, portion: int) -> None:
    """In any portions: the detections of the whole film; a buffer that is filled again does no harm."""
    detector = Detector(folder / "model.onnx", provider="cpu")
    backbone = Backbone(folder / "b.onnx", provider="cpu")
    with Film(folder / "films/a.mkv") as opened:
        frames = np.stack(list(opened.frames(16.0, short_side=16)))[:-4]  # the last snippet is cut
    expected = detector.detect_video(folder / "films/a.mkv", backbone)
    stream = StreamingDetector(detector, fps=16.0)
    yielded = []
    buffer = np.empty((portion, *frames.shape[1:]), dtype=np.uint8)
    for begin in range(0, len(frames), portion):
        part = frames[begin : begin + portion]
        buffer[: len(part)] = part
        yielded += stream.push_frames(buffer[: len(part)], backbone)
        buffer[:] = 0
    yielded += stream.finish()
    assert stream.snippets == 40
    got = stream.detections()
    np.testing.assert_allclose(got.start, expected.start)
    np.testing.assert_allclose(got.end, expected.end)
    np.testing.assert_allclose(got.score, expected.score, atol=1e-5)
    assert len(yielded) == len(got) > 2


def test_frames_that_do_not_fit(folder: Path) -> None:
    detector = Detector(folder / "model.onnx", provider="cpu")
    backbone = Backbone(folder / "b.onnx", provider="cpu")
    frames = np.zeros((2, 16, 24, 3), dtype=np.uint8)
    with pytest.raises(ConfigError, match=r"fps: .*b\.onnx takes 16 a second, got 25"):
        StreamingDetector(detector, fps=25.0).push_frames(frames, backbone)
    with pytest.raises(ConfigError, match=r"makes a snippet of 16 frames every 16, got 16 and 4"):
        StreamingDetector(detector, fps=16.0, stride_frames=4).push_frames(frames, backbone)
    stream = StreamingDetector(detector, fps=16.0)
    assert stream.push_frames(frames, backbone) == []
    for wrong, message in (
        (frames.astype(np.float32), r"expected uint8 \[k, H, W, 3\], got float32 \[2, 16, 24, 3\]"),
        (frames[0], r"got uint8 \[16, 24, 3\]"),
        (frames[:, :8], r"takes a shorter side of 16 pixels, got 8 x 24; scale them"),
        (frames[:, :, :20], r"expected \[16, 24, 3\] as before, got \[16, 20, 3\]"),
    ):
        with pytest.raises(VideoError, match=message):
            stream.push_frames(wrong, backbone)
    with pytest.raises(ConfigError, match="another than before"):
        stream.push_frames(frames, Backbone(folder / "b.onnx", provider="cpu"))
    stream.finish()
    with pytest.raises(ConfigError, match="the video was finished"):
        stream.push_frames(frames, backbone)
