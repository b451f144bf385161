"""Several networks an iteration: their scores are the means, in torch and in one graph; runs of them survive."""

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import small_data
import torch
from safetensors.torch import load_file
from small_data import assert_same_run

from refineloc.export.graph import build_graph
from refineloc.export.precision import quantized
from refineloc.runtime.errors import ModelError
from refineloc.runtime.model.metadata import Precision
from refineloc.training.models.base_model import BaseModel, build_model
from refineloc.training.models.ensemble import Ensemble, as_one, members_of
from refineloc.training.models.standardised import Standardised
from refineloc.training.models.student import Student
from refineloc.training.run.display import Silent
from refineloc.training.run.files import Run, load_iteration
from refineloc.training.settings.bases import base_names
from refineloc.training.settings.config import resolve
from refineloc.training.settings.student import StudentConfig

WIDTH, CLASSES, LENGTHS = 16, 3, [7, 1, 0, 40, 2]
SETTINGS: dict[str, Any] = {
    "detection": {"alpha_c": 0.4, "widen": 0},
    "pseudo": {"class_activation": 0.4},
    "training": {"iterations": 2, "epochs": 4, "models": 3, "batch_videos": 4, "learning_rate": 0.01},
}


def member(base: str, seed: int) -> BaseModel:
    torch.manual_seed(seed)
    model = build_model(resolve({"model": {"base": base}}).model, WIDTH, CLASSES)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)  # torch's initial weights give nearly equal scores for all classes
    return model.eval()


def features_of(snippets: int) -> torch.Tensor:
    return torch.randn(snippets, WIDTH, generator=torch.Generator().manual_seed(0))


def scores_of(model: BaseModel, lengths: list[int]) -> list[np.ndarray]:
    packed = torch.tensor(lengths)
    with torch.inference_mode():
        return [part.numpy() for part in model.activations(model(features_of(sum(lengths)), packed), packed)]


@pytest.mark.parametrize("base", base_names())
def test_the_scores_are_the_members_means(base: str) -> None:
    members = [member(base, seed) for seed in range(3)]
    class_scores, foreground, attention, video_scores = scores_of(Ensemble(members), LENGTHS)
    parts = [np.mean(each, axis=0) for each in zip(*(scores_of(one, LENGTHS) for one in members), strict=True)]
    for got, mean in zip((class_scores, foreground, attention), parts, strict=False):
        np.testing.assert_allclose(got, mean, atol=1e-6)
    ends = np.cumsum([0, *LENGTHS])
    pooled = [attention[a:b] @ class_scores[a:b] for a, b in itertools.pairwise(ends)]
    np.testing.assert_allclose(video_scores, pooled if base == "refineloc" else parts[3], atol=1e-6)
    # Equal networks are one network.
    for got, one in zip(scores_of(Ensemble([members[0]] * 3), LENGTHS), scores_of(members[0], LENGTHS), strict=True):
        np.testing.assert_allclose(got, one, atol=1e-6)


def test_the_segments_of_students_are_means_point_by_point() -> None:
    torch.manual_seed(0)
    students = [Student(WIDTH, CLASSES, StudentConfig(hidden=8, levels=3)).eval() for _ in range(3)]
    features, lengths = features_of(sum(LENGTHS)), torch.tensor(LENGTHS)
    with torch.inference_mode():
        model = Ensemble(students)
        got = model.points(model(features, lengths))
        each = [student.points(student(features, lengths)) for student in students]
    assert model.levels == 3
    for mean, parts in zip(got, zip(*each, strict=True), strict=True):
        np.testing.assert_allclose(mean, np.mean(parts, axis=0), atol=1e-6)


@pytest.mark.parametrize("standardise", [False, True])
def test_networks_as_one_and_apart_again(standardise: bool) -> None:
    mean, scale = torch.full((WIDTH,), 0.3), torch.linspace(0.5, 2.0, WIDTH)
    networks = [member("refineloc", seed) for seed in range(2)]
    networks = [Standardised(each, mean, scale) if standardise else each for each in networks]
    model = as_one(networks)
    assert len(model.state_dict()) == 2 * 8 + 2 * standardise
    apart = members_of(model)
    for got, network in zip(apart, networks, strict=True):
        for part, expected in zip(scores_of(got, LENGTHS), scores_of(network, LENGTHS), strict=True):
            np.testing.assert_array_equal(part, expected)
    parts = [scores_of(each, LENGTHS)[0] for each in networks]
    np.testing.assert_allclose(scores_of(model, LENGTHS)[0], np.mean(parts, axis=0), atol=1e-6)
    assert as_one(networks[:1]) is networks[0]
    assert [type(each) for each in members_of(networks[0])] == [type(networks[0])]


@pytest.mark.parametrize(
    ("base", "precision", "near", "standardise"),
    [
        ("refineloc", "fp32", 1e-5, False),
        ("refineloc", "fp32", 1e-5, True),
        pytest.param("refineloc", "fp16", 2e-2, False, marks=pytest.mark.long),
        pytest.param("refineloc", "fp16", 2e-2, True, marks=pytest.mark.long),
        ("refineloc", "int8", 0.2, False),
        pytest.param("refineloc", "int8", 0.2, True, marks=pytest.mark.long),
        pytest.param("wtalc", "fp32", 1e-5, False, marks=pytest.mark.long),
        ("basnet", "fp32", 1e-5, False),
        pytest.param("basnet", "fp32", 1e-5, True, marks=pytest.mark.long),
    ],
)
def test_one_graph_has_all_members_and_leaks_nothing_between_videos(
    base: str, precision: Precision, near: float, standardise: bool
) -> None:
    members = [member(base, seed) for seed in range(2)]
    if standardise:
        members = [Standardised(each, torch.full((WIDTH,), 0.1), torch.full((WIDTH,), 1.5)) for each in members]
    model = as_one(members).eval()
    graph = build_graph(model, WIDTH, half=precision == "fp16")
    # The layers that read the features, rounded or standardised before, are one product.
    readers = {"features"}
    for node in graph.graph.node:
        if node.op_type in ("Cast", "Sub", "Mul") and readers & set(node.input):
            readers |= set(node.output)
    assert sum(node.op_type == "Gemm" and node.input[0] in readers for node in graph.graph.node) == 1
    if precision == "int8":
        graph = quantized(graph)
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    features = features_of(sum(LENGTHS)).numpy()

    def run(values: np.ndarray, lengths: list[int]) -> list[np.ndarray]:
        return list(session.run(None, {"features": values, "lengths": np.array(lengths, np.int64)}))

    packed = run(features, LENGTHS)
    for got, by_torch in zip(packed, scores_of(model, LENGTHS), strict=True):
        np.testing.assert_allclose(got, by_torch, atol=near)
    assert np.ptp(packed[0], axis=1).mean() > 0.05
    for index, (first, end) in enumerate(itertools.pairwise(np.cumsum([0, *LENGTHS]).tolist())):
        if first < end:
            alone = run(features[first:end], [end - first])
            for got, whole in zip(alone[:3], packed[:3], strict=True):
                np.testing.assert_array_equal(got, whole[first:end])
            np.testing.assert_array_equal(alone[3][0], packed[3][index])


class Stopping(Silent):
    """Interrupts training after an epoch of a member, and remembers what was trained."""

    def __init__(self, after: tuple[int, int, int] | None = None) -> None:
        self.after, self.epochs = after, list[tuple[int, int, int]]()

    def epoch(self, record: Mapping[str, Any]) -> None:
        self.epochs.append((record["iteration"], record["member"], record["epoch"]))
        if self.epochs[-1] == self.after:
            raise KeyboardInterrupt


def test_the_first_member_is_the_network_of_a_run_of_one(data: Path, tmp_path: Path) -> None:
    several = small_data.train(data, tmp_path / "several", resolve(SETTINGS))
    one = small_data.train(data, tmp_path / "one", resolve(SETTINGS, {"training": {"models": 1, "iterations": 1}}))
    weights, of_one = (load_file(run.files.weights(0)) for run in (several, one))
    for name, tensor in of_one.items():
        assert torch.equal(weights[f"members.0.{name}"], tensor)
        assert not torch.equal(weights[f"members.1.{name}"], tensor)
        assert not torch.equal(weights[f"members.1.{name}"], weights[f"members.2.{name}"])
    lines = [json.loads(line) for line in several.files.metrics.read_text().splitlines()]
    numbers = [(line["iteration"], line["member"], line["epoch"]) for line in lines]
    assert numbers == list(itertools.product(range(2), range(3), range(4)))
    for record in several.records:
        losses = [member["validation_loss"] for member in record["members"]]
        assert record["validation_loss"] == pytest.approx(np.mean(losses))
        assert record["best_epoch"] == record["members"][int(np.argmin(losses))]["best_epoch"]
    assert isinstance(load_iteration(several.folder, 1).model, Ensemble)


@pytest.mark.parametrize("after", [(0, 0, 2), (0, 2, 1), (1, 1, 0), (1, 1, 3)])
def test_an_interrupted_run_goes_on_and_keeps_finished_members(
    data: Path, tmp_path: Path, after: tuple[int, int, int]
) -> None:
    config = resolve(SETTINGS, {"training": {"checkpoint_s": 0.0}})
    small_data.train(data, tmp_path / "whole", config)
    with pytest.raises(KeyboardInterrupt):
        small_data.train(data, tmp_path / "parts", config, display=Stopping(after))
    rest = Stopping()
    small_data.train(data, tmp_path / "parts", config, resume=True, display=rest)
    # On from the checkpoint of that member, which the interrupted epoch did not reach.
    assert rest.epochs[0] == after
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    assert not list(tmp_path.glob("parts/iter_*/network_*"))


def test_a_kill_between_two_members_trains_no_epoch_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint of a member that is finished is not gone on with, and stale files of members are removed."""
    config = resolve(SETTINGS, {"training": {"checkpoint_s": 0.0}})
    whole = small_data.train(data, tmp_path / "whole", config)
    with monkeypatch.context() as patch:

        def killed(run: Run) -> None:
            raise KeyboardInterrupt

        patch.setattr(Run, "_forget_checkpoint", killed)
        with pytest.raises(KeyboardInterrupt):
            small_data.train(data, tmp_path / "parts", config)
    assert (tmp_path / "parts/checkpoint.safetensors").exists()
    assert (tmp_path / "parts/iter_0/network_0_0.safetensors").exists()
    rest = Stopping()
    with monkeypatch.context() as patch:
        patch.setattr(Run, "_remove_networks", lambda run, iteration: None)
        small_data.train(data, tmp_path / "parts", config, resume=True, display=rest)
    assert rest.epochs[0] == (0, 1, 0)
    assert_same_run(whole.folder, tmp_path / "parts")
    assert list(tmp_path.glob("parts/iter_1/network_*"))
    small_data.train(data, tmp_path / "parts", config, resume=True)
    assert not list(tmp_path.glob("parts/iter_1/network_*"))


def test_a_damaged_file_of_a_member_is_one_line(data: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        small_data.train(data, tmp_path / "run", resolve(SETTINGS), display=Stopping((0, 1, 0)))
    (tmp_path / "run/iter_0/network_0_0.safetensors").write_bytes(b"torn")
    with pytest.raises(ModelError, match=r"network_0_0\.safetensors: weights cannot be read"):
        small_data.train(data, tmp_path / "run", resolve(SETTINGS), resume=True)
