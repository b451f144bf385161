"""Smaller weights: float16, and int8 with dynamic quantisation.

int8 quantises the inputs of each layer with a scale for each snippet. ONNX Runtime's `quantize_dynamic` has one scale
for the whole call, so that the scores of a video would depend on the other videos of the call. A scale for each snippet
moves fewer detections, and gives the same scores in any packing. Weights are signed, with one scale for each output.

Not all of the 8 bits are used. CPUs without VNNI (AVX2) add pairs of products in 16 bits, which would saturate with the
full range of both. 2 * 182 * 90 fits (rounding can add one to 181), so every CPU gives the same integers. Of the ranges
that fit, (127, 127), (255, 64) and (181, 90), the last had the smallest worst error over nine mixes of distributions of
inputs and weights.
"""

from collections.abc import Iterator
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
    y = scale * (s * (q Q) - zero * sum_d (s Q)_d + b / scale). After a ReLU, from and zero are 0.

    Where only other layers read y, after a ReLU, the graph has y / scale without the ReLU: quantisation scales each
    snippet anew anyway, and cuts off what is negative. So it passes over these values, the most of all, less often.

    Raises:
        ModelError: a layer too wide for 32-bit sums.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    outputs = {node.input[1]: weights[node.input[1]].dims[0] for node in graph.node if node.op_type == "Gemm"}
    constants = [
        numpy_helper.from_array(np.array([1], dtype=np.int64), "columns"),
        # Both offsets and two zeros are a snippet's first filter, two zeros and both offsets its second.
        numpy_helper.from_array(np.eye(4, dtype=np.float32)[[0, 2, 1, 3]].reshape(2, 8), "twice"),
        numpy_helper.from_array(np.array([-1, 4, 1, 1], dtype=np.int64), "of_filters"),
        numpy_helper.from_array(np.array(0, dtype=np.float32), "zero"),
        numpy_helper.from_array(np.array(_INPUT_LEVELS, dtype=np.float32), "levels"),
        # The scale of a snippet whose values are all 0: any positive number.
        numpy_helper.from_array(np.array(1e-30, dtype=np.float32), "least_scale"),
    ]
    nodes = list(_one())
    never_negative = {node.output[0] for node in graph.node if node.op_type == "Relu"}
    hidden = _hidden(graph)
    before_hidden = {layer.output[0] for layer in hidden.values()}
    quantised_inputs: set[str] = set()
    for node in graph.node:
        if node.output[0] in hidden:
            continue
        if node.op_type != "Gemm":
            nodes.append(node)
            continue
        features, weight_name, *bias = node.input  # a layer may have no bias
        if features not in quantised_inputs:  # both branches read the same features
            nodes.extend(_quantise_rows(features, features in never_negative, hidden.get(features)))
            quantised_inputs.add(features)
        layer = weight_name.removesuffix(".weight")
        nodes.extend(_integer_product(layer, features, node.output[0]))
        in_place = features not in never_negative and outputs[weight_name] % 2 == 0
        if in_place:
            nodes.extend(_added_in_place(layer, features, node.output[0]))
            graph.value_info.extend(_shapes_in_place(features, node.output[0], outputs[weight_name]))
        else:
            nodes.append(_added(layer, features, node.output[0]))
        if node.output[0] not in before_hidden:
            nodes.extend(_in_full(features, node.output[0]))
        if weight_name not in weights:  # a layer at several places has its constants once
            continue
        weight = numpy_helper.to_array(weights.pop(weight_name)).astype(np.float32)  # [out, in]
        if weight.shape[1] > _MAX_WIDTH:
            raise ModelError(f"int8: a layer with {weight.shape[1]} inputs; at most {_MAX_WIDTH} fit, use fp32 or fp16")
        scale = np.maximum(np.abs(weight).max(axis=1), np.float32(1e-30)) / np.float32(_WEIGHT_LEVELS)
        integers = np.round(weight / scale[:, None]).astype(np.int8)
        added = [numpy_helper.to_array(weights[bias[0]]) if bias else np.zeros(len(weight), dtype=np.float32)]
        if features not in never_negative:
            added.insert(0, scale * integers.sum(axis=1, dtype=np.int64).astype(np.float32))
        arrays = {"weight": np.ascontiguousarray(integers.T), "scale": scale, "added": np.stack(added)}
        if in_place:
            # The channels of the image are both rows of the first half of the outputs, then those of the second.
            arrays["added"] = arrays["added"].reshape(2, 2, -1).swapaxes(0, 1).reshape(1, 4, 1, -1)
            arrays["of_image"] = np.array([1, -1, 1, len(weight) // 2])
            arrays["of_rows"] = np.array([-1, len(weight)])
        for name, values in arrays.items():
            constants.append(numpy_helper.from_array(values, f"{layer}.{name}"))
    read = {name for node in nodes for name in node.input}
    tensors = {tensor.name: tensor for tensor in (*weights.values(), *constants)}
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensor for name, tensor in tensors.items() if name in read)
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


def _hidden(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """What ReLUs give that only fully connected layers read -> the layer before, which only the ReLU reads."""
    readers: dict[str, list[str]] = {value.name: [""] for value in graph.output}
    for node in graph.node:
        for place, name in enumerate(node.input):
            readers.setdefault(name, []).append(node.op_type if place == 0 else "")
    layers = {node.output[0]: node for node in graph.node if node.op_type == "Gemm"}
    return {
        node.output[0]: layers[node.input[0]]
        for node in graph.node
        if node.op_type == "Relu"
        and node.input[0] in layers
        and readers[node.input[0]] == ["Relu"]
        and set(readers.get(node.output[0], ())) == {"Gemm"}
    }


def _quantise_rows(name: str, never_negative: bool, before: onnx.NodeProto | None) -> Iterator[onnx.NodeProto]:
    """Inputs of layers, `name` [S, D] -> `name`.quantised uint8 [S, D], `name`.scale [S], and `name`.offsets.

    `name`.offsets is what `layer`.added is multiplied with: 1 / scale, [S, 1], and where `name` may be negative -zero
    before it, [S, 2]. `before` is the layer whose outputs stand for those of a ReLU, see `quantized`.

    Values of a snippet are [S] and not [S, 1], which ONNX Runtime combines with a number ten times as slowly.
    """
    values = name if before is None else f"{before.output[0]}.in_steps"
    own_scale = f"{name}.scale" if before is None else f"{name}.own_scale"
    quantisation = [values, own_scale]
    yield _node("ReduceMax", [values, "columns"], f"{name}.largest", keepdims=0)
    if never_negative:
        yield _node("Div", [f"{name}.largest", "levels"], f"{name}.step")
        yield _node("Max", [f"{name}.step", "least_scale"], own_scale)
    else:
        yield _node("ReduceMin", [values, "columns"], f"{name}.least", keepdims=0)
        yield _node("Min", [f"{name}.least", "zero"], f"{name}.from")
        yield _node("Max", [f"{name}.largest", "zero"], f"{name}.to")
        yield _node("Sub", [f"{name}.to", f"{name}.from"], f"{name}.range")
        yield _node("Div", [f"{name}.range", "levels"], f"{name}.step")
        yield _node("Max", [f"{name}.step", "least_scale"], own_scale)
        yield _node("Div", [f"{name}.from", own_scale], f"{name}.steps_below_zero")
        yield _node("Round", [f"{name}.steps_below_zero"], f"{name}.minus_zero")
        yield _node("Neg", [f"{name}.minus_zero"], f"{name}.zero_level")
        yield _node("Cast", [f"{name}.zero_level"], f"{name}.zero_point", to=TensorProto.UINT8)
        quantisation.append(f"{name}.zero_point")
    yield _node("QuantizeLinear", quantisation, f"{name}.quantised", axis=0)
    if before is not None:
        yield _node("Mul", [own_scale, f"{before.input[0]}.scale"], f"{name}.both_scales")
        yield _node("Max", [f"{name}.both_scales", "least_scale"], f"{name}.scale")  # 0 has no inverse
    yield _node("Reciprocal", [f"{name}.scale"], f"{name}.inverse")
    if never_negative:
        yield _node("Unsqueeze", [f"{name}.inverse", "columns"], f"{name}.offsets")
    else:
        yield _node("Unsqueeze", [f"{name}.inverse", "columns"], f"{name}.inverse_column")
        yield _node("Unsqueeze", [f"{name}.minus_zero", "columns"], f"{name}.minus_zero_column")
        yield _node("Concat", [f"{name}.minus_zero_column", f"{name}.inverse_column"], f"{name}.offsets", axis=1)


def _integer_product(layer: str, features: str, output: str) -> Iterator[onnx.NodeProto]:
    """`output`.scaled: what a layer gives without offsets and bias, divided by the scale of its inputs."""
    yield _node("MatMulInteger", [f"{features}.quantised", f"{layer}.weight"], f"{output}.integers")
    yield _node("Cast", [f"{output}.integers"], f"{output}.product", to=TensorProto.FLOAT)
    yield _node("Mul", ["one", f"{layer}.scale"], f"{output}.output_scale")
    yield _node("Mul", [f"{output}.product", f"{output}.output_scale"], f"{output}.scaled")


def _added(layer: str, features: str, output: str) -> onnx.NodeProto:
    """`output`.in_steps: `output`.scaled and the offsets of each snippet times `layer`.added."""
    return _node("Gemm", [f"{features}.offsets", f"{layer}.added", f"{output}.scaled"], f"{output}.in_steps")


def _added_in_place(layer: str, features: str, output: str) -> Iterator[onnx.NodeProto]:
    """The same as of `_added`, to the last bit, for two offsets a snippet and an even number of outputs.

    ONNX Runtime joins a convolution with the sum after it and adds in place, where Gemm copies first. That saves 4 to
    5 % of an int8 run. It does so for four axes, where the convolution names a bias, here the empty one, and where both
    summands are known to have one shape (`_shapes_in_place`).

    Each snippet has two filters, one for each half of the outputs. With one, a call of a single snippet would be a
    product of one row, which ONNX Runtime rounds in another order: a video's scores would depend on what else is in the
    call.
    """
    yield _node("MatMul", [f"{features}.offsets", "twice"], f"{output}.offsets_twice")
    yield _node("Reshape", [f"{output}.offsets_twice", "of_filters"], f"{output}.filters")
    yield _node("Reshape", [f"{output}.scaled", f"{layer}.of_image"], f"{output}.image")
    yield _node("Conv", [f"{layer}.added", f"{output}.filters", ""], f"{output}.offset")
    yield _node("Add", [f"{output}.image", f"{output}.offset"], f"{output}.sum")
    yield _node("Reshape", [f"{output}.sum", f"{layer}.of_rows"], f"{output}.in_steps")


def _shapes_in_place(features: str, output: str, outputs: int) -> Iterator[onnx.ValueInfoProto]:
    """Two filters and two rows of the image a snippet: nobody can infer from two Reshapes that they are as many."""
    rows = f"{features}.halves"
    shapes: dict[str, list[int | str]] = {"filters": [rows, 4, 1, 1], "image": [1, rows, 1, outputs // 2]}
    for name, shape in shapes.items():
        yield helper.make_tensor_value_info(f"{output}.{name}", TensorProto.FLOAT, shape)


def _in_full(features: str, output: str) -> Iterator[onnx.NodeProto]:
    """What a layer gives, from `output`.in_steps."""
    yield _node("Unsqueeze", [f"{features}.scale", "columns"], f"{output}.steps")
    yield _node("Mul", [f"{output}.in_steps", f"{output}.steps"], output)


def _node(kind: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], name=output, **attributes)
