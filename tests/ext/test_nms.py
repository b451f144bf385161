"""Non-maximum suppression: its twin on generated inputs, and what must hold of any result."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twins import nms as twin
from twins.evaluation import tiou

from refineloc._ext.nms import hard_nms

segment = st.tuples(st.integers(0, 40), st.integers(0, 25), st.integers(0, 8), st.integers(0, 2))


@given(st.lists(segment, max_size=60), st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]))
@settings(max_examples=400, deadline=None)
def test_equals_its_twin(rows: list[tuple[int, int, int, int]], threshold: float) -> None:
    start = np.array([row[0] for row in rows], dtype=np.float64)
    end = start + np.array([row[1] for row in rows], dtype=np.float64)
    score = np.array([row[2] for row in rows], dtype=np.float64)
    group = np.array([row[3] for row in rows], dtype=np.int64)
    kept = hard_nms(start, end, score, group, tiou_threshold=threshold)
    assert kept.tolist() == twin.hard_nms(start, end, score, group, tiou_threshold=threshold)
    for one in np.unique(group):
        own = kept[group[kept] == one]
        assert (np.diff(score[own]) <= 0).all(), "sorted by falling score"
        for position, index in enumerate(own):
            others = own[position + 1 :]
            with np.errstate(invalid="ignore"):
                assert not (tiou(start[index], end[index], start[others], end[others]) > threshold).any()


def test_many_segments_far_apart() -> None:
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 1e6, 100_000)
    end = start + rng.uniform(1, 20, 100_000)
    kept = hard_nms(start, end, rng.random(100_000), np.zeros(100_000, np.int64), tiou_threshold=0.5)
    assert 50_000 < len(kept) < 100_000


@pytest.mark.parametrize(
    ("start", "end", "score", "message"),
    [
        ([0.0], [1.0, 2.0], [1.0], "one size"),
        ([2.0], [1.0], [1.0], "ends before it starts"),
        ([0.0], [np.inf], [1.0], "finite"),
        ([0.0], [1.0], [np.nan], "finite"),
    ],
)
def test_wrong_arguments(start: list[float], end: list[float], score: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hard_nms(start, end, score, [0], tiou_threshold=0.5)
