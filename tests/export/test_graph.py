"""The exported graph equals the torch model and the equations, for any number of snippets and videos."""

import dataclasses
import functools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from twins.forward import Forward, Layer, forward

from refineloc.export.graph import OPSET, build_graph, check_graph, model_bytes
from refineloc.runtime.errors import ModelError
from refineloc.runtime.model.metadata import ModelMetadata
from refineloc.runtime.model.session import Session
from refineloc.training.models.bases.refineloc import RefineLoc

WIDTH, CLASSES = 24, 5
# Each depth, and attention of one value and of two; the other pairs are long, since each is a graph to trace.
MODELS = [(1, 1), (2, 2), (3, 1), (4, 2)]
LONG = [pytest.param(*pair, marks=pytest.mark.long) for pair in ((1, 2), (2, 1), (3, 2), (4, 1))]
LENGTHS = [[1], [2], [7], [1, 1], [3, 0, 4], [0, 5], [5, 0], [0, 0, 1, 0], [280, 1, 33], [1] * 60, [2000], [700, 1500]]


@functools.cache
def model_of(layers: int, values: int) -> RefineLoc:
    torch.manual_seed(10 * layers + values)
    model = RefineLoc(WIDTH, CLASSES, layers, values).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear):  # torch's initial weights give nearly equal scores for all classes
                module.weight.mul_(4.0)
    return model


@functools.cache
def graph_of(layers: int, values: int) -> onnx.ModelProto:
    return build_graph(model_of(layers, values), WIDTH)


@functools.cache
def session_of(layers: int, values: int) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(graph_of(layers, values).SerializeToString())


def features_of(snippets: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((snippets, WIDTH)).astype(np.float32)


def run(session: onnxruntime.InferenceSession, features: npt.NDArray[np.float32], lengths: list[int]) -> Forward:
    return Forward(*session.run(list(Forward._fields), {"features": features, "lengths": np.array(lengths, np.int64)}))


def layers_of(branch: nn.Sequential) -> list[Layer]:
    return [(m.weight.detach().numpy(), m.bias.detach().numpy()) for m in branch if isinstance(m, nn.Linear)]


@pytest.mark.parametrize(("layers", "values"), MODELS + LONG)
@pytest.mark.parametrize("lengths", LENGTHS, ids=lambda lengths: f"{len(lengths)}videos-{sum(lengths)}")
def test_equals_torch_and_the_equations(layers: int, values: int, lengths: list[int]) -> None:
    model, features = model_of(layers, values), features_of(sum(lengths))
    got = run(session_of(layers, values), features, lengths)
    with torch.inference_mode():
        by_torch = model.activations(model(torch.from_numpy(features), torch.tensor(lengths)), torch.tensor(lengths))
    by_hand = forward(layers_of(model.classifier), layers_of(model.attention), features, lengths)
    assert np.ptp(by_hand.class_scores, axis=1).mean() > 0.1  # the inputs do vary
    for name, one, torch_one, hand_one in zip(Forward._fields, got, by_torch, by_hand, strict=True):
        assert one.dtype == np.float32
        assert one.shape == hand_one.shape
        # Both sum up to 2,000 float32 numbers, in different orders.
        np.testing.assert_allclose(one, torch_one.numpy(), atol=3e-6, rtol=0, err_msg=name)
        np.testing.assert_allclose(one, hand_one, atol=1e-5, rtol=0, err_msg=name)


def test_large_attention_logits_do_not_overflow() -> None:
    model = model_of(1, 1)
    features = features_of(50) * np.float32(1e4)
    got = run(session_of(1, 1), features, [20, 30])
    by_hand = forward(layers_of(model.classifier), layers_of(model.attention), features, [20, 30])
    for one, hand_one in zip(got, by_hand, strict=True):
        np.testing.assert_allclose(one, hand_one, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("layers", "values"), MODELS + LONG)
def test_the_graph_is_clean(layers: int, values: int) -> None:
    model = graph_of(layers, values)
    graph = model.graph
    check_graph(model)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", OPSET)]
    assert not model.functions
    # One product a layer, named as in training; no node whose output nobody reads; no weight twice.
    weights = [name for name, _ in model_of(layers, values).named_parameters() if name.endswith("weight")]
    assert [node.name + ".weight" for node in graph.node if node.op_type == "Gemm"] == weights
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    assert {name for node in graph.node for name in node.output} <= read
    assert {tensor.name for tensor in graph.initializer} <= read
    assert len(graph.node) == len({node.name for node in graph.node})
    parameters = sum(parameter.numel() for parameter in model_of(layers, values).parameters())
    assert len(model.SerializeToString()) < 4 * parameters + 8192
    # The exporter leaves the stack traces of this machine on each node.
    assert b".py" not in model.SerializeToString()


def test_sizes_are_named_and_dynamic() -> None:
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph_of(2, 2).graph.input, *graph_of(2, 2).graph.output)
    }
    assert shapes == {
        "features": ["snippets", WIDTH],
        "lengths": ["videos"],
        "class_scores": ["snippets", CLASSES],
        "foreground": ["snippets"],
        "attention": ["snippets"],
        "video_scores": ["videos", CLASSES],
    }


def test_export_leaves_the_model_as_it_was() -> None:
    model = RefineLoc(8, 2).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    build_graph(model, 8, half=True)
    assert model.training
    for name, value in model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, before[name])


def test_a_graph_with_external_data_or_other_outputs_is_refused() -> None:
    outside = onnx.ModelProto.FromString(graph_of(1, 2).SerializeToString())
    outside.graph.initializer[0].external_data.add(key="location", value="weights.bin")
    with pytest.raises(ModelError, match="outside of the file"):
        check_graph(outside)
    swapped = onnx.ModelProto.FromString(graph_of(1, 2).SerializeToString())
    swapped.graph.output.reverse()
    with pytest.raises(ModelError, match="other inputs or outputs"):
        check_graph(swapped)
    broken = onnx.ModelProto.FromString(graph_of(1, 2).SerializeToString())
    del broken.graph.initializer[:]
    with pytest.raises(ModelError, match="not valid ONNX"):
        check_graph(broken)


def test_the_file_is_one_file_with_its_metadata(tmp_path: Path, metadata: ModelMetadata) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model_bytes(graph_of(2, 2), metadata))
    session = Session(path, provider="cpu")
    assert session.metadata == metadata
    features, lengths = features_of(9), np.array([4, 5])
    got = session.run(features, lengths)
    for one, expected in zip(got.arrays, run(session_of(2, 2), features, [4, 5]), strict=True):
        np.testing.assert_array_equal(one, expected)
    assert onnx.load(path).producer_name == "refineloc"


@pytest.mark.parametrize("lie", [{"width": 23}, {"classes": ("a", "b")}])
def test_metadata_that_lie_about_the_graph_are_refused(
    tmp_path: Path, metadata: ModelMetadata, lie: dict[str, object]
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model_bytes(graph_of(2, 2), dataclasses.replace(metadata, **lie)))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="do not fit its graph"):
        Session(path, provider="cpu")
