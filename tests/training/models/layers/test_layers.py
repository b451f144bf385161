"""The layers of base models on packed batches, against plain NumPy or torch, video by video."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from refineloc.training.models.layers.convolution import Table, convolved, rectified
from refineloc.training.models.layers.packing import membership, moved, video_of
from refineloc.training.models.layers.pyramid import pyramid
from refineloc.training.models.layers.ranks import highest, ranks
from refineloc.training.models.layers.sums import video_means, video_sums
from refineloc.training.models.layers.temporal_conv import TemporalConv
from refineloc.training.models.layers.top_mean import top_mean
from refineloc.training.models.layers.two_streams import halves, widths

LENGTHS = st.lists(st.integers(0, 20), min_size=1, max_size=6).filter(any)
SEEDS = st.integers(0, 2**31)


@given(LENGTHS)
def test_where_videos_lie(lengths: list[int]) -> None:
    packed, snippets = torch.tensor(lengths), torch.zeros(sum(lengths))
    expected = np.repeat(np.arange(len(lengths)), lengths)
    assert video_of(packed, snippets).tolist() == expected.tolist()
    assert torch.equal(membership(packed, snippets), torch.arange(len(lengths))[:, None] == torch.from_numpy(expected))


@settings(max_examples=60, deadline=None)
@given(LENGTHS, SEEDS, st.integers(1, 25), st.booleans(), st.sampled_from([1e-3, 1.0, 300.0]))
def test_mean_of_the_highest(lengths: list[int], seed: int, one_of: int, ties: bool, scale: float) -> None:
    values = np.random.default_rng(seed).standard_normal((sum(lengths), 3)) * scale
    values = (values.round() if ties else values).astype(np.float32)
    expected = np.zeros((len(lengths), 3))
    for video, rows in enumerate(np.split(values.astype(np.float64), np.cumsum(lengths)[:-1])):
        if len(rows):
            expected[video] = np.sort(rows, axis=0)[::-1][: math.ceil(len(rows) / one_of)].mean(axis=0)
    packed, lengths_t = torch.from_numpy(values), torch.tensor(lengths)
    np.testing.assert_allclose(top_mean(packed, lengths_t, one_of), expected, rtol=1e-5, atol=1e-5 * scale)
    exact = top_mean(packed, lengths_t, one_of, exact=True)
    np.testing.assert_allclose(exact, expected, rtol=1e-6, atol=2**-20)
    # Alone, or the other way round: to the last bit.
    order = list(reversed(range(len(lengths))))
    parts = packed.split(lengths)
    turned = top_mean(torch.cat([parts[v] for v in order]), lengths_t.flip(0), one_of, exact=True)
    assert torch.equal(turned.flip(0), exact)


@pytest.mark.parametrize("one_of", [8, 16, 20, 50])
def test_the_highest_of_long_videos(one_of: int) -> None:
    """Where few of many count, most are left out before the sort: the same to the last bit."""
    lengths = [300, 0, 1, 47, 19]
    values = np.random.default_rng(one_of).standard_normal((sum(lengths), 4)).astype(np.float32)
    values[:40] = values[:40].round()  # ties
    got = top_mean(torch.from_numpy(values), torch.tensor(lengths), one_of, exact=True)
    steps = np.round(values.astype(np.float64) * 2**20)
    for video, rows in enumerate(np.split(steps, np.cumsum(lengths)[:-1])):
        highest = np.sort(rows, axis=0)[::-1][: math.ceil(len(rows) / one_of)]
        expected = highest.sum(axis=0) / 2**20 / max(len(highest), 1)
        np.testing.assert_array_equal(got[video], expected.astype(np.float32))


def test_highest_values_of_any_size_are_found_in_training() -> None:
    values = torch.tensor([[3000.0], [5000.0], [-1e30], [2500.0], [-0.0], [0.0], [1e-40], [-1e-40]])
    assert top_mean(values, torch.tensor([4, 4]), one_of=8).flatten().tolist() == [5000.0, float(values[6, 0])]
    assert top_mean(values, torch.tensor([4, 4]), one_of=2).flatten().tolist() == [4000.0, float(values[6, 0]) / 2]


def test_the_highest_learn_and_no_others() -> None:
    values = torch.tensor([[1.0], [5.0], [3.0], [2.0], [9.0]], requires_grad=True)
    top_mean(values, torch.tensor([4, 1]), one_of=2).sum().backward()
    assert values.grad is not None
    assert values.grad.flatten().tolist() == [0.0, 0.5, 0.5, 0.0, 1.0]


@settings(max_examples=30, deadline=None)
@given(LENGTHS, SEEDS)
def test_convolution_over_time_is_that_of_each_video_alone(lengths: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    ours, theirs = TemporalConv(5, 4), nn.Conv1d(5, 4, 3, padding=1)
    with torch.no_grad():  # [out, 3 x in] -> [out, in, 3]
        theirs.weight.copy_(ours.product.weight.reshape(4, 3, 5).transpose(1, 2))
        theirs.bias.copy_(ours.product.bias)  # type: ignore[union-attr]
    values = torch.randn(sum(lengths), 5)
    with torch.no_grad():
        got = ours(values, torch.tensor(lengths))
        expected = [theirs(rows.T[None])[0].T for rows in values.split(lengths) if len(rows)]
    torch.testing.assert_close(got, torch.cat(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lengths", [[1], [1, 1, 1], [2, 1]])
def test_convolution_of_the_shortest_videos(lengths: list[int]) -> None:
    conv = TemporalConv(2, 1)
    with torch.no_grad():
        conv.product.weight.copy_(torch.tensor([[100.0, 100.0, 1.0, 1.0, 100.0, 100.0]]))
        conv.product.bias.zero_()
        got = conv(torch.ones(sum(lengths), 2), torch.tensor(lengths)).flatten().tolist()
    assert got == pytest.approx([2.0 if length == 1 else 202.0 for length in lengths for _ in range(length)])


@settings(max_examples=40, deadline=None)
@given(LENGTHS, SEEDS, st.sampled_from([1e-3, 1.0, 300.0]))
def test_sums_over_time(lengths: list[int], seed: int, scale: float) -> None:
    values = (np.random.default_rng(seed).standard_normal((sum(lengths), 3)) * scale).astype(np.float32)
    parts = np.split(values.astype(np.float64), np.cumsum(lengths)[:-1])
    expected = np.array([rows.sum(axis=0) for rows in parts])
    packed, lengths_t = torch.from_numpy(values), torch.tensor(lengths)
    np.testing.assert_allclose(video_sums(packed, lengths_t), expected, rtol=1e-4, atol=1e-4 * scale)
    exact = video_sums(packed, lengths_t, exact=True)
    np.testing.assert_allclose(exact, expected, rtol=1e-9, atol=1e-7)
    order = list(reversed(range(len(lengths))))
    turned = video_sums(torch.cat([packed.split(lengths)[v] for v in order]), lengths_t.flip(0), exact=True)
    assert torch.equal(turned.flip(0), exact)
    means = expected / np.maximum(lengths, 1)[:, None]
    np.testing.assert_allclose(video_means(packed, lengths_t, exact=True), means, rtol=1e-6, atol=1e-7)


@given(LENGTHS, SEEDS, st.integers(1, 9))
def test_places_in_a_video(lengths: list[int], seed: int, one_of: int) -> None:
    values = np.random.default_rng(seed).integers(0, 4, sum(lengths)).astype(np.float32)
    expected, chosen = [], []
    for rows in np.split(values, np.cumsum(lengths)[:-1]):
        places = np.empty(len(rows), dtype=np.int64)
        places[np.argsort(-rows, kind="stable")] = np.arange(len(rows))
        expected += places.tolist()
        chosen += (places < math.ceil(len(rows) / one_of)).tolist()
    assert ranks(torch.from_numpy(values), torch.tensor(lengths)).tolist() == expected
    assert highest(torch.from_numpy(values), torch.tensor(lengths), one_of).tolist() == chosen


@given(LENGTHS, st.integers(-5, 5))
def test_moved_stays_in_its_video(lengths: list[int], by: int) -> None:
    values = torch.arange(1.0, sum(lengths) + 1)
    expected = []
    for rows in values.split(lengths):
        inside = range(len(rows))
        expected += [float(rows[t + by]) if t + by in inside else -1.0 for t in inside]
    assert moved(values, torch.tensor(lengths), by, beyond=-1.0).tolist() == expected
    assert moved(values[:, None], torch.tensor(lengths), by, beyond=-1.0).flatten().tolist() == expected


@pytest.mark.parametrize(("width", "expected"), [(1, (1, 1)), (2, (1, 1)), (7, (3, 4)), (128, (64, 64))])
def test_halves(width: int, expected: tuple[int, int]) -> None:
    columns = torch.arange(float(width))[None].expand(2, width)
    assert widths(width) == expected
    assert tuple(part.shape[1] for part in halves(columns)) == expected
    assert (halves(columns)[0][0, 0], halves(columns)[1][0, -1]) == (0, width - 1)


@pytest.mark.parametrize(("inputs", "outputs"), [(5, 4), (9, 4), (600, 3), (40, 500)])
@pytest.mark.parametrize("blanks", [True, False])
def test_convolution_of_the_points_of_a_pyramid(inputs: int, outputs: int, blanks: bool) -> None:
    """Each way to compute it, on a CPU and elsewhere, against a loop over videos and levels."""
    lengths, torch_rng = torch.tensor([4, 1, 0, 700]), torch.Generator().manual_seed(0)
    points = pyramid(lengths, torch.zeros(705), 3, blanks=blanks)
    assert points.sizes == [705, 2 + 1 + 350, 1 + 1 + 175]
    counts = [count for size in (1, 2, 4) for count in (-(-lengths // size)).tolist()]
    values, weight, bias = (
        torch.randn(size, generator=torch_rng, dtype=torch.float64).float().requires_grad_()
        for size in ((sum(counts), inputs), (outputs, 3 * inputs), (outputs,))
    )
    spread = values
    if blanks:
        spread = torch.zeros(points.all.size, inputs).index_copy(0, points.all.rows, values)
    got = points.all.of_points(convolved(spread, points.all, weight, bias))
    kernel = weight.reshape(outputs, 3, inputs).transpose(1, 2)
    alone = [
        nn.functional.conv1d(part.t()[None], kernel, bias, padding=1)[0].t()
        for part in values.split(counts)
        if len(part)
    ]
    factors = torch.randn(got.shape, generator=torch_rng)
    gradients = [
        torch.autograd.grad((each * factors).sum(), (values, weight, bias)) for each in (got, torch.cat(alone))
    ]
    torch.testing.assert_close(got, torch.cat(alone), rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("inputs", [1, 100, 192, 300, 513])
@pytest.mark.parametrize("rows", [1, 448, 4096])
def test_gradients_of_a_convolution_of_any_width(rows: int, inputs: int) -> None:
    """Of tables of many sizes and features of many widths, of which none is cut in the same way."""
    torch_rng = torch.Generator().manual_seed(0)
    values, weight, bias, factors = (
        torch.randn(size, generator=torch_rng) for size in ((rows, inputs), (2, 3 * inputs), (2,), (rows, 2))
    )
    blank = torch.tensor([0])
    table = Table(blank, blank, blank, rows)
    got = torch.autograd.grad(
        (convolved(values.requires_grad_(), table, weight.requires_grad_(), bias) * factors).sum(), (values, weight)
    )
    padded = nn.functional.pad(values, (0, 0, 1, 1))
    beside = torch.cat([padded[:-2], padded[1:-1], padded[2:]], dim=1)
    of_values, of_weight = torch.autograd.grad((beside @ weight.t() * factors).sum(), (values, weight))
    of_values[blank] = 0.0
    torch.testing.assert_close(got[0], of_values, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got[1], of_weight, rtol=1e-4, atol=2e-3)


def test_dropout_behind_a_norm_and_a_rectifier() -> None:
    """Of a table with blank rows: a tenth of the values is dropped, and the others and their gradients are larger."""
    torch.manual_seed(0)
    values, factors = torch.randn(2000, 50, requires_grad=True), torch.randn(2000, 50)
    norm = nn.LayerNorm(50)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    blank = torch.tensor([0, 7, 1999])
    got = rectified(values, Table(blank, blank, blank, 2000), norm, 0.1)
    plain = norm(values).relu()
    seen = plain > 0
    seen[blank] = False
    kept = got > 0
    assert not (kept & ~seen).any()
    assert 0.895 < float(kept.sum() / seen.sum()) < 0.905
    assert 0.88 < float(kept[:, 3].sum() / seen[:, 3].sum()) < 0.92
    expected = torch.where(kept, plain / 0.9, 0.0)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    wanted = values, norm.weight, norm.bias
    for ours, theirs in zip(
        *(torch.autograd.grad((each * factors).sum(), wanted) for each in (got, expected)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
