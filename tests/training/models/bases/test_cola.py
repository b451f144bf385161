"""CoLA's loss against its paper's equations in float64, its rings, and what it chooses."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from equations import F64, cosine, fresh, relu, softmax, top_mean, videos_of

from refineloc.training.models.bases.cola import snippet_contrast_losses
from refineloc.training.settings.bases.cola import Options
from refineloc.training.settings.config import resolve

LENGTHS = [40, 23, 3]


def around(mask: npt.NDArray[np.bool_], first: int, last: int) -> list[list[bool]]:
    """The values of the mask from `first` to `last` snippets away, False beyond the ends."""
    inside = range(len(mask))
    return [[bool(mask[t + o]) if t + o in inside else False for o in range(first, last + 1)] for t in inside]


def contrast(embedding: F64, actionness: F64) -> float:
    """Hard actions and hard backgrounds drawn to the easy ones of their kind."""
    count = len(actionness)
    easy, hard = -(-count // 5), -(-count // 20)
    order = np.argsort(-actionness, kind="stable")
    easy_action = order[:easy]
    easy_background = np.argsort(-(actionness.max() - actionness), kind="stable")[:easy]
    high = actionness > np.median(actionness)
    inner = np.all(around(high, -1, 1), axis=1) & ~np.all(around(high, -3, 2), axis=1)
    outer = np.any(around(high, -2, 3), axis=1) & ~np.any(around(high, -1, 1), axis=1)
    total = 0.0
    for ring, own, other in ((inner, easy_action, easy_background), (outer, easy_background, easy_action)):
        chosen = [t for t in order if ring[t]][:hard]
        if not chosen:
            continue
        query, key = embedding[chosen].mean(axis=0), embedding[own].mean(axis=0)
        positive = np.exp(cosine(query, key) / 0.07)
        negative = sum(np.exp(cosine(query, embedding[t]) / 0.07) for t in other)
        total -= np.log(positive / (positive + negative))
    return total


def test_numbers_of_the_paper() -> None:
    config = resolve({"model": {"base": "cola"}})
    assert config.model.options == Options(hidden=0, easy_one_of=5, hard_one_of=20, contrast=0.01, temperature=0.07)
    assert (config.training.learning_rate, config.training.batch_videos) == (1e-4, 16)
    rule = config.detection
    assert (rule.profile, rule.curve, rule.scoring, rule.outer) == ("multi-threshold", "both", "contrast", 0.25)
    assert (rule.video_weight, rule.suppression, rule.tiou) == (0.2, "hard", 0.6)


def test_losses_by_hand(rng: np.random.Generator) -> None:
    model, layers = fresh("cola", 8, 3, {"hidden": 32})
    features = rng.standard_normal((sum(LENGTHS), 8))
    labels = np.array([[1.0, 0, 0], [0, 0.5, 0.5], [0, 0, 1]])
    expected, foregrounds, contrasts = [], [], []
    for video, wanted in zip(videos_of(features, LENGTHS), labels, strict=True):
        embedding = relu(layers.conv("embedding", video))
        z = layers.linear("classifier", embedding)
        scores = softmax(top_mean(relu(z), 5), 0)
        binary = -(wanted * np.log(scores) + (1 - wanted) * np.log(1 - scores)).mean()
        contrasts.append(contrast(embedding, relu(z).sum(axis=1)))
        expected.append(binary + 0.01 * contrasts[-1])
        foregrounds.append(np.exp(z).sum(axis=1) / (3 + np.exp(z).sum(axis=1)))
    assert min(contrasts[:2]) > 0
    packed, lengths, targets = torch.from_numpy(features), torch.tensor(LENGTHS), torch.from_numpy(labels)
    outputs = model(packed, lengths)
    activations = model.activations(outputs, lengths)
    np.testing.assert_allclose(model.video_losses(outputs, activations, targets, lengths).detach(), expected, rtol=1e-6)
    np.testing.assert_allclose(activations.foreground.detach(), np.concatenate(foregrounds), rtol=1e-9)
    np.testing.assert_allclose(torch.sigmoid(outputs.attention_logits[:, 0]).detach(), activations.foreground.detach())
    np.testing.assert_allclose(activations.class_scores.sum(dim=1).detach(), activations.foreground.detach())


@pytest.mark.parametrize("high", [slice(0, 0), slice(0, 30), slice(28, 29)])
def test_videos_without_hard_snippets_add_nothing_that_is_not_finite(high: slice) -> None:
    actionness = torch.zeros(30, dtype=torch.float64)
    actionness[high] = 1.0
    embedding = torch.eye(30, dtype=torch.float64)
    losses = snippet_contrast_losses(embedding, actionness, torch.tensor([30, 0]), 5, 20, 0.07)
    assert torch.isfinite(losses).all()
    assert losses[1] == 0


def test_dropped_snippets_are_not_easy() -> None:
    """With the only clear action dropped, another one is what hard ones are drawn to."""
    rng = np.random.default_rng(0)
    actionness = torch.from_numpy(rng.random(40))
    embedding = torch.from_numpy(rng.standard_normal((40, 6)))
    kept = torch.ones(40, dtype=torch.float64)
    arguments = torch.tensor([40]), 5, 20, 0.07
    plain = snippet_contrast_losses(embedding, actionness, *arguments)
    assert torch.equal(plain, snippet_contrast_losses(embedding, actionness, *arguments, kept))
    kept[actionness.argmax()] = 0
    assert not torch.equal(plain, snippet_contrast_losses(embedding, actionness, *arguments, kept))
