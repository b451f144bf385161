"""The embedding interface: one video, many videos, many threads, and features that cannot be used."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from small_model import GRAPH, write_features, write_model
from twins import proposals as twin

from refineloc.runtime import Annotations, Detector, SnippetGrid, VideoAnnotation, open_features
from refineloc.runtime.detections import Detections
from refineloc.runtime.errors import ConfigError, FeatureError, InputError, ModelError
from refineloc.runtime.segments.postprocess import segments
from refineloc.runtime.segments.values import Segments

Features = npt.NDArray[np.float32]


def videos_of(rng: np.random.Generator, lengths: list[int], width: int = 24) -> dict[str, Features]:
    """Features that change slowly, so that segments have some length."""
    out = {}
    for index, length in enumerate(lengths):
        steps = rng.standard_normal((length, width)).cumsum(axis=0)
        out[f"v{index:03}"] = (steps / np.sqrt(np.arange(1, length + 1))[:, None]).astype(np.float32)
    return out


def same(one: Detections, other: Detections) -> bool:
    """To the last bit."""
    columns = ("start", "end", "label_index", "score")
    return all(np.array_equal(getattr(one, column), getattr(other, column)) for column in columns)


@pytest.fixture(scope="module")
def detector(model_path: Path) -> Detector:
    return Detector(model_path, provider="cpu")


def test_detections_are_the_segments_of_the_scores_in_seconds(detector: Detector, rng: np.random.Generator) -> None:
    (features,) = videos_of(rng, [200]).values()
    found = detector.detect(features, fps=32.0, duration_s=99.3)
    assert len(found) > 3, "a test on nothing"
    lengths = np.array([200], dtype=np.int64)
    expected = segments(detector.scores(features), lengths, detector.settings)
    start, end = SnippetGrid(32.0, 16, 99.3).seconds(expected.first, expected.last)
    rows = sorted(zip(start, end, expected.label, expected.score, strict=True), key=lambda row: -row[3])
    assert [(d.start, d.end, detector.classes.index(d.label), d.score) for d in found] == rows
    assert found.provider == "cpu"
    assert (np.diff(found.score) <= 0).all()
    assert found.end.max() <= 99.3


@pytest.mark.parametrize(
    ("lengths", "beside"),
    [
        ([8] * 6, [True] * 4 + [False] * 2),
        ([8] * 2, [False] * 2),
        ([8, 33, 32, 8, 8], [True, False, True, False, False]),  # one that is much longer than a call
    ],
)
def test_calls_of_an_int8_file_run_beside_each_other_until_the_last_ones(
    make_model: Callable[..., Path],
    tmp_path: Path,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    lengths: list[int],
    beside: list[bool],
) -> None:
    detector = Detector(make_model(precision="int8"), provider="cpu", threads=2, batch_snippets=8)
    videos, told = videos_of(rng, lengths), {}
    run = detector._session.run

    def noted(features: Features, lengths: Any, names: Any = None, *, beside: bool = False) -> Any:
        told[names[0][-4:-1]] = beside
        return run(features, lengths, names, beside=beside)

    monkeypatch.setattr(detector._session, "run", noted)
    with open_features(write_features(tmp_path / "features.h5", videos)) as store:
        many = dict(detector.detect_many(store, fps=25.0))
    assert [told[name[1:]] for name in videos] == beside
    for name, features in videos.items():
        assert same(many[name], detector.detect(features, fps=25.0))


def test_the_stride_is_the_call_s_or_the_store_s_or_the_model_s(
    detector: Detector, rng: np.random.Generator, tmp_path: Path
) -> None:
    (features,) = videos_of(rng, [200]).values()
    strided = Detector(write_model(tmp_path / "m.onnx", stride_frames=4), provider="cpu")

    def times(detections: Detections) -> list[float]:
        assert len(detections) > 3
        return detections.start.tolist()

    plain, every4 = (
        times(
            Detections.from_segments(SnippetGrid(32.0, 16, None, stride), _segments(detector, features), tuple("abcde"))
        )
        for stride in (16, 4)
    )
    assert times(detector.detect(features, fps=32.0)) == plain
    assert times(detector.detect(features, fps=32.0, stride_frames=4)) == every4
    assert times(strided.detect(features, fps=32.0)) == every4
    assert times(strided.detect(features, fps=32.0, snippet_frames=16)) == plain, "the window alone"
    ((_, detections),) = detector.detect_many({"v": features}, fps=32.0, stride_frames=4)
    assert times(detections) == every4
    stated = write_features(tmp_path / "s.h5", {"v": features}, fps=32.0, stride_frames=4)
    unstated = write_features(tmp_path / "u.h5", {"v": features}, fps=32.0, snippet_frames=16)
    for path, which, stride, expected in (
        (stated, detector, None, every4),
        (stated, detector, 4, every4),
        (unstated, detector, None, plain),
        (unstated, detector, 4, every4),
        (unstated, strided, None, every4),
    ):
        with open_features(path) as store:
            ((_, detections),) = which.detect_many(store, stride_frames=stride)
        assert times(detections) == expected
    with open_features(stated) as store, pytest.raises(FeatureError, match=r"'v': states a stride of 4 frames.*=8"):
        list(detector.detect_many(store, stride_frames=8))


def _segments(detector: Detector, features: Features) -> Segments:
    return segments(detector.scores(features), np.array([len(features)], dtype=np.int64), detector.settings)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_are_taken(detector: Detector, rng: np.random.Generator, dtype: Any) -> None:
    features = videos_of(rng, [50])["v000"].astype(dtype)
    assert same(detector.detect(features, fps=25), detector.detect(features.astype(np.float32), fps=25))


def test_one_snippet_is_enough(detector: Detector, rng: np.random.Generator) -> None:
    found = detector.detect(rng.standard_normal((1, 24)).astype(np.float32), fps=25.0)
    assert all(d.start == 0.0 and d.end == 16 / 25 for d in found)
    assert detector.scores(np.ones((1, 24), np.float32)).attention.tolist() == [1.0]


@pytest.mark.parametrize("batch_snippets", [1, 64, 1000, 100_000])
def test_packing_does_not_change_detections(model_path: Path, rng: np.random.Generator, batch_snippets: int) -> None:
    videos = videos_of(rng, [1, 300, 2, 45, 800, 1, 77, 20])
    detector = Detector(model_path, provider="cpu", batch_snippets=batch_snippets)
    found = dict(detector.detect_many(videos, fps=25.0))
    assert list(found) == list(videos)
    assert sum(map(len, found.values())) > 20
    for name, features in videos.items():
        assert same(found[name], detector.detect(features, fps=25.0))


def test_scores_of_many_are_those_of_each(detector: Detector, rng: np.random.Generator, tmp_path: Path) -> None:
    videos = videos_of(rng, [30, 1, 200])
    path = write_features(tmp_path / "f.h5", videos, fps=25.0)
    with open_features(path) as store:
        planned = detector.plan(store, ["v002", "v000", "v001"])
        of_many = list(detector.scores_planned(store, planned))
    assert [name for name, _, _ in of_many] == ["v002", "v000", "v001"]
    for name, grid, scores in of_many:
        assert grid == SnippetGrid(25.0, 16)
        for part, expected in zip(scores, detector.scores(videos[name]), strict=True):
            assert np.array_equal(part, expected)


def test_many_threads_give_what_one_gives(model_path: Path, rng: np.random.Generator) -> None:
    detector = Detector(model_path, provider="cpu", threads=1)
    videos = videos_of(rng, rng.integers(1, 120, 200).tolist())
    serial = {name: detector.detect(features, fps=25.0) for name, features in videos.items()}
    with ThreadPoolExecutor(16) as pool:
        parallel = dict(zip(videos, pool.map(lambda f: detector.detect(f, fps=25.0), videos.values()), strict=True))
    assert all(same(serial[name], parallel[name]) for name in videos)


def test_a_store_gives_fps_and_durations(model_path: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    videos = videos_of(rng, [40, 60])
    detector = Detector(model_path, provider="cpu")
    path = write_features(tmp_path / "f.h5", videos)
    with h5py.File(path, "a") as file:
        file["v000"].attrs.update(fps=20.0, duration=30.0)
    with open_features(path) as store:
        with pytest.raises(InputError, match=r"video 'v001': its fps is not known.*give fps or times$") as raised:
            dict(detector.detect_many(store))
        assert raised.value.parameter == "fps"
        found = dict(detector.detect_many(store, fps=25.0))
        assert same(found["v000"], detector.detect(videos["v000"], fps=20.0, duration_s=30.0))
        assert same(found["v001"], detector.detect(videos["v001"], fps=25.0))
        # What the features state goes first: their fps is that of the video that they were made from.
        stated = dict(detector.detect_many(store, times={"v000": (10.0, 31.0), "v001": (5.0, 190.0)}))
        assert same(stated["v000"], detector.detect(videos["v000"], fps=20.0, duration_s=30.0))
        assert same(stated["v001"], detector.detect(videos["v001"], fps=5.0, duration_s=190.0))
        assert 0 < stated["v001"].end.max() <= 190.0
        assert list(dict(detector.detect_many(store, names=["v001"], fps=25.0))) == ["v001"]


def test_times_that_are_known_in_part_are_filled_up_from_elsewhere(
    detector: Detector, tmp_path: Path, rng: np.random.Generator
) -> None:
    """The same from a store and from a mapping."""
    (features,) = videos_of(rng, [60]).values()
    expected = detector.detect(features, fps=30.0, duration_s=30.5)
    with open_features(write_features(tmp_path / "f.h5", {"a": features})) as store:
        for videos in (store, {"a": features}, [("a", features)]):
            found = dict(detector.detect_many(videos, fps=30.0, times={"a": (None, 30.5)}))
            assert same(found["a"], expected)
            with pytest.raises(InputError, match=r"video 'a': fps: expected .* got 0"):
                dict(detector.detect_many(videos, fps=30.0, times={"a": (0.0, None)}))
            with pytest.raises(InputError, match=r"video 'a': duration_s: expected .* got 0"):
                dict(detector.detect_many(videos, fps=30.0, times={"a": (None, 0.0)}))


def test_times_that_contradict_the_number_of_snippets_are_refused_everywhere(
    detector: Detector, tmp_path: Path, rng: np.random.Generator
) -> None:
    """60 snippets of 16 frames at 30 fps are 32 s; the video has 8.2 s, which a stride of 4 frames makes."""
    (features,) = videos_of(rng, [60]).values()
    message = (
        r"60 snippets x 16 frames at 30 fps = 32 s, (duration_s|times|the file) says 8.2 s: is the stride 4 frames"
    )
    calls: list[Callable[..., Any]] = [
        lambda **more: detector.detect(features, fps=30.0, duration_s=8.2, **more),
        lambda **more: list(detector.detect_many({"a": features}, times={"a": (30.0, 8.2)}, **more)),
    ]
    for call, where in zip(calls, ("^features: ", "^video 'a': "), strict=True):
        with pytest.raises(InputError, match=where + message) as caught:
            call()
        assert caught.value.parameter == "stride_frames"
        call(stride_frames=4)
    with open_features(write_features(tmp_path / "f.h5", {"a": features}, fps=30.0, duration=8.2)) as store:
        with pytest.raises(InputError, match="f.h5: video 'a': " + message):
            detector.detect_many(store).__next__()
        assert len(list(detector.detect_many(store, stride_frames=4))) == 1


def test_labels_may_state_the_times(detector: Detector, tmp_path: Path, rng: np.random.Generator) -> None:
    (features,) = videos_of(rng, [60]).values()
    labels = Annotations({"a": VideoAnnotation("a", ("x",), duration_s=31.0, fps=30.0)}, "l.csv")
    with open_features(write_features(tmp_path / "f.h5", {"a": features})) as store:
        ((_, detections),) = detector.detect_many(store, times=labels)
        assert same(detections, detector.detect(features, fps=30.0, duration_s=31.0))
        with pytest.raises(InputError, match=r"60 snippets x 4 frames at 30 fps = 8 s, l.csv says 31 s"):
            list(detector.detect_many(store, times=labels, stride_frames=4))


def test_features_that_were_saved_as_columns_are_told_so(detector: Detector) -> None:
    with pytest.raises(FeatureError, match="width 60, the model expects 24; they seem to be saved as D x T"):
        detector.detect(np.zeros((24, 60), np.float32), fps=30.0)


def test_names_choose_among_a_mapping_and_are_refused_with_an_iterable(
    detector: Detector, rng: np.random.Generator
) -> None:
    videos = videos_of(rng, [20, 30, 40])
    assert list(dict(detector.detect_many(videos, names=["v002", "v000"], fps=25.0))) == ["v002", "v000"]
    with pytest.raises(InputError, match="video 'v9': is not in the mapping"):
        dict(detector.detect_many(videos, names=["v000", "v9"], fps=25.0))
    with pytest.raises(ConfigError, match="names: goes with a feature store or a mapping"):
        dict(detector.detect_many(videos.items(), names=["v000"], fps=25.0))


@pytest.mark.parametrize("times", [{"fps": 0.0}, {"duration_s": -3.0}, {"snippet_frames": 2.5}, {"stride_frames": 0}])
def test_times_that_are_none(detector: Detector, times: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(times))}: expected"):
        detector.detect(np.zeros((3, 24), np.float32), **{"fps": 25.0} | times)


def test_a_call_can_have_a_least_score_of_its_own(model_path: Path, rng: np.random.Generator) -> None:
    videos = videos_of(rng, [200, 90])
    every = Detector(model_path, provider="cpu")
    all_of_them = dict(every.detect_many(videos, fps=25.0))
    least = float(np.median(all_of_them["v000"].score))
    kept = every.detect(videos["v000"], fps=25.0, min_score=least)
    assert 0 < len(kept) < len(all_of_them["v000"])
    assert same(kept, all_of_them["v000"][all_of_them["v000"].score >= least])
    many = dict(every.detect_many(videos, fps=25.0, min_score=least))
    (batch,) = every.detect_batches(videos, fps=25.0, min_score=least)
    for name, detections in all_of_them.items():
        assert same(many[name], detections[detections.score >= least])
        assert same(dict(batch)[name], many[name])
    strict = Detector(model_path, provider="cpu", min_score=least)
    assert same(strict.detect(videos["v000"], fps=25.0), kept)
    assert same(strict.detect(videos["v000"], fps=25.0, min_score=None), all_of_them["v000"])
    with pytest.raises(ConfigError, match="min_score"):
        every.detect(videos["v000"], fps=25.0, min_score="high")  # type: ignore[arg-type]


def test_a_detector_prints_what_it_is(model_path: Path) -> None:
    text = repr(Detector(model_path, provider="cpu"))
    assert text.startswith(f"<Detector {model_path}: refineloc iteration ")
    assert "5 classes, 24 features, profile paper, on cpu>" in text
    assert "<Detector 2 models: refineloc, 5 classes" in repr(Detector([model_path, model_path], provider="cpu"))


def test_suppression_can_be_switched_off(make_model: Callable[..., Path], rng: np.random.Generator) -> None:
    path = make_model(suppression="hard", tiou=0.0)
    assert Detector(path, provider="cpu").settings.suppression == "hard"
    features = videos_of(rng, [300])["v000"]
    every = Detector(path, provider="cpu", suppression="none", top_k=None)
    assert every.settings.suppression == "none"
    assert len(every.detect(features, fps=25)) > len(Detector(path, provider="cpu").detect(features, fps=25)) > 0


def test_the_least_score_of_the_file_can_be_switched_off(
    make_model: Callable[..., Path], rng: np.random.Generator
) -> None:
    path = make_model(min_score=1.0)
    features = videos_of(rng, [300])["v000"]
    some = Detector(path, provider="cpu").detect(features, fps=25)
    every = Detector(path, provider="cpu", min_score=None).detect(features, fps=25)
    assert 0 < len(some) < len(every)
    assert list(some) == [one for one in every if one.score >= 1.0]


def test_a_setting_without_effect_is_refused(model_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^tiou: used by suppression 'hard' or 'vote' or 'fuse' or 'soft-vote', not by 'none'; give"
    ):
        Detector(model_path, provider="cpu", tiou=0.3)
    assert Detector(model_path, provider="cpu", suppression="fuse", tiou=0.3).settings.tiou == 0.3


def test_a_video_that_overflows_is_named(model_path: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    """Finite features that no model can take: the fault is the video's, not the file's."""
    detector = Detector(model_path, provider="cpu")
    videos = videos_of(rng, [20, 30, 40])
    videos["v001"][4] = 3e38
    overflow = "its features, as large as 3e.38, overflow in the fp32 model; extract this video's"
    with open_features(write_features(tmp_path / "f.h5", videos)) as store:
        with pytest.raises(FeatureError, match=rf"f\.h5: video 'v001': {overflow}"):
            dict(detector.detect_many(store, fps=25.0))
        with pytest.raises(FeatureError, match=rf"^video 'v001': {overflow}"):
            dict(detector.detect_many(videos, fps=25.0))
    with pytest.raises(FeatureError, match=rf"^features: {overflow}") as caught:
        detector.detect(videos["v001"], fps=25.0)
    assert "\n" not in str(caught.value)


def test_one_of_two_streams(make_model: Callable[..., Path], rng: np.random.Generator) -> None:
    both = videos_of(rng, [50], width=48)["v000"]
    for stream, order, part in (
        ("temporal", "temporal-spatial", slice(0, 24)),
        ("spatial", "temporal-spatial", slice(24, 48)),
        ("spatial", "spatial-temporal", slice(0, 24)),
    ):
        detector = Detector(make_model(stream=stream, stream_order=order), provider="cpu")
        assert same(detector.detect(both, fps=25), detector.detect(both[:, part], fps=25))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros((5, 23), np.float32), "features: features have width 23, the model expects 24"),
        (np.zeros((5, 48), np.float32), "width 48, the model expects 24"),
        (np.zeros(24, np.float32), "shape T x D"),
        (np.zeros((0, 24), np.float32), "no snippets"),
        (np.zeros((5, 24), np.int32), "dtype int32"),
        (np.array([["a"] * 24]), "dtype"),
        (np.full((3, 24), np.nan, np.float32), "snippet 0 holds nan"),
    ],
)
def test_features_that_cannot_be_used(detector: Detector, features: Any, message: str) -> None:
    with pytest.raises(FeatureError, match=message):
        detector.detect(features, fps=25.0)
    if features.dtype.kind == "f" and features.shape != (24,):
        with pytest.raises(FeatureError, match="video 'odd'"):
            dict(detector.detect_many({"odd": features}, fps=25.0))


def test_snippets_of_another_length_are_refused(detector: Detector, tmp_path: Path) -> None:
    path = write_features(tmp_path / "f.h5", {"v": np.zeros((4, 24), np.float32)}, snippet_frames=8)
    with open_features(path) as store, pytest.raises(FeatureError, match="8 frames, the model's have 16"):
        dict(detector.detect_many(store, fps=25.0))


def test_settings_can_be_changed(model_path: Path, rng: np.random.Generator) -> None:
    features = videos_of(rng, [300])["v000"]
    plain = Detector(model_path, provider="cpu")
    assert (plain.settings.alpha_c, plain.settings.top_k) == (0.3, 2)
    one = Detector(model_path, provider="cpu", top_k=1, widen=0)
    assert len({d.label for d in one.detect(features, fps=25)}) == 1
    with pytest.raises(TypeError, match="alpha_b"):
        Detector(model_path, provider="cpu", alpha_b=0.5)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="alpha_c: expected"):
        Detector(model_path, provider="cpu", alpha_c=1.5)
    for batch_snippets in (0, 2.5, 2**20 + 1):
        with pytest.raises(ConfigError, match="batch_snippets: expected a whole number"):
            Detector(model_path, provider="cpu", batch_snippets=batch_snippets)  # type: ignore[arg-type]


MANY: dict[str, Any] = {"profile": "multi-threshold", "thresholds": (0.1, 0.4, 0.7), "max_gap": 0, "widen": 0}


@pytest.mark.parametrize("scoring", ["contrast", "peak"])
def test_a_model_of_many_thresholds(make_model: Callable[..., Path], rng: np.random.Generator, scoring: str) -> None:
    """Post-processing is as the file says, the same alone and packed."""
    said = MANY | {"scoring": scoring, "outer": 0.5, "video_weight": 0.3}
    detector = Detector(make_model(**said), provider="cpu")
    assert {key: getattr(detector.settings, key) for key in said} == said
    videos = videos_of(rng, [1, 300, 45, 2, 77])
    packed = dict(detector.detect_many(videos, fps=16.0))
    for name, features in videos.items():
        scores = detector.scores(features)
        expected = twin.detect_proposals(
            scores.class_scores,
            scores.foreground,
            scores.video_scores,
            np.array([len(features)]),
            thresholds=(0.1, 0.4, 0.7),
            top_k=2,
            scoring=scoring,
            outer=0.5,
            video_weight=0.3,
        )
        found = detector.detect(features, fps=16.0)  # a snippet is a second
        rows = sorted(((d.start, d.end - 1, detector.classes.index(d.label), d.score) for d in found), key=repr)
        assert rows == sorted(((one.first, one.last, one.label, one.score) for one in expected), key=repr)
        assert same(found, packed[name])
    assert len(packed["v001"]) > 20, "a test on nothing"


def test_the_profile_can_be_changed_to_many_thresholds(model_path: Path, rng: np.random.Generator) -> None:
    features = videos_of(rng, [300])["v000"]
    counts = [
        len(Detector(model_path, provider="cpu", **MANY | {"thresholds": thresholds}).detect(features, fps=25))
        for thresholds in ([0.4], [0.1, 0.4, 0.7])
    ]
    assert 0 < counts[0] < counts[1]
    with pytest.raises(ConfigError, match="thresholds: expected 1 to 1,000 numbers"):
        Detector(model_path, provider="cpu", **MANY | {"thresholds": []})
    with pytest.raises(ConfigError, match="thresholds: a setting of the profile 'multi-threshold', not of 'paper'"):
        Detector(model_path, provider="cpu", thresholds=[0.5])


# --- known labels ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rules",
    [{}, {**MANY, "class_threshold": 1.0}, {**MANY, "curve": "both", "video_share": 0.2, "suppression": "fuse"}],
)
def test_known_labels_choose_the_classes(model_path: Path, rng: np.random.Generator, rules: dict[str, Any]) -> None:
    videos = videos_of(rng, [200, 90, 300])
    detector = Detector(model_path, provider="cpu", top_k=1, **rules)
    # All classes, without regard to ŷ.
    every = dict(
        Detector(
            model_path, provider="cpu", top_k=5, **rules | ({"class_threshold": 0.0} if rules else {})
        ).detect_many(videos, fps=25.0)
    )
    labels = {"v000": ["walk"], "v001": ("throw", "jump", "jump"), "v002": [*detector.classes]}
    known = dict(detector.detect_many(videos, fps=25.0, labels=labels))
    for name, detections in known.items():
        expected = [one for one in every[name] if one.label in labels[name]]
        assert list(detections) == expected
        assert list(detector.detect(videos[name], fps=25.0, labels=labels[name])) == expected
    assert all(map(len, known.values())), "a test on nothing"


def test_labels_that_do_not_fit_are_one_line(detector: Detector, rng: np.random.Generator, tmp_path: Path) -> None:
    videos = videos_of(rng, [20, 30])
    store = write_features(tmp_path / "f.h5", videos, fps=25.0)
    for labels, message in (
        (
            {"v000": ["run"], "v001": ["fly"]},
            "labels of video 'v001': 'fly' is no class of the model, which has jump, run,",
        ),
        ({"v000": ["run"]}, "labels of video 'v001': expected a list of at least one class, got none"),
        ({"v000": ["run"], "v001": []}, "labels of video 'v001': expected a list of at least one class, got none"),
        ({"v000": ["run"], "v001": "run"}, "labels of video 'v001': expected a list of at least one class, got 'run'"),
    ):
        with pytest.raises(InputError, match=message):
            dict(detector.detect_many(videos, fps=25.0, labels=labels))
        with open_features(store) as features, pytest.raises(InputError, match=message):
            next(detector.detect_many(features, labels=labels))  # before the first video is read
    with pytest.raises(InputError, match=r"^labels: 'fly' is no class of the model"):
        detector.detect(videos["v000"], fps=25.0, labels=["fly"])


# --- several models -------------------------------------------------------------------------------------------------


def other_model(make_model: Callable[..., Path], **changes: Any) -> Path:
    """A model of the same form and other weights."""
    graph = onnx.load(GRAPH)
    for weights in graph.graph.initializer:
        array = onnx.numpy_helper.to_array(weights)
        if array.ndim == 2 and array.dtype == np.float32:
            weights.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(array[::-1]), weights.name))
    return make_model(graph=graph, **changes)


def test_the_scores_of_several_models_are_means(
    make_model: Callable[..., Path], model_path: Path, rng: np.random.Generator
) -> None:
    paths = [model_path, other_model(make_model, alpha_c=0.9)]
    both = Detector(paths, provider="cpu", threads=1)
    singles = [Detector(path, provider="cpu", threads=1) for path in paths]
    assert (both.metadata, both.settings) == (replace(singles[0].metadata, networks=2), singles[0].settings)
    videos = videos_of(rng, [200, 3])
    for features in videos.values():
        scores, one, other = (each.scores(features) for each in (both, *singles))
        assert np.abs(one.class_scores - other.class_scores).max() > 0.1, "a test on nothing"
        for name in ("class_scores", "foreground", "attention"):
            mean = (getattr(one, name).astype(np.float64) + getattr(other, name)) / 2
            assert np.array_equal(getattr(scores, name), mean.astype(np.float32))
        np.testing.assert_allclose(scores.video_scores[0], scores.attention @ scores.class_scores, atol=1e-6)
        assert np.abs(scores.video_scores - (one.video_scores + other.video_scores) / 2).max() > 1e-5
    packed = dict(both.detect_many(videos, fps=25.0))
    for name, features in videos.items():
        assert same(packed[name], both.detect(features, fps=25.0))


def test_video_scores_that_are_no_sums_are_averaged(
    make_model: Callable[..., Path], model_path: Path, rng: np.random.Generator
) -> None:
    paths = [model_path, other_model(make_model, base="wtalc", context_snippets=2)]
    metadata = Detector(paths, provider="cpu").metadata
    assert (metadata.base, metadata.context_snippets) == ("refineloc+wtalc", 2)
    features = videos_of(rng, [50])["v000"]
    one, other = (Detector(path, provider="cpu").scores(features).video_scores for path in paths)
    both = Detector(paths, provider="cpu").scores(features).video_scores
    np.testing.assert_allclose(both, (one + other) / 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"classes": ("a", "b", "c", "d", "e")}, "classes"),
        ({"snippet_frames": 8}, "snippet_frames"),
        ({"stride_frames": 8}, "stride_frames"),
    ],
)
def test_models_that_do_not_fit_together_are_one_line(
    make_model: Callable[..., Path], model_path: Path, changes: dict[str, Any], name: str
) -> None:
    other = make_model(**changes)
    with pytest.raises(ModelError, match=f"^{other}: its {name} differ from those of {model_path}; give models of"):
        Detector([model_path, other], provider="cpu")
    with pytest.raises(ConfigError, match="model: expected a file or several, got an empty list"):
        Detector([], provider="cpu")
