"""The sample data is what its documentation says: seeded, of the stated statistics, and hard in the stated ways."""

import dataclasses

import numpy as np
import pytest

from refineloc.runtime.annotations import VideoAnnotation, read_annotations
from refineloc.runtime.errors import InputError
from refineloc.runtime.features.opening import open_features
from refineloc.runtime.segments.grid import SnippetGrid
from refineloc.training.sample.synth import SNIPPET_FRAMES, Recipe, SampleVideo, World, write_sample

CLASSES, DIM = 4, 16
STRENGTHS = ("group_place", "class_place", "elsewhere", "action", "motion", "recording")


def actions(video: SampleVideo) -> np.ndarray:
    """Which snippets lie in an action, bool [T]."""
    grid = SnippetGrid(video.annotation.fps, SNIPPET_FRAMES, video.annotation.duration_s)
    return grid.foreground(video.annotation.start, video.annotation.end, len(video.features))


@pytest.fixture(scope="module")
def many() -> list[SampleVideo]:
    world = World(CLASSES, DIM, seed=5)
    return [world.video("train", number) for number in range(400)]


def test_same_seed_gives_the_same_video_and_another_seed_another():
    first, again, other = (World(CLASSES, DIM, seed).video("val", 7) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.features, again.features)
    np.testing.assert_array_equal(first.annotation.start, again.annotation.start)
    assert first.annotation.labels == again.annotation.labels
    assert first.features.shape != other.features.shape or not np.allclose(first.features, other.features)


def test_splits_and_numbers_give_different_videos():
    world = World(CLASSES, DIM, seed=1)
    lengths = {world.video(split, number).annotation.frames for split in ("train", "val") for number in range(5)}
    assert len(lengths) == 10


def test_features_look_like_features(many):
    features = many[0].features
    assert features.dtype == np.float32
    assert features.shape == (many[0].annotation.frames // SNIPPET_FRAMES, DIM)
    stacked = np.concatenate([video.features for video in many])
    assert np.isfinite(stacked).all()
    assert (stacked >= 0).all()
    # A long tail, as pooled ReLUs have.
    assert np.mean(((stacked - stacked.mean()) / stacked.std()) ** 3) > 0.5


def test_lengths_are_those_of_thumos14(many):
    lengths = np.array([len(video.features) for video in many])
    assert 250 <= np.median(lengths) <= 310
    assert lengths.min() >= 16
    assert lengths.max() <= 2000
    assert (lengths > 1000).mean() > 0.02
    per_video = np.array([len(video.annotation.start) for video in many])
    assert per_video.min() >= 1
    assert 6 <= np.median(per_video) <= 14  # 8 in THUMOS14
    action = np.concatenate([(v.annotation.end - v.annotation.start) * v.annotation.fps / 16 for v in many])
    assert 4.0 <= np.median(action) <= 6.5  # 5.4
    assert (action < 3).mean() > 0.1  # actions of a few snippets
    share = np.mean([actions(video).mean() for video in many])
    assert 0.2 <= share <= 0.4  # 0.29


def test_share_of_videos_with_two_labels(many):
    two = np.array([len(video.annotation.labels) == 2 for video in many])
    assert {len(video.annotation.labels) for video in many} == {1, 2}
    assert 0.09 <= two.mean() <= 0.18  # 0.135; three standard errors of 400 videos are 0.05
    # A second label is the neighbour that shares the place: 0 with 1, 2 with 3.
    assert {video.annotation.labels for video in many if len(video.annotation.labels) == 2} == {
        ("action-0", "action-1"),
        ("action-2", "action-3"),
    }


def test_every_label_happens_and_segments_lie_in_the_video(many):
    for video in many:
        annotation = video.annotation
        assert set(annotation.segment_labels) == set(annotation.labels)
        assert (annotation.start >= 0).all()
        assert (annotation.end > annotation.start).all()
        assert (annotation.end <= annotation.duration_s + 0.01).all()
        assert (np.diff(annotation.start) >= 0).all()


def test_an_action_is_weaker_at_its_boundaries_and_not_seen_outside():
    """The evidence of a class by its own direction, where nothing else is seen."""
    recipe = dataclasses.replace(Recipe(), **dict.fromkeys(STRENGTHS, 0.0) | {"action": 50.0, "strength_spread": 0.0})
    world = World(CLASSES, 64, seed=0, recipe=recipe)
    middle, edge, far = [], [], []
    for number in range(60):
        video = world.video("train", number)
        if len(video.annotation.labels) > 1:
            continue
        z = np.log(np.expm1(video.features.astype(np.float64)) + 1e-9) - recipe.rest_level
        direction = world._action[world.classes.index(video.annotation.labels[0])] / recipe.action
        evidence = z @ direction / recipe.action
        far.extend(evidence[np.convolve(actions(video), np.ones(9), "same") == 0])
        scale = video.annotation.fps / SNIPPET_FRAMES
        for start, end in zip(video.annotation.start * scale, video.annotation.end * scale, strict=True):
            first, last = int(np.ceil(start)), int(end) - 1  # snippets wholly inside
            if last - first >= 4:
                edge.extend(evidence[[first, last]])
                middle.extend(evidence[first + 2 : last - 1])
    assert abs(np.mean(far)) < 0.05
    assert recipe.boundary_level < np.mean(edge) < 0.7
    assert 0.8 < np.mean(middle) < 1.05


def test_the_place_of_a_class_is_visible_outside_its_actions_and_shared_by_neighbours():
    """The nearest mean of action-free snippets tells the group of classes well, and the class less well."""
    world = World(CLASSES, 64, seed=0)

    def without_action(split, number):
        video = world.video(split, number)
        return world.classes.index(video.annotation.labels[0]), video.features[~actions(video)].mean(axis=0)

    train = [without_action("train", number) for number in range(160)]
    means = np.stack([np.mean([f for label, f in train if label == n], axis=0) for n in range(CLASSES)])
    hits_group = hits_class = 0
    for number in range(80):
        label, feature = without_action("val", number)
        guess = int(np.argmin(np.linalg.norm(means - feature, axis=1)))
        hits_group += guess // 2 == label // 2
        hits_class += guess == label
    assert hits_group / 80 > 0.8  # chance 0.5
    assert hits_class < hits_group


def test_noise_has_unit_variance_and_the_stated_correlation_in_time():
    recipe = dataclasses.replace(Recipe(), rest_level=0.0, **dict.fromkeys(STRENGTHS, 0.0))
    videos = [World(2, 32, seed=3, recipe=recipe).video("train", number).features for number in range(10)]
    noise = [np.log(np.expm1(features.astype(np.float64))) for features in videos]  # the rectifier undone
    assert np.concatenate(noise).std() == pytest.approx(1.0, abs=0.02)
    neighbours = np.concatenate([x[1:] * x[:-1] for x in noise]).mean()
    assert neighbours == pytest.approx(recipe.noise_correlation, abs=0.03)


def test_actions_show_in_the_temporal_stream_and_places_in_the_spatial():
    def energy(**strengths):
        quiet = dict.fromkeys(STRENGTHS, 0.0)
        recipe = dataclasses.replace(Recipe(), **(quiet | strengths))
        video = World(2, 512, seed=0, recipe=recipe).video("train", 0)
        still = World(2, 512, seed=0, recipe=dataclasses.replace(Recipe(), **quiet)).video("train", 0)
        change = np.abs(video.features - still.features).mean(axis=0)
        return change[:256].mean(), change[256:].mean()

    temporal, spatial = energy(action=3.0)
    assert temporal > 1.2 * spatial
    temporal, spatial = energy(group_place=3.0)
    assert spatial > 1.2 * temporal


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_files_read_back(tmp_path, dtype):
    world = World(CLASSES, DIM, seed=2)
    written = list(write_sample(tmp_path, world, {"train": 6, "val": 3}, dtype=dtype))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train.csv", "train.h5", "val.csv", "val.h5"]
    header = (tmp_path / "train.csv").read_text().splitlines()[0]
    assert header == "video-name,t-start,t-end,label,video-duration,fps,video-num-frames", "the released one"
    for split, videos in (("train", written[:6]), ("val", written[6:])):
        annotations = read_annotations(tmp_path / f"{split}.csv")
        with open_features(tmp_path / f"{split}.h5") as store:
            assert set(store.names) == set(annotations) == {video.annotation.name for video in videos}
            for video in videos:
                expected, read = video.annotation, annotations[video.annotation.name]
                assert read.labels == expected.labels
                assert (read.fps, read.duration_s, read.frames) == (
                    expected.fps,
                    expected.duration_s,
                    expected.frames,
                )
                np.testing.assert_array_equal(read.start, expected.start)
                np.testing.assert_array_equal(read.end, expected.end)
                assert read.segment_labels == expected.segment_labels
                info = store.info(expected.name)
                assert (info.fps, info.duration_s, info.snippet_frames) == (expected.fps, expected.duration_s, 16)
                assert info.dtype == dtype
                np.testing.assert_array_equal(store.read(expected.name), video.features.astype(dtype))


def test_the_same_command_twice_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        list(write_sample(tmp_path / name, World(2, 8), {"train": 3, "val": 2}))
    for file in ("train.h5", "train.csv", "val.h5", "val.csv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_nothing_is_written_over_unless_asked(tmp_path):
    world = World(2, 8)
    (tmp_path / "val.csv").write_text("mine")
    with pytest.raises(InputError, match=r"val\.csv: exists already"):
        list(write_sample(tmp_path, world, {"train": 2, "val": 1}))
    assert [path.name for path in tmp_path.iterdir()] == ["val.csv"]
    list(write_sample(tmp_path, world, {"train": 2, "val": 1}, overwrite=True))
    assert (tmp_path / "val.csv").read_text().startswith("video-name,")


def test_a_stopped_run_leaves_no_half_written_file(tmp_path):
    videos = write_sample(tmp_path, World(2, 8), {"train": 3, "val": 1})
    next(videos)
    videos.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("classes", "dim", "seed", "message"),
    [(1, 16, 0, "classes: .*got 1"), (2, 15, 0, "dim: .*got 15"), (2, 6, 0, "dim: .*got 6"), (2, 16, -1, "seed: .*-1")],
)
def test_values_out_of_range(classes, dim, seed, message):
    with pytest.raises(InputError, match=message):
        World(classes, dim, seed)


@pytest.mark.parametrize("classes", [2, 3, 11])
def test_any_number_of_classes(classes):
    world = World(classes, 8, seed=0)
    seen = {label for number in range(3 * classes) for label in world.video("train", number).annotation.labels}
    assert seen == set(world.classes)
    assert list(world.classes) == sorted(world.classes)


def test_features_along_a_real_time_line() -> None:
    world = World(("dive", "jump"), 32)
    video = VideoAnnotation(
        name="real",
        labels=("jump",),
        duration_s=64.0,
        fps=16.0,
        frames=1030,
        start=np.array([10.0, 60.0, 70.0]),
        end=np.array([20.0, 70.0, 70.0]),  # one that ends after the video, one without length beyond it
        segment_labels=("jump", "jump", "jump"),
    )
    features = world.along(video)
    assert features.shape == (64, 32)
    assert np.array_equal(features, world.along(video))
    # The class's direction is stronger inside of its actions than elsewhere, and than the other class's.
    jump = np.log(np.expm1(features.astype(np.float64))) @ (world._action[1] - world._action[0])
    inside = np.r_[10:20, 60:64]
    assert jump[inside].mean() > np.delete(jump, inside).mean() + 2
    with pytest.raises(InputError, match="video 'real': a time line needs fps, frames, and labels of 2 classes"):
        world.along(dataclasses.replace(video, fps=None))
    with pytest.raises(InputError, match="labels of 2 classes"):
        world.along(dataclasses.replace(video, segment_labels=("run",) * 3))
