"""A video's scores do not depend on what it is packed with, on its place, or on how many threads run: to the last bit.

Two things make it so on a CPU. ONNX Runtime's products with constant weights compute each row in the same order,
whatever the other rows; and the graph adds over time without rounding (`training.layers.activations`, `exact`), so the
order of its sums, which does depend on the packing, cannot be seen.
"""

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch

from refineloc.export.graph import build_graph, model_bytes
from refineloc.export.precision import quantized
from refineloc.runtime import Detector
from refineloc.runtime.model.metadata import Precision
from refineloc.runtime.model.session import Session
from refineloc.runtime.segments.rules import ManyThresholds
from refineloc.runtime.segments.values import Scores
from refineloc.training.models.base_model import BaseModel
from refineloc.training.models.bases.basnet import BaSNet
from refineloc.training.models.bases.refineloc import RefineLoc
from refineloc.training.models.bases.wtalc import WTALC

WIDTH, CLASSES = 256, 20
LENGTHS = [1, 300, 2, 45, 800, 1, 77, 20, 7, 13, 511, 256, 3]
ORDERS = [list(range(13)), list(range(13))[::-1], [1, 0], [4, 1, 10], [12, 2, 0], [10, 11]]
KINDS: list[tuple[Precision, int]] = [("fp32", 2), ("fp32", 1), ("fp16", 2), ("int8", 2), ("int8", 1)]


def spread(model: BaseModel, factor: float) -> BaseModel:
    """The same model with scores that vary more."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= factor
    return model


@functools.cache
def refineloc_graph(values: int, half: bool) -> onnx.ModelProto:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = RefineLoc(WIDTH, CLASSES, 2, values)
    return build_graph(spread(model, 4.0), WIDTH, half=half)


@functools.cache
def other_graph(base: type[WTALC | BaSNet]) -> tuple[onnx.ModelProto, int]:
    """The graph, and how many snippets its scores look around."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = base(WIDTH, CLASSES)
    return build_graph(spread(model, 3.0), WIDTH), model.context_snippets


def with_precision(graph: onnx.ModelProto, precision: Precision) -> onnx.ModelProto:
    """What `build` does with a traced graph."""
    return quantized(graph) if precision == "int8" else graph


@pytest.fixture(scope="module", params=KINDS, ids=[f"{precision}-{values}" for precision, values in KINDS])
def path(request: pytest.FixtureRequest, model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    precision, values = request.param
    out = tmp_path_factory.mktemp("packing") / "model.onnx"
    said = replace(
        Session(model_path, "cpu").metadata,
        width=WIDTH,
        classes=tuple(f"c{index}" for index in range(CLASSES)),
        precision=precision,
        attention_values=values,
    )
    out.write_bytes(model_bytes(with_precision(refineloc_graph(values, precision == "fp16"), precision), said))
    return out


@pytest.fixture(scope="module")
def videos() -> list[npt.NDArray[np.float32]]:
    rng = np.random.default_rng(3)
    return [rng.standard_normal((length, WIDTH)).astype(np.float32) for length in LENGTHS]


def scores_of(session: Session, videos: list[npt.NDArray[np.float32]], order: list[int]) -> dict[int, Scores]:
    """The scores of each video, from one call."""
    lengths = np.array([LENGTHS[index] for index in order], dtype=np.int64)
    packed = session.run(np.concatenate([videos[index] for index in order]), lengths)
    ends = np.cumsum(lengths)
    return {
        index: Scores(*(output[end - length : end] for output in packed[:3]), packed.video_scores[place : place + 1])
        for place, (index, length, end) in enumerate(zip(order, lengths, ends, strict=True))
    }


@pytest.mark.parametrize("threads", [1, 2])
def test_any_packing_gives_the_bits_that_a_video_alone_gives(
    path: Path, videos: list[npt.NDArray[np.float32]], threads: int
) -> None:
    alone_session = Session(path, "cpu", threads=1)
    alone = {index: scores_of(alone_session, videos, [index])[index] for index in range(len(videos))}
    assert alone[4].foreground.std() > 0.05, "scores that do not vary show nothing"
    session = Session(path, "cpu", threads=threads)
    for order in ORDERS:
        for index, scores in scores_of(session, videos, order).items():
            for name, packed, expected in zip(Scores._fields, scores, alone[index], strict=True):
                assert np.array_equal(packed, expected), (order, LENGTHS[index], name)


def test_exact_sums_are_as_near_to_the_truth_as_float32_can_be(
    path: Path, videos: list[npt.NDArray[np.float32]]
) -> None:
    scores = scores_of(Session(path, "cpu"), videos, [4, 1])[4]
    assert abs(scores.attention.sum(dtype=np.float64) - 1) < 1e-6
    expected = scores.attention.astype(np.float64) @ scores.class_scores.astype(np.float64)
    np.testing.assert_allclose(scores.video_scores[0], expected, rtol=2e-7)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("base", [WTALC, BaSNet])
def test_other_base_models_detect_the_same_in_any_packing(
    model_path: Path,
    videos: list[npt.NDArray[np.float32]],
    tmp_path: Path,
    base: type[WTALC | BaSNet],
    precision: Precision,
) -> None:
    """Their means of the highest activations, and BaS-Net's convolutions over time, do not see the packing either."""
    graph, context_snippets = other_graph(base)
    said = replace(
        Session(model_path, "cpu").metadata,
        width=WIDTH,
        classes=tuple(f"c{index}" for index in range(CLASSES)),
        base=base.__name__.lower(),
        context_snippets=context_snippets,
        detection=ManyThresholds(thresholds=(0.1, 0.3, 0.5)),
        precision=precision,
        parity=None,
    )
    (tmp_path / "m.onnx").write_bytes(model_bytes(with_precision(graph, precision), said))
    named = {f"v{index:02}": features for index, features in enumerate(videos)}
    alone = Detector(tmp_path / "m.onnx", provider="cpu", threads=1)
    expected = {name: list(alone.detect(features, fps=25.0)) for name, features in named.items()}
    assert sum(map(len, expected.values())) > 50, "a test on nothing"
    for batch_snippets in (1, 100, 600, 5000):
        detector = Detector(tmp_path / "m.onnx", provider="cpu", threads=2, batch_snippets=batch_snippets)
        assert {name: list(detections) for name, detections in detector.detect_many(named, fps=25.0)} == expected
