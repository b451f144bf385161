"""The losses of Nguyen, Ramanan and Fowlkes against their equations in float64."""

import numpy as np
import pytest
import torch
from equations import F64, Layers, cross_entropy, fresh, relu, sigmoid, softmax, videos_of

from refineloc.training.settings.bases.nguyen import Options
from refineloc.training.settings.config import resolve

LENGTHS, WIDTH = [21, 3], 7  # streams of 3 and 4 columns
LABELS = np.array([[1.0, 0, 0], [0.5, 0.5, 0]])
BACKGROUND = [0.0, 0, 0, 1]


def smoothed(values: F64) -> F64:
    """The Gaussian of one snippet, over the neighbours that there are."""
    out = np.zeros_like(values)
    for t in range(len(values)):
        near = np.arange(max(t - 4, 0), min(t + 5, len(values)))
        weight = np.exp(-((near - t) ** 2) / 2)
        out[t] = weight @ values[near] / weight.sum()
    return out


def losses_of(layers: Layers, index: int, video: F64, labels: F64, pooling: str) -> tuple[float, F64, F64]:
    """One stream's, with its class logits and attention logits."""
    name = f"streams.{index}"
    attention_logit = layers.linear(f"{name}.attention", relu(layers.linear(f"{name}.hidden", video)))[:, 0]
    a = sigmoid(attention_logit)
    by = (len(a), len(a)) if pooling == "mean" else (a.sum() + 1, (1 - a).sum() + 1)
    foreground, background = a @ video / by[0], (1 - a) @ video / by[1]
    w = layers.weights[f"{name}.classifier.weight"]
    loss = cross_entropy(w @ foreground, [*labels.tolist(), 0.0]) + 0.1 * cross_entropy(w @ background, BACKGROUND)
    p = smoothed(softmax(video @ w.T, 1))
    guide = np.abs(a - p[:, :-1][:, labels > 0].max(axis=1)) + np.abs(a - (1 - p[:, -1]))
    u, v = layers.weights[f"{name}.clusters.weight"]
    cluster = -np.log(sigmoid((u - v) @ foreground)) - np.log(sigmoid((v - u) @ background))
    return float(loss + 0.1 * guide.mean() + 0.1 * cluster), video @ w.T, attention_logit


@pytest.mark.parametrize("pooling", ["weighted", "mean"])
@pytest.mark.parametrize("streams", [1, 2])
def test_losses_by_hand(streams: int, pooling: str, rng: np.random.Generator) -> None:
    model, layers = fresh("nguyen", WIDTH, 3, {"streams": streams, "pooling": pooling})
    features = rng.standard_normal((sum(LENGTHS), WIDTH))
    expected, scores, video_scores = [], [], []
    for video, labels in zip(videos_of(features, LENGTHS), LABELS, strict=True):
        columns = (video[:, :3], video[:, 3:]) if streams == 2 else (video,)
        made = [losses_of(layers, index, part, labels, pooling) for index, part in enumerate(columns)]
        expected.append(np.mean([loss for loss, _, _ in made]))
        logits, a = (
            np.mean([part for _, part, _ in made], axis=0),
            sigmoid(np.mean([part for *_, part in made], axis=0)),
        )
        scores.append(softmax(logits, 1)[:, :-1] * a[:, None])
        pooled = a @ logits / (len(a) if pooling == "mean" else a.sum() + 1)
        video_scores.append(softmax(pooled, 0)[:-1])
    packed, lengths, targets = torch.from_numpy(features), torch.tensor(LENGTHS), torch.from_numpy(LABELS)
    outputs = model(packed, lengths)
    activations = model.activations(outputs, lengths)
    np.testing.assert_allclose(model.video_losses(outputs, activations, targets, lengths).detach(), expected, rtol=1e-6)
    np.testing.assert_allclose(activations.class_scores.detach(), np.concatenate(scores), rtol=1e-9)
    np.testing.assert_allclose(activations.video_scores.detach(), video_scores, rtol=1e-9)


def test_the_guide_teaches_the_attention_alone(rng: np.random.Generator) -> None:
    model, _ = fresh("nguyen", WIDTH, 3, {"background": 0, "cluster": 0, "guide": 1.0})
    lengths, targets = torch.tensor([12]), torch.zeros(1, 3, dtype=torch.float64)
    targets[0, 1] = 1
    outputs = model(torch.from_numpy(rng.standard_normal((12, WIDTH))), lengths)
    gradient = {}
    for guide in (0.0, 1.0):
        model._options = Options(background=0, cluster=0, guide=guide)
        losses = model.video_losses(outputs, model.activations(outputs, lengths), targets, lengths)
        named = dict(model.named_parameters())
        parts = torch.autograd.grad(losses.sum(), list(named.values()), retain_graph=True, allow_unused=True)
        gradient[guide] = dict(zip(named, parts, strict=True))
    same = {name for name in named if torch.equal(gradient[0.0][name], gradient[1.0][name])}
    assert {name for name in named if "classifier" in name} <= same
    assert not {name for name in named if ".attention" in name} & same


def test_numbers_of_the_paper() -> None:
    config = resolve({"model": {"base": "nguyen"}})
    assert config.model.options == Options(hidden=256, streams=2, background=0.1, guide=0.1, cluster=0.1)
    assert config.training.learning_rate == 1e-4
