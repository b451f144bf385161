"""Smaller weights: float16, and int8 with dynamic quantisation.

int8 quantises the inputs of each layer anew for every snippet, not once for the whole call as ONNX Runtime's own
`quantize_dynamic` does: with one scale a call, a video's scores would depend on the videos that were packed with it.
Measured on a CPU with AVX512-VNNI it costs about a tenth more time than the whole-call form, and gives the same scores
whatever the packing. Weights are signed, one scale an output.

Not all of the 8 bits are used. CPUs without VNNI (AVX2) add pairs of products in 16 bits, which saturate with full
range on both sides; 2 * 181 * 90 fits, so every CPU gives the same integers. Of the ranges that fit, (127, 127),
(255, 64) and (181, 90), the last had the smallest worst error over nine mixes of input and weight distributions.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from refineloc.export.graph import build_graph, check_graph
from refineloc.runtime.errors import ModelError
from refineloc.runtime.metadata import Precision

__all__ = ["build", "quantized"]

_INPUT_LEVELS, _WEIGHT_LEVELS = 181, 90  # the largest quantised values
_MAX_WIDTH = (2**31 - 1) // (_INPUT_LEVELS * _WEIGHT_LEVELS)  # inputs of a layer whose product surely fits into int32


def build(model: nn.Module, width: int, precision: Precision) -> onnx.ModelProto:
    """The graph of a base model with weights of the given precision; see `build_graph`."""
    graph = build_graph(model, width, half=precision == "fp16")
    return quantized(graph) if precision == "int8" else graph


def quantized(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the graph in which each fully connected layer multiplies 8-bit integers.

    For a layer y = x W + b with inputs x [S, D]: low and high are the least and the largest value of a snippet,
    scale = (high - low) / 181, q = round((x - low) / scale), and with W ~ s Q (Q int8, one s an output)
    y = scale * s * (q Q) + low * sum_d (s Q)_d + b.

    Raises:
        ModelError: a layer too wide for 32-bit sums.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    constants = [
        numpy_helper.from_array(np.array([1], dtype=np.int64), "columns"),
        numpy_helper.from_array(np.array(_INPUT_LEVELS, dtype=np.float32), "levels"),
        # The scale of a snippet whose values are all equal; any positive number does, q is 0.
        numpy_helper.from_array(np.array(1e-30, dtype=np.float32), "least_scale"),
    ]
    nodes: list[onnx.NodeProto] = []
    quantised_inputs: set[str] = set()
    for node in graph.node:
        if node.op_type != "Gemm":
            nodes.append(node)
            continue
        features, weight_name, bias = node.input
        if features not in quantised_inputs:  # both branches read the same features
            nodes.extend(_quantise_rows(features))
            quantised_inputs.add(features)
        weight = numpy_helper.to_array(weights.pop(weight_name)).astype(np.float32)  # [out, in]
        if weight.shape[1] > _MAX_WIDTH:
            raise ModelError(f"int8: a layer with {weight.shape[1]} inputs; at most {_MAX_WIDTH} fit, use fp32 or fp16")
        scale = np.maximum(np.abs(weight).max(axis=1), np.float32(1e-30)) / np.float32(_WEIGHT_LEVELS)
        integers = np.round(weight / scale[:, None]).astype(np.int8)
        layer = weight_name.removesuffix(".weight")
        for name, values in (
            ("weight", np.ascontiguousarray(integers.T)),
            ("scale", scale),
            ("sum", scale * integers.sum(axis=1, dtype=np.int64).astype(np.float32)),
        ):
            constants.append(numpy_helper.from_array(values.astype(values.dtype), f"{layer}.{name}"))
        nodes.extend(_integer_product(layer, features, bias, node.output[0]))
    kept = [tensor for tensor in graph.initializer if tensor.name in weights]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*kept, *constants])
    check_graph(result)
    return result


def _quantise_rows(name: str) -> Iterator[onnx.NodeProto]:
    """`name` [S, D] -> `name`.quantised uint8 [S, D], `name`.scale and `name`.low [S, 1]."""
    yield _node("ReduceMin", [name, "columns"], f"{name}.low", keepdims=1)
    yield _node("ReduceMax", [name, "columns"], f"{name}.high", keepdims=1)
    yield _node("Sub", [f"{name}.high", f"{name}.low"], f"{name}.range")
    yield _node("Div", [f"{name}.range", "levels"], f"{name}.step")
    yield _node("Max", [f"{name}.step", "least_scale"], f"{name}.scale")
    yield _node("Squeeze", [f"{name}.scale", "columns"], f"{name}.scales")
    yield _node("Sub", [name, f"{name}.low"], f"{name}.above_low")
    yield _node("QuantizeLinear", [f"{name}.above_low", f"{name}.scales"], f"{name}.quantised", axis=0)


def _integer_product(layer: str, features: str, bias: str, output: str) -> Iterator[onnx.NodeProto]:
    yield _node("MatMulInteger", [f"{features}.quantised", f"{layer}.weight"], f"{layer}.integers")
    yield _node("Cast", [f"{layer}.integers"], f"{layer}.product", to=TensorProto.FLOAT)
    yield _node("Mul", [f"{layer}.product", f"{features}.scale"], f"{layer}.scaled_rows")
    yield _node("Mul", [f"{layer}.scaled_rows", f"{layer}.scale"], f"{layer}.scaled")
    yield _node("Mul", [f"{features}.low", f"{layer}.sum"], f"{layer}.offset")
    yield _node("Add", [f"{layer}.offset", bias], f"{layer}.offset_and_bias")
    yield _node("Add", [f"{layer}.scaled", f"{layer}.offset_and_bias"], output)


def _node(kind: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], name=output, **attributes)
