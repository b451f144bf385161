"""W-TALC and BaS-Net: their numbers, their losses by hand, and what of a video and of a batch they see."""

import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from small_data import files

from refineloc.runtime.errors import ConfigError
from refineloc.training.data.inputs import read_inputs
from refineloc.training.machine import parallel
from refineloc.training.models.base_model import BaseModel, Outputs, build_model
from refineloc.training.models.bases.basnet import BaSNet
from refineloc.training.models.bases.wtalc import WTALC
from refineloc.training.models.layers.co_activity import similarity_losses
from refineloc.training.settings.bases import base_names
from refineloc.training.settings.bases.basnet import Options as BaSNetOptions
from refineloc.training.settings.bases.wtalc import Options as WTALCOptions
from refineloc.training.settings.config import resolve

WIDTH, CLASSES = 16, 3
F64 = npt.NDArray[np.float64]


def model_of(base: str, options: Mapping[str, object] | None = None) -> BaseModel:
    torch.manual_seed(5)
    config = resolve({"model": {"base": base, "options": options or {}}})
    model = build_model(config.model, WIDTH, CLASSES)
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


def test_an_unknown_base_model_is_refused() -> None:
    assert {"basnet", "refineloc", "wtalc"} <= set(base_names())
    with pytest.raises(ConfigError, match=f"base model 'i3d': not known; there are {', '.join(base_names())}"):
        resolve({"model": {"base": "i3d"}})


def test_wtalc_has_the_numbers_of_its_paper() -> None:
    config = resolve({"model": {"base": "wtalc"}})
    assert config.model.options == WTALCOptions(dropout=0.7, one_of=8, similarity=0.5, margin=0.5, longest=750)
    assert (config.training.learning_rate, config.training.weight_decay) == (1e-4, 5e-4)
    rule = config.detection
    assert (rule.profile, rule.thresholds, rule.scoring, rule.suppression) == (
        "multi-threshold",
        (0.5,),
        "peak",
        "none",
    )
    assert (rule.video_weight, rule.max_gap, rule.widen) == (0.7, 0, 0)
    assert (config.pseudo.beta, config.pseudo.normalised, config.pseudo.top_k) == (0.3, 0.5, 1)


def test_basnet_has_the_numbers_of_its_paper() -> None:
    config = resolve({"model": {"base": "basnet"}})
    assert config.model.options == BaSNetOptions(hidden=0, filter_width=512, dropout=0.7, one_of=8, sparsity=1e-4)
    assert (config.training.learning_rate, config.training.weight_decay) == (1e-4, 5e-4)
    rule = config.detection
    assert rule.thresholds == pytest.approx([0.025 * step for step in range(10)])
    assert (rule.profile, rule.scoring, rule.outer) == ("multi-threshold", "contrast", 0.25)
    assert (rule.video_weight, rule.suppression, rule.tiou) == (0.2, "hard", 0.7)
    assert (rule.max_gap, rule.widen) == (0, 0)
    assert (config.pseudo.beta, config.pseudo.normalised, config.pseudo.top_k) == (0.5, 0.5, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": {"options": {"layers": 3}}}, r"model\.options\.layers: unknown setting; known: dropout, one_of"),
        ({"model": {"options": {"video_loss": "release"}}}, r"model\.options\.video_loss: unknown setting"),
        ({"profile": "release"}, "what RefineLoc's released code does, not wtalc"),
    ],
)
def test_settings_of_another_base_model_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve({"model": {"base": "wtalc"}}, settings)
    resolve(settings)


def test_a_preset_s_options_are_those_of_its_base_model() -> None:
    """Its other settings lie under another base model as well."""
    config = resolve({"preset": "release-thumos14-i3d", "model": {"base": "wtalc"}})
    assert config.model.options == WTALCOptions()
    assert (config.training.epochs, config.training.learning_rate) == (100, 1e-4)
    assert (config.training.select, config.detection.profile) == ("best", "multi-threshold"), "nor its profile"
    config = resolve({"preset": "thumos14-i3d", "model": {"base": "wtalc"}})
    assert (config.detection.widen, config.pseudo.widen) == (0, 0)


def test_defaults_of_a_base_lie_under_what_the_user_says_and_over_a_preset() -> None:
    config = resolve({"preset": "sample"}, {"model": {"base": "basnet"}}, {"detection": {"tiou": 0.5}})
    assert (config.detection.profile, config.detection.tiou, config.training.learning_rate) == (
        "multi-threshold",
        0.5,
        1e-4,
    )


def test_similarity_of_pairs_by_hand(rng: np.random.Generator) -> None:
    lengths, margin = [9, 4, 1, 6, 5], 0.5
    hidden, logits = rng.standard_normal((25, 7)), rng.standard_normal((25, CLASSES))
    targets = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1], [0, 1, 1], [1, 0, 0]], dtype=float)
    spans = list(itertools.pairwise(np.cumsum([0, *lengths]).tolist()))

    def features(video: int, label: int) -> tuple[F64, F64]:
        rows = slice(*spans[video])
        attention = softmax(logits[rows, label], 0)
        return attention @ hidden[rows], (1 - attention) @ hidden[rows] / max(lengths[video] - 1, 1)

    def distance(first: F64, second: F64) -> float:
        size = np.linalg.norm(first) * np.linalg.norm(second)
        return 1 - float(first @ second / size) if size > 1e-12 else 1.0

    expected = np.zeros(5)
    for video, partner, shared in ((0, 1, [0, 1]), (2, 3, [2])):
        for label in shared:
            (high, low), (high_other, low_other) = features(video, label), features(partner, label)
            near = distance(high, high_other)
            hinges = max(near - distance(high, low_other) + margin, 0) + max(
                near - distance(low, high_other) + margin, 0
            )
            expected[[video, partner]] += 0.5 * hinges / len(shared)
    got = similarity_losses(
        torch.from_numpy(hidden), torch.from_numpy(logits), torch.from_numpy(targets), torch.tensor(lengths), margin
    )
    np.testing.assert_allclose(got, expected, rtol=1e-9)
    assert expected[:4].all()
    assert expected[4] == 0


def test_wtalc_by_hand(rng: np.random.Generator) -> None:
    model, lengths = model_of("wtalc", {"similarity": 0.3}).double(), [30, 3]
    features = rng.standard_normal((33, WIDTH))
    weights = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}

    def layer(name: str, values: F64) -> F64:
        out: F64 = values @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
        return out

    foreground = softmax(layer("head", np.maximum(layer("head_hidden", features), 0)), 1)[:, 1]
    logits = layer("classifier", np.maximum(layer("hidden", features), 0))
    gated = foreground[:, None] * (logits - np.repeat([logits[:30].min(), logits[30:].min()], lengths)[:, None])
    packed, targets = torch.tensor(lengths), torch.tensor([[1.0, 0, 0], [0, 0.5, 0.5]])
    outputs = model(torch.from_numpy(features), packed)
    activations = model.activations(outputs, packed)
    np.testing.assert_allclose(activations.class_scores.detach(), foreground[:, None] * softmax(logits, 1), rtol=1e-6)
    np.testing.assert_allclose(activations.foreground.detach(), foreground, rtol=1e-6)
    logs = np.stack([log_of_top_mean(gated[:30]), log_of_top_mean(gated[30:])])
    np.testing.assert_allclose(activations.video_scores.detach(), np.exp(logs), rtol=1e-6)
    multiple_instance = -torch.from_numpy((targets.numpy() * logs).sum(axis=1))
    # In evaluation it weighs as in training, against the same β; the pair's loss is left out.
    torch.testing.assert_close(model.video_losses(outputs, activations, targets, packed), 0.7 * multiple_instance)
    model.train()
    targets = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0]])
    multiple_instance = -torch.from_numpy((targets.numpy() * logs).sum(axis=1))
    (hidden,) = outputs.other
    similar = similarity_losses(hidden, outputs.class_logits, targets, packed, 0.5)
    assert (similar > 0).all()
    both = model.video_losses(outputs, activations, targets, packed)
    torch.testing.assert_close(both, 0.7 * multiple_instance + 0.3 * similar)


def test_a_shut_gate_takes_no_part_in_a_video_s_class() -> None:
    """Foreground logits of -0.2 for the true class, -2 outside: as products with the gate the outside would win."""
    model, lengths = WTALC(4, 3), torch.tensor([16])
    logits = torch.full((16, 3), -2.0)
    logits[3:6] = torch.tensor([-0.2, -1.0, -1.5])
    gate = torch.full((16, 1), -9.0)
    gate[3:6] = 9.0
    activations = model.activations(Outputs(logits, torch.cat([-gate, gate], dim=1)), lengths)
    np.testing.assert_allclose(
        activations.video_scores[0].detach(), softmax(np.array([-0.2, -1.0, -1.5]), 0), rtol=1e-4
    )


def test_basnet_by_hand(rng: np.random.Generator) -> None:
    model, lengths = model_of("basnet").double(), [30, 3]
    model.dropout = torch.nn.Dropout(0.0)
    features = rng.standard_normal((33, WIDTH))
    weights = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}

    def layer(name: str, values: F64) -> F64:
        out: F64 = values @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", np.zeros(()))
        return out

    def rectified(values: F64) -> F64:
        return np.where(values > 0, values, 0.01 * values)

    def conv(name: str, values: F64) -> F64:
        padded = np.pad(values, ((1, 1), (0, 0)))
        return rectified(layer(f"{name}.product", np.concatenate([padded[:-2], values, padded[2:]], axis=1)))

    def branch(values: F64) -> F64:
        return layer("classifier", conv("second", conv("first", values)))

    def binary(logits: F64, labels: list[float]) -> float:
        scores, wanted = np.exp(log_of_top_mean(logits)), np.array(labels)
        return float(-(wanted * np.log(scores) + (1 - wanted) * np.log(1 - scores)).mean())

    logit = layer("filtering.2", rectified(layer("filtering.0", features)))[:, 0]
    foreground = 1 / (1 + np.exp(-logit))
    parts = [slice(0, 30), slice(30, 33)]
    suppressed = [branch(foreground[part, None] * features[part]) for part in parts]
    base = [branch(features[part]) for part in parts]
    packed, targets = torch.tensor(lengths), torch.tensor([[1.0, 0, 0], [0, 0.5, 0.5]])
    without = np.array([binary(suppressed[0], [1, 0, 0, 0]), binary(suppressed[1], [0, 1 / 2, 1 / 2, 0])])
    without += 1e-4 * np.array([foreground[part].sum() for part in parts])
    outputs = model(torch.from_numpy(features), packed)
    activations = model.activations(outputs, packed)
    np.testing.assert_allclose(activations.foreground.detach(), foreground, rtol=1e-6)
    np.testing.assert_allclose(
        activations.class_scores.detach(), softmax(np.concatenate(suppressed), 1)[:, :-1], rtol=1e-6
    )
    expected = np.exp([log_of_top_mean(logits)[:-1] for logits in suppressed])
    np.testing.assert_allclose(activations.video_scores.detach(), expected, rtol=1e-6)
    np.testing.assert_allclose(model.video_losses(outputs, activations, targets, packed).detach(), without, rtol=1e-6)
    model.train()
    outputs = model(torch.from_numpy(features), packed)
    third = 1 / 3
    with_background = np.array([binary(base[0], [1 / 2, 0, 0, 1 / 2]), binary(base[1], [0, third, third, third])])
    losses = model.video_losses(outputs, model.activations(outputs, packed), targets, packed).detach()
    np.testing.assert_allclose(losses, without + with_background, rtol=1e-6)


def test_pairs_of_one_class_stay_together(monkeypatch: pytest.MonkeyPatch) -> None:
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
    monkeypatch.setattr(parallel, "size", lambda: 2)
    shares = []
    for rank in (0, 1):
        monkeypatch.setattr(parallel, "rank", lambda rank=rank: rank)
        shares.append(parallel.share_of_batch(batch, 2).tolist())
    assert shares[0] == [*orders[0][0:2], *orders[0][4:6]]
    assert shares[1] == [*orders[0][2:4], orders[0][6]]


def test_long_videos_are_seen_through_windows(data: Path) -> None:
    config = resolve({"model": {"base": "wtalc", "options": {"longest": 8}}, "training": {"epochs": 2}})
    train, on_disk = (read_inputs(files(data), config, memory).train for memory in (2**30, 0))
    windows = torch.stack([torch.arange(len(train)), torch.full((len(train),), 8)], dim=1)
    group = [torch.tensor([3, 0, 7])]
    (in_memory,), (from_disk,) = train.batches(group, windows), on_disk.batches(group, windows)
    assert in_memory.lengths.tolist() == [8, 8, 8]
    assert torch.equal(in_memory.features, from_disk.features)
    starts = torch.cumsum(train.lengths, 0) - train.lengths
    assert in_memory.rows.tolist() == [int(starts[v]) + v + t for v in (3, 0, 7) for t in range(8)]
    assert torch.equal(in_memory.features, train.features[in_memory.rows])  # type: ignore[index]


def test_widths_of_basnet() -> None:
    model = BaSNet(WIDTH, 5, BaSNetOptions(hidden=12, filter_width=7))
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes["filtering.0.weight"] == (7, WIDTH)
    assert shapes["first.product.weight"] == (12, 3 * WIDTH)
    assert shapes["second.product.weight"] == (12, 36)
    assert shapes["classifier.weight"] == (6, 12)
    assert build_model(resolve({"model": {"base": "basnet"}}).model, WIDTH, 5).first.product.out_features == WIDTH
