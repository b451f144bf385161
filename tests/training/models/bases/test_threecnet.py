"""3C-Net's losses against its paper's equations in float64."""

import numpy as np
import torch
from equations import F64, Layers, cross_entropy, fresh, relu, softmax, top_mean, videos_of

from refineloc.training.settings.bases.threecnet import Options
from refineloc.training.settings.config import resolve

LENGTHS, WIDTH = [21, 16, 1], 7  # streams of 3 and 4 columns
LABELS = np.array([[1.0, 0, 0], [0.5, 0.5, 0], [0, 0, 1]])


def stream(layers: Layers, index: int, values: F64) -> tuple[F64, F64]:
    name = f"streams.{index}"
    embedding = relu(layers.linear(f"{name}.second", relu(layers.linear(f"{name}.first", values))))
    return embedding, layers.linear(f"{name}.classifier", embedding)


def centre(layers: Layers, index: int, embedding: F64, logits: F64, labels: F64) -> float:
    """The squared distance of the attended features to the centre of each label."""
    centres = 100 * layers.weights[f"streams.{index}.centre_loss.centres"]
    total = 0.0
    for label in np.flatnonzero(labels):
        attention = softmax(logits[:, label], 0)
        attention = np.where(attention >= attention.mean(), attention, 0)
        features = attention @ embedding / attention.sum()
        total += float(((features - centres[label]) ** 2).sum())
    return total


def test_losses_by_hand(rng: np.random.Generator) -> None:
    model, layers = fresh("threecnet", WIDTH, 3, {"centre": 0.01})
    features = rng.standard_normal((sum(LENGTHS), WIDTH))
    expected, fused_scores = [], []
    for video, labels in zip(videos_of(features, LENGTHS), LABELS, strict=True):
        head = softmax(layers.linear("head.out", relu(layers.linear("head.hidden", video))), 1)[:, 1:]
        both = [stream(layers, 0, video[:, :3]), stream(layers, 1, video[:, 3:])]
        fused = sum(share * logits for share, (_, logits) in zip(layers.weights["shares"], both, strict=True))
        loss = cross_entropy(top_mean(head * (fused - fused.min()), 8), labels.tolist())
        for index, (embedding, logits) in enumerate(both):
            loss += cross_entropy(top_mean(logits, 8), labels.tolist())
            loss += 0.01 * centre(layers, index, embedding, logits, labels)
        expected.append(loss)
        fused_scores.append(head * softmax(fused, 1))
    packed, lengths, targets = torch.from_numpy(features), torch.tensor(LENGTHS), torch.from_numpy(LABELS)
    outputs = model(packed, lengths)
    activations = model.activations(outputs, lengths)
    np.testing.assert_allclose(model.video_losses(outputs, activations, targets, lengths).detach(), expected, rtol=1e-6)
    np.testing.assert_allclose(activations.class_scores.detach(), np.concatenate(fused_scores), rtol=1e-9)


def test_numbers_of_the_paper() -> None:
    config = resolve({"model": {"base": "threecnet"}})
    assert config.model.options == Options(dropout=0.7, one_of=8, centre=1e-3)
    assert (config.training.learning_rate, config.training.weight_decay, config.training.batch_videos) == (
        1e-4,
        5e-4,
        32,
    )
    rule = config.detection
    assert (rule.thresholds, rule.scoring, rule.video_weight, rule.class_threshold) == ((0.5,), "peak", 1.0, 0.5)
