"""The model that the tests share: the committed graph data/model.onnx, with metadata written by the product's code."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from refineloc.runtime.model.metadata import ModelMetadata

GRAPH = Path(__file__).with_name("data") / "model.onnx"
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


def write_model(path: Path, **changes: Any) -> Path:
    """Write the model to `path`; `changes` are fields of its metadata."""
    model = onnx.load(GRAPH)
    onnx.helper.set_model_props(model, replace(METADATA, **changes).to_props())
    path.write_bytes(model.SerializeToString())
    return path
