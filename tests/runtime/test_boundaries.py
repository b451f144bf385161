"""A model that finds segments itself: its file, its detections, and what is refused. The graph here has one level."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from small_model import STUDENT, student_graph, write_model

from refineloc.runtime import ConfigError, Detector, ModelError, Points, StreamingDetector
from refineloc.runtime.model import session as module
from refineloc.runtime.model.session import Session
from refineloc.runtime.segments.postprocess import segments
from refineloc.runtime.segments.rules import Boundaries


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("student") / "m.onnx", student_graph(), suppression="hard", **STUDENT)


def test_its_segments_are_those_of_its_points(student: Path, rng: np.random.Generator) -> None:
    assert {prop.key: prop.value for prop in onnx.load(student).metadata_props}["refineloc.format_version"] == "4"
    detector = Detector(student, provider="cpu")
    assert detector.settings == Boundaries(top_k=5, suppression="hard", point_score=0.1)
    videos = {f"v{length}": rng.standard_normal((length, 24)).astype(np.float32) for length in (40, 1, 7)}
    for name, detections in detector.detect_many(videos, fps=16.0):
        features = videos[name]
        scores, lengths = detector.scores(features), np.array([len(features)])
        assert scores.points is not None
        np.testing.assert_array_equal(scores.points.scores, scores.class_scores)
        np.testing.assert_array_equal(scores.points.distances, np.abs(features[:, :2]))
        expected = segments(scores, lengths, detector.settings)
        order = np.argsort(-expected.score, kind="stable")
        assert detections.score.tolist() == expected.score[order].tolist()
        assert detections.start.tolist() == expected.first[order].tolist()  # a snippet is a second
        assert len(detections) > 0
        # Of one class, that is known.
        assert {d.label for d in detector.detect(features, fps=16.0, labels=["swim"])} <= {"swim"}
    assert Detector(student, provider="cpu", profile="paper").settings.profile == "paper"


def test_on_a_gpu_the_engine_takes_memory_for_points(
    student: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(student, "cpu")
    features, lengths = rng.standard_normal((9, 24)).astype(np.float32), np.array([4, 5])
    expected = session.run(features, lengths)
    bound = module._run_bound(session._here(), features, lengths, 5, lambda shape: np.empty(shape, np.float32), True)
    for one, other in zip(bound.arrays, expected.arrays, strict=True):
        np.testing.assert_array_equal(one, other)


def test_several_students_are_their_mean(student: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    features = rng.standard_normal((12, 24)).astype(np.float32)
    both = Detector([student, student], provider="cpu").scores(features)
    alone = Detector(student, provider="cpu").scores(features)
    for one, other in zip(both.arrays, alone.arrays, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    other = write_model(tmp_path / "other.onnx")
    with pytest.raises(ModelError, match=r"other\.onnx: is no student, as .*m\.onnx is; give students alone"):
        Detector([student, other], provider="cpu")
    assert Detector([other, student], provider="cpu").scores(features).points is None


def test_what_is_refused(student: Path, model_path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'boundaries' takes the segments of a student, and this model finds none"):
        Detector(model_path, provider="cpu", profile="boundaries")
    with pytest.raises(ModelError, match="do not fit its graph: it has no point_scores; export it again"):
        Detector(write_model(tmp_path / "none.onnx", **STUDENT), provider="cpu")
    with pytest.raises(ConfigError, match=r"widen: a setting of the profile 'paper' or .*, not of 'boundaries'"):
        Detector(student, provider="cpu", widen=1)
    fewer = Detector(write_model(tmp_path / "fewer.onnx", student_graph(rows=2), **STUDENT), provider="cpu")
    with pytest.raises(ModelError, match="its 3 points are not those of videos of 5 snippets; the file is damaged"):
        fewer.scores(np.ones((5, 24), np.float32))
    with pytest.raises(ConfigError, match="base model 'student' have no running form; use Detector on the whole video"):
        StreamingDetector(Detector(student, provider="cpu"), fps=25.0)
    further = write_model(tmp_path / "context.onnx", student_graph(), context_snippets=49, **STUDENT)
    with pytest.raises(ConfigError, match="'student' the scores of a snippet depend on the 49 before and after it"):
        StreamingDetector(Detector(further, provider="cpu"), fps=25.0)


def test_levels_of_points() -> None:
    def points(count: int) -> Points:
        return Points(np.zeros((count, 3), np.float32), np.zeros((count, 2), np.float32))

    lengths = np.array([5, 0, 2])
    assert [points(count).levels(lengths) for count in (7, 7 + 4, 7 + 4 + 3, 7 + 4 + 3 + 2, 8, 0)] == [1, 2, 3, 4, 0, 0]
    assert points(3).levels(np.array([0])) == 0
    rows = Points(np.arange(22, dtype=np.float32).reshape(11, 2), np.arange(22, dtype=np.float32).reshape(11, 2))
    assert rows.of_video(lengths, 2).scores[:, 0].tolist() == [10, 12, 20]
    assert rows.of_video(lengths, 1).scores.shape == (0, 2)
