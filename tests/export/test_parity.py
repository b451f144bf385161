"""Parity is measured right: nothing for an equal file, what changed for another; beyond tolerance is refused."""

import copy
import dataclasses
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
import torch

from refineloc.evaluation.rules import RuleComparison
from refineloc.export.cli.export import _table
from refineloc.export.graph import build_graph, model_bytes
from refineloc.export.parity import (
    TOLERANCES,
    Sample,
    Tolerance,
    Video,
    generated_sample,
    measure,
    problems,
    read_sample,
)
from refineloc.export.write import write_model
from refineloc.runtime.annotations import Annotations, VideoAnnotation
from refineloc.runtime.errors import FeatureError, InputError, ModelError
from refineloc.runtime.features.opening import open_features
from refineloc.runtime.model.metadata import ModelMetadata, Parity
from refineloc.runtime.model.session import Session
from refineloc.runtime.segments.grid import SnippetGrid
from refineloc.runtime.segments.rules import OneThreshold
from refineloc.runtime.segments.values import Segments
from refineloc.training.models.bases.refineloc import RefineLoc

PARITY = Parity("x", 1, 100, 0.01, 0.01, 0.01, 0.01, detections=100, lost=2, gained=3, reference_map=0.5, map=0.49)


@pytest.fixture(scope="module")
def model() -> RefineLoc:
    torch.manual_seed(1)
    return RefineLoc(24, 5, 2, 2).eval()


@pytest.fixture
def sample(model: RefineLoc, metadata: ModelMetadata) -> Sample:
    """Generated features, with a ground truth that knows fps: a segment of the first class in each video."""
    videos, listed = [], {}
    for video in generated_sample(model, metadata).videos:
        videos.append(Video(video.name, video.features, SnippetGrid(16.0, 16)))
        listed[video.name] = VideoAnnotation(
            video.name,
            (metadata.classes[0],),
            fps=16.0,
            start=np.array([0.0]),
            end=np.array([len(video.features) / 2.0]),
            segment_labels=(metadata.classes[0],),
        )
    return Sample("truth.h5", tuple(videos), Annotations(listed))


@pytest.fixture(scope="module")
def graph(model: RefineLoc) -> onnx.ModelProto:
    return build_graph(model, 24)


@pytest.fixture
def session(tmp_path: Path, graph: onnx.ModelProto, metadata: ModelMetadata) -> Session:
    path = tmp_path / "model.onnx"
    path.write_bytes(model_bytes(graph, metadata))
    return Session(path, provider="cpu")


def test_an_equal_file_loses_nothing(model: RefineLoc, session: Session, sample: Sample) -> None:
    parity = measure(model, session, sample)
    assert (parity.videos, parity.snippets) == (8, 2996)
    assert parity.detections > 100  # the generated features take the model through its range
    assert (parity.lost, parity.gained) == (0, 0)
    assert max(parity.class_scores, parity.foreground, parity.attention, parity.video_scores) < 2e-6
    assert parity.reference_map == parity.map
    assert parity.map is not None
    assert problems(parity, TOLERANCES["fp32"]) == []


def test_segments_that_clipping_leaves_empty_are_no_detections(
    model: RefineLoc, session: Session, metadata: ModelMetadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for refineloc-eval: a segment after the video's end, though it scores higher, is not a false positive."""

    def crafted(*_: object) -> Segments:
        #          0         5         10 seconds, a snippet each
        # truth    . . T T T . . . . . |
        # 0.5      . . # # # . . . . . |
        # 0.9      . . . . . . . . . . | . . # #
        zeros = np.zeros(2, np.int64)
        return Segments(zeros, zeros, np.array([2, 12]), np.array([4, 13]), np.array([0.5, 0.9], np.float32))

    monkeypatch.setattr("refineloc.export.parity.segments", crafted)
    label = metadata.classes[0]
    truth = VideoAnnotation("v", (label,), start=np.array([2.0]), end=np.array([5.0]), segment_labels=(label,))
    video = Video("v", np.ones((14, metadata.width), np.float32), SnippetGrid(16.0, 16, 10.0))
    parity = measure(model, session, Sample("truth.h5", (video,), Annotations({"v": truth})))
    assert (parity.reference_map, parity.map) == (1.0, 1.0)


def test_another_model_is_seen(model: RefineLoc, session: Session, sample: Sample) -> None:
    torch.manual_seed(2)
    parity = measure(RefineLoc(24, 5, 2, 2), session, sample)
    assert parity.class_scores > 0.1
    assert parity.foreground > 0.1
    assert parity.lost > 0
    assert parity.gained > 0
    assert any("detections" in problem for problem in problems(parity, TOLERANCES["int8"]))


def test_lost_and_gained_are_counted(model: RefineLoc, session: Session, sample: Sample) -> None:
    """A foreground logit raised by an amount turns removed snippets into kept ones: segments grow, join or appear."""
    changed = RefineLoc(24, 5, 2, 2)
    changed.load_state_dict(model.state_dict())
    with torch.no_grad():
        changed.attention[2].bias[1] += 0.7
    there, back = measure(changed, session, sample), measure(model, session, sample)
    # What both have is |A| - lost, and |B| - gained as well.
    assert there.detections - there.lost == back.detections - there.gained
    assert there.lost > 0
    assert there.class_scores < 1e-5 < there.foreground


@pytest.mark.parametrize(
    ("tolerance", "words"),
    [
        (Tolerance(0.01, 0.05, 0.25), []),
        (Tolerance(0.0099, 0.05, 0.25), ["class_scores", "foreground", "attention", "video_scores"]),
        (Tolerance(0.01, 0.049, 0.25), ["5 of 100 detections"]),
        (Tolerance(0.01, 0.05, 0.2499), ["average mAP falls by 25.00 points"]),
    ],
)
def test_tolerances_at_and_just_past_their_bounds(tolerance: Tolerance, words: list[str]) -> None:
    told = problems(dataclasses.replace(PARITY, reference_map=0.75, map=0.5), tolerance)
    assert all(word in problem for word, problem in zip(words, told, strict=True))


@pytest.mark.parametrize(
    ("detections", "lost", "gained", "count"), [(100, 1, 1, 0), (100, 2, 1, 1), (2, 2, 0, 1), (100, 0, 2, 1)]
)
def test_one_moved_segment_is_always_allowed_and_two_are_not(
    detections: int, lost: int, gained: int, count: int
) -> None:
    parity = dataclasses.replace(PARITY, detections=detections, lost=lost, gained=gained)
    assert len(problems(parity, Tolerance(0.01, 0.0, 0.02))) == count


def test_a_trained_model_that_is_not_finite_is_told(model: RefineLoc, session: Session, sample: Sample) -> None:
    damaged = copy.deepcopy(model)
    with torch.no_grad():
        damaged.attention[0].weight[:] = torch.nan
    with pytest.raises(ModelError, match=r"the trained model's .* are not finite"):
        measure(damaged, session, sample)


def test_a_file_beyond_tolerance_is_not_written_unless_allowed(
    tmp_path: Path, metadata: ModelMetadata, sample: Sample
) -> None:
    torch.manual_seed(1)
    fragile = RefineLoc(24, 5, 2, 2).eval()
    with torch.no_grad():  # one huge weight takes all of the int8 range of its output, and the rest is lost
        fragile.classifier[0].weight[:, 0] = 1e4
        fragile.attention[0].weight[:, 0] = 1e4
        fragile.classifier[0].bias += -1e4 * 0.5
    path = tmp_path / "int8.onnx"
    path.write_text("an earlier file")
    with pytest.raises(ModelError, match=r"not written: as int8 .* allow_loss"):
        write_model(path, fragile, metadata, sample, precision="int8")
    assert path.read_text() == "an earlier file"
    assert list(tmp_path.iterdir()) == [path]
    written = write_model(path, fragile, metadata, sample, precision="int8", allow_loss=True)
    assert written.beyond
    assert Session(path, provider="cpu").metadata == written.metadata


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_measured_parity_is_in_the_file(
    tmp_path: Path, model: RefineLoc, metadata: ModelMetadata, sample: Sample, precision: str
) -> None:
    path = tmp_path / "model.onnx"
    written = write_model(path, model, metadata, sample, precision=precision, allow_loss=True)  # type: ignore[arg-type]
    read = Session(path, provider="cpu").metadata
    assert read.precision == precision
    assert read.parity is not None
    assert read == written.metadata
    assert written.size == path.stat().st_size
    assert measure(model, Session(path, provider="cpu"), sample) == read.parity


def test_what_the_rule_for_streaming_loses_is_measured(
    tmp_path: Path, model: RefineLoc, metadata: ModelMetadata, sample: Sample
) -> None:
    path = tmp_path / "model.onnx"
    assert write_model(path, model, metadata, sample).streaming is None
    rule = OneThreshold(alpha_c=0.5)
    metadata = dataclasses.replace(metadata, streaming=rule)
    timed = write_model(path, model, metadata, sample)
    untimed = write_model(path, model, metadata, generated_sample(model, metadata))
    assert Session(path, provider="cpu").metadata.streaming == rule
    assert timed.streaming is not None
    assert untimed.streaming is not None
    assert timed.streaming.detections > timed.streaming.other_detections > 0
    assert 0 < timed.streaming.agreement < 1
    assert untimed.streaming.agreement == pytest.approx(timed.streaming.agreement)
    assert timed.metadata.parity is not None
    assert timed.streaming.map == timed.metadata.parity.map
    assert f"mean best tIoU {untimed.streaming.agreement:.2f} (no times are known)" in _table(path, untimed)
    shown = dataclasses.replace(timed, streaming=RuleComparison(9, 7, 0.5, 0.123, 0.1))
    assert "streaming     average mAP 12.30 -> 10.00 (-2.30), 9 detections -> 7" in _table(path, shown)


def test_samples_are_spread_over_the_file_and_keep_to_their_stream(
    tmp_path: Path, metadata: ModelMetadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("refineloc.export.parity.MAX_SNIPPETS", 100)
    with h5py.File(tmp_path / "both.h5", "w") as file:
        for index in range(10):
            columns = np.arange(48, dtype=np.float32)
            file[f"v{index}"] = np.tile(columns, (30, 1)) + 100 * index
        file["w-empty"] = np.empty((0, 48), dtype=np.float32)
    spatial = dataclasses.replace(metadata, stream="spatial")
    with open_features(tmp_path / "both.h5") as store:
        sample = read_sample(store, spatial, None)
        assert [video.name for video in sample.videos] == ["v0", "v3", "v6", "v9"]
        assert sample.videos[1].features.shape == (30, 24)
        np.testing.assert_array_equal(sample.videos[1].features[0], np.arange(24, 48) + 300)
        assert sample.source == "both.h5"
        with pytest.raises(FeatureError, match="width 48, the model expects 24"):
            read_sample(store, metadata, None)
        with pytest.raises(InputError, match="no video in common"):
            read_sample(store, spatial, Annotations({"other": VideoAnnotation("other", ("a",))}))


def test_the_features_own_fps_goes_before_the_labels(tmp_path: Path, metadata: ModelMetadata) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        for name in ("a", "b"):
            file[name] = np.ones((30, metadata.width), dtype=np.float32)
        file["a"].attrs.update(fps=25.0, duration=20.0)
    durations = {"a": 19.5, "b": 10.0}
    labels = {name: VideoAnnotation(name, ("a",), duration_s=durations[name], fps=50.0) for name in ("a", "b")}
    with open_features(tmp_path / "f.h5") as store:
        sample = read_sample(store, metadata, Annotations(labels), fps=5.0)
    frames = metadata.snippet_frames
    assert [video.grid for video in sample.videos] == [SnippetGrid(25.0, frames, 20.0), SnippetGrid(50.0, frames, 10.0)]
