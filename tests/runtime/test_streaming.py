"""The streaming detector against the offline one: the same times always, the same result at the end."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from small_model import GRAPH

from refineloc.runtime import Detector
from refineloc.runtime.detections import Detection
from refineloc.runtime.errors import ConfigError, FeatureError, InputError
from refineloc.runtime.segments.postprocess import segments
from refineloc.runtime.segments.rules import OneThreshold
from refineloc.runtime.segments.values import Scores
from refineloc.runtime.streaming import StreamingDetector

FPS = 25.0
SNIPPET_S = 16 / FPS


def video(rng: np.random.Generator, length: int) -> npt.NDArray[np.float32]:
    """Features that change slowly, so that segments have some length, with noise, so that they have gaps."""
    steps = rng.standard_normal((length, 24)).cumsum(axis=0)
    slow = steps / np.sqrt(np.arange(1, length + 1))[:, None]
    return (2 * slow + 0.7 * rng.standard_normal(slow.shape)).astype(np.float32)


def pushed(stream: StreamingDetector, features: npt.NDArray[Any], sizes: list[int]) -> list[list[Detection]]:
    """What each push yields, with what `finish` yields at the end."""
    ends = np.cumsum(sizes)
    assert ends[-1] == len(features)
    return [stream.push(features[end - size : end]) for size, end in zip(sizes, ends, strict=True)] + [stream.finish()]


def times(found: Any) -> list[tuple[str, float, float]]:
    return sorted((one.label, one.start, one.end) for one in found)


CHUNKINGS = {
    "one by one": lambda n: [1] * n,
    "sevens": lambda n: [7] * (n // 7) + [n % 7],
    "at once": lambda n: [n],
    "uneven": lambda n: [1, 0, n // 2, 2, n - n // 2 - 3],
}


@pytest.mark.parametrize("profile", ["paper", "release"])
@pytest.mark.parametrize("chunking", CHUNKINGS)
@pytest.mark.parametrize("top_k", [1, 5])
def test_the_end_result_is_the_offline_one(
    model_path: Path, rng: np.random.Generator, profile: str, chunking: str, top_k: int
) -> None:
    detector = Detector(model_path, provider="cpu", threads=1, profile=profile, top_k=top_k, alpha_c=0.2)
    for length in (6, 9, 150, 600):
        features = video(rng, length)
        stream = StreamingDetector(detector, fps=FPS)
        yielded = [one for part in pushed(stream, features, CHUNKINGS[chunking](length)) for one in part]
        expected = detector.detect(features, fps=FPS)
        result = stream.detections()
        assert length < 600 or len(expected) > 10, "a test on nothing"
        assert times(result) == times(expected)
        key = {(one.label, one.start, one.end): one.score for one in expected}
        for one in result:
            assert one.score == pytest.approx(key[one.label, one.start, one.end], abs=2e-6)
        assert (np.diff(result.score) <= 0).all()
        # Everything of the offline result was yielded, each once, with its times; others only of classes that were
        # among the top k for a while.
        assert len(set(times(yielded))) == len(yielded)
        assert set(times(expected)) <= set(times(yielded))
        if top_k == 5:
            assert times(yielded) == times(expected)


@pytest.mark.parametrize(
    ("profile", "max_gap", "widen", "after"),
    [("paper", 1, 2, 2), ("paper", 1, 0, 2), ("paper", 3, 2, 4), ("paper", 0, 5, 5), ("release", 1, 2, 3)],
)
def test_a_segment_comes_as_soon_as_it_can_no_longer_change(
    model_path: Path, rng: np.random.Generator, profile: str, max_gap: int, widen: int, after: int
) -> None:
    """Snippets 10..14 are kept: the segment comes with the snippet `after` ones past 14, and not before."""
    detector = Detector(model_path, provider="cpu", threads=1)
    candidates = video(rng, 2000)
    scores = detector.scores(candidates)
    best = scores.class_scores.max(axis=1)
    on = candidates[np.argmax((scores.foreground > 0.6) & (best > 0.6))]
    off = candidates[np.argmin(scores.foreground)]
    assert scores.foreground.min() < 0.4
    label = detector.classes[int(detector.scores(on[None]).class_scores.argmax())]
    settings = {"profile": profile, "max_gap": max_gap, "widen": widen, "alpha_c": 0.6, "top_k": 5}
    stream = StreamingDetector(Detector(model_path, provider="cpu", threads=1, **settings), fps=FPS)
    when = {}
    for index in range(40):
        for one in stream.push((on if 10 <= index <= 14 else off)[None]):
            when[index] = one
    assert list(when) == [14 + after]
    (one,) = when.values()
    dilated = profile == "release"
    first, last = 10 - widen - dilated, 14 + widen + dilated
    assert one.label == label
    assert (one.start, one.end) == pytest.approx((first * SNIPPET_S, (last + 1) * SNIPPET_S))
    assert stream.finish() == []


def test_memory_is_that_of_open_segments(model_path: Path, rng: np.random.Generator) -> None:
    detector = Detector(model_path, provider="cpu", threads=1)
    stream = StreamingDetector(detector, fps=FPS)
    most = 0
    for part in np.split(video(rng, 3000), 300):
        stream.push(part)
        most = max(most, len(stream._foreground))
    assert stream.snippets == 3000
    longest = max(one.end - one.start for one in stream.detections()) / SNIPPET_S
    assert most <= longest + 20


def test_an_action_without_end_is_cut(model_path: Path, rng: np.random.Generator) -> None:
    detector = Detector(model_path, provider="cpu", threads=1, alpha_a=1.0, alpha_c=0.0, top_k=1, widen=0)
    stream = StreamingDetector(detector, fps=FPS, max_open_snippets=50)
    features = np.repeat(video(rng, 1), 200, axis=0)
    yielded = [one for part in pushed(stream, features, [10] * 20) for one in part]
    assert len(yielded) == 4
    assert max(one.end - one.start for one in yielded) == pytest.approx(60 * SNIPPET_S)
    assert sum(one.end - one.start for one in yielded) == pytest.approx(200 * SNIPPET_S)


@pytest.mark.parametrize("profile", ["paper", "release"])
@pytest.mark.parametrize("push", [1, 7, 150, 900])
def test_a_limit_that_no_segment_reaches_changes_nothing(
    model_path: Path, rng: np.random.Generator, profile: str, push: int
) -> None:
    """Also where one push is longer than the limit: what is settled in it is not cut."""
    detector = Detector(model_path, provider="cpu", threads=1, profile=profile, top_k=5, alpha_c=0.3)
    features = np.repeat(2 * rng.standard_normal((300, 24)), 3, axis=0).astype(np.float32)
    expected = detector.detect(features, fps=FPS)
    longest = round(max(one.end - one.start for one in expected) / SNIPPET_S)
    limit = longest + 4  # the snippets after it, by which a segment is known to have ended
    assert len(expected) > 50, "a test on nothing"
    assert limit < 150, "a test on nothing"
    stream = StreamingDetector(detector, fps=FPS, max_open_snippets=limit)
    yielded = [one for at in range(0, 900, push) for one in stream.push(features[at : at + push])] + stream.finish()
    assert times(stream.detections()) == times(expected) == times(yielded)


@pytest.mark.parametrize("profile", ["paper", "release"])
def test_a_cut_touches_no_other_segment_and_costs_no_score(
    model_path: Path, rng: np.random.Generator, profile: str
) -> None:
    """One class without end beside others: theirs stay as offline, and each of its parts scores as what it holds."""
    detector = Detector(model_path, provider="cpu", threads=1, profile=profile, alpha_c=0.5, widen=0, top_k=5)
    classes = rng.random((600, 5), dtype=np.float32)
    classes[:, 4] = 0.75

    def scores(features: npt.NDArray[np.float32]) -> Scores:
        own = classes[features[:, 0].astype(int)]  # a snippet's features are its place
        share = np.full(len(own), 1 / len(own), np.float32)
        return Scores(own, np.ones(len(own), np.float32), share, own.mean(axis=0, keepdims=True))

    detector.scores = scores  # type: ignore[assignment, method-assign]
    features = np.repeat(np.arange(600, dtype=np.float32)[:, None], 24, axis=1)
    stream = StreamingDetector(detector, fps=FPS, max_open_snippets=100)
    for row in features:
        stream.push(row[None])
    stream.finish()
    found = [(run.label, run.first, run.last) for run in stream._settled]
    expected = segments(scores(features), np.array([600], dtype=np.int64), detector.settings)
    offline = zip(expected.label.tolist(), expected.first.tolist(), expected.last.tolist(), strict=True)
    others = sorted(one for one in offline if one[0] != 4)
    assert len(others) > 50, "a test on nothing"
    assert max(last - first for _, first, last in others) < 90
    assert sorted(one for one in found if one[0] != 4) == others
    parts = [run for run in stream._settled if run.label == 4]
    assert len(parts) == 6
    assert (parts[0].first, parts[-1].last) == (0, 599)
    assert [run.class_mean for run in parts] == pytest.approx([0.75] * 6, abs=1e-5)
    assert [run.foreground_mean for run in parts] == [1.0] * 6


@pytest.mark.parametrize(
    ("base", "context", "message"),
    [
        ("wtalc", 0, "the video scores of the base model 'wtalc' have no running form"),
        ("basnet", 2, "with the base model 'basnet' the scores of a snippet depend on the 2 before and after it"),
    ],
)
def test_other_base_models_are_refused(make_model: Callable[..., Path], base: str, context: int, message: str) -> None:
    """Whatever the profile: their snippets look at neighbours, or their ŷ is no sum over time."""
    path = make_model(base=base, context_snippets=context)
    for settings in ({}, {"profile": "paper", "suppression": "none"}):
        with pytest.raises(ConfigError, match=message):
            StreamingDetector(Detector(path, provider="cpu", **settings), fps=FPS)


def test_what_waits_is_found_by_its_class(model_path: Path, rng: np.random.Generator) -> None:
    """Segments of classes that are not among the top k wait, each once, and are not looked through at each push."""
    stream = StreamingDetector(Detector(model_path, provider="cpu", threads=1, top_k=1, alpha_c=0.2), fps=FPS)
    yielded = [one for part in np.split(video(rng, 600), 100) for one in stream.push(part)]
    waiting = sum(map(len, stream._waiting.values()))
    assert waiting > 10, "a test on nothing"
    assert waiting + len(yielded) == len(stream._settled)
    assert all(run.label == label for label, runs in stream._waiting.items() for run in runs)


def test_nothing_comes_of_nothing(model_path: Path) -> None:
    stream = StreamingDetector(Detector(model_path, provider="cpu"), fps=FPS)
    assert stream.push(np.empty((0, 24), np.float32)) == []
    assert stream.finish() == []
    assert len(stream.detections()) == 0


def test_snippets_may_overlap(make_model: Callable[..., Path], rng: np.random.Generator) -> None:
    """By the call or by the model, the times are those offline."""
    features = video(rng, 120)
    detectors = [Detector(make_model(**stride), provider="cpu") for stride in ({}, {"stride_frames": 4})]
    offline = times(detectors[0].detect(features, fps=FPS, stride_frames=4))
    assert len(offline) > 3
    for detector, given in zip(detectors, ({"stride_frames": 4}, {}), strict=True):
        stream = StreamingDetector(detector, fps=FPS, **given)
        stream.push(features)
        stream.finish()
        assert sorted(times(stream.detections())) == sorted(offline)


def test_half_floats_may_come_between(model_path: Path, rng: np.random.Generator) -> None:
    detector = Detector(model_path, provider="cpu")
    half = video(rng, 100).astype(np.float16)
    stream = StreamingDetector(detector, fps=FPS)
    for index, part in enumerate(np.split(half, 10)):
        stream.push(part if index % 2 else part.astype(np.float32))
    stream.finish()
    assert times(stream.detections()) == times(detector.detect(half, fps=FPS))


def test_one_valued_attention_of_far_larger_snippets_is_followed(model_path: Path, rng: np.random.Generator) -> None:
    """Shares of attention so unequal that the first snippets' are lost: they count for nothing, as they do offline."""
    detector = Detector(model_path, provider="cpu")
    logits = np.array([0.0, 1.0, 60.0, 59.0, 0.0])
    classes = rng.dirichlet(np.ones(5), size=5).astype(np.float32)

    def scores(features: npt.NDArray[np.float32]) -> Scores:
        which = features[:, 0].astype(int)
        weight = np.exp(logits[which] - logits[which].max())
        attention = (weight / weight.sum()).astype(np.float32)
        ones = np.ones(len(which), np.float32)
        return Scores(classes[which], ones, attention, (attention @ classes[which])[None])

    detector.scores = scores  # type: ignore[assignment, method-assign]
    stream = StreamingDetector(detector, fps=FPS)
    features = np.repeat(np.arange(5, dtype=np.float32)[:, None], 24, axis=1)
    for row in features:
        stream.push(row[None])
    np.testing.assert_allclose(stream._attention.video_scores(), scores(features).video_scores[0], atol=1e-6)


WHOLE: list[dict[str, Any]] = [
    {"profile": "multi-threshold"},
    {"profile": "multi-threshold", "curve": "both", "suppression": "fuse", "video_share": 0.15},
    {"suppression": "hard"},
    {"max_detections": 3},
]


@pytest.mark.parametrize("detection", WHOLE)
@pytest.mark.parametrize("profile", ["paper", "release"])
def test_a_file_may_have_a_rule_of_its_own_for_streaming(
    make_model: Callable[..., Path], rng: np.random.Generator, detection: dict[str, Any], profile: Any
) -> None:
    rule = OneThreshold(profile=profile, alpha_a=0.6, alpha_c=0.25, top_k=3, max_gap=2, widen=1)
    detector = Detector(make_model(**detection, streaming=rule), provider="cpu", threads=1)
    features = video(rng, 300)
    stream = StreamingDetector(detector, fps=FPS)
    assert stream.settings == rule
    for part in np.split(features, 30):
        stream.push(part)
    stream.finish()
    offline = Detector(make_model(), provider="cpu", **dataclasses.asdict(rule) | NOT_USED).detect(features, fps=FPS)
    assert times(stream.detections()) == times(offline)
    assert stream.detections().score == pytest.approx(offline.score, abs=2e-6)
    assert times(offline) != times(detector.detect(features, fps=FPS)), "a test on nothing"


NOT_USED = {"tiou": None, "soft_sigma": None, "fuse_temperature": None}  # with suppression none


def test_settings_that_can_be_followed_go_before_the_rule_of_the_file(make_model: Callable[..., Path]) -> None:
    path = make_model(streaming=OneThreshold(alpha_c=0.9))
    assert StreamingDetector(Detector(path, provider="cpu"), fps=FPS).settings.alpha_c == 0.3
    many = make_model(profile="multi-threshold", streaming=OneThreshold(alpha_c=0.9))
    detector = Detector(many, provider="cpu", profile="paper", alpha_c=0.7)
    assert StreamingDetector(detector, fps=FPS).settings.alpha_c == 0.7


def test_several_networks_are_streamed_nearly_as_offline(
    make_model: Callable[..., Path], model_path: Path, rng: np.random.Generator
) -> None:
    """The mean of their attention has no exact running form: times are as offline, scores near those."""
    graph = onnx.load(GRAPH)
    for weights in graph.graph.initializer:
        array = onnx.numpy_helper.to_array(weights)
        if array.ndim == 2 and array.dtype == np.float32:
            weights.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(array[::-1]), weights.name))
    detector = Detector([model_path, make_model(graph=graph)], provider="cpu", threads=1, top_k=5, alpha_c=0.2)
    features = video(rng, 400)
    stream = StreamingDetector(detector, fps=FPS)
    for part in np.split(features, 40):
        stream.push(part)
    stream.finish()
    offline = detector.detect(features, fps=FPS)
    assert len(offline) > 20, "a test on nothing"
    ours = {(one.label, one.start, one.end): one.score for one in stream.detections()}
    theirs = {(one.label, one.start, one.end): one.score for one in offline}
    assert ours.keys() == theirs.keys()
    assert max(abs(ours[key] - theirs[key]) for key in ours) < 0.02


def test_what_cannot_be_streamed_is_refused(make_model: Callable[..., Path], model_path: Path) -> None:
    detector = Detector(model_path, provider="cpu")
    for name, value, cure in (
        ("suppression", "hard", "none"),
        ("min_score", 0.5, None),
        ("max_detections", 9, 0),
    ):
        path = make_model(**{name: value})
        with pytest.raises(ConfigError, match=f"{name} needs the whole video, .*; give .*{name}={cure!r}"):
            StreamingDetector(Detector(path, provider="cpu"), fps=FPS)
        StreamingDetector(Detector(path, provider="cpu", **{name: cure}), fps=FPS)  # as the message says
    for suppression in ("none", "hard"):  # of the two, what no other setting cures is named
        many = make_model(profile="multi-threshold", suppression=suppression)
        with pytest.raises(ConfigError, match="streaming: the profile 'multi-threshold'") as caught:
            StreamingDetector(Detector(many, provider="cpu"), fps=FPS)
        assert "\n" not in str(caught.value)
        assert "has no rule for streaming" in str(caught.value)
    with pytest.raises(ConfigError, match="max_open_snippets"):
        StreamingDetector(detector, fps=FPS, max_open_snippets=0)
    with pytest.raises(InputError, match="fps"):
        StreamingDetector(detector, fps=0.0)
    with pytest.raises(InputError, match="snippet_frames"):
        StreamingDetector(detector, fps=FPS, snippet_frames=0)
    with pytest.raises(InputError, match="stride_frames"):
        StreamingDetector(detector, fps=FPS, stride_frames=0)
    stream = StreamingDetector(detector, fps=FPS)
    with pytest.raises(FeatureError, match="width 23"):
        stream.push(np.zeros((3, 23), np.float32))
    stream.push(np.zeros((3, 24), np.float32))
    with pytest.raises(FeatureError, match="width 23"):
        stream.push(np.zeros((3, 23), np.float32))
    bad = np.zeros((3, 24), np.float32)
    bad[1, 1] = np.nan
    with pytest.raises(FeatureError, match="snippet 1 holds nan"):
        stream.push(bad)
    assert stream.snippets == 3, "what was refused does not count"
    stream.finish()
    with pytest.raises(ConfigError, match="was finished"):
        stream.push(np.zeros((3, 24), np.float32))
