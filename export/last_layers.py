"""The last layers of a float16 graph in float32, so that logits are not rounded to eleven bits.

A logit of 10 would be off by up to 0.004, and a class activation by 0.01. CPUs do not show it: ONNX Runtime computes
float16 layers in float32 there and rounds nothing between them. A GPU rounds after every layer. The last layers have
few outputs: the products of the others stay float16.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["last_layers_in_float32"]

_LAYERS = ("Gemm", "Conv")


def last_layers_in_float32(model: onnx.ModelProto, weights: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Give the layers whose outputs are cast to float32 inputs and weights of float32, in place.

    What is then a cast of float32 to float32 stays: ONNX Runtime removes it.

    Args:
        model: float16 layers, and casts of what they give to float32.
        weights: those of the trained model by the names of the graph; what is not among them is taken as it is rounded.
    """
    graph = model.graph
    maker = {output: node for node in graph.node for output in node.output}
    casts = [node for node in graph.node if node.op_type == "Cast" and _to(node) == TensorProto.FLOAT]
    last = {node.input[0] for node in casts if node.input[0] in maker and maker[node.input[0]].op_type in _LAYERS}
    # What goes on in float16 elsewhere stays so, such as BaS-Net's foreground, which its features are multiplied with.
    last -= {name for node in graph.node if node not in casts for name in node.input}
    # So does a layer whose weights another one has, too, which stays.
    elsewhere = {name for node in graph.node if not last & set(node.output) for name in node.input}
    last = {output for output in last if not elsewhere & set(maker[output].input[1:])}
    values = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    exact_inputs: dict[str, str] = {}
    for node in graph.node:
        if node.output[0] in last:
            features, *own = node.input
            if features not in exact_inputs:
                name = exact_inputs[features] = f"{features}.float32"
                nodes.append(helper.make_node("Cast", [features], [name], name, to=TensorProto.FLOAT))
            node.input[0] = exact_inputs[features]
            for name in own:
                exact = weights.get(name, numpy_helper.to_array(values[name]).astype(np.float32))
                values[name] = numpy_helper.from_array(exact, name)
        nodes.append(node)
    result = onnx.GraphProto(name=graph.name, node=nodes, initializer=values.values())
    result.input.extend(graph.input)
    result.output.extend(graph.output)
    graph.CopyFrom(result)


def _to(node: onnx.NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "to"), 0)
