"""The segments kernel: hand-computed time lines, its twin on generated inputs, boundaries, refusals."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twins import segments as twin

from refineloc._ext.segments import detect_segments, segment_score

F32 = npt.NDArray[np.float32]


def run(kept: str, *, profile: str = "paper", **options: Any) -> list[tuple[int, int]]:
    """Segments of one video of one class whose kept snippets are drawn as '#'."""
    class_scores = np.array([0.9 if mark == "#" else 0.1 for mark in kept], dtype=np.float32)[:, None]
    ones = np.ones(len(kept), dtype=np.float32)
    settings = {"alpha_a": 0.5, "alpha_c": 0.5, "top_k": 1, "widen": 0} | options
    found = detect_segments(
        class_scores, ones, ones, np.ones((1, 1), np.float32), np.array([len(kept)]), profile=profile, **settings
    )
    return list(zip(found[2].tolist(), found[3].tolist(), strict=True))


# snippet:  0123456789
@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        ("..........", []),
        ("##########", [(0, 9)]),
        ("#.........", [(0, 0)]),
        (".........#", [(9, 9)]),
        ("..##.##...", [(2, 6)]),  # a gap of one is bridged
        ("..##..##..", [(2, 3), (6, 7)]),  # a gap of two is not
        ("#.#.#.#.#.", [(0, 8)]),
        ("", []),
        ("#", [(0, 0)]),
    ],
)
def test_one_gap_grouping(kept: str, expected: list[tuple[int, int]]) -> None:
    assert run(kept) == expected


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        ("..##..##..", [(1, 8)]),  # dilation by one joins a gap of two, and widens by one
        ("..##...##.", [(1, 4), (6, 9)]),
        ("#.........", [(0, 1)]),
        (".........#", [(8, 9)]),
        ("#", [(0, 0)]),
    ],
)
def test_release_takes_dilated_runs(kept: str, expected: list[tuple[int, int]]) -> None:
    assert run(kept, profile="release") == expected


def test_widening_is_clipped_to_the_video_and_may_overlap() -> None:
    assert run("#...#.....", widen=2) == [(0, 2), (2, 6)]
    assert run("#...#...#.", widen=2, profile="release") == [(0, 3), (1, 7), (5, 9)]


def test_gap_of_any_size() -> None:
    assert run("#..#...#", max_gap=0) == [(0, 0), (3, 3), (7, 7)]
    assert run("#..#...#", max_gap=2) == [(0, 3), (7, 7)]
    assert run("#..#...#", max_gap=3) == [(0, 7)]


def test_grouping_is_idempotent() -> None:
    """Snippets inside the segments, kept again, give the same segments."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        kept = "".join(rng.choice(["#", "."], 60, p=[0.4, 0.6]))
        first = run(kept)
        inside = np.zeros(60, bool)
        for t1, t2 in first:
            inside[int(t1) : int(t2) + 1] = True
        assert run("".join("#" if one else "." for one in inside)) == first


def test_score_of_a_hand_computed_segment() -> None:
    c = np.array([[0.75], [0.25], [0.5]], np.float32)
    f, a, y = np.ones(3, np.float32), np.array([0.25, 0.5, 0.25], np.float32), np.array([[0.125]], np.float32)
    one = {"alpha_a": 0.5, "alpha_c": 0.5, "top_k": 1, "widen": 5}
    # Snippets 0 and 2 are kept, 1 is bridged and counts: (0.75 + 0.25 + 0.5) / 3 + (0.25 + 0.5 + 0.25) / 3 + 0.125.
    found = detect_segments(c, f, a, y, np.array([3]), profile="paper", **one)
    assert found[4].tolist() == [0.5 + 1 / 3 + 0.125]
    found = detect_segments(c, f, a, y, np.array([3]), profile="release", **one)  # only snippet 0; dilated to 0..1
    assert found[4].tolist() == [0.5 + 1.0 + 0.125]


@pytest.mark.parametrize(("profile", "at", "past"), [("paper", 1, 0), ("release", 0, 0)])
def test_thresholds_at_and_just_past_the_boundary(profile: str, at: int, past: int) -> None:
    """`at`: segments where the value equals the threshold; `past`: where it is one float32 below."""
    for alpha_c, alpha_a in ((0.35, 0.5), (0.1, 0.08)):
        class_edge, foreground_edge = np.float32(alpha_c), np.float32(1 - alpha_a)

        def count(
            class_score: np.float32, foreground: np.float32, alphas: tuple[float, float] = (alpha_a, alpha_c)
        ) -> int:
            found = detect_segments(
                np.array([[class_score]]),
                np.array([foreground]),
                np.ones(1, np.float32),
                np.ones((1, 1), np.float32),
                np.array([1]),
                profile=profile,
                alpha_a=alphas[0],
                alpha_c=alphas[1],
                top_k=1,
            )
            return len(found[0])

        high, low = np.float32(1), np.float32(0)
        assert count(class_edge, high) == at
        assert count(np.nextafter(class_edge, low), high) == past
        assert count(np.nextafter(class_edge, high), high) == 1
        assert count(high, foreground_edge) == at
        assert count(high, np.nextafter(foreground_edge, low)) == past
        assert count(high, np.nextafter(foreground_edge, high)) == 1


def test_equal_video_scores_take_the_lower_class_first() -> None:
    c = np.full((4, 3), 0.9, np.float32)
    y = np.array([[0.2, 0.4, 0.4]], np.float32)
    ones = np.ones(4, np.float32)
    found = detect_segments(c, ones, ones, y, np.array([4]), profile="paper", alpha_a=0.5, alpha_c=0.5, top_k=2)
    assert found[1].tolist() == [1, 2]
    found = detect_segments(c, ones, ones, y, np.array([4]), profile="paper", alpha_a=0.5, alpha_c=0.5, top_k=99)
    assert found[1].tolist() == [1, 2, 0]


def scores(rng: np.random.Generator, lengths: list[int], classes: int, levels: int) -> tuple[Any, ...]:
    """Random scores; few levels give equal values, also on the thresholds."""
    snippets = sum(lengths)

    def draw(*shape: int) -> F32:
        if levels:
            return (rng.integers(0, levels + 1, shape) / levels).astype(np.float32)
        return rng.random(shape, dtype=np.float32)

    return (
        draw(snippets, classes),
        draw(snippets),
        draw(snippets),
        draw(len(lengths), classes),
        np.array(lengths, dtype=np.int64),
    )


@given(
    seed=st.integers(0, 2**32 - 1),
    lengths=st.lists(st.one_of(st.integers(0, 12), st.integers(0, 300)), max_size=6),
    classes=st.integers(1, 6),
    levels=st.sampled_from([0, 1, 4, 10]),
    profile=st.sampled_from(["paper", "release"]),
    alpha_a=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    alpha_c=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    top_k=st.integers(1, 8),
    max_gap=st.integers(0, 4),
    widen=st.integers(0, 4),
)
@settings(max_examples=400, deadline=None)
def test_equals_its_twin_to_the_bit(seed: int, lengths: list[int], classes: int, levels: int, **options: Any) -> None:
    arguments = scores(np.random.default_rng(seed), lengths, classes, levels)
    found = detect_segments(*arguments, **options)
    expected = twin.detect_segments(*arguments, **options)
    assert [twin.Found(*row) for row in zip(*(column.tolist() for column in found), strict=True)] == expected


@pytest.mark.parametrize("profile", ["paper", "release"])
@pytest.mark.parametrize("snippets", [1, 2, 3, 50, 999, 5_000])
def test_equals_its_twin_on_long_videos(profile: str, snippets: int) -> None:
    arguments = scores(np.random.default_rng(snippets), [snippets], 20, 0)
    options: dict[str, Any] = {"profile": profile, "alpha_a": 0.6, "alpha_c": 0.3, "top_k": 3}
    found = detect_segments(*arguments, **options)
    expected = twin.detect_segments(*arguments, **options)
    assert [twin.Found(*row) for row in zip(*(column.tolist() for column in found), strict=True)] == expected
    assert snippets < 50 or expected, "a test on nothing"


def test_read_only_and_memory_mapped_arrays_are_taken(tmp_path: Any) -> None:
    arguments = scores(np.random.default_rng(0), [30, 20], 3, 0)
    options: dict[str, Any] = {"profile": "paper", "alpha_a": 0.5, "alpha_c": 0.3, "top_k": 2}
    expected = detect_segments(*arguments, **options)
    mapped = []
    for index, array in enumerate(arguments):
        np.save(tmp_path / f"{index}.npy", array)
        mapped.append(np.load(tmp_path / f"{index}.npy", mmap_mode="r"))
    for got, want in zip(detect_segments(*mapped, **options), expected, strict=True):
        assert np.array_equal(got, want)


def wrong(**changes: Any) -> None:
    c, f, a, y, lengths = scores(np.random.default_rng(0), [3, 2], 2, 0)
    arguments = {
        "class_scores": c, "foreground": f, "attention": a, "video_scores": y, "lengths": lengths, "profile": "paper",
        "alpha_a": 0.5, "alpha_c": 0.5, "top_k": 1,
    } | changes  # fmt: skip
    detect_segments(**arguments)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"class_scores": np.zeros((5, 2))}, TypeError, "class_scores: expected float32, got float64"),
        ({"lengths": np.array([3, 2], np.int32)}, TypeError, "lengths: expected int64"),
        ({"foreground": np.zeros((5, 1), np.float32)}, ValueError, "foreground: expected 1 dimensions"),
        ({"attention": np.zeros(4, np.float32)}, ValueError, "expected 5 snippets"),
        ({"video_scores": np.zeros((1, 2), np.float32)}, ValueError, r"video_scores: expected shape \(2, 2\)"),
        ({"lengths": np.array([3, 3])}, ValueError, "sum to 5"),
        ({"lengths": np.array([6, -1])}, ValueError, "at least 0"),
        (  # their sum overflows, to 5
            {"lengths": np.array([2**62] * 4 + [5]), "video_scores": np.zeros((5, 2), np.float32)},
            ValueError,
            "at least 0",
        ),
        ({"lengths": np.array([3, 1])}, ValueError, "sum to 5"),
        ({"foreground": np.array([0, 0, np.nan, 0, 0], np.float32)}, ValueError, "foreground: holds NaN"),
        (
            {"attention": np.full(5, np.nan, np.float32), "alpha_c": 0.0, "alpha_a": 1.0},
            ValueError,
            "attention: holds NaN",
        ),
        ({"class_scores": np.full((5, 2), np.nan, np.float32), "alpha_a": 1.0}, ValueError, "class_scores.* holds NaN"),
        ({"video_scores": np.full((2, 2), np.nan, np.float32)}, ValueError, "video_scores: holds NaN"),
        ({"profile": "other"}, ValueError, "profile"),
        ({"top_k": 0}, ValueError, "top_k: expected at least 1"),
        ({"alpha_c": 1.5}, ValueError, "alpha_c: expected a number from 0 to 1"),
        ({"alpha_a": float("nan")}, ValueError, "alpha_a"),
    ],
)
def test_wrong_arguments_are_named(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        wrong(**changes)


@given(
    seed=st.integers(0, 2**32 - 1),
    alpha_a=st.floats(0, 1),
    profile=st.sampled_from(["paper", "release"]),
    at=st.integers(0, 29),
    label=st.integers(0, 2),
)
@settings(max_examples=200, deadline=None)
def test_nan_is_refused_or_makes_no_difference(seed: int, alpha_a: float, profile: str, at: int, label: int) -> None:
    """Scores that no segment depends on are not looked at; NaN in any other is refused."""
    c, *others = scores(np.random.default_rng(seed), [20, 10], 3, 0)
    options: dict[str, Any] = {"profile": profile, "alpha_a": alpha_a, "alpha_c": 0.3, "top_k": 2}
    spoilt = c.copy()
    spoilt[at, label] = np.nan
    try:
        found = detect_segments(spoilt, *others, **options)
    except ValueError as error:
        assert "class_scores" in str(error)  # noqa: PT017 (both outcomes are right, for different inputs)
        return
    for value in (0.0, 1.0):
        spoilt[at, label] = value
        for got, want in zip(found, detect_segments(spoilt, *others, **options), strict=True):
            assert np.array_equal(got, want)


def test_settings_beyond_all_snippets_do_not_overflow() -> None:
    most = 2**63 - 1
    assert run("#..#......", max_gap=most, widen=most) == [(0, 9)]
    assert run("", max_gap=most, widen=most, top_k=most) == []


@pytest.mark.parametrize("profile", ["paper", "release"])
def test_the_score_of_a_segment_from_its_means(profile: str) -> None:
    rng = np.random.default_rng(3)
    class_scores, foreground, attention = (0.5 + 0.5 * rng.random((3, 9), np.float32)).astype(np.float32)
    video_scores = np.array([[0.3]], np.float32)
    (score,) = detect_segments(
        class_scores[:, None],
        foreground,
        attention,
        video_scores,
        np.array([9]),
        profile=profile,
        alpha_a=1,
        alpha_c=0,
        top_k=1,
    )[4]
    means = [array.mean(dtype=np.float64) for array in (class_scores, foreground, attention)]
    assert segment_score(profile, *means, video_scores[0, 0]) == pytest.approx(score, rel=1e-14)
