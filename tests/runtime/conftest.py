"""What the runtime's tests share: a small exported model, with weights that give clear and varied scores."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from refineloc.export.graph import build_graph, save_graph
from refineloc.runtime.metadata import ModelMetadata
from refineloc.training.bases.refineloc import RefineLoc

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
    """Exports a model; keyword arguments change its metadata."""
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
