"""Non-maximum suppression: hand-computed cases, the twins on generated inputs, and what must hold of any result."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twins import nms as twin

from refineloc._ext.nms import fuse_nms, groups, hard_nms, soft_nms, vote_nms

Columns = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.int64]]
GAUSSIAN: dict[str, Any] = {"method": "gaussian", "sigma": 0.5, "tiou_threshold": 0.3, "min_score": 0.001}
LINEAR: dict[str, Any] = {**GAUSSIAN, "method": "linear"}


def columns(rows: list[tuple[float, float, float, int]]) -> Columns:
    """(start, length, score, group) rows as start, end, score, group."""
    start, length, score, group = np.array(rows, dtype=np.float64).reshape(-1, 4).T
    return start, start + length, score, group.astype(np.int64)


def draw(seed: int, size: int, span: float, longest: float, groups: int, levels: int) -> Columns:
    """Random segments; few levels give equal starts, ends and scores."""
    rng = np.random.default_rng(seed)
    start, length, score = rng.uniform(0, span, size), rng.uniform(0, longest, size), rng.random(size)
    if levels:
        start, length, score = np.round(start), np.round(length), np.round(score * levels) / levels
    return start, start + length, score, rng.integers(-1, groups - 1, size)


whole = st.tuples(st.integers(-20, 20), st.integers(0, 25), st.integers(0, 8), st.integers(-1, 1))
any_float = st.floats(-1e6, 1e6, allow_subnormal=True)
odd = st.tuples(any_float, st.floats(0, 1e6), st.floats(0, 1e3), st.integers(-1, 1))


def by_start(table: Columns) -> Columns:
    """In the order in which detection gives segments: by group and start; the kernels then look at clusters."""
    order = np.lexsort((table[0], table[3]))
    start, end, score, group = (column[order] for column in table)
    return start, end, score, group


few = st.lists(whole, max_size=60).map(columns) | st.lists(odd, max_size=20).map(columns)
# Spans and lengths from "nothing meets" to "all overlap": both the rounds over all and the sweep are taken.
many = st.builds(
    draw,
    st.integers(0, 2**32 - 1),
    st.integers(0, 300),
    st.sampled_from([1.0, 30.0, 300.0, 3000.0]),
    st.sampled_from([0.5, 10.0, 100.0]),
    st.integers(1, 3),
    st.sampled_from([0, 5]),
)
few = few | few.map(by_start)
many = many | many.map(by_start)
thresholds = st.sampled_from([0.0, 0.05, 0.3, 0.5, 0.7, 1.0]) | st.floats(0.0, 1.0)


@given(few | many, thresholds)
@settings(max_examples=500, deadline=None)
def test_hard_and_vote_equal_their_twins_to_the_bit(table: Columns, threshold: float) -> None:
    expected = twin.vote_nms(*table, tiou_threshold=threshold)
    kept, votes = vote_nms(*table, tiou_threshold=threshold)
    assert (kept.tolist(), votes.tolist()) == expected
    assert hard_nms(*table, tiou_threshold=threshold).tolist() == expected[0]


@given(few | many, thresholds, st.sampled_from([1e-3, 0.02, 0.2, 5.0, 1e9]))
@settings(max_examples=500, deadline=None)
def test_fuse_equals_its_twin_to_the_bit(table: Columns, threshold: float, temperature: float) -> None:
    kept, start, end, chance = fuse_nms(*table, tiou_threshold=threshold, temperature=temperature)
    expected = twin.fuse_nms(*table, tiou_threshold=threshold, temperature=temperature)
    assert (kept.tolist(), start.tolist(), end.tolist(), chance.tolist()) == expected
    assert kept.tolist() == hard_nms(*table, tiou_threshold=threshold).tolist()


@given(
    few | many,
    st.sampled_from(["gaussian", "linear"]),
    st.sampled_from([0.05, 0.5, 2.0]),
    thresholds,
    st.sampled_from([0.0, 0.001, 0.4]),
)
@settings(max_examples=500, deadline=None)
def test_soft_equals_its_twin_to_the_bit(
    table: Columns, method: str, sigma: float, threshold: float, least: float
) -> None:
    options: dict[str, Any] = {"method": method, "sigma": sigma, "tiou_threshold": threshold, "min_score": least}
    kept, scores = soft_nms(*table, **options)
    assert (kept.tolist(), scores.tolist()) == twin.soft_nms(*table, **options)


@given(many, thresholds)
@settings(max_examples=100, deadline=None)
def test_kept_are_sorted_and_pairwise_below_the_threshold(table: Columns, threshold: float) -> None:
    start, end, score, group = table
    kept = hard_nms(*table, tiou_threshold=threshold)
    assert len(np.unique(kept)) == len(kept)
    assert (np.diff(kept) > 0).all()
    for one in np.unique(group):
        own = kept[group[kept] == one]
        for position, index in enumerate(own):
            inside, union = twin.inside_and_union(start, end, index, own[position + 1 :])
            assert not (inside > threshold * union).any()
    again = hard_nms(start[kept], end[kept], score[kept], group[kept], tiou_threshold=threshold)
    assert again.tolist() == list(range(len(kept))), "what is kept stays"


@given(many, thresholds)
@settings(max_examples=100, deadline=None)
def test_votes_lose_no_score(table: Columns, threshold: float) -> None:
    score, group = table[2:]
    kept, votes = vote_nms(*table, tiou_threshold=threshold)
    assert (votes >= score[kept]).all()
    for one in np.unique(group):
        assert votes[group[kept] == one].sum() == pytest.approx(score[group == one].sum())


@given(many, thresholds, st.sampled_from([0.02, 0.2, 5.0]))
@settings(max_examples=100, deadline=None)
def test_fused_bounds_lie_within_those_of_their_group(table: Columns, threshold: float, temperature: float) -> None:
    start, end, _, group = table
    kept, fused_start, fused_end, _ = fuse_nms(*table, tiou_threshold=threshold, temperature=temperature)
    for one in np.unique(group):
        mine, own = group[kept] == one, group == one
        for fused, bounds in ((fused_start, start), (fused_end, end)):
            assert (fused[mine] >= bounds[own].min() - 1e-9).all()
            assert (fused[mine] <= bounds[own].max() + 1e-9).all()
    assert (fused_start <= fused_end + 1e-9).all()


@given(many, st.sampled_from([GAUSSIAN, LINEAR]))
@settings(max_examples=100, deadline=None)
def test_soft_scores_fall_and_never_rise_above_their_own(table: Columns, options: dict[str, Any]) -> None:
    score, group = table[2:]
    kept, lowered = soft_nms(*table, **options)
    assert (np.diff(kept) > 0).all()
    assert (lowered <= score[kept]).all()
    assert (lowered >= options["min_score"]).all()
    best = [np.flatnonzero(group == one)[np.argmax(score[group == one])] for one in np.unique(group)]
    for index in best:  # none lowers the best
        assert score[index] < options["min_score"] or lowered[kept == index].tolist() == [score[index]]


def test_groups_are_the_classes_of_each_video() -> None:
    video, label = np.array([0, 0, 0, 1, 1, 2]), np.array([3, 3, 1, 1, 1, 3])
    assert groups(video, label).tolist() == [0, 0, 1, 2, 2, 3]
    assert groups(np.zeros(0, np.int64), np.zeros(0, np.int64)).tolist() == []
    with pytest.raises(ValueError, match="two arrays of one size"):
        groups(video, label[:1])


#     0         10
# 0   ==========            score 9
# 1   =====                 score 8    tIoU with 0 is 5/10: not above 0.5
# 2    =========            score 7    tIoU with 0 is 9/10
# 3   ======                score 6    tIoU with 0 is 6/10, with 1 it is 5/6: 0 dropped it first
# 4              ====       score 5    alone
LINE = columns([(0, 10, 9, 0), (0, 5, 8, 0), (1, 9, 7, 0), (0, 6, 6, 0), (12, 4, 5, 0)])


def test_hand_computed() -> None:
    assert hard_nms(*LINE, tiou_threshold=0.5).tolist() == [0, 1, 4]
    kept, votes = vote_nms(*LINE, tiou_threshold=0.5)
    assert (kept.tolist(), votes.tolist()) == ([0, 1, 4], [9 + 7 + 6, 8, 5])
    assert hard_nms(*LINE, tiou_threshold=np.nextafter(0.5, 0)).tolist() == [0, 4], "strictly above the threshold"


def test_fused_by_hand() -> None:
    # 0 takes 2 (score 7) and 3 (score 6); weights by exp(score / temperature), relative to its own.
    kept, start, end, _ = fuse_nms(*LINE, tiou_threshold=0.5, temperature=2.0)
    w2, w3 = np.exp(-1.0), np.exp(-1.5)
    assert kept.tolist() == [0, 1, 4]
    assert start.tolist() == pytest.approx([w2 * 1 / (1 + w2 + w3), 0, 12])
    assert end.tolist() == pytest.approx([(10 + 10 * w2 + 6 * w3) / (1 + w2 + w3), 5, 16])
    # The colder, the nearer to the best alone; the hotter, the nearer to the plain mean.
    assert fuse_nms(*LINE, tiou_threshold=0.5, temperature=1e-3)[1].tolist() == [0, 0, 12]
    assert fuse_nms(*LINE, tiou_threshold=0.5, temperature=1e9)[2][0] == pytest.approx(26 / 3)
    none = fuse_nms(*columns([]), tiou_threshold=0.5, temperature=1.0)
    assert [len(column) for column in none] == [0, 0, 0, 0]


def test_chances_by_hand() -> None:
    """The kept one's own score, joined with those of the two that it drops; alone it stays; all are clipped."""
    table = columns(
        [(0, 10, 0.5, 0), (0, 10, 0.5, 0), (0, 9, 0.2, 0), (20, 30, 1e-300, 0), (40, 50, 1.5, 0), (60, 70, -2, 0)]
    )
    kept, _, _, chance = fuse_nms(*table, tiou_threshold=0.5, temperature=0.1)
    assert kept.tolist() == [0, 3, 4, 5]
    assert chance.tolist() == [pytest.approx(1 - 0.5 * 0.5 * 0.8), 1e-300, 1.0, 0.0]


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_temperatures_out_of_range(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature: expected a number above 0"):
        fuse_nms(*LINE, tiou_threshold=0.5, temperature=temperature)


def test_soft_hand_computed() -> None:
    two = columns([(0, 10, 1, 0), (0, 5, 0.5, 0), (5, 5, 0.25, 1)])
    kept, scores = soft_nms(*two, **LINEAR)
    assert (kept.tolist(), scores.tolist()) == ([0, 1, 2], [1, 0.25, 0.25])
    assert soft_nms(*two, **LINEAR | {"tiou_threshold": 0.5})[1].tolist() == [1, 0.5, 0.25]
    assert soft_nms(*two, **LINEAR | {"min_score": 0.25})[0].tolist() == [0, 1, 2]
    assert soft_nms(*two, **LINEAR | {"min_score": np.nextafter(0.25, 1)})[0].tolist() == [0]
    assert soft_nms(*two, **GAUSSIAN)[1].tolist() == pytest.approx([1, 0.5 * np.exp(-0.25 / 0.5), 0.25])


def test_equal_scores_take_the_earlier_first() -> None:
    same = columns([(5, 10, 1, 0), (4, 10, 1, 0), (6, 10, 1, 0)] * 20)
    assert hard_nms(*same, tiou_threshold=0.5).tolist() == [0]
    assert soft_nms(*same, **LINEAR)[0][0] == 0


def test_a_long_segment_over_many_short_ones_costs_nothing() -> None:
    """And does not hide them: only its own tIoU with them counts."""
    start, end, score, group = draw(0, 50_000, 1e6, 20.0, 1, 0)
    kept = hard_nms(start, end, score, group, tiou_threshold=0.5)
    assert 30_000 < len(kept) < 50_000
    table = np.append(start, 0.0), np.append(end, 2e6), np.append(score, 2.0), np.append(group, group[0])
    assert hard_nms(*table, tiou_threshold=0.5).tolist() == [*kept.tolist(), 50_000]


@pytest.mark.parametrize("span", [1e6, 10.0])
def test_a_hundred_thousand_segments(span: float) -> None:
    """By groups, so that the twin can follow: the groups together equal the groups one by one."""
    table = draw(1, 100_000, span, 20.0, 40, 0)
    kept, votes = vote_nms(*table, tiou_threshold=0.5)
    soft, lowered = soft_nms(*table, **GAUSSIAN)
    for one in np.unique(table[3]):
        members = np.flatnonzero(table[3] == one)
        own: Columns = (table[0][members], table[1][members], table[2][members], table[3][members])
        expected, expected_votes = twin.vote_nms(*own, tiou_threshold=0.5)
        assert kept[table[3][kept] == one].tolist() == members[expected].tolist()
        assert votes[table[3][kept] == one].tolist() == expected_votes
        expected_soft, expected_lowered = soft_nms(*own, **GAUSSIAN)
        assert soft[table[3][soft] == one].tolist() == members[expected_soft].tolist()
        assert lowered[table[3][soft] == one].tolist() == expected_lowered.tolist()


HARD: dict[str, Any] = {"tiou_threshold": 0.5}
FUSE: dict[str, Any] = {**HARD, "temperature": 0.2}


@pytest.mark.parametrize(
    ("kernel", "options"), [(hard_nms, HARD), (vote_nms, HARD), (fuse_nms, FUSE), (soft_nms, GAUSSIAN)]
)
@pytest.mark.parametrize(
    ("start", "end", "score", "changes", "message"),
    [
        ([0.0], [1.0, 2.0], [1.0], {}, "one size"),
        ([[0.0]], [[1.0]], [[1.0]], {}, "one size"),
        ([2.0], [1.0], [1.0], {}, "ends before it starts"),
        ([0.0], [np.inf], [1.0], {}, "finite"),
        ([np.nan], [1.0], [1.0], {}, "finite"),
        ([0.0], [1.0], [np.nan], {}, "finite"),
        ([-1.7e308], [1.7e308], [1.0], {}, "finite"),
        ([0.0], [1.0], [1.0], {"tiou_threshold": 1.1}, "tiou_threshold"),
        ([0.0], [1.0], [1.0], {"tiou_threshold": np.nan}, "tiou_threshold"),
    ],
)
def test_wrong_arguments(
    kernel: Callable[..., Any],
    options: dict[str, Any],
    start: Any,
    end: Any,
    score: Any,
    changes: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        kernel(start, end, score, [0], **options | changes)


@pytest.mark.parametrize(
    ("score", "changes", "message"),
    [
        (-0.5, {}, "score: expected at least 0, got -0.5"),
        (1.0, {"method": "hard"}, "method"),
        (1.0, {"sigma": 0.0}, "sigma"),
        (1.0, {"sigma": np.nan}, "sigma"),
        (1.0, {"min_score": -0.1}, "min_score"),
    ],
)
def test_wrong_arguments_of_soft_nms(score: float, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        soft_nms([0.0], [1.0], [score], [0], **GAUSSIAN | changes)
