"""The student: what its points are taught, how they are packed, and that it learns in the loop."""

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import small_data
import torch
from small_data import drop_times

from refineloc.runtime.errors import ConfigError
from refineloc.runtime.segments.rules import Boundaries, ManyThresholds
from refineloc.runtime.segments.values import Points, Scores, Segments
from refineloc.training.models.student import Student
from refineloc.training.pseudo_labels import taught_segments
from refineloc.training.run.display import Silent
from refineloc.training.settings.config import Config, resolve
from refineloc.training.settings.student import StudentConfig
from refineloc.training.signs import signs
from refineloc.training.targets import SegmentTargets, point_rows
from refineloc.training.train_run import train_run

WIDTH, CLASSES, LEVELS = 6, 3, 4
PLAIN: dict[str, Any] = {"hidden": 8, "levels": LEVELS, "dropout": 0.0, "input_dropout": 0.0, "exchanged_means": 0.0}


def segments_of(*rows: tuple[int, int, float, float, float]) -> Segments:
    """Of (video, class, start, end, score), in snippets."""
    video, label, start, end, score = map(np.array, zip(*rows, strict=True))
    return Segments(video, label, start.astype(float), end.astype(float) - 1, score.astype(float))


def student(**options: Any) -> Student:
    torch.manual_seed(3)
    model = Student(WIDTH, CLASSES, StudentConfig(**PLAIN | options))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    return model


def taught(targets: SegmentTargets, video: int, length: int) -> list[tuple[int, int, float, float, float, float]]:
    """(row, class, distances, weights) of one video alone."""
    batch = targets.of(torch.tensor([video]), torch.tensor([length]))
    columns = (batch.row, batch.label, *batch.distances.unbind(1), batch.weight, batch.ends_weight)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_targets_by_hand() -> None:
    lengths = np.array([5, 20, 9])
    targets = SegmentTargets(
        segments_of((0, 1, 1, 4, 0.5), (1, 0, 4, 16, 1.0), (2, 2, 3.6, 4.2, 1.0), (2, 0, 0, 9, 0.25)), lengths, 2
    )
    # Three snippets around 2.5, of which the ends are 1.5 away: level 0, whose points are the first five rows.
    assert taught(targets, 0, 5) == [(1, 1, 0.5, 2.5, 0.5, 0.5), (2, 1, 1.5, 1.5, 0.5, 0.5), (3, 1, 2.5, 0.5, 0.5, 0.5)]
    # 12 snippets: the ends are more than 4 away, so of level 1 (snippets 0, 2 ..), less than 3 from the middle at 10.
    assert taught(targets, 1, 20) == [
        (20 + 4, 0, 4.5, 7.5, 1, 1),
        (20 + 5, 0, 6.5, 5.5, 1, 1),
        (20 + 6, 0, 8.5, 3.5, 1, 1),
    ]
    # 0.6 snippets between the middles of two snippets has the nearest one, and no end before the point's middle.
    (first, *rest) = taught(targets, 2, 9)
    assert first[:2] == (3, 2)
    assert first[2:] == (0.0, pytest.approx(0.7), 1, 1)
    assert [row for row, *_ in rest] == [9 + 1, 9 + 2, 9 + 3]


def test_a_point_of_two_segments_is_taught_both_classes_and_the_ends_of_the_shorter() -> None:
    targets = SegmentTargets(segments_of((0, 1, 2, 5, 0.5), (0, 0, 1, 6, 1.0), (0, 1, 1, 6, 0.7)), np.array([8]), 1)
    at_3 = [point for point in taught(targets, 0, 8) if point[0] == 3]
    assert at_3 == [(3, 0, 2.5, 2.5, 1, 0), (3, 1, 1.5, 1.5, 0.5, 0.5)]


def test_of_no_segments_nothing_is_taught() -> None:
    nothing = np.empty(0, np.int64)
    targets = SegmentTargets(Segments(nothing, nothing, *[np.empty(0)] * 3), np.array([4]), 2)
    assert taught(targets, 0, 4) == []


def test_points_of_videos_packed_in_any_order_are_those_of_each_alone() -> None:
    """At every level: forward, and where a batch's points lie among those of the split."""
    model, lengths = student().eval(), torch.tensor([7, 1, 30, 2, 16])
    features = torch.randn(int(lengths.sum()), WIDTH, generator=torch.Generator().manual_seed(0))
    parts = features.split(lengths.tolist())
    with torch.inference_mode():
        alone = [model(part, torch.tensor([len(part)])) for part in parts]
        for order in itertools.permutations(range(5), 3):
            packed = model(torch.cat([parts[video] for video in order]), lengths[list(order)])
            rows = point_rows(lengths[list(order)], torch.arange(3), LEVELS)
            points, own_lengths = Points(*(part.numpy() for part in packed.other[:2])), lengths[list(order)].numpy()
            assert points.levels(own_lengths) == LEVELS
            for place, video in enumerate(order):
                for part, by_itself in zip(points.of_video(own_lengths, place), alone[video].other[:2], strict=True):
                    np.testing.assert_allclose(part, by_itself, rtol=1e-4, atol=1e-5)
            assert rows.tolist() == list(range(len(packed.other[0])))
    split = point_rows(lengths, torch.tensor([4, 1]), 2)
    assert split.tolist() == [*range(40, 56), 7, *range(56 + 4 + 1 + 15 + 1, 56 + 4 + 1 + 15 + 1 + 8), 56 + 4]


def test_a_snippet_depends_on_no_more_of_its_video_than_is_stated() -> None:
    model, length, reach = student().eval(), torch.tensor([120]), 0
    features = torch.randn(120, WIDTH, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = model(features, length)
        for at in range(56, 64):
            changed = features.clone()
            changed[at] += 10.0
            differs = (model(changed, length).class_logits != before.class_logits).any(dim=1)
            assert differs[at]
            reach = max(reach, int((torch.nonzero(differs).flatten() - at).abs().max()))
    assert reach <= model.context_snippets == 2 + 7 + 16 + 7
    assert reach > 2 + 7 + 8


def test_no_gradient_goes_from_one_video_s_segments_to_another() -> None:
    model, lengths = student().train(), torch.tensor([9, 33, 5])
    features = torch.randn(47, WIDTH, requires_grad=True)
    segments = segments_of((0, 1, 1, 6, 1.0), (1, 0, 2, 30, 0.5), (1, 2, 8, 11, 1.0), (2, 0, 0, 4, 1.0))
    targets = SegmentTargets(segments, lengths.numpy(), LEVELS).of(torch.arange(3), lengths)
    losses = model.segment_losses(model(features, lengths), targets, lengths)
    for loss, own in zip(losses, (slice(0, 9), slice(9, 42), slice(42, 47)), strict=True):
        (gradient,) = torch.autograd.grad(loss, features, retain_graph=True)
        assert gradient[own].any()
        gradient[own] = 0
        assert not gradient.any()


def test_float32_on_a_cpu_has_the_losses_and_gradients_of_plain_operators() -> None:
    """Whose formulation float64 has: several videos at all levels, training mode, no draws."""
    lengths = torch.tensor([9, 1, 300, 5, 64])
    features = torch.randn(379, WIDTH, generator=torch.Generator().manual_seed(0))
    segments = segments_of((0, 1, 1, 6, 1.0), (2, 0, 2, 30, 0.5), (2, 2, 90, 280, 1.0), (4, 0, 0, 40, 1.0))
    targets = SegmentTargets(segments, lengths.numpy(), LEVELS).of(torch.arange(5), lengths)
    results = []
    for dtype in (torch.float32, torch.float64):
        model, seen = student(hidden=80).train().to(dtype), features.to(dtype).requires_grad_()
        outputs = model(seen, lengths)
        labels = torch.eye(CLASSES, dtype=dtype)[[1, 0, 2, 0, 1]]
        losses = model.segment_losses(outputs, targets, lengths)
        losses = losses + model.video_losses(outputs, model.activations(outputs, lengths), labels, lengths)
        gradients = torch.autograd.grad((losses * torch.arange(1, 6)).sum(), (seen, *model.parameters()))
        results.append([losses.detach(), *gradients])
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours.double(), plain, rtol=1e-3, atol=1e-4 * float(plain.abs().max()))


def test_losses_are_those_of_a_loop_over_points() -> None:
    model, lengths = student().eval(), torch.tensor([9, 20])
    outputs = model(torch.randn(29, WIDTH), lengths)
    segments = segments_of((0, 1, 1, 6, 0.5), (1, 0, 2, 18, 1.0), (1, 2, 8, 11, 0.75), (1, 0, 7, 12, 1.0))
    targets = SegmentTargets(segments, lengths.numpy(), LEVELS).of(torch.arange(2), lengths)
    losses = model.segment_losses(outputs, targets, lengths).tolist()
    probabilities, distances = (part.detach().double().numpy() for part in model.points(outputs))
    video = np.concatenate([np.repeat([0, 1], -(-lengths.numpy() // 2**level)) for level in range(LEVELS)])
    expected = [0.0, 0.0]
    of_point = {
        (int(row), int(label)): index for index, (row, label) in enumerate(zip(targets.row, targets.label, strict=True))
    }
    for row, label in itertools.product(range(len(probabilities)), range(CLASSES)):
        p, index = probabilities[row, label], of_point.get((row, label))
        if index is None:
            expected[video[row]] -= 0.75 * p**2 * np.log(1 - p)
            continue
        weight, (start, end) = float(targets.weight[index]), targets.distances[index].double().tolist()
        expected[video[row]] -= weight * 0.25 * (1 - p) ** 2 * np.log(p)
        left, right = distances[row]
        union = max(left, start) + max(right, end)
        iou = (min(left, start) + min(right, end)) / union
        middles = ((right - left) - (end - start)) / 2
        expected[video[row]] += float(targets.ends_weight[index]) * (1 - iou + (middles / union) ** 2)
    np.testing.assert_allclose(losses, np.array(expected) / targets.points, rtol=1e-4)


def test_taught_segments_are_the_videos_own_classes_above_the_threshold() -> None:
    points = Points(np.float32([[0.9, 0.8], [0.2, 0.1], [0.5, 0.9]]), np.full((3, 2), 0.5, np.float32))
    scores = Scores(np.zeros((3, 2), np.float32), *[np.zeros(3, np.float32)] * 2, np.float32([[0.5, 1.0]]), points)
    made = taught_segments(0.5, Boundaries(), scores, np.array([3]), np.array([[True, False]]))
    assert made.segments is not None
    assert made.segments.label.tolist() == [0, 0]
    assert made.segments.first.tolist() == [0, 2]
    assert made.segments.score.tolist() == pytest.approx([1, 5 / 9])
    assert made.labels.tolist() == [1, 0, 1]
    nothing = taught_segments(0.5, Boundaries(point_score=1.0), scores, np.array([3]), np.array([[True, False]]))
    assert "no segment to teach" in nothing.warning


def test_taught_segments_compare_with_the_best_of_their_class_in_all_videos() -> None:
    points = Points(np.float32([[0.9, 0.2], [0.4, 0.3]]), np.full((2, 2), 0.5, np.float32))
    scores = Scores(np.zeros((2, 2), np.float32), *[np.zeros(2, np.float32)] * 2, np.ones((2, 2), np.float32), points)
    made = taught_segments(0.5, Boundaries(), scores, np.array([1, 1]), np.array([[True, True], [True, True]]))
    assert made.segments is not None
    rows = zip(made.segments.video.tolist(), made.segments.label.tolist(), made.segments.score.tolist(), strict=True)
    assert [(video, label, round(score, 4)) for video, label, score in rows] == [
        (0, 0, 1.0), (0, 1, 0.6667), (1, 1, 1.0),
    ]  # fmt: skip


def test_ends_of_taught_segments_are_moved_inward_but_not_a_student_s() -> None:
    high = np.float32([0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 0])
    scores = Scores(high[:, None], high, high / high.sum(), np.ones((1, 1), np.float32))
    made = [
        taught_segments(0.1, ManyThresholds(widen=0), scores, np.array([16]), np.ones((1, 1), np.bool_), inward=inward)
        for inward in (0.0, 0.1)
    ]
    before, after = (each.segments for each in made)
    assert before is not None
    assert after is not None
    np.testing.assert_allclose(before.first, [2, 14])
    np.testing.assert_allclose(before.last, [11, 14])
    np.testing.assert_allclose(after.first, [3, 14.1])
    np.testing.assert_allclose(after.last, [10, 13.9])
    np.testing.assert_array_equal(after.score, before.score)
    assert [each.labels.sum() for each in made] == [11, 9]
    points = Points(np.float32([[0.2], [0.9], [0.2]]), np.full((3, 2), 1.5, np.float32))
    few = Scores(np.zeros((3, 1), np.float32), *[np.zeros(3, np.float32)] * 2, np.ones((1, 1), np.float32), points)
    found = taught_segments(0.5, Boundaries(), few, np.array([3]), np.ones((1, 1), np.bool_), inward=0.4).segments
    assert found is not None
    assert (found.first.tolist(), found.last.tolist()) == ([0], [2])


def test_settings_of_an_iteration() -> None:
    config = resolve({"preset": "auto", "student": {"first": 2}})
    assert config.of_iteration(1) is config
    own = config.of_iteration(2)
    assert (own.training.models, own.training.restarts, own.training.label_smoothing) == (4, 0, 0.0)
    assert (own.training.epochs, config.training.epochs, config.epochs_before(4)) == (60, 20, 4 * (20 + 20 + 60 + 60))
    # What the two kinds of rule share is kept.
    assert own.detection == Boundaries(
        top_k=10, suppression="soft-vote", tiou=0.65, fuse_temperature=0.1, class_threshold=0.1, max_detections=200
    )
    changed = {"student": {"first": 1, "suppression": "soft"}, "detection": {"max_detections": 9}}
    rules = resolve(changed).of_iteration(1).detection
    assert (rules.suppression, rules.max_detections) == ("soft", 9)


def test_a_student_is_not_warned_of_an_attention_that_it_does_not_detect_by() -> None:
    config = resolve({"preset": "auto", "student": {"first": 2}})
    scores = Scores(
        np.zeros((2, 1), np.float32), np.float32([0, 1]), np.zeros(2, np.float32), np.ones((1, 1), np.float32)
    )
    split: Any = SimpleNamespace(lengths=torch.tensor([2]))
    before, own = (
        list(signs(0.0, config.of_iteration(k), split, scores, segments_of((0, 0, 0, 1, 1)))) for k in (1, 2)
    )
    assert "more training.models" in before[0]
    assert not own
    (whole,) = signs(0.0, config.of_iteration(2), split, scores, segments_of((0, 0, 0, 2, 1)))
    assert "cover more than 90 %" in whole
    assert "attention" not in whole


def test_a_first_student_after_the_last_iteration_is_refused(data: Path) -> None:
    config = resolve({"student": {"first": 3}, "training": {"iterations": 3}})
    with pytest.raises(ConfigError, match=r"student\.first: 3, and the last iteration is 2; train more iterations"):
        train_run(lambda: config, small_data.files(data), None, show=False)


def settings(**training: Any) -> Config:
    return resolve(
        {
            "detection": {"alpha_c": 0.4, "widen": 0, "suppression": "fuse"},
            "training": {
                "epochs": 15,
                "batch_videos": 4,
                "learning_rate": 0.01,
                "iterations": 2,
                "evaluate_every": 0,
                **training,
            },
            "student": {"first": 1, "hidden": 16, "levels": 4, "learning_rate": 0.01, "ema": 0.9, "threshold": 0.4},
        }
    )


def test_it_learns_in_the_loop_and_goes_on_bit_for_bit(data: Path, tmp_path: Path) -> None:
    """The student learns of RefineLoc's network, is killed and goes on. No times are used."""
    config = settings(checkpoint_s=0.0)

    class Killed(Silent):
        def epoch(self, record: Mapping[str, Any]) -> None:
            if (record["iteration"], record["epoch"]) == (1, 7):
                raise KeyboardInterrupt

    run = small_data.train(data, tmp_path / "whole", settings())
    assert run.records[1]["pseudo_labels"]["train"]["precision"] > 0.8
    assert run.records[1]["average_mAP"] > 0.3
    assert "streaming" not in run.records[1]
    lines = [json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    losses = [line["train_pseudo_loss"] for line in lines if line["iteration"] == 1]
    assert losses[-1] < 0.7 * losses[0]
    drop_times(data)
    with pytest.raises(KeyboardInterrupt):
        small_data.train(data, tmp_path / "killed", config, display=Killed(), truth=False)
    assert (tmp_path / "killed/checkpoint.safetensors").exists()
    other = small_data.train(data, tmp_path / "killed", config, resume=True, truth=False)
    for name, weight in run.model(1).state_dict().items():
        assert torch.equal(weight, other.model(1).state_dict()[name])


def test_a_finished_run_goes_on_with_a_student(data: Path, tmp_path: Path) -> None:
    config, plain = settings(epochs=3), settings(epochs=3, iterations=1).model_copy(update={"student": StudentConfig()})
    small_data.train(data, tmp_path / "run", plain)
    longer = small_data.train(data, tmp_path / "run", config, resume=True)
    whole = small_data.train(data, tmp_path / "whole", config)
    for name, weight in whole.model(1).state_dict().items():
        assert torch.equal(weight, longer.model(1).state_dict()[name])
    wider = config.model_copy(update={"student": config.student.model_copy(update={"hidden": 32})})
    with pytest.raises(ConfigError, match=r"settings: student\.hidden was 16, now 32; resume with the same"):
        small_data.train(data, tmp_path / "run", wider, resume=True)


def test_the_loop_teaches_a_student_ends_that_are_moved_inward(data: Path, tmp_path: Path) -> None:
    config = settings(epochs=3)
    shares = []
    for inward in (0.0, 0.3):
        moved = config.model_copy(update={"student": config.student.model_copy(update={"inward": inward})})
        run = small_data.train(data, tmp_path / str(inward), moved)
        shares.append(run.records[1]["pseudo_labels"]["train"]["foreground"])
    assert 0 < shares[1] < 0.8 * shares[0]


def test_a_student_of_a_student(data: Path, tmp_path: Path) -> None:
    run = small_data.train(data, tmp_path / "run", settings(iterations=3, epochs=3))
    assert run.records[2]["pseudo_labels"]["train"]["foreground"] > 0
    assert not torch.equal(*(next(iter(run.model(iteration).parameters())) for iteration in (1, 2)))
