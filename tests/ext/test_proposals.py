"""The proposals kernel: hand-computed time lines, its twin on generated inputs, boundaries, refusals."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twins import proposals as twin

from refineloc._ext.proposals import detect_proposals

F32 = npt.NDArray[np.float32]


def unread(c: F32) -> F32:
    """A foreground that must not matter."""
    return np.full(len(c), np.nan, np.float32)


def run(heights: str, **options: Any) -> list[tuple[int, int, float]]:
    """First, last and score in one video of one class whose x is drawn in tenths of 1; '.' is 0, '#' is 1.

    There is one of each, so that the normalisation changes nothing; ŷ is 0.
    """
    x = np.array([0.0 if mark == "." else 1.0 if mark == "#" else int(mark) / 10 for mark in heights], np.float32)
    chosen: dict[str, Any] = {"thresholds": [0.05, 0.45, 0.75], "top_k": 1, "scoring": "peak"} | options
    found = detect_proposals(x[:, None], unread(x), np.zeros((1, 1), np.float32), np.array([len(x)]), **chosen)
    return list(zip(*(column.tolist() for column in found[2:]), strict=True))


def places(heights: str, **options: Any) -> list[tuple[int, int]]:
    """`run` without the scores."""
    return [one[:2] for one in run(heights, **options)]


# snippet:  0123456789
@pytest.mark.parametrize(
    ("heights", "expected"),
    [
        (".11###11..", [(1, 7), (3, 5)]),  # a run within a run; 0.45 and 0.75 give the same, once
        (".##.......", [(1, 2)]),
        ("##........", [(0, 1)]),
        (".........#", [(9, 9)]),
        (".5#55.6.#.", [(1, 4), (2, 2), (6, 6), (8, 8)]),
        (".6#1#6....", [(1, 2), (1, 5), (2, 2), (4, 4), (4, 5)]),  # those of one first snippet: the shorter before
        ("#66611....", [(0, 0), (0, 3), (0, 5)]),
        ("....11666#", [(4, 9), (6, 9), (9, 9)]),
        ("##########", []),  # the same everywhere: x is 0
        (".", []),
        ("", []),
    ],
)
def test_runs_at_all_thresholds(heights: str, expected: list[tuple[int, int]]) -> None:
    assert places(heights) == expected


def test_gaps_are_joined_at_each_threshold() -> None:
    assert places("#.#..#....", max_gap=1) == [(0, 2), (5, 5)]
    assert places("#.#..#....", max_gap=2) == [(0, 5)]
    assert places("#1#11#....", max_gap=1) == [(0, 2), (0, 5), (5, 5)]
    assert places("6..#1.6...", max_gap=2) == [(0, 6), (3, 3)]
    assert places(".1#.......", max_gap=9) == [(1, 2), (2, 2)]  # not with what lies before the video


def test_order_and_repetition_of_thresholds_make_no_difference() -> None:
    assert run(".11###11..", thresholds=[0.75, 0.05, 0.75, 0.45, 0.05]) == run(".11###11..")
    assert places(".11###11..", thresholds=(0.45,)) == [(3, 5)]
    assert places(".11###11..", thresholds=np.array([0.45], np.float32)) == [(3, 5)]


def test_a_value_at_the_threshold_is_removed_and_one_just_above_is_kept() -> None:
    for threshold in (0.0, 0.1, 0.35, 0.5):
        edge = np.float32(threshold)
        for value, count in ((edge, 0), (np.nextafter(edge, np.float32(1)), 1)):
            c = np.array([[0.0], [value], [0.0], [1.0]], np.float32)
            found = detect_proposals(
                c,
                unread(c),
                np.ones((1, 1), np.float32),
                np.array([4]),
                thresholds=[threshold],
                top_k=1,
                scoring="peak",
            )
            assert found[2].tolist() == [1, 3][1 - count :]
    assert places(".#.", thresholds=[1.0]) == []


def test_scores_of_hand_computed_proposals() -> None:
    c = np.array([[1.0], [2.0], [4.0], [5.0], [1.0], [3.0], [1.0], [1.0]], np.float32)  # x = (C̄ - 1) / 4
    y = np.array([[0.5]], np.float32)
    one: dict[str, Any] = {"thresholds": [0.6], "top_k": 1, "video_weight": 0.25}
    lengths = np.array([8])
    # Snippets 2 and 3 (x 0.75 and 1); a ring of ceil(0.25 * 2) = 1 at each side: x 0.25 and 0.
    found = detect_proposals(c, unread(c), y, lengths, scoring="contrast", outer=0.25, **one)
    assert [column.tolist() for column in found[2:]] == [[2], [3], [0.875 - 0.125 + 0.125]]
    # A ring of 3 goes beyond the video: snippets 0 and 1, and 4 to 6 (x 0, 0.5, 0).
    assert detect_proposals(c, unread(c), y, lengths, scoring="contrast", outer=1.5, **one)[4].tolist() == [
        0.875 - 0.15 + 0.125
    ]
    assert detect_proposals(c, unread(c), y, lengths, scoring="contrast", outer=0.0, **one)[4].tolist() == [
        0.875 + 0.125
    ]
    assert detect_proposals(c, unread(c), y, lengths, scoring="contrast", outer=1e300, **one)[4] == pytest.approx(
        1 - 0.75 / 6
    )
    assert detect_proposals(c, unread(c), y, lengths, scoring="peak", **one)[4].tolist() == [5.0 + 0.125]
    # At a threshold of 0.2 snippet 5 is a proposal of its own; joined over snippet 4, the peak is that of snippet 3.
    found = detect_proposals(c, unread(c), y, lengths, scoring="peak", **one | {"thresholds": [0.2]})
    assert [column.tolist() for column in found[2:]] == [[1, 5], [3, 5], [5.125, 3.125]]
    found = detect_proposals(c, unread(c), y, lengths, scoring="peak", max_gap=1, **one | {"thresholds": [0.2]})
    assert [column.tolist() for column in found[2:]] == [[1], [5], [5.125]]


def test_nothing_outside_counts_as_zero() -> None:
    c = np.array([[0.5], [1.0]], np.float32)
    whole = np.array([[0.0], [0.5], [1.0]], np.float32)
    y = np.zeros((1, 1), np.float32)
    one: dict[str, Any] = {"thresholds": [0.0], "top_k": 1, "scoring": "contrast"}
    assert detect_proposals(c, unread(c), y, np.array([2]), **one)[4].tolist() == [1.0]  # beside it: x = 0
    found = detect_proposals(whole, unread(whole), y, np.array([3]), max_gap=0, widen=1, **one)
    assert [column.tolist() for column in found[2:]] == [[0], [2], [0.75]]  # scored before it is widened


def test_widening_is_clipped_and_keeps_the_order() -> None:
    assert places("#66.......", widen=1) == [(0, 1), (0, 3)]
    assert places(".66#......", widen=5) == [(0, 8), (0, 8)]
    assert places(".5#5......", widen=1) == [(0, 4), (1, 3)]


@given(seed=st.integers(0, 2**32 - 1), snippets=st.integers(2, 60), outer=st.sampled_from([0.1, 0.25, 0.5, 1.0]))
@settings(max_examples=100, deadline=None)
def test_contrast_is_a_difference_of_means(seed: int, snippets: int, outer: float) -> None:
    """The formula as it is written, without sums from the first snippet on."""
    c = np.random.default_rng(seed).random((snippets, 1), dtype=np.float32)
    one: dict[str, Any] = {"thresholds": [0.2, 0.5, 0.9], "top_k": 1, "scoring": "contrast", "outer": outer}
    found = detect_proposals(c, unread(c), np.zeros((1, 1), np.float32), np.array([snippets]), **one)
    x = twin.normalised(c[:, 0])
    bounds = [column.astype(np.int64) for column in found[2:4]]
    assert len(found[0])
    for first, last, score in zip(*(column.tolist() for column in (*bounds, found[4])), strict=True):
        ring = int(np.ceil(outer * (last - first + 1)))
        around = np.concatenate([x[max(first - ring, 0) : first], x[last + 1 : last + 1 + ring]])
        assert score == pytest.approx(x[first : last + 1].mean() - (around.mean() if len(around) else 0.0), abs=1e-6)


def scores(rng: np.random.Generator, lengths: list[int], classes: int, levels: int) -> tuple[F32, F32, F32, Any]:
    """Random scores; few levels give equal values, also on the thresholds. Some classes must not be chosen."""

    def draw(*shape: int) -> F32:
        if levels:
            return (rng.integers(0, levels + 1, shape) / levels).astype(np.float32)
        return rng.random(shape, dtype=np.float32)

    y = draw(len(lengths), classes)
    y[rng.random(y.shape) < 0.2] = -np.inf
    return draw(sum(lengths), classes), draw(sum(lengths)), y, np.array(lengths, dtype=np.int64)


OPTIONS: dict[str, st.SearchStrategy[Any]] = {
    "seed": st.integers(0, 2**32 - 1),
    "lengths": st.lists(st.one_of(st.integers(0, 12), st.integers(0, 300)), max_size=6),
    "classes": st.integers(1, 10),
    "levels": st.sampled_from([0, 1, 4, 10]),
    "thresholds": st.one_of(
        st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.5, 0.9, 1.0]), min_size=1, max_size=8),
        st.lists(st.floats(0, 1), min_size=1, max_size=40),
    ),
    "top_k": st.integers(1, 12),
    "scoring": st.sampled_from(["contrast", "peak"]),
    "class_threshold": st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    "curve": st.sampled_from(["class", "foreground", "both"]),
    "scored_on": st.sampled_from(["class", "product"]),
    "outer": st.sampled_from([0.0, 0.25, 1.0, 7.5]),
    "length_power": st.sampled_from([0.0, 0.25, 1.0]),
    "video_term": st.sampled_from(["add", "multiply"]),
    "video_weight": st.sampled_from([0.0, 0.2, 1.0]),
    "max_gap": st.integers(0, 4),
    "widen": st.integers(0, 4),
}


@given(**OPTIONS)
@settings(max_examples=400, deadline=None)
def test_equals_its_twin_to_the_bit(seed: int, lengths: list[int], classes: int, levels: int, **options: Any) -> None:
    arguments = scores(np.random.default_rng(seed), lengths, classes, levels)
    found = detect_proposals(*arguments, **options)
    expected = twin.detect_proposals(*arguments, **options)
    assert [twin.Found(*row) for row in zip(*(column.tolist() for column in found), strict=True)] == expected


def test_more_proposals_than_snippets() -> None:
    """The room that the kernel begins with is for as many as snippets."""
    rng = np.random.default_rng(0)
    arguments = (
        rng.random((60, 9), np.float32),
        rng.random(60, np.float32),
        np.ones((2, 9), np.float32),
        np.array([20, 40]),
    )
    options: dict[str, Any] = {"thresholds": [0.1, 0.3, 0.5, 0.7], "top_k": 9, "scoring": "contrast", "curve": "both"}
    found = detect_proposals(*arguments, **options)
    expected = twin.detect_proposals(*arguments, **options)
    assert len(expected) > 4 * 60
    assert [twin.Found(*row) for row in zip(*(column.tolist() for column in found), strict=True)] == expected


@given(**OPTIONS)
@settings(max_examples=100, deadline=None)
def test_a_video_has_the_same_proposals_in_a_batch_as_alone(
    seed: int, lengths: list[int], classes: int, levels: int, **options: Any
) -> None:
    c, f, y, packed = scores(np.random.default_rng(seed), lengths, classes, levels)
    together = detect_proposals(c, f, y, packed, **options)
    begin = 0
    for video, length in enumerate(lengths):
        part = slice(begin, begin + length)
        one = slice(video, video + 1)
        alone = detect_proposals(c[part], f[part], y[one], packed[one], **options)
        begin += length
        for got, want in zip(together[1:], alone[1:], strict=True):
            assert np.array_equal(got[together[0] == video], want)


@given(**OPTIONS)
@settings(max_examples=100, deadline=None)
def test_no_run_is_given_twice(seed: int, lengths: list[int], classes: int, levels: int, **options: Any) -> None:
    found = detect_proposals(*scores(np.random.default_rng(seed), lengths, classes, levels), **options | {"widen": 0})
    keys = list(zip(*(column.tolist() for column in found[:4]), strict=True))
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("curve", ["class", "both"])
@pytest.mark.parametrize("snippets", [1, 2, 3, 50, 999, 5_000])
def test_equals_its_twin_on_long_videos_and_many_thresholds(snippets: int, curve: str) -> None:
    walk = np.cumsum(np.random.default_rng(snippets).normal(size=(snippets, 4)), axis=0).astype(np.float32)
    arguments = (walk[:, :3].copy(), walk[:, 3].copy(), np.array([[0.5, 0.2, 0.7]], np.float32), np.array([snippets]))
    options: dict[str, Any] = {"thresholds": np.linspace(0, 1, 300), "top_k": 2, "scoring": "contrast", "max_gap": 2}
    options["curve"] = curve
    found = detect_proposals(*arguments, **options)
    expected = twin.detect_proposals(*arguments, **options)
    assert [twin.Found(*row) for row in zip(*(column.tolist() for column in found), strict=True)] == expected
    assert snippets < 50 or len(expected) > 20, "a test on nothing"


#           snippet:  01234567
#           class:    .#...88.
#           foreground: ..##....
@pytest.mark.parametrize(
    ("curve", "expected"),
    [("class", [(1, 1), (5, 6)]), ("foreground", [(1, 3)]), ("both", [(1, 1), (1, 3), (5, 6)])],
)
@pytest.mark.parametrize("scoring", ["contrast", "peak"])
def test_runs_of_either_curve_and_of_both(curve: str, expected: list[tuple[int, int]], scoring: str) -> None:
    c = np.float32([[0, 1, 0, 0, 0, 0.8, 0.8, 0]]).T.copy()
    f = np.float32([0, 4, 4, 4, 0, 2, 2, 0])
    one: dict[str, Any] = {"thresholds": [0.5], "top_k": 1, "scoring": scoring, "curve": curve, "video_weight": 0.0}
    arguments = (c, f, np.zeros((1, 1), np.float32), np.array([8]))
    proposals = detect_proposals(*arguments, **one)
    assert list(zip(proposals[2].tolist(), proposals[3].tolist(), strict=True)) == expected
    # The contrast of the product has a ring of one snippet, of 0 beside all of these.
    product = f * c[:, 0]
    means = [float(np.mean(product[first : last + 1], dtype=np.float64)) for first, last in expected]
    peaks = [float(product[first : last + 1].max()) for first, last in expected]
    scored = detect_proposals(*arguments, **one, scored_on="product")
    assert scored[4].tolist() == pytest.approx(means if scoring == "contrast" else peaks)


def test_a_run_of_both_curves_counts_once() -> None:
    c = np.float32([0, 1, 1, 0, 0.5, 0])
    one: dict[str, Any] = {"thresholds": [0.2, 0.7], "top_k": 2, "scoring": "peak"}
    two_classes = np.stack([c, c], axis=1)
    y, lengths = np.float32([[0.9, 0.1]]), np.array([6])
    alone = detect_proposals(two_classes, c, y, lengths, curve="class", **one)
    both = detect_proposals(two_classes, c, y, lengths, curve="both", **one)
    assert [column.tolist() for column in alone] == [column.tolist() for column in both]
    assert both[1].tolist() == [0, 0, 1, 1]


def test_a_class_of_minus_infinity_is_never_chosen() -> None:
    c = np.tile(np.float32([[0], [1]]), 3)
    for top_k in (1, 2, 3):
        y = np.float32([[-np.inf, 0.1, -np.inf], [-np.inf] * 3])
        found = detect_proposals(
            np.tile(c, (2, 1)), unread(np.tile(c, (2, 1))), y, np.array([2, 2]), thresholds=[0.5], top_k=top_k,
            scoring="peak",
        )  # fmt: skip
        assert (found[0].tolist(), found[1].tolist()) == ([0], [1])


def test_the_table_holds_the_most_proposals_there_can_be() -> None:
    """A staircase has one for each step but the lowest; a comb one for every second snippet."""
    stairs = np.arange(50, dtype=np.float32)[:, None]
    y, lengths = np.ones((1, 1), np.float32), np.array([50])
    many = [step / 1000 for step in range(1000)]
    assert len(detect_proposals(stairs, unread(stairs), y, lengths, thresholds=many, top_k=1, scoring="peak")[0]) == 49
    comb = np.tile(np.float32([1, 0]), 25)[:, None]
    assert len(detect_proposals(comb, unread(comb), y, lengths, thresholds=[0.5], top_k=1, scoring="peak")[0]) == 25
    assert len(detect_proposals(comb, unread(comb), y, lengths, thresholds=many, top_k=1, scoring="peak")[0]) == 25
    # Of two curves that have no run in common.
    other = 1 - comb[:, 0]
    found = detect_proposals(comb, other, y, lengths, thresholds=many, top_k=1, scoring="peak", curve="both")
    assert len(found[0]) == 50
    falling = stairs[::-1, 0].copy()
    found = detect_proposals(stairs, falling, y, lengths, thresholds=many, top_k=1, scoring="contrast", curve="both")
    assert len(found[0]) == 2 * 49


def test_equal_video_scores_take_the_lower_class_first() -> None:
    c = np.tile(np.float32([[0], [1]]), 3)
    y = np.array([[0.2, 0.4, 0.4]], np.float32)
    for top_k, expected in ((2, [1, 2]), (99, [1, 2, 0])):
        found = detect_proposals(c, unread(c), y, np.array([2]), thresholds=[0.5], top_k=top_k, scoring="peak")
        assert found[1].tolist() == expected


def test_read_only_and_memory_mapped_arrays_are_taken(tmp_path: Any) -> None:
    arguments = scores(np.random.default_rng(0), [30, 20], 3, 0)
    options: dict[str, Any] = {"thresholds": [0.2, 0.5], "top_k": 2, "scoring": "contrast"}
    expected = detect_proposals(*arguments, **options)
    mapped = []
    for index, array in enumerate(arguments):
        np.save(tmp_path / f"{index}.npy", array)
        mapped.append(np.load(tmp_path / f"{index}.npy", mmap_mode="r"))
    for got, want in zip(detect_proposals(*mapped, **options), expected, strict=True):
        assert np.array_equal(got, want)


BAD = [np.nan, np.inf, -np.inf]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"class_scores": np.zeros((5, 2))}, TypeError, "class_scores: expected float32, got float64"),
        ({"class_scores": np.zeros(5, np.float32)}, ValueError, "class_scores: expected 2 dimensions"),
        ({"lengths": np.array([3, 2], np.int32)}, TypeError, "lengths: expected int64"),
        ({"video_scores": np.zeros((1, 2), np.float32)}, ValueError, r"video_scores: expected shape \(2, 2\)"),
        ({"lengths": np.array([3, 3])}, ValueError, "sum to 5"),
        ({"lengths": np.array([6, -1])}, ValueError, "at least 0"),
        (  # their sum overflows, to 5
            {"lengths": np.array([2**62] * 4 + [5]), "video_scores": np.zeros((5, 2), np.float32)},
            ValueError,
            "at least 0",
        ),
        ({"lengths": np.array([3, 1])}, ValueError, "sum to 5"),
        *(({"class_scores": np.full((5, 2), bad, np.float32)}, ValueError, "class_scores: .* finite") for bad in BAD),
        ({"class_scores": np.tile(np.float32([[3e38, -3e38]]), (5, 1)).T.reshape(5, 2)}, ValueError, "range"),
        ({"video_scores": np.full((2, 2), np.nan, np.float32)}, ValueError, "video_scores: holds NaN"),
        *(({"foreground": np.full(5, bad, np.float32)}, ValueError, "foreground: .* finite") for bad in BAD),
        ({"foreground": np.float32([3e38, -3e38, 0, 0, 0])}, ValueError, "foreground: .* range"),
        ({"foreground": np.zeros(4, np.float32)}, ValueError, "foreground: expected 5 snippets .*, got 4"),
        ({"foreground": np.zeros(5)}, TypeError, "foreground: expected float32"),
        (  # finite, and their product is not
            {"foreground": np.float32([1e30] * 5), "class_scores": np.full((5, 2), 1e30, np.float32)},
            ValueError,
            "class_scores: .* finite",
        ),
        ({"curve": "all"}, ValueError, "curve: expected 'class' or 'foreground' or 'both', got 'all'"),
        ({"scored_on": "x"}, ValueError, "scored_on: expected 'class' or 'product', got 'x'"),
        ({"video_term": "x"}, ValueError, "video_term: expected 'add' or 'multiply', got 'x'"),
        ({"scoring": "mean"}, ValueError, "scoring: expected 'contrast' or 'peak', got 'mean'"),
        ({"top_k": 0}, ValueError, "top_k: expected at least 1"),
        ({"class_threshold": 1.5}, ValueError, "class_threshold: expected a number from 0 to 1"),
        ({"max_gap": -1}, ValueError, "max_gap: expected at least 0"),
        ({"thresholds": []}, ValueError, "thresholds: expected at least one"),
        ({"thresholds": [0.5, 1.5]}, ValueError, "thresholds: expected numbers from 0 to 1, got 1.5"),
        ({"thresholds": [-1e-9]}, ValueError, "thresholds"),
        ({"thresholds": [float("nan")]}, ValueError, "thresholds"),
        ({"thresholds": ["low"]}, TypeError, "number"),
        ({"outer": -0.1}, ValueError, "outer: expected a finite number of at least 0"),
        ({"outer": float("nan")}, ValueError, "outer"),
        ({"length_power": -0.5}, ValueError, "length_power: expected a number from 0 to 1"),
        ({"length_power": float("nan")}, ValueError, "length_power"),
        ({"video_weight": float("inf")}, ValueError, "video_weight"),
    ],
)
def test_wrong_arguments_are_named(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    rng = np.random.default_rng(0)
    arguments: dict[str, Any] = {
        "class_scores": rng.random((5, 2), np.float32), "foreground": rng.random(5, np.float32),
        "video_scores": rng.random((2, 2), np.float32), "lengths": np.array([3, 2]), "thresholds": [0.5], "top_k": 2,
        "scoring": "peak", "curve": "both", "scored_on": "product",
    } | changes  # fmt: skip
    with pytest.raises(error, match=message):
        detect_proposals(**arguments)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("at", [0, 2, 4])
def test_what_is_not_finite_matters_in_a_chosen_class_only(bad: float, at: int) -> None:
    c, lengths = np.random.default_rng(0).random((5, 2), np.float32), np.array([5])
    c[at, 0] = bad
    options: dict[str, Any] = {"thresholds": [0.5], "top_k": 1, "scoring": "contrast"}
    assert len(detect_proposals(c, unread(c), np.float32([[0.1, 0.9]]), lengths, **options)[0])
    with pytest.raises(ValueError, match="class_scores: expected finite values"):
        detect_proposals(c, unread(c), np.float32([[0.9, 0.1]]), lengths, **options)


def test_settings_beyond_all_snippets_do_not_overflow() -> None:
    most = 2**63 - 1
    assert places("#..#......", max_gap=most, widen=most) == [(0, 9)]
    assert places("", max_gap=most, widen=most, top_k=most) == []


def test_thresholds_are_as_many_as_they_are() -> None:
    """A list that says another length than it has, as one that another thread changes."""

    class Short(list[float]):
        def __len__(self) -> int:
            return 1

    assert places(".11###11..", thresholds=Short([0.05, 0.45, 0.75])) == [(1, 7), (3, 5)]
