"""Blocks in processes of their own: the same parts, also where one is killed in the middle."""

import pickle
from pathlib import Path

import pytest
from small_job import UpperCase, job

from refineloc.runtime.detector import Detector
from refineloc.runtime.errors import EngineError
from refineloc.runtime.jobs.detection import DetectionWork
from refineloc.runtime.jobs.parts import merge
from refineloc.runtime.jobs.run import run_blocks


def test_the_block_of_a_killed_process_is_done_by_another(tmp_path: Path) -> None:
    blocks = job(tmp_path, 30, shards=1)
    work = UpperCase(kills="v4", bad="v7", marks=tmp_path)
    steps = list(run_blocks(work, blocks, workers=2))
    assert (tmp_path / "v4.ended").exists()
    assert sum(step.videos for step in steps) == 30
    assert {video: error for step in steps for video, error in step.written if error} == {"v7": "bad"}
    values = {row["video"]: row.get("value") for _, row in merge(tmp_path).rows}
    assert values == {f"v{index}": None if index == 7 else f"V{index}" for index in range(30)}


def test_one_that_ends_each_time_is_an_error_and_the_others_stay(tmp_path: Path) -> None:
    blocks = job(tmp_path, 9, shards=1)
    work = UpperCase(kills="v4", always=True, marks=tmp_path)
    with pytest.raises(EngineError, match=r"'v3' to 'v5', ended 3 times \(exit code -9\)"):
        list(run_blocks(work, blocks, workers=2))
    assert not blocks[1].part.exists()


def test_what_the_work_raises_ends_the_job(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"^v1: out of memory$"):
        list(run_blocks(UpperCase(raises="v1"), job(tmp_path, 9, shards=1), workers=2))


def test_another_provider_than_where_the_job_began_is_refused(tmp_path: Path, model_path: Path) -> None:
    """A machine without a GPU, in a job that began on one: its results would differ a little."""
    work = DetectionWork(Detector(model_path, provider="cpu"), None, None, {}, {})  # type: ignore[arg-type]
    work._provider = "cuda"
    with pytest.raises(EngineError, match="the model runs on cpu here, and on cuda where the job began"):
        list(pickle.loads(pickle.dumps(work)).process(job(tmp_path)[0]))
