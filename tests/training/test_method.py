"""The method's mathematics against float64 NumPy written from docs/explanation/method.md, and by hand."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from refineloc.training.losses import class_losses, class_weights, pseudo_losses
from refineloc.training.models.bases.refineloc import RefineLoc, video_losses_paper, video_losses_release
from refineloc.training.models.layers.activations import activations

F64 = npt.NDArray[np.float64]


def softmax(values: F64, axis: int) -> F64:
    powers = np.exp(values - values.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def one_video(c: F64, a: F64) -> tuple[F64, F64, F64, F64]:
    """C̄, Ā^bf_fg, Ā^time, ŷ of one video."""
    scores = softmax(c, 1)
    if a.shape[1] == 2:
        foreground = softmax(a, 1)[:, 1]
        attention = softmax(foreground, 0)
    else:
        foreground = 1 / (1 + np.exp(-a[:, 0]))
        attention = softmax(a[:, 0], 0)
    return scores, foreground, attention, attention @ scores


lengths_of = st.lists(st.integers(1, 30), min_size=1, max_size=5)


def logits(seed: int, lengths: list[int], values: int, scale: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    total = sum(lengths)
    return (
        torch.from_numpy(rng.normal(0, scale, (total, 4))),
        torch.from_numpy(rng.normal(0, scale, (total, values))),
        torch.tensor(lengths),
    )


@given(st.integers(0, 2**32 - 1), lengths_of, st.sampled_from([1, 2]), st.sampled_from([0.1, 3.0, 200.0]))
@settings(max_examples=100, deadline=None)
def test_activations_of_a_packed_batch(seed: int, lengths: list[int], values: int, scale: float) -> None:
    c, a, n = logits(seed, lengths, values, scale)
    got = activations(c, a, n)
    start = 0
    for video, length in enumerate(lengths):
        part = slice(start, start + length)
        start += length
        with np.errstate(over="ignore"):
            scores, foreground, attention, video_score = one_video(c[part].numpy(), a[part].numpy())
        np.testing.assert_allclose(got.class_scores[part], scores, atol=1e-12)
        np.testing.assert_allclose(got.foreground[part], foreground, atol=1e-12)
        np.testing.assert_allclose(got.attention[part], attention, atol=1e-12)
        np.testing.assert_allclose(got.video_scores[video], video_score, atol=1e-12)


def test_a_video_without_snippets_changes_nothing() -> None:
    c, a, _ = logits(0, [3, 4], 1, 1.0)
    with_empty = activations(c, a, torch.tensor([3, 0, 4]))
    without = activations(c, a, torch.tensor([3, 4]))
    assert torch.equal(with_empty.video_scores[[0, 2]], without.video_scores)
    assert torch.equal(with_empty.attention, without.attention)
    assert torch.isfinite(with_empty.video_scores).all()


@given(st.integers(0, 2**32 - 1), lengths_of, st.sampled_from([1, 2]), st.data())
@settings(max_examples=100, deadline=None)
def test_losses(seed: int, lengths: list[int], values: int, data: Any) -> None:
    c, a, n = logits(seed, lengths, values, 2.0)
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 2, (len(lengths), 4)).astype(float)
    targets[:, 0] += targets.sum(1) == 0
    targets /= targets.sum(1, keepdims=True)
    labels = rng.integers(-1, 2, sum(lengths))
    weights = np.array([data.draw(st.sampled_from([0.2, 1.0])), 0.8])
    acts = activations(c, a, n)

    paper, release, pseudo, release_pseudo = [], [], [], []
    start = 0
    for video, length in enumerate(lengths):
        part = slice(start, start + length)
        start += length
        scores, foreground, attention, video_score = one_video(c[part].numpy(), a[part].numpy())
        paper.append(-(targets[video] * np.log(video_score)).sum())
        release.append(-(targets[video] * (attention @ np.log(scores))).sum())
        own = labels[part]
        kept = own >= 0
        likelihood = np.where(own == 1, foreground, 1 - foreground)[kept]
        weight = weights[own[kept]]
        pseudo.append((weight * -np.log(likelihood)).sum() / weight.sum() if kept.any() else 0.0)
        positive = np.where(own[kept] == 1, math.sqrt(weights[1]), 1.0)
        release_pseudo.append((positive * -np.log(likelihood)).mean() if kept.any() else 0.0)
    y = torch.from_numpy(targets)
    assert float(video_losses_paper(acts, y).mean()) == pytest.approx(np.mean(paper), rel=1e-9)
    assert float(video_losses_release(acts, c, y, n).mean()) == pytest.approx(np.mean(release), rel=1e-9)
    got = pseudo_losses(a, torch.from_numpy(labels), n, torch.from_numpy(weights)).mean()
    assert float(got) == pytest.approx(np.mean(pseudo), rel=1e-9)
    got = pseudo_losses(a, torch.from_numpy(labels), n, torch.from_numpy(weights), release=True).mean()
    assert float(got) == pytest.approx(np.mean(release_pseudo if values == 1 else pseudo), rel=1e-9)


def test_the_released_one_value_loss_is_torch_s_with_a_weight_of_foreground() -> None:
    """As the released code calls it: `pos_weight` is √w, and the mean is over all labels."""
    logit = torch.tensor([[2.0], [-1.0], [0.5], [3.0], [0.1]])
    labels = torch.tensor([1, 0, 0, -1, 1])
    weights = class_weights(labels, True)
    kept = labels >= 0
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        logit[kept, 0], labels[kept].float(), pos_weight=weights[1].sqrt()
    )
    got = pseudo_losses(logit, labels, torch.tensor([5]), weights, release=True)
    assert float(got[0]) == pytest.approx(float(expected), rel=1e-6)
    assert float(got[0]) != pytest.approx(float(pseudo_losses(logit, labels, torch.tensor([5]), weights)[0]), rel=1e-3)


@pytest.mark.parametrize("values", [1, 2])
def test_soft_targets_of_labelled_snippets(values: int) -> None:
    logits = torch.randn(5, values, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    labels, soft = torch.tensor([1, 0, 0, -1, 1]), torch.tensor([0.9, 0.2, 0.0, 0.7, 0.6], dtype=torch.float64)
    weights = torch.tensor([0.25, 0.75], dtype=torch.float64)
    p = torch.sigmoid(logits[:, 0]) if values == 1 else torch.softmax(logits, 1)[:, 1]
    losses = -(soft * p.log() + (1 - soft) * (1 - p).log())
    w = torch.tensor([0.75, 0.25, 0.25, 0.0, 0.75], dtype=torch.float64)
    got = pseudo_losses(logits, labels, torch.tensor([5]), weights, targets=soft)
    assert float(got[0]) == pytest.approx(float((w * losses).sum() / w.sum()), rel=1e-9)
    hard = pseudo_losses(logits, labels, torch.tensor([5]), weights, targets=labels.clamp_min(0))
    assert float(hard[0]) == pytest.approx(
        float(pseudo_losses(logits, labels, torch.tensor([5]), weights)[0]), rel=1e-9
    )


def test_class_weights() -> None:
    labels = torch.tensor([0, 0, 0, 1, -1, -1])
    assert class_weights(labels, True).tolist() == [0.25, 0.75]
    assert class_weights(labels, False).tolist() == [1.0, 1.0]
    # All of one kind: the formula would weigh the only kind with 0.
    assert class_weights(torch.tensor([0, 0, -1]), True).tolist() == [1.0, 1.0]
    assert class_weights(torch.tensor([1, 1]), True).tolist() == [1.0, 1.0]


def test_impossible_labels_give_a_finite_loss_and_gradient() -> None:
    c = torch.tensor([[200.0, -200.0]], requires_grad=True)
    acts = activations(c, torch.zeros(1, 2), torch.tensor([1]))
    loss = video_losses_paper(acts, torch.tensor([[0.0, 1.0]])).sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert c.grad is not None
    assert torch.isfinite(c.grad).all()


@pytest.mark.parametrize(
    ("layers", "values", "shapes"),
    [
        (1, 1, ([(10, 32)], [(1, 32)])),
        (2, 2, ([(16, 32), (10, 16)], [(16, 32), (2, 16)])),
        (3, 2, ([(16, 32), (10, 16), (10, 10)], [(16, 32), (8, 16), (2, 8)])),  # never below the output width
        (4, 1, ([(16, 32), (10, 16), (10, 10), (10, 10)], [(16, 32), (8, 16), (4, 8), (1, 4)])),
    ],
)
def test_widths_of_the_base_model(layers: int, values: int, shapes: tuple[list[Any], list[Any]]) -> None:
    model = RefineLoc(32, 10, layers, values)
    for branch, expected in zip((model.classifier, model.attention), shapes, strict=True):
        assert [tuple(p.shape) for p in branch.parameters() if p.ndim == 2] == expected
    class_logits, attention_logits, _ = model(torch.zeros(3, 32), torch.tensor([3]))
    assert class_logits.shape == (3, 10)
    assert attention_logits.shape == (3, values)


def test_the_class_loss_is_a_mean_over_foreground_snippets() -> None:
    """Snippets 0 and 2 are foreground, 1 background, 3 has no label; the second video has no foreground."""
    logits = torch.tensor([[1.0, 0, 3], [9, 9, 9], [0, 2, 3], [5, 5, 5], [1, 2, 3]])
    classes = torch.tensor([[1.0, 0], [0, 0], [0.25, 0.75], [0, 1], [0, 0]])
    labels, lengths = torch.tensor([1, 0, 1, -1, 0]), torch.tensor([4, 1])
    first, third = (-torch.log_softmax(row, dim=0) for row in (logits[0], logits[2]))
    by_hand = (first[0] + 0.25 * third[0] + 0.75 * third[1]) / 2
    losses = class_losses(logits, classes, labels, lengths)
    torch.testing.assert_close(losses, torch.stack([by_hand, torch.tensor(0.0)]))
