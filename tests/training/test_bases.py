"""W-TALC and BaS-Net: their losses by hand, a whole run of each, and the file that comes of it."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
import torch

from refineloc.export.graph import build_graph
from refineloc.runtime.errors import ConfigError
from refineloc.training.base_model import BaseModel, base_names, find_base
from refineloc.training.bases.basnet import BaSNet
from refineloc.training.bases.basnet import Options as BaSNetOptions
from refineloc.training.bases.wtalc import WTALC, similarity_losses
from refineloc.training.bases.wtalc import Options as WTALCOptions
from refineloc.training.config import base_defaults, parse_assignment, resolve
from refineloc.training.data import load_split, read_labels
from refineloc.training.fit import Labelled, fit
from refineloc.training.parallel import Group
from refineloc.training.refine import Truth, refine
from refineloc.training.run import DataRecord, Run, build_model, load_iteration

WIDTH, CLASSES = 16, 3
OTHERS = ("wtalc", "basnet")
F64 = npt.NDArray[np.float64]


def model_of(base: str) -> BaseModel:
    torch.manual_seed(5)
    config = resolve({"model": {"base": base}})
    model = find_base(base).build(config, WIDTH, CLASSES)
    with torch.no_grad():  # torch's initial weights give nearly equal scores for all classes
        for parameter in model.parameters():
            parameter.mul_(3.0)
    return model.eval()


def softmax(values: F64, axis: int) -> F64:
    grown = np.exp(values - values.max(axis=axis, keepdims=True))
    return grown / grown.sum(axis=axis, keepdims=True)


def log_of_top_mean(logits: F64) -> F64:
    top = np.sort(logits, axis=0)[::-1][: math.ceil(len(logits) / 8)].mean(axis=0)
    return np.log(softmax(top, 0))


def test_there_are_three_and_a_wrong_one_is_told() -> None:
    assert base_names() == ("basnet", "refineloc", "wtalc")
    with pytest.raises(ConfigError, match="base model 'i3d': not known; there are basnet, refineloc, wtalc"):
        resolve({"model": {"base": "i3d"}})


def test_options_are_checked_and_their_defaults_are_told() -> None:
    config = resolve({"model": {"base": "wtalc"}}, parse_assignment("model.options.margin=0.25"))
    assert config.model.options == {**WTALCOptions().model_dump(), "margin": 0.25}
    assert "# δ, of the ranking hinge on cosine distances\nmargin = 0.25" in config.described_toml()
    with pytest.raises(ConfigError, match=r"options\.margin of wtalc: Input should be greater than or equal to 0"):
        resolve({"model": {"base": "wtalc", "options": {"margin": -1}}})
    with pytest.raises(ConfigError, match=r"options\.depth of basnet: Extra inputs are not permitted"):
        resolve({"model": {"base": "basnet", "options": {"depth": 2}}})
    with pytest.raises(ConfigError, match=r"options\.depth of refineloc"):
        resolve({"model": {"options": {"depth": 2}}})


def test_defaults_of_a_base_lie_under_what_the_user_says() -> None:
    own = [{}, {"model": {"base": "basnet"}}, {"detection": {"nms": 0.5}}]
    config = resolve({"training": {"learning_rate": 1e-3}}, base_defaults(*own), *own)
    assert (config.detection.profile, config.detection.nms, config.training.learning_rate) == (
        "multi-threshold",
        0.5,
        1e-4,
    )
    assert base_defaults({}) == {}


def test_similarity_of_pairs_by_hand(rng: np.random.Generator) -> None:
    lengths, margin = [9, 4, 1, 6, 5], 0.5
    hidden, logits = rng.standard_normal((25, 7)), rng.standard_normal((25, CLASSES))
    targets = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1], [0, 1, 1], [1, 0, 0]], dtype=float)
    spans = list(itertools.pairwise(np.cumsum([0, *lengths]).tolist()))

    def features(video: int, label: int) -> tuple[F64, F64]:
        own = slice(*spans[video])
        attention = softmax(logits[own, label], 0)
        return attention @ hidden[own], (1 - attention) @ hidden[own] / max(lengths[video] - 1, 1)

    def distance(one: F64, other: F64) -> float:
        size = np.linalg.norm(one) * np.linalg.norm(other)
        return 1 - float(one @ other / size) if size > 1e-12 else 1.0

    expected = np.zeros(5)
    for one, other, shared in ((0, 1, [0, 1]), (2, 3, [2])):
        for label in shared:
            (high, low), (high_other, low_other) = features(one, label), features(other, label)
            near = distance(high, high_other)
            hinges = max(near - distance(high, low_other) + margin, 0) + max(
                near - distance(low, high_other) + margin, 0
            )
            expected[[one, other]] += 0.5 * hinges / len(shared)
    got = similarity_losses(
        torch.from_numpy(hidden), torch.from_numpy(logits), torch.from_numpy(targets), torch.tensor(lengths), margin
    )
    np.testing.assert_allclose(got, expected, rtol=1e-9)
    assert expected[:4].all()
    assert expected[4] == 0


def test_wtalc_by_hand(rng: np.random.Generator) -> None:
    model, lengths = model_of("wtalc").double(), [30, 3]
    features = rng.standard_normal((33, WIDTH))
    weights = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}

    def layer(name: str, values: F64) -> F64:
        out: F64 = values @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
        return out

    foreground = softmax(layer("head", np.maximum(layer("head_hidden", features), 0)), 1)[:, 1]
    logits = layer("classifier", np.maximum(layer("hidden", features), 0))
    gated = foreground[:, None] * logits
    packed, targets = torch.tensor(lengths), torch.tensor([[1.0, 0, 0], [0, 0.5, 0.5]])
    outputs = model(torch.from_numpy(features), packed)
    found = model.activations(outputs, packed)
    np.testing.assert_allclose(found.class_scores.detach(), foreground[:, None] * softmax(logits, 1), rtol=1e-6)
    np.testing.assert_allclose(found.foreground.detach(), foreground, rtol=1e-6)
    logs = np.stack([log_of_top_mean(gated[:30]), log_of_top_mean(gated[30:])])
    np.testing.assert_allclose(found.video_scores.detach(), np.exp(logs), rtol=1e-6)
    losses = model.video_losses(outputs, found, targets, packed).detach()
    np.testing.assert_allclose(losses, -(targets.numpy() * logs).sum(axis=1), rtol=1e-6)
    model.train()
    similar = similarity_losses(hidden_ := outputs.other, outputs.class_logits, targets, packed, 0.5)  # type: ignore
    assert hidden_ is not None
    both = model.video_losses(outputs, found, targets, packed)
    torch.testing.assert_close(both, 0.5 * torch.from_numpy(losses.numpy()) + 0.5 * similar)


def test_basnet_by_hand(rng: np.random.Generator) -> None:
    model, lengths = model_of("basnet").double(), [30, 3]
    model.dropout = torch.nn.Dropout(0.0)
    features = rng.standard_normal((33, WIDTH))
    weights = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}

    def layer(name: str, values: F64) -> F64:
        out: F64 = values @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
        return out

    def conv(name: str, values: F64) -> F64:
        padded = np.pad(values, ((1, 1), (0, 0)))
        return np.maximum(layer(f"{name}.product", np.concatenate([padded[:-2], values, padded[2:]], axis=1)), 0)

    def branch(values: F64) -> F64:
        return layer("classifier", conv("second", conv("first", values)))

    narrow = layer("filtering.0", features)
    logit = layer("filtering.2", np.where(narrow > 0, narrow, 0.2 * narrow))[:, 0]
    foreground = 1 / (1 + np.exp(-logit))
    parts = [slice(0, 30), slice(30, 33)]
    suppressed = [branch(foreground[part, None] * features[part]) for part in parts]
    base = [branch(features[part]) for part in parts]
    packed, targets = torch.tensor(lengths), torch.tensor([[1.0, 0, 0], [0, 0.5, 0.5]])
    without = -np.array([log_of_top_mean(suppressed[0])[0], log_of_top_mean(suppressed[1])[1:3].mean()])
    without += 1e-4 * np.array([foreground[part].sum() for part in parts])
    outputs = model(torch.from_numpy(features), packed)
    found = model.activations(outputs, packed)
    np.testing.assert_allclose(found.foreground.detach(), foreground, rtol=1e-6)
    np.testing.assert_allclose(found.class_scores.detach(), softmax(np.concatenate(suppressed), 1)[:, :-1], rtol=1e-6)
    expected = np.exp([log_of_top_mean(own)[:-1] for own in suppressed])
    np.testing.assert_allclose(found.video_scores.detach(), expected, rtol=1e-6)
    np.testing.assert_allclose(model.video_losses(outputs, found, targets, packed).detach(), without, rtol=1e-6)
    model.train()
    outputs = model(torch.from_numpy(features), packed)
    with_background = -np.array([log_of_top_mean(base[0])[[0, 3]].mean(), log_of_top_mean(base[1])[[1, 2, 3]].mean()])
    losses = model.video_losses(outputs, model.activations(outputs, packed), targets, packed).detach()
    np.testing.assert_allclose(losses, without + with_background, rtol=1e-6)


def test_pairs_of_one_class_stay_together() -> None:
    targets = torch.zeros(11, 4)
    for video, labels in enumerate([[0], [0], [0], [1], [1], [2], [2], [2], [2], [3], [0, 3]]):
        targets[video, labels] = 1 / len(labels)
    model, generator = WTALC(8, 4), torch.Generator().manual_seed(3)
    orders = [model.order(targets, generator).tolist() for _ in range(20)]
    for order in orders:
        assert sorted(order) == list(range(11))
        sharing = sum(
            bool(((targets[a] > 0) & (targets[b] > 0)).any()) for a, b in zip(order[:10:2], order[1:10:2], strict=True)
        )
        assert sharing >= 4  # 5 of class 0 or 3 make 2, class 1 one, class 2 two; the odd ones may cost one
    assert len({tuple(order) for order in orders}) > 15
    # In two processes each has whole pairs, and together they have all.
    batch = torch.tensor(orders[0][:7])
    shares = [Group(rank, 2).share_of(batch, 2).tolist() for rank in (0, 1)]
    assert shares[0] == [*orders[0][0:2], *orders[0][4:6]]
    assert shares[1] == [*orders[0][2:4], orders[0][6]]


@pytest.mark.parametrize("base", OTHERS)
@pytest.mark.parametrize("half", [False, True])
def test_no_leak_between_videos_of_a_file(base: str, half: bool) -> None:
    """The exported graph scores a video as torch does, and the same to the last bit whatever is packed around it."""
    model, lengths = model_of(base), [7, 1, 0, 40, 2, 300]
    session = onnxruntime.InferenceSession(build_graph(model, WIDTH, half=half).SerializeToString())
    features = np.random.default_rng(1).standard_normal((sum(lengths), WIDTH)).astype(np.float32)

    def run(values: npt.NDArray[np.float32], own: list[int]) -> list[npt.NDArray[np.float32]]:
        return list(session.run(None, {"features": values, "lengths": np.array(own, np.int64)}))

    packed = run(features, lengths)
    with torch.inference_mode():
        expected = model.activations(model(torch.from_numpy(features), torch.tensor(lengths)), torch.tensor(lengths))
    for got, by_torch in zip(packed, expected, strict=True):
        np.testing.assert_allclose(got, by_torch.numpy(), atol=2e-2 if half else 1e-5)
    assert np.ptp(packed[0], axis=1).mean() > 0.1
    for index, (first, end) in enumerate(itertools.pairwise(np.cumsum([0, *lengths]).tolist())):
        if first == end:
            assert not packed[3][index].any()
            continue
        alone = run(features[first:end], [end - first])
        for got, whole in zip(alone[:3], packed[:3], strict=True):
            np.testing.assert_array_equal(got, whole[first:end])
        np.testing.assert_array_equal(alone[3][0], packed[3][index])


class Quiet:
    """A reporter that remembers warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def epoch(self, record: object) -> None: ...
    def iteration(self, record: object) -> None: ...
    def warning(self, message: str) -> None:
        self.warnings.append(message)


@pytest.mark.parametrize("base", OTHERS)
def test_a_run_learns_and_is_the_same_again(base: str, data: Path, tmp_path: Path) -> None:
    own = {
        "model": {"base": base},
        "training": {"epochs": 15, "iterations": 2, "learning_rate": 1e-2, "batch_videos": 4},
    }
    config = resolve(base_defaults(own), own)
    train = load_split(data / "train.h5", read_labels(data / "train.csv"), config)
    val = load_split(data / "val.h5", read_labels(data / "val.csv"), config, classes=train.classes)
    record = DataRecord("train.h5", "train.csv", "val.h5", "val.csv", train.classes, WIDTH)
    for name in ("one", "two"):
        refine(config, train, val, Run(tmp_path / name, config, record), Quiet(), Truth())
    for iteration in range(2):
        one, two = (load_iteration(tmp_path / name, iteration).model.state_dict() for name in ("one", "two"))
        assert all(torch.equal(one[name], two[name]) for name in one)
    lines = [json.loads(line) for line in (tmp_path / "one/metrics.jsonl").read_text().splitlines()]
    for iteration in range(2):
        losses = [line["train_loss"] for line in lines if line["iteration"] == iteration]
        assert losses[-1] < 0.9 * losses[0]


def test_long_videos_are_seen_through_windows(data: Path, tmp_path: Path) -> None:
    config = resolve({"model": {"base": "wtalc", "options": {"longest": 8}}, "training": {"epochs": 2}})
    train = load_split(data / "train.h5", read_labels(data / "train.csv"), config)
    on_disk = load_split(data / "train.h5", read_labels(data / "train.csv"), config, memory=0)
    windows = torch.stack([torch.arange(len(train)), torch.full((len(train),), 8)], dim=1)
    group = [torch.tensor([3, 0, 7])]
    (one,), (other,) = train.batches(group, windows), on_disk.batches(group, windows)
    assert one.lengths.tolist() == [8, 8, 8]
    assert torch.equal(one.features, other.features)
    starts = torch.cumsum(train.lengths, 0) - train.lengths
    assert one.rows.tolist() == [int(starts[v]) + v + t for v in (3, 0, 7) for t in range(8)]
    assert torch.equal(one.features, train.features[one.rows])  # type: ignore[index]
    labelled = Labelled(train, None, torch.ones(2))
    run = Run(tmp_path / "run", config, DataRecord("", "", "", "", train.classes, WIDTH))
    fit(config, labelled, labelled, 0, run, Quiet())


def test_widths_of_basnet() -> None:
    model = BaSNet(WIDTH, 5, BaSNetOptions(hidden=12, filter_width=7))
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes["filtering.0.weight"] == (7, WIDTH)
    assert shapes["first.product.weight"] == (12, 3 * WIDTH)
    assert shapes["second.product.weight"] == (12, 36)
    assert shapes["classifier.weight"] == (6, 12)
    assert build_model(resolve({"model": {"base": "basnet"}}), WIDTH, 5).first.product.out_features == WIDTH
