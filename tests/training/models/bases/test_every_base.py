"""What holds for every base model: those in training/settings/bases/ and training/models/bases/ are all tested here."""

import functools
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import small_data
import torch
from small_data import assert_same_run, files

from refineloc.export.graph import build_graph
from refineloc.export.precision import quantized
from refineloc.runtime.model.metadata import Precision
from refineloc.training import fit as fitting
from refineloc.training.data.inputs import read_inputs
from refineloc.training.data.split import Batch
from refineloc.training.fit import Labelled, fit
from refineloc.training.models.base_model import BaseModel, build_model
from refineloc.training.run.display import Silent
from refineloc.training.settings.bases import base_names
from refineloc.training.settings.config import Config, resolve

WIDTH, CLASSES = 16, 3
BASES = pytest.mark.parametrize("base", base_names())
# What takes seconds a base model is a quick test for those with which the others were compared first.
QUICK = ("basnet", "refineloc", "wtalc")
QUICK_BASES = pytest.mark.parametrize(
    "base", [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in base_names()]
)


def settings_of(base: str, **training: Any) -> Config:
    return resolve({"model": {"base": base}, "training": training})


def model_of(base: str) -> BaseModel:
    """A network whose scores differ between classes, as those of torch's initial weights hardly do."""
    torch.manual_seed(5)
    model = build_model(settings_of(base).model, WIDTH, CLASSES)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    return model


@functools.cache
def graph_of(base: str, half: bool) -> onnx.ModelProto:
    return build_graph(model_of(base), WIDTH, half=half)


@QUICK_BASES
@pytest.mark.parametrize(("precision", "near"), [("fp32", 1e-5), ("fp16", 2e-2), ("int8", 0.2)])
def test_no_leak_between_videos_of_a_file(base: str, precision: Precision, near: float) -> None:
    """The exported graph scores a video as torch does, and the same to the last bit whatever is packed around it."""
    model, lengths = model_of(base).eval(), [7, 1, 0, 40, 2, 300]
    graph = graph_of(base, precision == "fp16")
    if precision == "int8":
        graph = quantized(graph)
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    features = np.random.default_rng(1).standard_normal((sum(lengths), WIDTH)).astype(np.float32)

    def run(values: npt.NDArray[np.float32], own: list[int]) -> list[npt.NDArray[np.float32]]:
        return list(session.run(None, {"features": values, "lengths": np.array(own, np.int64)}))

    packed = run(features, lengths)
    with torch.inference_mode():
        expected = model.activations(model(torch.from_numpy(features), torch.tensor(lengths)), torch.tensor(lengths))
    for got, by_torch in zip(packed, expected, strict=True):
        np.testing.assert_allclose(got, by_torch.numpy(), atol=near)
    assert np.ptp(packed[0], axis=1).mean() > 0.05
    for index, (first, end) in enumerate(itertools.pairwise(np.cumsum([0, *lengths]).tolist())):
        if first == end:
            assert not packed[3][index].any()
            continue
        alone = run(features[first:end], [end - first])
        for got, whole in zip(alone[:3], packed[:3], strict=True):
            np.testing.assert_array_equal(got, whole[first:end])
        np.testing.assert_array_equal(alone[3][0], packed[3][index])


@BASES
def test_a_snippet_depends_on_no_more_of_its_video_than_is_stated(base: str) -> None:
    model, length, at = model_of(base).eval(), torch.tensor([40]), 20
    features = torch.randn(40, WIDTH, generator=torch.Generator().manual_seed(0))
    changed = features.clone()
    changed[at] += 1.0
    with torch.inference_mode():
        before, after = model(features, length), model(changed, length)
    differs = [
        (one != other).any(dim=1)
        for one, other in zip(before[:2], after[:2], strict=True)  # class logits, attention logits
    ]
    reached = torch.nonzero(differs[0] | differs[1]).flatten()
    assert at in reached
    # A model that looks at the whole video sees the farthest snippet, which is 20 away.
    assert int((reached - at).abs().max()) == min(model.context_snippets, 20)


@BASES
def test_a_video_s_loss_teaches_by_its_own_snippets(base: str) -> None:
    """In training, no gradient goes from the loss of one unit of videos to the features of another."""
    model, lengths = model_of(base).train(), torch.tensor([9, 12, 5, 20])
    features = torch.randn(int(lengths.sum()), WIDTH, requires_grad=True)
    targets = torch.zeros(4, CLASSES)
    targets[:, 0] = 1.0
    outputs = model(features, lengths)
    losses = model.video_losses(outputs, model.activations(outputs, lengths), targets, lengths)
    assert losses.shape == (4,)
    ends = [0, *torch.cumsum(lengths, 0).tolist()]
    for first in range(0, 4, model.unit_videos):
        (gradient,) = torch.autograd.grad(losses[first : first + model.unit_videos].sum(), features, retain_graph=True)
        own = slice(ends[first], ends[first + model.unit_videos])
        assert gradient[own].any()
        gradient[own] = 0
        assert not gradient.any()


@QUICK_BASES
def test_gradients_are_those_of_differences(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the losses as functions of the features: where a loss stops a gradient, here it flows."""
    model, lengths = model_of(base).eval().double(), torch.tensor([9, 4])
    features = torch.randn(13, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    targets = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0]], dtype=torch.float64)

    def losses(values: torch.Tensor) -> torch.Tensor:
        model.train()  # all terms of the loss; without dropout, which would draw anew each time
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.eval()
        with monkeypatch.context() as patched:
            patched.setattr(torch.Tensor, "detach", lambda tensor: tensor)
            outputs = model(values, lengths)
            return model.video_losses(outputs, model.activations(outputs, lengths), targets, lengths)

    assert torch.autograd.gradcheck(losses, features.requires_grad_(), atol=1e-4)


@QUICK_BASES
def test_a_run_learns_and_is_the_same_again(base: str, data: Path, tmp_path: Path) -> None:
    config = settings_of(base, epochs=15, iterations=2, learning_rate=1e-2, batch_videos=4)
    for name in ("one", "two"):
        small_data.train(data, tmp_path / name, config)
    assert_same_run(tmp_path / "one", tmp_path / "two")
    lines = [json.loads(line) for line in (tmp_path / "one/metrics.jsonl").read_text().splitlines()]
    for iteration in range(2):
        losses = [line["train_loss"] for line in lines if line["iteration"] == iteration]
        assert losses[-1] < 0.9 * losses[0]


@QUICK_BASES
def test_a_killed_run_goes_on_bit_for_bit(base: str, data: Path, tmp_path: Path) -> None:
    """Dropout, windows and pairs are drawn after a checkpoint as they would have been without it."""
    config = settings_of(base, epochs=6, iterations=1, batch_videos=4, checkpoint_s=0.0)

    class Killed(Silent):
        def epoch(self, record: Mapping[str, Any]) -> None:
            if record["epoch"] == 3:
                raise KeyboardInterrupt

    small_data.train(data, tmp_path / "whole", config)
    with pytest.raises(KeyboardInterrupt):
        small_data.train(data, tmp_path / "killed", config, display=Killed())
    assert (tmp_path / "killed/checkpoint.safetensors").exists()
    small_data.train(data, tmp_path / "killed", config, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


@BASES
@pytest.mark.parametrize("batch_videos", [4, 5])
def test_batches_are_as_the_base_model_asks(
    base: str, batch_videos: int, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Videos come in the order of `order`, units whole, each at most `longest` snippets of it."""
    config = settings_of(base, epochs=3, iterations=1, batch_videos=batch_videos)
    inputs = read_inputs(files(data), config, 2**30)
    train, val = inputs.train, inputs.val
    seen: list[Batch] = []
    asked: list[list[int]] = []
    models: list[BaseModel] = []
    build_model = fitting.build_model

    def observed(*arguments: Any) -> BaseModel:
        model = build_model(*arguments)
        order = model.order
        model.longest = 8
        models.append(model)

        def remembered(targets: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
            asked.append(order(targets, generator).tolist())
            return torch.tensor(asked[-1])

        monkeypatch.setattr(model, "order", remembered)
        return model

    def loss(config: Any, model: BaseModel, outputs: Any, batch: Batch, *rest: Any) -> Any:
        if model.training:
            seen.append(batch)
        return own_loss(config, model, outputs, batch, *rest)

    own_loss = fitting._loss
    monkeypatch.setattr(fitting, "build_model", observed)
    monkeypatch.setattr(fitting, "_loss", loss)
    nothing = torch.ones(2)
    epochs = list(fit(config, Labelled(train, None, nothing), Labelled(val, None, nothing), 0))
    assert [epoch.record["epoch"] for epoch in epochs] == [0, 1, 2]
    assert len(asked) == 3
    assert [video for batch in seen for video in batch.videos.tolist()] == [v for epoch in asked for v in epoch]
    starts = torch.cumsum(train.lengths, 0) - train.lengths
    first_rows = []
    for batch in seen:
        assert len(batch.videos) <= batch_videos
        assert len(batch.videos) % models[0].unit_videos == 0
        assert batch.lengths.tolist() == [min(8, int(train.lengths[video])) for video in batch.videos]
        first_rows += (batch.rows[torch.cumsum(batch.lengths, 0) - batch.lengths] - starts[batch.videos]).tolist()
    assert len(set(first_rows)) > 5, "windows are drawn"
