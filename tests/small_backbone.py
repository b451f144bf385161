"""Backbones without torch: the mean colour of a snippet, and the mean, energy and peak of its sound."""

from pathlib import Path
from typing import Any

from onnx import TensorProto, helper

from refineloc.runtime.video.backbone import BackboneMetadata


def write_backbone(path: Path, **changes: Any) -> Path:
    """A backbone whose features are the means of R, G and B, from 0 to 1; or of sound its mean, energy and peak.

    They are repeated where `width` is a multiple of 3.
    """
    values: dict[str, Any] = {
        "kind": "video",
        "width": 3,
        "fps": 10.0,
        "snippet_frames": 5,
        "stride_frames": 5,
        "size": (16,),
        "source": "mean colour",
        "weights_sha256": "0" * 64,
        "licence": "none",
        "producer": "tests",
    }
    metadata = BackboneMetadata(**(values | changes))
    if metadata.kind == "video":
        taken = helper.make_tensor_value_info("frames", TensorProto.UINT8, ["snippets", "F", "height", "width", 3])
        nodes = [
            helper.make_node("Cast", ["frames"], ["values"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["values", "axes"], ["mean"], keepdims=0),
            helper.make_node("Div", ["mean", "white"], ["means"]),
            helper.make_node("Tile", ["means", "repeats"], ["features"]),
        ]
        constants = [
            helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3]),
            helper.make_tensor("white", TensorProto.FLOAT, [], [255.0]),
            helper.make_tensor("repeats", TensorProto.INT64, [2], [1, max(metadata.width // 3, 1)]),
        ]
    else:
        taken = helper.make_tensor_value_info("samples", TensorProto.FLOAT, ["snippets", "F"])
        nodes = [
            helper.make_node("ReduceMean", ["samples", "axes"], ["mean"], keepdims=1),
            helper.make_node("ReduceSumSquare", ["samples", "axes"], ["energy"], keepdims=1),
            helper.make_node("ReduceMax", ["samples", "axes"], ["peak"], keepdims=1),
            helper.make_node("Concat", ["mean", "energy", "peak"], ["means"], axis=1),
            helper.make_node("Tile", ["means", "repeats"], ["features"]),
        ]
        constants = [
            helper.make_tensor("axes", TensorProto.INT64, [1], [1]),
            helper.make_tensor("repeats", TensorProto.INT64, [2], [1, max(metadata.width // 3, 1)]),
        ]
    given = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["snippets", metadata.width])
    graph = helper.make_graph(nodes, "backbone", [taken], [given], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    helper.set_model_props(model, metadata.to_props())
    path.write_bytes(model.SerializeToString())
    return path
