"""Fixtures that every part of the test suite shares."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

# Before NumPy and torch start their threads: the tests run in several processes at once, on few cores, and threads that
# wait for each other there are many times slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest

from refineloc.runtime.model.metadata import ModelMetadata

# Kernels built elsewhere, with bounds checks or a sanitizer (docs/memory-safety.md), in the place of the usual ones.
if "REFINELOC_EXT_DIR" in os.environ:
    import refineloc._ext

    refineloc._ext.__path__.insert(0, os.environ["REFINELOC_EXT_DIR"])
    from refineloc._ext import matching, nms, proposals, segments

    for kernel in (matching, nms, proposals, segments):
        if Path(kernel.__file__).parent != Path(os.environ["REFINELOC_EXT_DIR"]):
            pytest.exit(f"REFINELOC_EXT_DIR: {kernel.__file__} was loaded instead", returncode=2)

SHARED_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real files that others published; tests that need it are skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the real files are not here: {SHARED_DATA}")
    return SHARED_DATA


WIDTH = 24

METADATA = ModelMetadata(
    classes=("jump", "run", "swim", "throw", "walk"),
    width=WIDTH,
    snippet_frames=16,
    stream="both",
    stream_order="temporal-spatial",
    profile="paper",
    alpha_a=0.5,
    alpha_c=0.3,
    top_k=2,
    max_gap=1,
    widen=2,
    nms=None,
    preset="",
    base="refineloc",
    iteration=1,
    layers=2,
    attention_values=2,
    precision="fp32",
    training_data="train.h5",
    producer="refineloc 0.1.0",
)


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Exports a small model with clear and varied scores; keyword arguments change its metadata."""
    import torch

    from refineloc.export.graph import build_graph, save_graph
    from refineloc.training.models.bases.refineloc import RefineLoc

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = RefineLoc(WIDTH, len(METADATA.classes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 6.0  # spreads the scores over (0, 1), so that thresholds keep some snippets and not others
    graph = build_graph(model, WIDTH)

    def make(**changes: Any) -> Path:
        path = tmp_path_factory.mktemp("model") / "model.onnx"
        save_graph(path, graph, replace(METADATA, **changes))
        return path

    return make


@pytest.fixture(scope="session")
def model_path(make_model: Callable[..., Path]) -> Path:
    """A model of five classes on 24 features."""
    return make_model()


@pytest.fixture
def rng() -> np.random.Generator:
    """Seeded."""
    return np.random.default_rng(7)
