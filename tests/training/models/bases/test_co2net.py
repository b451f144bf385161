"""CO2-Net's losses, and DELU's, against the papers' equations in float64."""

import math

import numpy as np
import pytest
import torch
from equations import F64, Layers, cosine, cross_entropy, fresh, leaky, sigmoid, softmax, top_mean, videos_of

from refineloc.training.models.bases.co2net import evidence_curve
from refineloc.training.settings.bases.co2net import Options
from refineloc.training.settings.config import resolve

LENGTHS, WIDTH = [21, 16], 7  # streams of 3 and 4 columns
LABELS = np.array([[1.0, 0, 0], [0.5, 0.5, 0]])


def stream(layers: Layers, index: int, own: F64, other: F64) -> tuple[F64, F64]:
    """The cross-modal filter and the attention [T] of one stream."""
    name = f"streams.{index}"
    whole = leaky(layers.linear(f"{name}.whole", own.mean(axis=0, keepdims=True)), 0.2)
    local = leaky(layers.conv(f"{name}.local", other), 0.2)
    filtered = sigmoid(whole * local) * own
    hidden = leaky(layers.conv(f"{name}.first", filtered), 0.2)
    hidden = leaky(layers.conv(f"{name}.second", hidden), 0.2)
    return filtered, sigmoid(layers.linear(f"{name}.attention", hidden))[:, 0]


def parts(layers: Layers, video: F64) -> dict[str, F64]:
    rgb, flow = video[:, : WIDTH // 2], video[:, WIDTH // 2 :]
    (filtered_rgb, a_rgb), (filtered_flow, a_flow) = stream(layers, 0, rgb, flow), stream(layers, 1, flow, rgb)
    features = leaky(layers.linear("fusion", np.concatenate([filtered_rgb, filtered_flow], axis=1)), 0.2)
    logits = layers.linear("classifier", leaky(layers.conv("hidden", features), 0.2))
    attention = (a_rgb + a_flow) / 2
    least = logits.min(axis=1, keepdims=True)
    suppressed = attention[:, None] * (logits - least) + least
    return {"F": features, "L": logits, "S": suppressed, "a": attention, "rgb": a_rgb, "flow": a_flow}


def similarity(first: dict[str, F64], second: dict[str, F64], label: int) -> float:
    """W-TALC's co-activity loss of one shared label."""
    sides = []
    for part in (first, second):
        weight = softmax(part["S"][:, label], 0)
        sides.append((weight @ part["F"], (1 - weight) @ part["F"] / (len(weight) - 1)))
    (high, low), (other_high, other_low) = sides
    near = 1 - cosine(high, other_high)
    hinges = max(near - (1 - cosine(high, other_low)) + 0.5, 0) + max(near - (1 - cosine(low, other_high)) + 0.5, 0)
    return 0.5 * hinges


def shared_terms(part: dict[str, F64], labels: F64) -> float:
    """All that both methods have of one video but the guide and the pair."""
    own = (labels > 0).astype(float)
    with_background = np.append(own, 1.0) / (own.sum() + 1)
    losses = cross_entropy(top_mean(part["L"], 7), with_background.tolist())
    losses += cross_entropy(top_mean(part["S"], 7), np.append(labels, 0.0).tolist())
    losses += 2 * 0.5 * ((part["rgb"] - part["flow"]) ** 2).mean()
    return float(losses + 0.8 * np.mean([part[name].mean() for name in ("a", "rgb", "flow")]))


def guide(part: dict[str, F64]) -> F64:
    background = softmax(part["L"], 1)[:, -1]
    return np.mean([np.abs(1 - part[name] - background) for name in ("a", "rgb", "flow")], axis=0)


def evidence(part: dict[str, F64], labels: F64) -> float:
    """DELU's video loss."""
    top = np.argsort(-part["a"], kind="stable")[: math.ceil(len(part["a"]) / 9)]
    alpha = np.exp(np.clip(part["S"][top, :-1].mean(axis=0), -10, 10)) + 1
    own = (labels > 0).astype(float)
    weight = (1 - len(alpha) / alpha.sum()) * own.sum() * (own / alpha) / (own / alpha).sum()
    return float((weight * (np.log(alpha.sum()) - np.log(alpha))).sum())


def curve(part: dict[str, F64], progress: float) -> F64:
    """DELU's weights of snippets: easy first."""
    alpha = np.exp(np.clip(part["S"][:, :-1], -10, 10)) + 1
    order = np.argsort(alpha.shape[1] / alpha.sum(axis=1), kind="stable")  # the most certain first
    theta = np.empty(len(order))
    theta[order] = np.linspace(1, -1, len(order))
    return 0.7 * np.tanh(theta * (1 - 2 * progress)) + 1


@pytest.mark.parametrize("delu", [False, True])
def test_losses_by_hand(delu: bool, rng: np.random.Generator) -> None:
    model, layers = fresh("co2net", WIDTH, 3, {"evidence": 1.3} if delu else {})
    model.progress = 0.25
    features = rng.standard_normal((sum(LENGTHS), WIDTH))
    each = [parts(layers, video) for video in videos_of(features, LENGTHS)]
    near = similarity(*each, label=0)
    assert near > 0
    expected = []
    for part, labels in zip(each, LABELS, strict=True):
        loss = shared_terms(part, labels) + near
        if delu:
            loss += 1.3 * evidence(part, labels)
            loss += 0.4 * guide(part).mean() + 0.4 * (curve(part, 0.25) * guide(part)).mean()
        else:
            loss += 0.8 * guide(part).mean()
        expected.append(loss)
    packed, lengths = torch.from_numpy(features), torch.tensor(LENGTHS)
    outputs = model(packed, lengths)
    activations = model.activations(outputs, lengths)
    losses = model.video_losses(outputs, activations, torch.from_numpy(LABELS), lengths)
    np.testing.assert_allclose(losses.detach(), expected, rtol=1e-6)
    np.testing.assert_allclose(activations.foreground.detach(), np.concatenate([part["a"] for part in each]), rtol=1e-9)
    np.testing.assert_allclose(torch.sigmoid(outputs.attention_logits[:, 0]).detach(), activations.foreground.detach())
    wanted = np.concatenate([softmax(part["S"], 1)[:, :-1] for part in each])
    np.testing.assert_allclose(activations.class_scores.detach(), wanted, rtol=1e-9)


def test_numbers_of_the_paper() -> None:
    config = resolve({"model": {"base": "co2net"}})
    assert config.model.options == Options(dropout=0.7, one_of=7, agreement=0.5, norm=0.8, guide=0.8, evidence=0)
    assert (config.training.learning_rate, config.training.weight_decay) == (5e-5, 1e-3)
    rule = config.detection
    assert (rule.curve, rule.scored_on, rule.suppression, rule.soft_sigma) == ("foreground", "product", "soft", 0.3)


def test_each_stream_follows_the_other_alone(rng: np.random.Generator) -> None:
    """The mutual loss moves an attention to the other one, which does not move for it."""
    model, _ = fresh("co2net", WIDTH, 3, {"norm": 0, "guide": 0, "similarity": 0, "agreement": 1.0})
    lengths, targets = torch.tensor([12]), torch.zeros(1, 3, dtype=torch.float64)
    outputs = model(torch.from_numpy(rng.standard_normal((12, WIDTH))), lengths)
    _, _, _, first, second = outputs.other
    first.retain_grad()
    activations = model.activations(outputs, lengths)
    model.video_losses(outputs, activations, targets, lengths).sum().backward()
    through_classes, _, _, own, other = first.grad.clone(), *outputs.other[1:3], first.detach(), second.detach()
    np.testing.assert_allclose(through_classes, 2 * (own - other) / 12, rtol=1e-6)


def test_easy_snippets_weigh_most_at_first_and_least_at_the_end() -> None:
    unsure, lengths = torch.tensor([0.1, 0.9, 0.5, 0.3]), torch.tensor([3, 1])
    first, end = (evidence_curve(unsure, lengths, progress) for progress in (0.0, 1.0))
    assert first[0] > first[2] > first[1]
    assert end[0] < end[2] < end[1]
    assert torch.allclose(evidence_curve(unsure, lengths, 0.5), torch.ones(4))
