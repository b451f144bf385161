"""Smaller weights: float16, and int8 with dynamic quantisation.

int8 quantises the inputs of each layer with a scale for each snippet. ONNX Runtime's `quantize_dynamic` has one scale
for the whole call, so that the scores of a video would depend on the other videos of the call. A scale for each snippet
moves fewer detections, and gives the same scores in any packing. Weights are signed, with one scale for each output.

Not all of the 8 bits are used. CPUs without VNNI (AVX2) add pairs of products in 16 bits, which would saturate with the
full range of both. 2 * 182 * 90 fits (rounding can add one to 181), so every CPU gives the same integers. Of the ranges
that fit, (127, 127), (255, 64) and (181, 90), the last had the smallest worst error over nine mixes of distributions of
inputs and weights.
"""

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from refineloc.export.graph import build_graph, check_graph
from refineloc.runtime.errors import ModelError
from refineloc.runtime.model.metadata import Precision
from refineloc.training.models.base_model import BaseModel

__all__ = ["build", "quantized"]

_INPUT_LEVELS, _WEIGHT_LEVELS = 181, 90  # the largest quantised values
_MAX_WIDTH = (2**31 - 1) // (_INPUT_LEVELS * _WEIGHT_LEVELS)  # inputs of a layer, so that its sums fit into int32


def build(model: BaseModel, width: int, precision: Precision) -> onnx.ModelProto:
    """The graph of a base model with weights of this precision; see `build_graph`."""
    graph = build_graph(model, width, half=precision == "fp16")
    return quantized(graph) if precision == "int8" else graph


def quantized(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the graph in which each fully connected layer multiplies 8-bit integers.

    For a layer y = x W + b with inputs x [S, D], for each snippet: from and to are its smallest and largest value, or 0
    if all values are on one side of 0. scale = (to - from) / 181, zero = round(-from / scale) and
    q = round(x / scale) + zero. With W ~ s Q (Q int8, one s for each output)
    y = scale * s * (q Q) + low * sum_d (s Q)_d + b, where low = -zero * scale. After a ReLU, from and low are 0.

    Raises:
        ModelError: a layer too wide for 32-bit sums.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    constants = [
        numpy_helper.from_array(np.array([1], dtype=np.int64), "columns"),
        numpy_helper.from_array(np.array(0, dtype=np.float32), "zero"),
        numpy_helper.from_array(np.array(_INPUT_LEVELS, dtype=np.float32), "levels"),
        # The scale of a snippet whose values are all 0: any positive number.
        numpy_helper.from_array(np.array(1e-30, dtype=np.float32), "least_scale"),
    ]
    nodes = list(_one())
    never_negative = {node.output[0] for node in graph.node if node.op_type == "Relu"}
    quantised_inputs: set[str] = set()
    for node in graph.node:
        if node.op_type != "Gemm":
            nodes.append(node)
            continue
        features, weight_name, *bias = node.input  # a layer may have no bias
        if features not in quantised_inputs:  # both branches read the same features
            nodes.extend(_quantise_rows(features, never_negative))
            quantised_inputs.add(features)
        layer = weight_name.removesuffix(".weight")
        nodes.extend(_integer_product(layer, features, features in never_negative, node.output[0]))
        if weight_name not in weights:  # a layer at several places has its constants once
            continue
        weight = numpy_helper.to_array(weights.pop(weight_name)).astype(np.float32)  # [out, in]
        if weight.shape[1] > _MAX_WIDTH:
            raise ModelError(f"int8: a layer with {weight.shape[1]} inputs; at most {_MAX_WIDTH} fit, use fp32 or fp16")
        scale = np.maximum(np.abs(weight).max(axis=1), np.float32(1e-30)) / np.float32(_WEIGHT_LEVELS)
        integers = np.round(weight / scale[:, None]).astype(np.int8)
        added = numpy_helper.to_array(weights[bias[0]]) if bias else np.zeros(len(weight), dtype=np.float32)
        arrays = {"weight": np.ascontiguousarray(integers.T), "scale": scale, "bias": added}
        if features not in never_negative:
            sums = scale * integers.sum(axis=1, dtype=np.int64).astype(np.float32)
            arrays["sum_and_bias"] = np.stack([sums, arrays.pop("bias")])
        for name, values in arrays.items():
            constants.append(numpy_helper.from_array(values, f"{layer}.{name}"))
    read = {name for node in nodes for name in node.input} - {constant.name for constant in constants}
    kept = [tensor for name, tensor in weights.items() if name in read]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*kept, *constants])
    check_graph(result)
    return result


def _one() -> Iterator[onnx.NodeProto]:
    """The number 1, computed: the dimensions of `lengths`.

    ONNX Runtime makes one operator, MatMulIntegerToFloat, of a product, its Cast and its scale only if the scale is a
    product of two values that are not both constants. Else an int8 call takes a tenth longer.
    """
    yield _node("Shape", ["lengths"], "videos")
    yield _node("Size", ["videos"], "dimensions")
    yield _node("Cast", ["dimensions"], "one", to=TensorProto.FLOAT)


def _quantise_rows(name: str, never_negative: Collection[str]) -> Iterator[onnx.NodeProto]:
    """`name` [S, D] -> `name`.quantised uint8 [S, D] and `name`.scale [S, 1].

    Where it may be negative also `name`.low_and_one [S, 2], the value of quantised 0 and the number 1.
    """
    yield _node("ReduceMax", [name, "columns"], f"{name}.largest", keepdims=1)
    if name in never_negative:
        yield from _scale(name, f"{name}.largest")
        yield _node("QuantizeLinear", [name, f"{name}.scales"], f"{name}.quantised", axis=0)
        return
    yield _node("ReduceMin", [name, "columns"], f"{name}.least", keepdims=1)
    yield _node("Min", [f"{name}.least", "zero"], f"{name}.from")
    yield _node("Max", [f"{name}.largest", "zero"], f"{name}.to")
    yield _node("Sub", [f"{name}.to", f"{name}.from"], f"{name}.range")
    yield from _scale(name, f"{name}.range")
    yield _node("Div", [f"{name}.from", f"{name}.scale"], f"{name}.steps_below_zero")
    yield _node("Round", [f"{name}.steps_below_zero"], f"{name}.whole_steps_below_zero")
    yield _node("Mul", [f"{name}.whole_steps_below_zero", f"{name}.scale"], f"{name}.low")
    yield _node("Div", [f"{name}.scale", f"{name}.scale"], f"{name}.ones")
    yield _node("Concat", [f"{name}.low", f"{name}.ones"], f"{name}.low_and_one", axis=1)
    yield _node("Neg", [f"{name}.whole_steps_below_zero"], f"{name}.zero_level")
    yield _node("Cast", [f"{name}.zero_level"], f"{name}.zero_point", to=TensorProto.UINT8)
    yield _node("Squeeze", [f"{name}.zero_point", "columns"], f"{name}.zero_points")
    yield _node("QuantizeLinear", [name, f"{name}.scales", f"{name}.zero_points"], f"{name}.quantised", axis=0)


def _scale(name: str, extent: str) -> Iterator[onnx.NodeProto]:
    yield _node("Div", [extent, "levels"], f"{name}.step")
    yield _node("Max", [f"{name}.step", "least_scale"], f"{name}.scale")
    yield _node("Squeeze", [f"{name}.scale", "columns"], f"{name}.scales")


def _integer_product(layer: str, features: str, never_negative: bool, output: str) -> Iterator[onnx.NodeProto]:
    yield _node("MatMulInteger", [f"{features}.quantised", f"{layer}.weight"], f"{output}.integers")
    yield _node("Cast", [f"{output}.integers"], f"{output}.product", to=TensorProto.FLOAT)
    yield _node("Mul", ["one", f"{layer}.scale"], f"{output}.output_scale")
    yield _node("Mul", [f"{output}.product", f"{output}.output_scale"], f"{output}.scaled_outputs")
    yield _node("Mul", [f"{output}.scaled_outputs", f"{features}.scale"], f"{output}.scaled")
    if never_negative:
        yield _node("Add", [f"{output}.scaled", f"{layer}.bias"], output)
    else:  # low * sum + 1 * bias + scaled: one operator, into which ONNX Runtime takes the ReLU too
        inputs = [f"{features}.low_and_one", f"{layer}.sum_and_bias", f"{output}.scaled"]
        yield _node("Gemm", inputs, output)


def _node(kind: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], name=output, **attributes)
