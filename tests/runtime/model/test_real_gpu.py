"""On a real NVIDIA GPU: that it runs there, and gives what the CPU gives."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from small_model import write_model

from refineloc.runtime import Detections, Detector
from refineloc.runtime.model.session import Session, cuda_problem, load_engine

pytest.importorskip("onnxruntime")
_PROBLEM = cuda_problem(load_engine())
pytestmark = pytest.mark.skipif(_PROBLEM is not None, reason=f"needs a GPU: {_PROBLEM}")

LENGTHS = np.array([1, 300, 2, 45, 800, 77, 513], np.int64)
Videos = dict[str, npt.NDArray[np.float32]]


@pytest.fixture(scope="module")
def videos() -> Videos:
    rng = np.random.default_rng(3)
    return {f"v{index}": rng.standard_normal((length, 24)).astype(np.float32) for index, length in enumerate(LENGTHS)}


def largest_difference(gpu: Path, cpu: Path, videos: Videos) -> float:
    """Of all scores, between a file on the GPU and a file on the CPU."""
    packed = np.concatenate(list(videos.values()))
    session = Session(gpu, "cuda")
    assert session.provider == "cuda"
    scores, expected = session.run(packed, LENGTHS), Session(cpu, "cpu").run(packed, LENGTHS)
    assert expected.class_scores.std() > 0.1, "scores that do not vary show nothing"
    return max(
        float(np.abs(values - others).max()) for values, others in zip(scores.arrays, expected.arrays, strict=True)
    )


def test_auto_takes_it(model_path: Path) -> None:
    assert Session(model_path, "auto").provider == "cuda"


def test_scores_are_those_of_the_cpu(model_path: Path, videos: Videos) -> None:
    assert largest_difference(model_path, model_path, videos) < 1e-5


def test_half_precision_keeps_its_bound(model_path: Path, tmp_path: Path, videos: Videos) -> None:
    """The model is steeper than trained ones, for which docs/reference/onnx.md gives half of this bound."""
    pytest.importorskip("torch")
    from data.make_model import make_graph

    half = write_model(tmp_path / "half.onnx", make_graph(half=True), precision="fp16")
    assert 0 < largest_difference(half, model_path, videos) < 1e-2


def by_place(detections: Detections) -> list[npt.NDArray[Any]]:
    """Classes, starts, ends and scores; by class and time, since nearly equal scores may change their order."""
    order = np.lexsort((detections.end, detections.start, detections.label))
    return [values[order] for values in (detections.label, detections.start, detections.end, detections.score)]


@pytest.mark.parametrize("batch_snippets", [1, 600, 2048])
def test_detections_are_those_of_the_cpu(model_path: Path, videos: Videos, batch_snippets: int) -> None:
    on_gpu, on_cpu = (
        dict(Detector(model_path, provider=provider, batch_snippets=batch_snippets).detect_many(videos, fps=25.0))
        for provider in ("cuda", "cpu")
    )
    assert on_gpu.keys() == on_cpu.keys()
    assert sum(map(len, on_cpu.values())) > 50, "a test on nothing"
    for name, expected in on_cpu.items():
        assert on_gpu[name].provider == "cuda"
        *places, scores = by_place(on_gpu[name])
        *expected_places, expected_scores = by_place(expected)
        for values, others in zip(places, expected_places, strict=True):
            np.testing.assert_array_equal(values, others)
        np.testing.assert_allclose(scores, expected_scores, atol=1e-5)


def test_calls_at_a_time_give_what_each_gives_alone(model_path: Path, videos: Videos) -> None:
    detector = Detector(model_path, provider="cuda")
    expected = {name: list(detector.detect(features, fps=25.0)) for name, features in videos.items()}
    with ThreadPoolExecutor(8) as pool:
        jobs = [(name, pool.submit(detector.detect, videos[name], fps=25.0)) for name in videos for _ in range(8)]
        for name, job in jobs:
            assert list(job.result()) == expected[name]
