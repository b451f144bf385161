"""CMCS's losses against its paper's equations in float64."""

import itertools

import numpy as np
import torch
from equations import cosine, cross_entropy, fresh, relu, softmax, videos_of

from refineloc.training.settings.bases.cmcs import Options
from refineloc.training.settings.config import resolve

LENGTHS, WIDTH = [21, 16], 7
LABELS = np.array([[1.0, 0, 0], [0.5, 0.5, 0]])


def test_losses_by_hand(rng: np.random.Generator) -> None:
    model, layers = fresh("cmcs", WIDTH, 3, {"branches": 3, "shared": 6, "hidden": 5})
    features = rng.standard_normal((sum(LENGTHS), WIDTH))
    expected, scores, video_scores = [], [], []
    for video, labels in zip(videos_of(features, LENGTHS), LABELS, strict=True):
        shared = relu(layers.linear("shared", video))
        branches = np.array(
            [layers.linear(f"classifiers.{k}", relu(layers.conv(f"branches.{k}", shared))) for k in range(3)]
        )
        mean = branches.mean(axis=0)
        attention = softmax(layers.linear("attention", relu(layers.linear("attention_hidden", shared)))[:, 0], 0)
        loss = cross_entropy(attention @ mean, [*labels.tolist(), 0.0])
        curves = softmax(branches, 2)
        pairs = [
            cosine(curves[first, :, n], curves[second, :, n])
            for first, second in itertools.permutations(range(3), 2)
            for n in range(4)
        ]
        sizes = np.abs(branches).mean(axis=1)  # over time: [K, N + 1]
        expected.append(loss + 0.2 * np.mean(pairs) + 0.2 * np.abs(sizes - sizes.mean(axis=0)).mean())
        scores.append(softmax(mean, 1)[:, :-1])
        video_scores.append(softmax(attention @ mean, 0)[:-1])
    packed, lengths, targets = torch.from_numpy(features), torch.tensor(LENGTHS), torch.from_numpy(LABELS)
    outputs = model(packed, lengths)
    activations = model.activations(outputs, lengths)
    np.testing.assert_allclose(model.video_losses(outputs, activations, targets, lengths).detach(), expected, rtol=1e-6)
    np.testing.assert_allclose(activations.class_scores.detach(), np.concatenate(scores), rtol=1e-9)
    np.testing.assert_allclose(activations.video_scores.detach(), video_scores, rtol=1e-9)


def test_whole_columns_of_a_video_are_dropped() -> None:
    model, _ = fresh("cmcs", WIDTH, 3)
    model.train()
    features, lengths = torch.ones(30, WIDTH, dtype=torch.float64), torch.tensor([10, 20])
    logits = model(features, lengths).class_logits[[3, 5, 13, 25]]
    assert torch.allclose(logits[0], logits[1])
    assert torch.allclose(logits[2], logits[3])
    assert not torch.allclose(logits[0], logits[2])


def test_numbers_of_the_paper() -> None:
    config = resolve({"model": {"base": "cmcs"}})
    assert config.model.options == Options(branches=4, shared=32, hidden=16, dropout=0.5, diversity=0.2, norm=0.2)
    assert (config.training.learning_rate, config.training.weight_decay, config.training.batch_videos) == (
        1e-4,
        1e-3,
        24,
    )
