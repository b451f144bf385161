"""Blocks in Ray's actors: the same parts, also where an actor or Ray itself is killed in the middle.

Each test starts a Ray of its own, which takes some seconds.
"""

import multiprocessing
import os
import re
import signal
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from films import write_film
from object_store import BUCKET, serving
from programs import Program, run
from small_backbone import write_backbone
from small_job import Niceness, UpperCase, job, work_and_linger
from small_model import WIDTH, write_features, write_model

from refineloc.runtime.errors import EngineError, RefineLocError
from refineloc.runtime.jobs import actors as module
from refineloc.runtime.jobs.actors import Actors
from refineloc.runtime.jobs.parts import merge
from refineloc.runtime.jobs.run import run_blocks

pytest.importorskip("ray", reason="Ray is not installed")

DETECT = ("refineloc-detect", "features.h5", "--provider", "cpu", "--threads", "1")
RAY = ("--engine", "ray", "--actors", "2")
OF_BACKBONE = {"width": WIDTH, "snippet_frames": 16, "stride_frames": 16, "fps": 16.0}
OF_FILMS = {"alpha_a": 0.5, "alpha_c": 0.1, "top_k": 5, "max_gap": 0, "widen": 0}
SMALL_BLOCKS = """
from refineloc.runtime.cli import detect
detect._BLOCK_SNIPPETS = 100
"""

# A block a video, so that a run has some left when its first part is there.
ONE_EACH = SMALL_BLOCKS.replace("100", "1")


@pytest.fixture
def folder(tmp_path: Path, model_path: Path, rng: np.random.Generator) -> Path:
    (tmp_path / "model.onnx").write_bytes(model_path.read_bytes())
    videos = {f"v{index:03}": rng.standard_normal((1 + index % 30, 24), np.float32) for index in range(60)}
    write_features(tmp_path / "features.h5", videos, fps=25.0)
    return tmp_path


@pytest.mark.long
def test_killed_actors_cost_nothing_and_a_block_that_always_kills_is_named(tmp_path: Path) -> None:
    blocks = job(tmp_path, 30, shards=1)
    work = UpperCase(kills="v4", bad="v7", marks=tmp_path)
    steps = list(run_blocks(work, blocks, workers=Actors(2, 2)))
    assert (tmp_path / "v4.ended").exists()
    assert sum(step.videos for step in steps) == 30
    assert {video: error for step in steps for video, error in step.written if error} == {"v7": "bad"}
    values = {row["video"]: row.get("value") for _, row in merge(tmp_path).rows}
    assert values == {f"v{index}": None if index == 7 else f"V{index}" for index in range(30)}

    other = tmp_path / "other"
    other.mkdir()
    blocks = job(other, 9, shards=1)
    with pytest.raises(EngineError, match=r"'v3' to 'v5', ended 3 times"):
        list(run_blocks(UpperCase(kills="v4", always=True, marks=other), blocks, workers=Actors(1, 2)))
    assert [block.part.exists() for block in blocks] == [True, False, True]


@pytest.mark.long
def test_what_the_work_raises_ends_the_job(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"^v1: out of memory$"):
        list(run_blocks(UpperCase(raises="v1"), job(tmp_path, 9, shards=1), workers=Actors(1, 1)))


@pytest.mark.long
def test_actors_have_the_priority_of_the_program(tmp_path: Path) -> None:
    list(run_blocks(Niceness(), job(tmp_path, shards=1), workers=Actors(1, 1)))
    assert {row["value"] for _, row in merge(tmp_path).rows} == {os.nice(0)}


@pytest.mark.long
def test_detection_in_ray_writes_the_file_of_one_run_and_nothing_else(folder: Path) -> None:
    assert run(*DETECT, "-o", "one.json", cwd=folder).returncode == 0
    done = run(*DETECT, *RAY, "-o", "ray.json", cwd=folder, before=SMALL_BLOCKS)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert re.fullmatch(r"ray.json: \d+ detections in 60 videos \(cpu, \d+ videos/s\)\n", done.stderr)
    assert (folder / "ray.json").read_bytes() == (folder / "one.json").read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == ["features.h5", "model.onnx", "one.json", "ray.json"]


@pytest.mark.long
def test_a_hostile_video_is_a_row_and_two_jobs_at_one_output_write_it_once(
    folder: Path, rng: np.random.Generator
) -> None:
    videos = {f"v{index:04}": rng.standard_normal((3, 24), np.float32) for index in range(1000)}
    videos["v0500"][1, 1] = np.nan
    write_features(folder / "features.h5", videos, fps=25.0)
    given = (*DETECT, "-o", "parts", "--shard", "1/1")
    with Program(*given, *RAY, cwd=folder, before=SMALL_BLOCKS) as ray:
        here = run(*given, cwd=folder, before=SMALL_BLOCKS)
        there = ray.wait()
    for done in (here, there):
        assert done.returncode == 2
        assert "features.h5: video 'v0500': snippet 1 holds nan" in done.stderr
    assert run("refineloc-convert", "parts", "merged.json", cwd=folder).returncode == 0
    assert run(*DETECT, "--leave-out", "v0500", "-o", "one.json", cwd=folder).returncode == 0
    assert (folder / "merged.json").read_bytes() == (folder / "one.json").read_bytes()


@pytest.mark.long
def test_where_ray_is_killed_one_line_says_so_and_the_run_goes_on_later(folder: Path) -> None:
    """The raylet, which is Ray on a machine: without it the whole of a local Ray ends."""
    assert run(*DETECT, "-o", "one.json", cwd=folder).returncode == 0
    with Program(*DETECT, *RAY, "-o", "ray.json", cwd=folder, before=ONE_EACH) as program:
        program.wait_until(lambda: len(list(folder.glob("ray.json.partial/part-*.jsonl"))) > 4)
        os.kill(descendant(program._process.pid, "raylet"), signal.SIGKILL)
        done = program.wait()
    assert done.returncode == 2
    assert re.fullmatch(r"error: (Ray ended \(exit code -?\d+\)|Ray: ).*--resume.*\n", done.stderr), done.stderr
    (log,) = re.findall(r"\S+refineloc-ray-\S+\.log", done.stderr)
    Path(log).unlink()
    assert not (folder / "ray.json").exists()
    done = run(*DETECT, *RAY, "--resume", "-o", "ray.json", cwd=folder, before=ONE_EACH)
    assert done.returncode == 0, done.stderr
    assert "goes on after" in done.stderr
    assert (folder / "ray.json").read_bytes() == (folder / "one.json").read_bytes()


def descendant(parent: int | None, name: str) -> int:
    """The process of that name among those that a process started, at any depth."""
    lines = subprocess.run(["ps", "-eo", "pid=,ppid=,comm="], capture_output=True, text=True, check=True).stdout
    processes = {int(pid): (int(before), command) for pid, before, command in map(str.split, lines.splitlines())}

    def below(pid: int) -> bool:
        while pid in processes and pid != parent:
            pid = processes[pid][0]
        return pid == parent

    (found,) = (pid for pid, (_, command) in processes.items() if command == name and below(pid))
    return found


@pytest.mark.long
def test_films_of_a_store_are_decoded_and_detected_in_by_actors(tmp_path: Path, rng: np.random.Generator) -> None:
    """All that an actor needs, it opens itself, by its address; and what it finds, it writes there."""
    pytest.importorskip("av")
    with serving() as store:
        write_model(tmp_path / "model.onnx", **OF_FILMS)
        write_backbone(tmp_path / "backbone.onnx", **OF_BACKBONE)
        colours = rng.integers(0, 256, (40, 1, 1, 3), dtype=np.uint8)
        frames = [np.broadcast_to(colour, (32, 48, 3)).copy() for colour in colours]
        write_film(tmp_path / "a.mkv", range(0, 20_000, 500), codec="ffv1", size=(32, 48), rate=2, frames=frames)
        (tmp_path / "b.mkv").write_bytes(b"no film")
        at = {path.name: store.put(path.name, path.read_bytes()) for path in tmp_path.iterdir()}
        given = ("refineloc-detect", "--provider", "cpu", "--threads", "1")
        there = (at["a.mkv"], at["b.mkv"], "--model", at["model.onnx"], "--backbone", at["backbone.onnx"])
        done = run(*given, *there, *RAY, "-o", f"s3://{BUCKET}/ray.json", cwd=tmp_path, env=store.env)
        here = run(*given, "a.mkv", "b.mkv", "--backbone", "backbone.onnx", "-o", "one.json", cwd=tmp_path)
        assert done.returncode == here.returncode == 2
        assert f"s3://{BUCKET}/b.mkv: " in done.stderr
        assert re.search(r": [1-9]\d* detections in 1 film \(cpu\)\n", done.stderr), done.stderr
        assert store.get("ray.json") == (tmp_path / "one.json").read_bytes()
        assert not any("partial" in name for name in store.names())


@pytest.mark.long
def test_features_that_actors_extract_are_those_of_one_process(tmp_path: Path, rng: np.random.Generator) -> None:
    """A hostile film is a row here too, and the same command goes on."""
    pytest.importorskip("av")
    (tmp_path / "films").mkdir()
    write_backbone(tmp_path / "backbone.onnx")
    for index in range(6):
        frames = [np.full((32, 48, 3), level, np.uint8) for level in rng.integers(0, 256, 10 + 10 * index)]
        film = tmp_path / f"films/v{index}.mkv"
        write_film(film, range(0, 100 * len(frames), 100), codec="ffv1", size=(32, 48), rate=10, frames=frames)
    (tmp_path / "films/bad.mkv").write_bytes(b"no film")
    given = ("refineloc-extract", "films", "--backbone", "backbone.onnx", "--provider", "cpu", "--threads", "1")
    here = run(*given, "-o", "one.h5", cwd=tmp_path)
    there = run(*given, *RAY, "-o", "ray.h5", cwd=tmp_path)
    for done in (here, there):
        assert done.returncode == 2
        assert re.search(r"h5: 6 films of 21 s, \d+ snippets of 3 features \(cpu", done.stderr), done.stderr
        assert "error: films/bad.mkv: " in done.stderr
    assert (tmp_path / "ray.h5").read_bytes() == (tmp_path / "one.h5").read_bytes()
    (tmp_path / "films/bad.mkv").unlink()
    done = run(*given, *RAY, "-o", "ray.h5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "ray.h5.partial: goes on after 6 of 6 films" in done.stderr
    assert (tmp_path / "ray.h5").read_bytes() == (tmp_path / "one.h5").read_bytes()
    assert sorted(path.name for path in tmp_path.glob("ray*")) == ["ray.h5"]


def test_a_job_that_is_done_does_not_wait_for_the_end_of_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_speak_with_ray", work_and_linger)
    processes, threads = {*multiprocessing.active_children()}, {*threading.enumerate()}
    steps = list(run_blocks(UpperCase(), job(tmp_path, shards=1), workers=Actors(1, 1)))
    assert sum(step.videos for step in steps) == len(list(merge(tmp_path).rows))
    (process,) = {*multiprocessing.active_children()} - processes
    (waiting,) = {*threading.enumerate()} - threads
    (tmp_path / "end").touch()
    waiting.join()  # and not the process: of two threads that wait for one, a process tells its exit code to one alone
    assert process.exitcode == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--actors", "2"), "--actors and --gpus-per-actor: are for --engine ray"),
        (("--engine", "ray", "--workers", "2"), "--workers: is for --engine local"),
        (("--engine", "ray", "--actors", "3:2"), "--actors '3:2': expected N or MIN:MAX"),
    ],
)
def test_options_that_contradict(folder: Path, options: tuple[str, ...], message: str) -> None:
    for program in (DETECT, ("refineloc-extract", "films", "--backbone", "backbone.onnx")):
        done = run(*program, *options, cwd=folder)
        assert done.returncode == 2
        assert message in done.stderr


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RefineLocError, match=r"pip install 'refineloc\[ray\]'"):
        list(run_blocks(UpperCase(), job(tmp_path), workers=Actors(1, 1)))
