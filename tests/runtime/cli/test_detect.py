"""`refineloc-detect` as a person runs it: in a pipe, on a terminal, and with everything that can be wrong."""

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import programs
import pytest
from small_model import write_features, write_model

from refineloc.runtime import (
    Detector,
    EngineError,
    ModelError,
    OutputError,
    RefineLocError,
    open_features,
    read_detections,
)
from refineloc.runtime.cli.run_of_parts import beside

PROGRAM = str(Path(sys.executable).with_name("refineloc-detect"))


def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return programs.run("refineloc-detect", *arguments, cwd=cwd)


def fails(*arguments: object, cwd: Path, message: str) -> None:
    """One line that says it, exit code 2, and no file that was not there."""
    before = sorted(cwd.iterdir())
    done = run(*arguments, cwd=cwd)
    assert done.returncode == 2, done
    errors = [line for line in done.stderr.splitlines() if not line.startswith("warning:")]
    assert len(errors) == 1, done.stderr
    assert errors[0].startswith("error: ")
    assert message in errors[0]
    assert done.stdout == ""
    assert sorted(cwd.iterdir()) == before


@pytest.fixture
def folder(tmp_path: Path, model_path: Path, rng: np.random.Generator) -> Path:
    (tmp_path / "model.onnx").write_bytes(model_path.read_bytes())
    videos = {name: rng.standard_normal((length, 24), np.float32) for name, length in (("a", 60), ("b", 1), ("c", 200))}
    write_features(tmp_path / "features.h5", videos, fps=25.0)
    (tmp_path / "labels.csv").write_text("video-name,label,fps,video-duration\na,x,10,38\nb,x,10,0.6\nc,y,10,128\n")
    return tmp_path


def store(path: Path, **videos: object) -> Path:
    return write_features(path, videos)


def test_writes_what_the_detector_finds(folder: Path) -> None:
    done = run("features.h5", "--provider", "cpu", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("detections.json: ")
    detector = Detector(folder / "model.onnx", provider="cpu")
    with open_features(folder / "features.h5") as features:
        expected = dict(detector.detect_many(features))
    found = read_detections(folder / "detections.json")
    assert list(found) == list(expected)
    for name, own in expected.items():
        # Scores are written with the digits of float32.
        assert [d[:3] for d in found[name]] == [d[:3] for d in own]
        np.testing.assert_array_equal(found[name].score.astype(np.float32), own.score.astype(np.float32))
    assert json.loads((folder / "detections.json").read_text())["external_data"]["provider"] == "cpu"


def test_no_detections_at_all_are_said_with_their_cause(folder: Path) -> None:
    done = run("features.h5", "--provider", "cpu", "--alpha-a", "0", "--alpha-c", "1", cwd=folder)
    assert done.returncode == 0, done.stderr
    warning, summary = done.stderr.splitlines()
    assert warning.startswith("warning: no detections in any video: nothing passes --alpha-a 0 with --alpha-c 1; the ")
    assert summary.startswith("detections.json: 0 detections in 3 videos")
    store(folder / "same.h5", a=np.ones((20, 24), np.float32))
    done = run("same.h5", "--provider", "cpu", "--fps", "25", "--alpha-a", "0", "--alpha-c", "1", cwd=folder)
    assert "in every snippet of 'a', so the model tells no action from the rest" in done.stderr.splitlines()[0]


def test_detections_of_whole_videos_are_warned_of(folder: Path) -> None:
    """Where everything is kept, each detection is its video."""
    done = run("features.h5", "--provider", "cpu", "--alpha-a", "1", "--alpha-c", "0", cwd=folder)
    assert done.returncode == 0, done.stderr
    warning, summary = done.stderr.splitlines()
    assert warning.startswith("warning: in 3 of 3 videos the best detection covers more than 90 % of the video, so ")
    assert "by --alpha-a 1 with --alpha-c 0, so try stricter" in warning
    assert summary.startswith("detections.json: ")
    # Video b is one snippet; of the others the model tells parts.
    done = run("features.h5", "--provider", "cpu", "--alpha-a", "0.5", "--alpha-c", "0.4", cwd=folder)
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_on_a_terminal_a_progress_bar_comes_and_goes(folder: Path) -> None:
    code, shown = programs.on_terminal("refineloc-detect", "features.h5", "--provider", "cpu", cwd=folder)
    assert code == 0
    for text in ("detecting", "3/3", "detections.json: "):
        assert text in shown


# A small process between: a child's peak begins with that of the process it was forked from.
PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_file(folder: Path, rng: np.random.Generator) -> None:
    peaks = []
    for videos in (50, 1000):
        file = store(
            folder / "many.h5", **{f"v{i:04}": rng.standard_normal((1000, 24), np.float32) for i in range(videos)}
        )
        done = subprocess.run(
            [sys.executable, "-c", PEAK, PROGRAM, str(file), "--fps", "25", "--threads", "1"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(1024 * int(done.stdout))
        size, found = file.stat().st_size, (folder / "detections.json").stat().st_size
    assert size > 90e6
    assert found > 12e6
    assert peaks[1] - peaks[0] < 15e6


def test_the_columns_of_a_one_stream_model_are_said_first(folder: Path) -> None:
    write_model(folder / "spatial.onnx", stream="spatial")
    wide = {"v": np.ones((9, 48), np.float32)}
    write_features(folder / "wide.h5", wide, fps=25.0)
    done = run("wide.h5", "--model", "spatial.onnx", "--provider", "cpu", cwd=folder)
    assert done.stderr.splitlines()[0] == "wide.h5: spatial half, columns 24 to 47 of 48"
    done = run("features.h5", "--model", "spatial.onnx", "--provider", "cpu", cwd=folder)
    assert done.stderr.splitlines()[0] == "features.h5: spatial stream, all 24 columns"


def test_videos_give_fps_and_durations(folder: Path) -> None:
    assert run("features.h5", "--videos", "labels.csv", cwd=folder).returncode == 0
    found = read_detections(folder / "detections.json")
    assert max(d.end for d in found["a"]) <= 38.0
    assert max(d.end for d in found["c"]) <= 200 * 16 / 25  # the features state 25 frames a second, the labels 10
    with h5py.File(folder / "features.h5", "a") as file:
        for video in file.values():
            del video.attrs["fps"]
    message = "60 snippets x 16 frames at 10 fps = 96 s, labels.csv says 38 s (and in 1 more of 3 videos): were the "
    fails("features.h5", "--videos", "labels.csv", cwd=folder, message=message + "features made at 25 fps? Give fps=25")
    assert run("features.h5", "--videos", "labels.csv", "--fps", 25, cwd=folder).returncode == 0
    assert read_detections(folder / "detections.json")["c"].end.tolist() == found["c"].end.tolist()
    (folder / "labels.csv").write_text("video-name,label,fps,video-duration\na,x,10,96\nb,x,10,1.6\nc,y,10,320\n")
    assert run("features.h5", "--videos", "labels.csv", cwd=folder).returncode == 0
    found = read_detections(folder / "detections.json")
    assert max(d.end for d in found["c"]) > 200 * 16 / 25  # seconds that only 10 frames a second give


def test_filters_that_are_not_unpacked_here_are_refused_in_untrusted_files(folder: Path) -> None:
    with h5py.File(folder / "scaled.h5", "w") as file:
        file.create_dataset("v", data=np.ones((9, 24), np.float32), scaleoffset=3)
    line = ("scaled.h5", "--fps", 25, "--provider", "cpu")
    fails(*line, "--untrusted", cwd=folder, message="which is not read from strangers")
    assert run(*line, cwd=folder).returncode == 0


MANY = ("--profile", "multi-threshold")


@pytest.mark.parametrize(
    ("options", "fewer_to_more"),
    [
        (("--top-k", "5", "--alpha-c"), ["0.9", "0.1"]),
        ((*MANY, "--thresholds"), ["0.5", "0.1,0.5", "0:0.9:0.1"]),
        ((*MANY, "--thresholds", "0.1,0.5", "--curve"), ["foreground", "both"]),
        ((*MANY, "--thresholds", "0.1,0.5", "--suppression", "hard", "--tiou"), ["0", "0.6"]),
        ((*MANY, "--thresholds", "0.1,0.5", "--min-score"), ["0.5", "none"]),
        (("--max-detections",), ["1", "2", "0"]),
    ],
)
def test_settings_of_the_file_can_be_changed(folder: Path, options: tuple[str, ...], fewer_to_more: list[str]) -> None:
    counts = [0]
    for value in fewer_to_more:
        done = run("features.h5", *options, value, cwd=folder)
        assert done.returncode == 0, done.stderr
        counts.append(sum(map(len, read_detections(folder / "detections.json").values())))
    assert counts == sorted(set(counts))
    profile = json.loads((folder / "detections.json").read_text())["external_data"]["profile"]
    assert profile == ("multi-threshold" if "--profile" in options else "paper")


def test_known_labels_and_several_models(folder: Path) -> None:
    (folder / "known.csv").write_text("video-name,label\na,run\na,jump\nb,swim\nc,walk\n")
    (folder / "b.onnx").write_bytes((folder / "model.onnx").read_bytes())
    line = ("features.h5", "--video-labels", "known.csv", "--model", "model.onnx", "--model", "b.onnx")
    done = run(*line, "--alpha-c", 0.1, cwd=folder)
    assert done.returncode == 0, done.stderr
    detections = read_detections(folder / "detections.json")
    labels = {name: set(video.label.tolist()) for name, video in detections.items()}
    assert labels["a"] <= {"run", "jump"}
    assert labels["c"] == {"walk"}
    assert "(model.onnx, b.onnx)" in json.loads((folder / "detections.json").read_text())["external_data"]["details"]

    (folder / "few.csv").write_text("video-name,label\na,run\n")
    message = "few.csv: video 'b': has no label; add its classes, or leave it out (--leave-out)"
    fails("features.h5", "--video-labels", "few.csv", cwd=folder, message=message)
    assert (
        run("features.h5", "--video-labels", "few.csv", "--leave-out", "b", "--leave-out", "c", cwd=folder).returncode
        == 0
    )
    message = "labels of video 'a': 'x' is no class of the model, which has jump, run, swim, ... (--video-labels)"
    fails("features.h5", "--video-labels", "labels.csv", cwd=folder, message=message)


def test_bad_input_is_one_line(folder: Path) -> None:
    wide = store(folder / "wide.h5", v=np.zeros((4, 30), np.float32))
    bad = np.zeros((9, 24), np.float32)
    bad[6, 3] = np.inf
    odd = store(folder / "odd.h5", broken=bad)
    none = store(folder / "none.h5", v=np.zeros((0, 24), np.float32))
    plain = store(folder / "plain.h5", v=np.zeros((4, 24), np.float32))
    cut = folder / "cut.h5"
    cut.write_bytes((folder / "features.h5").read_bytes()[:3000])
    few = folder / "few.csv"
    few.write_text("video-name,label,fps\na,x,10\n")
    more = folder / "more.csv"
    more.write_text((folder / "labels.csv").read_text() + "d,x,10,5\ne,x,10,5\n")
    (folder / "text.onnx").write_text("no model")

    fails("absent.h5", cwd=folder, message="absent.h5: no such file")
    fails(cut.name, cwd=folder, message="cut short")
    fails(wide.name, "--fps", 25, cwd=folder, message="video 'v': features have width 30, the model expects 24")
    fails(odd.name, "--fps", 25, cwd=folder, message="video 'broken': snippet 6 holds inf")
    fails(none.name, "--fps", 25, cwd=folder, message="video 'v': has no snippets")
    fails(plain.name, cwd=folder, message="--fps X or --videos LABELS.csv")
    fails("features.h5", "--model", "absent.onnx", cwd=folder, message="absent.onnx: no such file")
    fails("features.h5", "--model", "text.onnx", cwd=folder, message="text.onnx: ")
    fails("features.h5", "--videos", few.name, cwd=folder, message="2 videos of features.h5 are not in few.csv")
    message = "2 videos of more.csv have no features in features.h5, the first: 'd', 'e'"
    fails("features.h5", "--videos", more.name, cwd=folder, message=message)
    fails("features.h5", "-o", "absent/out.json", cwd=folder, message="absent/out.json: cannot be written")
    fails("features.h5", "-o", "out.txt", cwd=folder, message="ends in .json, .csv, .jsonl")
    fails("features.h5", "--alpha-c", 7, cwd=folder, message="alpha_c: expected a number from 0 to 1")
    fails("features.h5", "--min-score", "all", cwd=folder, message="min_score: expected a finite number, or none, got")
    fails(
        "features.h5",
        "--tiou",
        0.5,
        cwd=folder,
        message="tiou: used by suppression 'hard' or 'vote' or 'fuse' or 'soft-vote', not by",
    )
    for fps in ("1e300", "nan"):
        fails(plain.name, "--fps", fps, cwd=folder, message="plain.h5: video 'v': fps")
    many = ("features.h5", *MANY)
    fails(*many, "--thresholds", "low", cwd=folder, message="--thresholds 'low': expected FIRST:LAST:STEP or a list")
    fails(*many, "--thresholds", "0:1:1e-9", cwd=folder, message="--thresholds '0:1:1e-9': expected")
    fails(*many, "--thresholds", "0.5,1.5", cwd=folder, message="thresholds: expected 1 to 1,000 numbers from 0 to 1")
    fails(*many, "--alpha-c", 0.5, cwd=folder, message="alpha_c: a setting of the profile 'paper' or 'release', not of")
    fails("features.h5", "--thresholds", 0.5, cwd=folder, message="thresholds: a setting of the profile 'multi-")
    fails("features.h5", "--videos", "", cwd=folder, message="error: ")


def test_missing_videos_can_be_allowed(folder: Path) -> None:
    (folder / "few.csv").write_text("video-name,label,fps\na,x,10\nz,x,10\n")
    assert run("features.h5", "--videos", "few.csv", "--allow-missing", cwd=folder).returncode == 0
    assert list(read_detections(folder / "detections.json")) == ["a"]


def test_what_was_found_before_a_bad_video_is_kept(folder: Path, rng: np.random.Generator) -> None:
    videos = {f"v{index}": rng.standard_normal((40, 24)).astype(np.float32) for index in range(4)}
    videos["v3"][5] = np.nan
    store(folder / "late.h5", **videos)
    line = ("late.h5", "--fps", 25, "--provider", "cpu", "--batch-snippets", 40)
    done = run(*line, cwd=folder)
    assert done.returncode == 2
    assert "video 'v3': snippet 5 holds nan" in done.stderr
    assert "--resume --leave-out VIDEO goes on with them" in done.stderr
    assert not (folder / "detections.json").exists()
    # Another size of call is no other result.
    done = run(*line[:-1], 2048, "--resume", "--leave-out", "v3", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert list(read_detections(folder / "detections.json")) == ["v0", "v1", "v2"]
    assert not (folder / "detections.json.partial").exists()
    fails(*line, "--leave-out", "v9", cwd=folder, message="--leave-out: video 'v9' is not among those of late.h5")


def test_all_bad_videos_are_said_at_the_end(folder: Path, rng: np.random.Generator) -> None:
    videos = {f"v{index}": rng.standard_normal((40, 24)).astype(np.float32) for index in range(20)}
    for index in (0, 7, 8, 19):
        videos[f"v{index}"][5] = np.nan
    store(folder / "some.h5", **videos)
    line = ("some.h5", "--fps", 25, "--provider", "cpu", "--batch-snippets", 80)
    done = run(*line, cwd=folder)
    assert done.returncode == 2
    *errors, last = done.stderr.splitlines()
    assert [error.split(": snippet 5")[0] for error in errors] == [
        f"warning: some.h5: video {name!r}" for name in ("v0", "v19", "v7", "v8")
    ]
    assert last.startswith("error: 4 videos have errors, the first: some.h5: video 'v0': snippet 5 holds nan ")
    assert last.endswith("has 16 videos: --resume --leave-out VIDEO goes on with them, without this one")
    assert not (folder / "detections.json").exists()
    left_out = [word for name in ("v0", "v7", "v8", "v19") for word in ("--leave-out", name)]
    assert run(*line, "--resume", *left_out, cwd=folder).returncode == 0
    assert run(*line, *left_out, "-o", "without.json", cwd=folder).returncode == 0
    assert (folder / "detections.json").read_bytes() == (folder / "without.json").read_bytes()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            EngineError("m.onnx: out of memory"),
            "m.onnx: out of memory; {path} has 1 video: --resume --batch-snippets N",
        ),
        (OutputError("disk full"), "disk full; {path} has 1 video: --resume goes on with them"),
        (ModelError("damaged"), "damaged$"),  # nothing to go on with
    ],
)
def test_an_error_says_how_the_run_goes_on(tmp_path: Path, error: RefineLocError, told: str) -> None:

    def run_until_it_fails(name: str, done: int) -> None:
        with beside(tmp_path / name, resume=False) as run:
            (run.folder / "part-00001.jsonl").touch()
            run.done = done
            raise error

    with pytest.raises(type(error), match="^" + told.format(path=tmp_path / "d.json.partial")):
        run_until_it_fails("d.json", 1)
    # Before the first video there is nothing to go on with.
    with pytest.raises(type(error), match=f"^{error}$"):
        run_until_it_fails("e.json", 0)
    assert [path.name for path in tmp_path.iterdir()] == ["d.json.partial"]


def test_a_full_disk_is_one_line(folder: Path) -> None:
    """As the kernel says it to a process that may write no more than a few bytes into a file."""
    line = [PROGRAM, "features.h5", "--provider", "cpu", "-o", "full.json"]
    limited = "import resource, signal, subprocess, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limited += "resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600)); sys.exit(subprocess.call(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", limited, *line], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "full.json" in done.stderr
    assert "cannot be written" in done.stderr
    assert not (folder / "full.json").exists()


def test_usage_errors_have_exit_code_2(folder: Path) -> None:
    for threads in ("9999999999", "-1", "many"):
        assert run("features.h5", "--threads", threads, cwd=folder).returncode == 2
    assert run("features.h5", "--provider", "gpu", cwd=folder).returncode == 2
    assert run(cwd=folder).returncode == 2


def test_an_earlier_output_survives_an_error(folder: Path) -> None:
    (folder / "detections.json").write_text("precious")
    assert run("absent.h5", cwd=folder).returncode == 2
    assert (folder / "detections.json").read_text() == "precious"


def test_a_stream_gets_what_a_file_would(folder: Path) -> None:
    """With nothing beside it: no parts under /dev, nor in the folder."""
    line = ("features.h5", "--provider", "cpu")
    assert run(*line, "-o", "out.json", cwd=folder).returncode == 0
    expected = (folder / "out.json").read_text()
    before = sorted(folder.iterdir())
    for name in ("-", "/dev/stdout"):
        done = run(*line, "-o", name, cwd=folder)
        assert (done.returncode, done.stdout) == (0, expected)
        assert done.stderr.startswith(f"{name}: ")
    assert sorted(folder.iterdir()) == before
    fails(*line, "-o", "-", "--resume", cwd=folder, message="--resume: - is not a file")
