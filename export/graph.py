"""A trained model as one ONNX graph: packed snippets in, the outputs of docs/reference/onnx.md out.

The exporter traces the torch code that training runs (a base model's `forward` and `activations`), so the mathematics
of the method exist once. The graph stays as the exporter writes it, with one Gemm for each layer: other forms were no
faster (benchmarks/RESULTS.md).
"""

import contextlib
import copy
import logging
import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import torch
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from refineloc.export.joined import join_layers
from refineloc.export.last_layers import last_layers_in_float32
from refineloc.runtime.errors import ModelError, first_line
from refineloc.runtime.model.metadata import ModelMetadata
from refineloc.runtime.segments.values import POINT_SCORES, SNIPPET_SCORES
from refineloc.training.models.base_model import BaseModel
from refineloc.training.models.ensemble import members_of
from refineloc.training.models.standardised import Standardised

__all__ = ["OPSET", "build_graph", "check_graph", "check_valid", "content_of", "model_bytes", "trace"]

OPSET = 20  # read by ONNX Runtime 1.17 and later; no operator used here gains from a newer one

_INPUTS = ["features", "lengths"]
_OUTPUTS, _OF_POINTS = list(SNIPPET_SCORES), list(POINT_SCORES)
_EXAMPLE_LENGTHS = (3, 4)  # any two videos; sizes 0 and 1 would be traced as constants


class _PackedModel(nn.Module):
    """What is traced. With `half` the layers have float16 weights and products; all else is float32."""

    def __init__(self, model: BaseModel, half: bool) -> None:
        super().__init__()
        self.model = model
        # A model that standardises takes float32, and rounds what it has standardised.
        self.half_precision = half and not any(isinstance(module, Standardised) for module in model.modules())

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        """`features` float32 [S, D], `lengths` int64 [V] -> C̄ [S, N], Ā^bf_fg [S], Ā^time [S], ŷ [V, N], points."""
        outputs = self.model(features.half() if self.half_precision else features, lengths)
        # The softmax over time has values near 1/T, too small for float16 in long videos.
        outputs = outputs.float()
        return (*self.model.activations(outputs, lengths, exact=True), *self.model.points(outputs))


def build_graph(model: BaseModel, width: int, *, half: bool = False) -> onnx.ModelProto:
    """Trace a base model into an ONNX graph of any number of snippets and videos.

    Args:
        model: stays unchanged.
        width: D.
        half: float16 weights and products, but of the last layers; inputs and outputs stay float32.

    Raises:
        ModelError: the model's forward pass cannot be traced into a graph that passes the checker.
    """
    copied = copy.deepcopy(model).to("cpu", torch.float16 if half else torch.float32)  # .to() acts in place
    packed = _PackedModel(copied, half).eval()
    example = (torch.zeros(sum(_EXAMPLE_LENGTHS), width), torch.tensor(_EXAMPLE_LENGTHS))
    sizes = {"features": {0: torch.export.Dim("snippets")}, "lengths": {0: torch.export.Dim("videos")}}
    graph = trace(packed, example, _INPUTS, _OUTPUTS + _OF_POINTS * (model.levels > 0), sizes)
    if half:
        last_layers_in_float32(graph, {name: value.float().cpu().numpy() for name, value in model.state_dict().items()})
    if len(members_of(model)) > 1:
        join_layers(graph)
    check_graph(graph)
    return graph


def trace(
    module: nn.Module,
    example: tuple[Tensor, ...],
    inputs: list[str],
    outputs: list[str],
    sizes: dict[str, dict[int, Any]],
) -> onnx.ModelProto:
    """Trace a module into a tidy ONNX graph.

    Args:
        module: in evaluation.
        example: its inputs, of sizes that are neither 0 nor 1 where they may change.
        inputs, outputs: names.
        sizes: by input and axis, which sizes may change.

    Raises:
        ModelError: it cannot be traced.
    """
    with _quiet(), torch.inference_mode():
        program = torch.onnx.export(
            module,
            example,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=sizes,
            opset_version=OPSET,
            dynamo=True,
            optimize=True,  # folds constants and removes dead nodes
            verbose=False,
        )
    if program is None:
        raise ModelError("torch.onnx.export gave no graph")
    model: onnx.ModelProto = program.model_proto
    _fold_weights(model.graph)
    return _tidied(model)


def check_graph(model: onnx.ModelProto) -> None:
    """Run the ONNX checker and full shape inference, and check the contract: one file, its inputs and outputs.

    Raises:
        ModelError: a check fails.
    """
    check_valid(model)
    names = [value.name for value in model.graph.input], [value.name for value in model.graph.output]
    if names not in ((_INPUTS, _OUTPUTS), (_INPUTS, _OUTPUTS + _OF_POINTS)):
        raise ModelError(f"the exported graph has other inputs or outputs than the contract: {names}")


def check_valid(model: onnx.ModelProto) -> None:
    """Run the ONNX checker and full shape inference on a graph that is to be one file.

    Raises:
        ModelError: a check fails.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"the exported graph is not valid ONNX: {first_line(error)}") from error
    if any(tensor.external_data for tensor in model.graph.initializer):
        raise ModelError("the exported graph keeps weights outside of the file")


def model_bytes(model: onnx.ModelProto, metadata: ModelMetadata) -> bytes:
    """The graph with its metadata, as the content of one file.

    Raises:
        ModelError: larger than the 2 GiB that one ONNX file can hold.
    """
    words = "refineloc: temporal action localization; docs/reference/onnx.md describes inputs, outputs and metadata"
    return content_of(model, metadata.to_props(), metadata.producer, words)


def content_of(model: onnx.ModelProto, props: dict[str, str], producer: str, words: str) -> bytes:
    """A graph with metadata and a description, as the content of one file.

    Raises:
        ModelError: larger than the 2 GiB that one ONNX file can hold.
    """
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, props)
    model.producer_name, _, model.producer_version = producer.partition(" ")
    model.doc_string = words
    try:
        content: bytes = model.SerializeToString(deterministic=True)
    except ValueError as error:  # protobuf's limit
        raise ModelError("the model is larger than 2 GiB, which no single ONNX file can be") from error
    return content


def _fold_weights(graph: onnx.GraphProto) -> None:
    """Store weights as layers take them, in place: the exporter leaves large ones to be rearranged in every call."""
    values = {tensor.name: tensor for tensor in graph.initializer}
    read: set[str] = set()
    for node in list(graph.node):
        if node.op_type in ("Reshape", "Transpose") and values.keys() >= set(node.input):
            inputs = {name: onnx.numpy_helper.to_array(values[name]) for name in node.input}
            (folded,) = ReferenceEvaluator(node).run(None, inputs)
            values[node.output[0]] = onnx.numpy_helper.from_array(np.ascontiguousarray(folded), node.output[0])
            graph.node.remove(node)
            read |= set(node.input)
    gone = read - {name for node in graph.node for name in node.input}
    del graph.initializer[:]
    graph.initializer.extend(tensor for name, tensor in values.items() if name not in gone)


def _tidied(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give readable names, and remove the traces (with paths of this machine) that the exporter leaves on each node."""
    graph = model.graph
    for node in graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*graph.input, *graph.output, *graph.initializer):
        del value.metadata_props[:]
        value.doc_string = ""
    del graph.metadata_props[:]
    del graph.value_info[:]  # shape inference makes them again; old ones would mislead
    graph.name = "refineloc"

    names = {value.name: value.name for value in (*graph.input, *graph.output)}
    counts = dict.fromkeys(names, 0)  # a layer may be called like an output

    def unused(name: str) -> str:
        counts[name] = counts.get(name, -1) + 1
        return f"{name}_{counts[name]}" if counts[name] else name

    for tensor in graph.initializer:
        weight = re.fullmatch(r"model\.(.+\.(?:weight|bias))", tensor.name)
        name = weight[1] if weight else unused("constant")
        names[tensor.name] = tensor.name = name
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = names.get(name, name)
        # The product of a layer has the name of its module in training.
        layer = next((name.removesuffix(".weight") for name in node.input if name.endswith(".weight")), None)
        for index, name in enumerate(node.output):
            if name not in names:
                names[name] = unused(layer or _snake(node.op_type))
            node.output[index] = names[name]
        node.name = node.output[0]
    return model


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter, which logs missing packages that nobody needs and warns of its own deprecations."""
    logger: Any = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
