"""The model that the tests share: the committed graph data/model.onnx, with metadata written by the product's code.

And features for it.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from refineloc.runtime.model.metadata import ModelMetadata, OperatingScore, Parity, Tuning
from refineloc.runtime.segments.rules import OneThreshold, changed, profiles_with

GRAPH = Path(__file__).with_name("data") / "model.onnx"
WIDTH = 24
METADATA = ModelMetadata(
    classes=("jump", "run", "swim", "throw", "walk"),
    width=WIDTH,
    snippet_frames=16,
    stream="both",
    stream_order="temporal-spatial",
    detection=OneThreshold(alpha_c=0.3),
    preset="",
    base="refineloc",
    iteration=1,
    layers=2,
    attention_values=2,
    precision="fp32",
    training_data="train.h5",
    producer="refineloc 0.1.0",
    context_snippets=0,
)
# What metadata may have beside.
PARITY = Parity("val.h5", 4, 240, 1e-7, 2e-7, 1e-8, 1e-7, 12, 0, 1, reference_map=0.5, map=0.512)
TUNING = Tuning(
    labels="five.csv",
    date="2026-11-27",
    videos=("a", "b"),
    folds=2,
    changed=("top_k: 2 -> 3",),
    tious="0.5:0.95:0.05",
    own_map=0.4,
    map=0.5,
    gain=-0.05,
    noise=0.02,
)
POINT = OperatingScore(
    precision=0.9,
    min_score=-0.41,
    tiou=0.5,
    recall=0.4,
    false_alarms_an_hour=None,
    true_positives=5,
    false_positives=1,
    labels="five.csv",
    date="2026-11-27",
    videos=2,
)
# Of a model that finds segments itself.
STUDENT: dict[str, Any] = {"profile": "boundaries", "base": "student", "top_k": 5, "point_score": 0.1}


def student_graph(rows: int = 0) -> onnx.ModelProto:
    """The committed graph, whose points are its snippets, without the first `rows`; ends by the first two features."""
    model = onnx.load(GRAPH)
    for name, value in (("from", [rows, 0]), ("to", [2**31, 2]), ("all", [2**31, 2**31])):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), name))
    model.graph.node.extend(
        [
            helper.make_node("Slice", ["class_scores", "from", "all"], ["point_scores"]),
            helper.make_node("Slice", ["features", "from", "to"], ["two"]),
            helper.make_node("Abs", ["two"], ["distances"]),
        ]
    )
    for name, width in (("point_scores", 5), ("distances", 2)):
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["points", width]))
    return model


def metadata_with(**changes: Any) -> ModelMetadata:
    """The metadata, with other values of fields, or of settings of detection."""
    settings = {name: changes.pop(name) for name in list(changes) if profiles_with(name)}
    return replace(METADATA, detection=changed(METADATA.detection, settings), **changes)


def write_model(path: Path, graph: onnx.ModelProto | None = None, **changes: Any) -> Path:
    """Write the model to `path`; `changes` as for `metadata_with`, `graph` another than the committed one."""
    model = onnx.load(GRAPH) if graph is None else graph
    onnx.helper.set_model_props(model, metadata_with(**changes).to_props())
    path.write_bytes(model.SerializeToString())
    return path


def write_features(path: Path, videos: Mapping[str, Any], **attributes: float) -> Path:
    """Write features [T, D] by video as HDF5; every video has the attributes (fps, duration, snippet_frames)."""
    with h5py.File(path, "w") as file:
        for name, features in videos.items():
            file[name] = features
            file[name].attrs.update(attributes)
    return path
