"""float16 and int8 files: what they hold, and how near they are (`test_packing.py`: that packing changes nothing)."""

import functools
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from data.make_model import WIDTH as STEEP
from data.make_model import make_graph
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from refineloc.export.graph import check_valid
from refineloc.export.last_layers import last_layers_in_float32
from refineloc.export.precision import build, quantized
from refineloc.runtime.errors import ModelError
from refineloc.runtime.model.metadata import Precision
from refineloc.training.models.bases.refineloc import RefineLoc

WIDTH, CLASSES = 256, 6
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
OUTPUTS = ["class_scores", "foreground", "attention", "video_scores"]


@functools.cache
def graph_of(precision: Precision) -> onnx.ModelProto:
    torch.manual_seed(3)
    return build(RefineLoc(WIDTH, CLASSES), WIDTH, precision)


@functools.cache
def session_of(precision: Precision) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(graph_of(precision).SerializeToString())


def run(precision: Precision, features: npt.NDArray[np.float32], lengths: list[int]) -> list[npt.NDArray[np.float32]]:
    outputs: list[npt.NDArray[np.float32]] = session_of(precision).run(
        OUTPUTS, {"features": features, "lengths": np.array(lengths, np.int64)}
    )
    return outputs


def features_of(snippets: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """As pooled ReLU outputs: not negative, of different sizes from snippet to snippet."""
    generator = np.random.default_rng(seed)
    sizes = generator.lognormal(0.0, 0.7, (snippets, 1))
    return np.maximum(generator.standard_normal((snippets, WIDTH)) * sizes, 0.0).astype(np.float32)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp16", 5e-3), ("int8", 5e-2)])
def test_stays_near_float32(precision: Precision, tolerance: float) -> None:
    features, lengths = features_of(500), [100, 1, 399]
    for name, expected, got in zip(
        OUTPUTS, run("fp32", features, lengths), run(precision, features, lengths), strict=True
    ):
        assert got.dtype == np.float32
        difference = np.abs(got - expected).max()
        assert 0 < difference < tolerance, name  # zero would mean that nothing was made smaller


def test_weights_are_of_the_precision_and_the_file_is_smaller() -> None:
    sizes = {precision: len(graph_of(precision).SerializeToString()) for precision in PRECISIONS}
    assert sizes["fp16"] < 0.55 * sizes["fp32"]
    assert sizes["int8"] < 0.35 * sizes["fp32"]
    float32, half, integer = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8
    kinds = {"fp32": [float32] * 4, "fp16": [half, float32] * 2, "int8": [integer] * 4}  # the last layers stay float32
    for precision in PRECISIONS:
        matrices = [tensor for tensor in graph_of(precision).graph.initializer if tensor.name.endswith(".weight")]
        assert [tensor.data_type for tensor in matrices] == kinds[precision]


def test_a_gpu_which_rounds_after_every_layer_gives_near_scores_too() -> None:
    """ONNX Runtime's CPU rounds nothing between float16 layers; the reference of `onnx` does, as a GPU does.

    The model is steep: where its logits are rounded, class scores are off by 0.0075 to 0.012.
    """
    feeds = {
        "features": np.random.default_rng(3).standard_normal((1000, STEEP), dtype=np.float32),
        "lengths": np.array([600, 400]),
    }
    exact, rounded = (ReferenceEvaluator(make_graph(half=half)).run(None, feeds) for half in (False, True))
    for name, expected, got in zip(OUTPUTS, exact, rounded, strict=True):
        assert 0 < np.abs(got - expected).max() < 7e-3, name


def test_weights_that_two_layers_share_stay_of_one_kind() -> None:
    layers = [helper.make_node("Gemm", [values, "w"], [name]) for values, name in (("x", "first"), ("first", "last"))]
    cast = helper.make_node("Cast", ["last"], ["y"], to=TensorProto.FLOAT)
    of_x, of_y = (
        helper.make_tensor_value_info(name, kind, [2, 3])
        for name, kind in (("x", TensorProto.FLOAT16), ("y", TensorProto.FLOAT))
    )
    weights = numpy_helper.from_array(np.eye(3, dtype=np.float16), "w")
    model = helper.make_model(helper.make_graph([*layers, cast], "g", [of_x], [of_y], [weights]))
    last_layers_in_float32(model, {})
    assert model.graph.initializer[0].data_type == TensorProto.FLOAT16
    onnx.checker.check_model(model, full_check=True)


def test_the_runtime_can_tell_an_int8_file_by_its_operator() -> None:
    """`session._on_gpu` looks for it: no GPU has its products."""
    named = {precision: b"MatMulInteger" in graph_of(precision).SerializeToString() for precision in PRECISIONS}
    assert named == {"fp32": False, "fp16": False, "int8": True}


def test_onnx_runtime_passes_over_the_first_layers_outputs_as_seldom_as_it_can(tmp_path: Path) -> None:
    """docs/explanation/performance.md: the passes over the first layer's outputs were a tenth of an int8 call."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3  # it warns that the file is for this machine
    onnxruntime.InferenceSession(graph_of("int8").SerializeToString(), options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert kinds["MatMulIntegerToFloat"] == 4
    assert kinds["FusedConv"] == 2  # offset and bias of the first layers, in place
    assert kinds["Gemm"] == 2  # of the last layers
    assert kinds["QuantizeLinear"] == 3  # of the features, and of both first layers' outputs, in the place of the ReLU
    assert kinds["ReduceMin"] == 1  # of the features: what a ReLU gives is never negative
    assert not kinds["MatMulInteger"]
    assert not kinds["Relu"]
    graph = graph_of("int8").graph
    scaled = [node.input[0] for node in graph.node if node.op_type == "Mul" and node.output[0].startswith("c")]
    assert "classifier.0.in_steps" not in scaled  # the quantisation that follows scales each snippet anew
    assert "classifier.2.in_steps" in scaled


def test_integers_do_not_saturate_where_pairs_are_added_in_16_bits() -> None:
    graph = graph_of("int8").graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    largest_weight = max(int(np.abs(v.astype(int)).max()) for v in constants.values() if v.dtype == np.int8)
    assert largest_weight > 80  # the range is used
    assert 2 * (int(constants["levels"]) + 1) * largest_weight < 2**15  # rounding can add one


def test_the_quantised_layer_is_the_formula_of_its_docstring() -> None:
    torch.manual_seed(4)
    model = RefineLoc(32, 3, layers=1)
    session = onnxruntime.InferenceSession(build(model, 32, "int8").SerializeToString())
    x = np.random.default_rng(0).normal(-1.0, 2.0, (20, 32)).astype(np.float32)
    weight, bias = model.classifier[0].weight.detach().numpy(), model.classifier[0].bias.detach().numpy()
    scale = np.abs(weight).max(axis=1) / 90
    integers = np.round(weight / scale[:, None])
    low, high = np.minimum(x.min(axis=1, keepdims=True), 0), np.maximum(x.max(axis=1, keepdims=True), 0)
    step = (high - low) / 181
    zero = np.round(-low / step)
    q = np.round(x / step) + zero
    assert 0 <= q.min() <= q.max() <= 182
    logits = step * scale * (q @ integers.T) - zero * step * (scale * integers.sum(axis=1)) + bias
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    got = session.run(["class_scores"], {"features": x, "lengths": np.array([20])})[0]
    np.testing.assert_allclose(got, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("value", [0.0, 3.5, -2.0])
def test_snippets_with_all_values_equal(value: float) -> None:
    features = np.full((4, WIDTH), value, dtype=np.float32)
    for name, expected, got in zip(OUTPUTS, run("fp32", features, [4]), run("int8", features, [4]), strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-2, rtol=0, err_msg=name)


def layers_of(outputs: list[str], bias: float | None = None) -> tuple[onnx.ModelProto, npt.NDArray[np.float32]]:
    """x -> first -> ReLU -> second -> ReLU -> third, of 8 values each; and x W + b by weights, [3, 9, 8]."""
    layers = np.random.default_rng(0).standard_normal((3, 9, 8)).astype(np.float32)
    if bias is not None:
        layers[:2, 8] = bias
    nodes, arrays, features = [], {}, "features"
    for name, layer in zip(("first", "second", "third"), layers, strict=True):
        nodes.append(helper.make_node("Gemm", [features, f"{name}.weight", f"{name}.bias"], [name], transB=1))
        nodes.append(helper.make_node("Relu", [name], [f"{name}.relu"]))
        arrays |= {f"{name}.weight": np.ascontiguousarray(layer[:8].T), f"{name}.bias": layer[8]}
        features = f"{name}.relu"
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["S", 8]) for name in ("features", "third", *outputs)
    ]
    lengths = helper.make_tensor_value_info("lengths", TensorProto.INT64, ["V"])
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes[:-1], "g", [values[0], lengths], values[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), layers


def by_numpy(x: npt.NDArray[np.float32], layers: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
    """After the first layer's ReLU, and after the last layer."""
    outputs = []
    for layer in layers:
        x = x @ layer[:8] + layer[8]
        outputs.append(x)
        x = np.maximum(x, 0)
    return [np.maximum(outputs[0], 0), outputs[2]]


@pytest.fixture
def any_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs of layers alone, which are no whole model."""
    monkeypatch.setattr("refineloc.export.precision.check_graph", check_valid)


@pytest.mark.parametrize("bias", [0.0, -5.0, 1.0])
@pytest.mark.parametrize("size", [0.0, 1e-35, 1.0, 1e30])
@pytest.mark.usefixtures("any_outputs")
def test_layers_behind_each_other_with_features_of_any_size(bias: float, size: float) -> None:
    """Of 0 the scale is the least there is. With biases of 0, or below it, so is that of the layers that follow."""
    model, layers = layers_of([], bias)
    x = (np.random.default_rng(1).standard_normal((50, 8)) * size).astype(np.float32)
    session = onnxruntime.InferenceSession(quantized(model).SerializeToString())
    got = session.run(["third"], {"features": x, "lengths": np.array([50])})[0]
    expected = by_numpy(x, layers)[1]
    np.testing.assert_allclose(got, expected, atol=0.05 * np.abs(expected).max(), rtol=0)


@pytest.mark.usefixtures("any_outputs")
def test_a_snippet_alone_has_the_bits_that_it_has_among_others() -> None:
    """ONNX Runtime has a routine of its own for products of one row, which rounds in another order."""
    model, _ = layers_of(["first"])
    session = onnxruntime.InferenceSession(quantized(model).SerializeToString())
    x = np.random.default_rng(1).standard_normal((200, 8)).astype(np.float32)

    def run(values: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        return list(session.run(["first", "third"], {"features": values, "lengths": np.array([len(values)])}))

    alone = [run(snippet[None]) for snippet in x]
    for together, each in zip(run(x), zip(*alone, strict=True), strict=True):
        np.testing.assert_array_equal(np.concatenate(each), together)


@pytest.mark.usefixtures("any_outputs")
def test_what_is_read_elsewhere_too_is_not_scaled_anew() -> None:
    """As of a base model that weights features with what a layer gives."""
    model, layers = layers_of(["first.relu"])
    x = np.random.default_rng(1).standard_normal((50, 8)).astype(np.float32)
    session = onnxruntime.InferenceSession(quantized(model).SerializeToString())
    got = session.run(["first.relu", "third"], {"features": x, "lengths": np.array([50])})
    for expected, values in zip(by_numpy(x, layers), got, strict=True):
        np.testing.assert_allclose(values, expected, atol=0.05 * np.abs(expected).max(), rtol=0)


def test_a_layer_too_wide_for_32_bit_sums_is_refused() -> None:
    wide = 2**31 // (181 * 90) + 1
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Gemm", ["features", "layer.weight", "layer.bias"], ["y"], transB=1)],
        "wide",
        [onnx.helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, wide])],
        [onnx.helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1])],
        [
            numpy_helper.from_array(np.ones((1, wide), np.float32), "layer.weight"),
            numpy_helper.from_array(np.ones(1, np.float32), "layer.bias"),
        ],
    )
    with pytest.raises(ModelError, match="int8"):
        quantized(onnx.helper.make_model(graph))
