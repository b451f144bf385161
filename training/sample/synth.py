"""A small, seeded data set of untrimmed videos: features and labels, without any video.

It shows how the method behaves, so it is hard in the ways in which real features are. A snippet's features are a sum of
what would be seen, each in a fixed random direction, then noise and a rectifier:

    z_t = recording + place_t + action_t + motion_t + noise_t          F_t = softplus(z_t)

    recording   this camera, light, people: constant in a video, new in each       (what a network overfits)
    place       the scene of the class, seen in most shots, actions or not         (what a video label rewards)
    action      the class's own evidence, weaker near the boundaries               (what is to be found)
    motion      "somebody does something": alike in all classes, begins before and ends after the action, and is
                also there without one (practice, replays, camera)                 (what misleads at the boundaries)
    noise       correlated in time

Directions are unit vectors, and noise has standard deviation 1 in every dimension. So each strength is a d': the best
linear detector of one cue, from one snippet, has area under the ROC curve Phi(d' / sqrt 2), whatever the width D.
Classes come in groups of two, which share most of their place, as high jump and pole vault do.

The lengths are THUMOS14's (its 200 validation videos, I3D snippets of 16 frames): see `Recipe`. Needs NumPy and h5py.
"""

import itertools
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt

from refineloc.runtime.annotations import VideoAnnotation, write_annotations_csv
from refineloc.runtime.errors import InputError, OutputError
from refineloc.runtime.files import atomic_path, claim_folder, status_of

__all__ = ["Recipe", "SampleVideo", "SplitName", "World", "sample_files", "write_sample"]

Array = npt.NDArray[np.float64]
SplitName = Literal["train", "val"]

SNIPPET_FRAMES = 16  # I3D's
_SPLITS: tuple[SplitName, ...] = ("train", "val")
_FINE = 4  # points a snippet at which envelopes are sampled; features average over a snippet's frames
_SHORTEST = 0.4  # snippets; THUMOS14's shortest action is 0.2 s


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the videos are like. Lengths are in snippets, strengths are d' (see the module's head).

    The first part is measured on THUMOS14's validation annotations, whose figures are in brackets. The second part is
    chosen, for the reasons given.
    """

    # Measured.
    median_length: float = 280.0  # of a video [282]
    length_spread: float = 0.85  # s.d. of log length [0.91]
    shortest: int = 16  # [16]
    longest: int = 2000  # [2202]
    two_label_share: float = 0.135  # [0.135]
    median_action: float = 6.5  # of an action; 5.5 after shots have ended the long ones [5.4]
    class_spread: float = 0.55  # s.d. of log median length between classes [0.63]
    action_spread: float = 0.58  # s.d. of log length within a class [0.58]
    median_gap: float = 8.0  # between actions of a class; 5.3 after the same [6.0]
    gap_spread: float = 1.3  # s.d. of log gap [about 1.5: half of the gaps in 1.9 .. 15.8]
    fps: tuple[float, ...] = (30.0, 30.0, 30.0, 30.0, 30.0, 30.0, 30.0, 30.0, 25.0, 24.0)  # [30 for nearly all]

    # Chosen. An edited video shows its scene most of the time, and other things (titles, crowd, talk) in between.
    place_share: float = 0.75
    median_shot: float = 40.0
    # The place is easy to see (AUC 0.98): a still frame is enough to name most sports. The difference between the two
    # classes of a group is smaller.
    group_place: float = 3.0
    class_place: float = 1.5
    elsewhere: float = 3.0
    elsewheres: int = 8
    # An action at full height, seen from a usual view. With the true labels the features suffice: attention that is
    # trained with them tells snippets with and without action apart with AUC 0.92 (docs/explanation/sample-data.md).
    action: float = 4.0
    motion: float = 2.5
    # Views differ: s.d. of the log strength of one instance.
    strength_spread: float = 0.35
    # The action's evidence rises from this share at its boundary to all of it, over this share of its length.
    boundary_level: float = 0.25
    ramp: float = 0.3
    # Motion begins before and ends after its action by this many snippets (about half a second: a run-up, a landing).
    lead: float = 1.0
    # Motion without action: bouts in this share of the gaps.
    idle_motion_share: float = 0.3
    # The recording is as strong as a place, so videos differ as much as scenes do.
    recording: float = 3.0
    # Correlation of the noise between neighbouring snippets; half a second apart, much of a picture stays.
    noise_correlation: float = 0.5
    # Share of each cue's energy in the temporal stream (optical flow sees what moves); the rest is spatial (RGB).
    temporal_share_of_action: float = 0.7
    temporal_share_of_place: float = 0.3
    # Centre of the rectifier: features have mean about 0.6 and a long tail, as pooled ReLUs do.
    rest_level: float = -0.5


class SampleVideo(NamedTuple):
    """One video: its labels and segments (`annotation`, which also holds fps and duration), and features [T, D]."""

    annotation: VideoAnnotation
    features: npt.NDArray[np.float32]


class _Instance(NamedTuple):
    """One action, in snippets (fractions count)."""

    label: int
    start: float
    end: float


class World:
    """What all videos of a data set share: classes, and the direction of each cue.

    Args:
        classes: N, at least 2; or their names.
        dim: D, an even number; the first half is the temporal stream, the second the spatial.
        seed: of everything. A video depends on the seed, its split and its number, not on the number of videos.
        recipe: what the videos are like.

    Raises:
        InputError: a value out of range.
    """

    def __init__(self, classes: int | Sequence[str], dim: int, seed: int = 0, recipe: Recipe | None = None) -> None:
        names = () if isinstance(classes, int) else tuple(classes)
        classes = classes if isinstance(classes, int) else len(names)
        if classes < 2:
            raise InputError(f"classes: expected at least 2 (a video label must tell something), got {classes}")
        if dim < 8 or dim % 2:
            raise InputError(f"dim: expected an even number of at least 8 (two streams), got {dim}")
        if seed < 0:
            raise InputError(f"seed: expected a number >= 0, got {seed}")
        self.dim, self.seed = dim, seed
        self.recipe = recipe = recipe or Recipe()
        digits = len(str(classes - 1))
        self.classes = names or tuple(f"action-{index:0{digits}d}" for index in range(classes))
        rng = np.random.default_rng([seed, len(_SPLITS)])

        def directions(count: int, temporal_share: float) -> Array:
            """Random unit vectors [count, D]; `temporal_share` of their energy is in the temporal half."""
            halves = rng.standard_normal((2, count, dim // 2))
            halves /= np.linalg.norm(halves, axis=2, keepdims=True)
            return np.concatenate(
                [np.sqrt(temporal_share) * halves[0], np.sqrt(1 - temporal_share) * halves[1]], axis=1
            )

        self._groups = np.arange(classes) // 2
        group_directions = directions(int(self._groups[-1]) + 1, recipe.temporal_share_of_place)
        class_directions = directions(classes, recipe.temporal_share_of_place)
        self._place = recipe.group_place * group_directions[self._groups] + recipe.class_place * class_directions
        self._elsewhere = recipe.elsewhere * directions(recipe.elsewheres, recipe.temporal_share_of_place)
        self._action = recipe.action * directions(classes, recipe.temporal_share_of_action)
        self._motion = recipe.motion * directions(1, recipe.temporal_share_of_action)[0]
        # Evenly spaced quantiles, shuffled: also a data set of few classes has short and long actions.
        spread = recipe.class_spread * np.sqrt(3) * (2 * (np.arange(classes) + 0.5) / classes - 1)
        self._median_action = recipe.median_action * np.exp(rng.permutation(spread))

    def video(self, split: SplitName, number: int) -> SampleVideo:
        """Video `number` of a split. First labels go round the classes, so that every class has its share."""
        recipe = self.recipe
        rng = np.random.default_rng([self.seed, _SPLITS.index(split), number])
        fps = float(rng.choice(recipe.fps))
        length = np.clip(
            rng.lognormal(np.log(recipe.median_length), recipe.length_spread), recipe.shortest, recipe.longest
        )
        frames = int(length * SNIPPET_FRAMES)
        snippets = frames // SNIPPET_FRAMES  # the frames of a last, incomplete snippet have no features
        labels = self._labels(rng, number)
        place = self._shots(rng, labels, snippets)
        instances = self._instances(rng, labels, place)
        features = self._features(rng, place, instances)

        to_seconds = SNIPPET_FRAMES / fps
        segments = sorted(
            (instance.start * to_seconds, instance.end * to_seconds, self.classes[instance.label])
            for instance in instances
        )
        start, end, names = zip(*segments, strict=True)
        annotation = VideoAnnotation(
            name=f"{split}_{number:05d}",
            labels=tuple(sorted(set(names))),
            duration_s=round(frames / fps, 3),
            fps=fps,
            frames=frames,
            start=np.round(start, 2),
            end=np.round(end, 2),
            segment_labels=tuple(names),
        )
        return SampleVideo(annotation, features)

    def along(self, annotation: VideoAnnotation) -> npt.NDArray[np.float32]:
        """Features [T, D] for the time line of a real video: with its actions, and all else as in `video`.

        Args:
            annotation: with fps, frames, and segments of this world's classes.

        Raises:
            InputError: fps or frames are not known, or a label is not one of the classes.
        """
        name, unknown = annotation.name, set(annotation.segment_labels) - set(self.classes)
        if not annotation.fps or not annotation.frames or unknown:
            raise InputError(
                f"video {name!r}: a time line needs fps, frames, and labels of {len(self.classes)} classes"
            )
        rng = np.random.default_rng([self.seed, len(_SPLITS) + 1, *name.encode()])
        snippets = max(annotation.frames // SNIPPET_FRAMES, 1)
        labels = [self.classes.index(label) for label in annotation.labels]
        place = self._shots(rng, labels, snippets)
        instances = []
        to_snippets = annotation.fps / SNIPPET_FRAMES
        for start, end, label in zip(annotation.start, annotation.end, annotation.segment_labels, strict=True):
            instance = _Instance(self.classes.index(label), float(start * to_snippets), float(end * to_snippets))
            instances.append(instance)
            place[int(instance.start) : math.ceil(instance.end)] = instance.label  # an action is seen at its place
        return self._features(rng, place, instances)

    def _labels(self, rng: np.random.Generator, number: int) -> list[int]:
        """One class, or two: the second is the other class of its group; of a group of one class, any other."""
        first = number % len(self.classes)
        if rng.random() >= self.recipe.two_label_share:
            return [first]
        others = np.flatnonzero(self._groups == self._groups[first])
        others = others[others != first] if len(others) > 1 else np.delete(np.arange(len(self.classes)), first)
        return [first, int(rng.choice(others))]

    def _shots(self, rng: np.random.Generator, labels: list[int], snippets: int) -> npt.NDArray[np.int64]:
        """What each snippet shows, int64 [T]: the place of a class (its index), or the k-th elsewhere (-1 - k).

        Each label's place is shown at least once: the first shots are the labels', then all shots are shuffled.
        """
        recipe = self.recipe
        shown: list[int] = list(labels)
        lengths: list[int] = []
        while sum(lengths) < snippets or len(lengths) < len(labels):
            if len(lengths) >= len(shown):
                is_place = rng.random() < recipe.place_share
                shown.append(int(rng.choice(labels)) if is_place else -1 - int(rng.integers(recipe.elsewheres)))
            longest = max(snippets // (2 * len(labels)), 1) if len(lengths) < len(labels) else snippets
            lengths.append(int(np.clip(rng.lognormal(np.log(recipe.median_shot), 0.8), 1, longest)))
        lengths[-1] -= max(sum(lengths) - snippets, 0)
        order = rng.permutation(len(shown))
        return np.repeat(np.array(shown)[order], np.array(lengths)[order])

    def _instances(self, rng: np.random.Generator, labels: list[int], place: npt.NDArray[np.int64]) -> list[_Instance]:
        """Actions happen where their place is shown: gap, action, gap, ... along each shot."""
        recipe = self.recipe
        # Some videos have longer pauses than others: half of the variance of the gaps lies between videos.
        pace = rng.lognormal(np.log(recipe.median_gap), recipe.gap_spread / np.sqrt(2))
        instances: list[_Instance] = []
        for first, past in _runs(place):
            label = int(place[first])
            if label < 0:
                continue
            start = float(first)
            while True:
                start += rng.lognormal(np.log(pace), recipe.gap_spread / np.sqrt(2))
                length = max(rng.lognormal(np.log(self._median_action[label]), recipe.action_spread), _SHORTEST)
                if start + length > past:
                    break
                instances.append(_Instance(label, start, start + length))
                start += length
        # Every label of a video has an action. Where chance made none, it is in the middle of the label's longest shot.
        with_action = {instance.label for instance in instances}
        for label in (label for label in labels if label not in with_action):
            first, past = max((run for run in _runs(place) if place[run[0]] == label), key=lambda run: run[1] - run[0])
            length = min(self._median_action[label], 0.6 * (past - first))
            middle = (first + past) / 2
            instances.append(_Instance(label, middle - length / 2, middle + length / 2))
        return instances

    def _features(
        self, rng: np.random.Generator, place: npt.NDArray[np.int64], instances: list[_Instance]
    ) -> npt.NDArray[np.float32]:
        """The features [T, D] of a video whose snippets show `place` and in which `instances` happen."""
        recipe, snippets = self.recipe, len(place)
        moving = np.zeros(snippets)
        z = np.concatenate([self._place, self._elsewhere[::-1]])[place]
        for label, start, end in instances:
            strength = rng.lognormal(0.0, recipe.strength_spread)
            seen = strength * _envelope(snippets, start, end, recipe.ramp * (end - start), recipe.boundary_level)
            z += seen[:, None] * self._action[label]
            lead = recipe.lead * rng.uniform(0.0, 2.0, size=2)
            moving = np.maximum(moving, strength * _envelope(snippets, start - lead[0], end + lead[1], 1.0, 0.5))
        by_time = sorted(instances, key=lambda instance: instance.start)
        for before, after in itertools.pairwise(by_time):
            if rng.random() < recipe.idle_motion_share and after.start > before.end:
                start, end = np.sort(rng.uniform(before.end, after.start, size=2))
                strength = rng.lognormal(0.0, recipe.strength_spread)
                moving = np.maximum(moving, strength * _envelope(snippets, start, end, 1.0, 0.5))
        z += moving[:, None] * self._motion

        recording = rng.standard_normal(self.dim)
        z += recipe.recording * recording / np.linalg.norm(recording)
        z += _correlated_noise(rng, snippets, self.dim, recipe.noise_correlation)
        return np.logaddexp(0.0, z + recipe.rest_level).astype(np.float32)


def sample_files(folder: str | os.PathLike[str]) -> dict[SplitName, tuple[Path, Path]]:
    """The files of a data set: the features and the labels of each split."""
    return {split: (Path(folder) / f"{split}.h5", Path(folder) / f"{split}.csv") for split in _SPLITS}


def write_sample(
    folder: str | os.PathLike[str],
    world: World,
    videos: dict[SplitName, int],
    *,
    dtype: Literal["float32", "float16"] = "float32",
    overwrite: bool = False,
) -> Iterator[SampleVideo]:
    """Write train.h5, train.csv, val.h5 and val.csv, a video at a time; yields each video once it is written.

    The generator must be run to its end: the files of a split take their names when all of its videos are written.

    Raises:
        InputError: a file exists already and `overwrite` is False; or there are fewer training videos than classes, so
            that validation would have labels that training does not have.
        OutputError: the folder or a file cannot be written.
    """
    if videos["train"] < len(world.classes):
        raise InputError(f"videos: expected at least one a class ({len(world.classes)}), got {videos['train']}")
    files = sample_files(folder)
    existing = [path for pair in files.values() for path in pair if status_of(path, OutputError) is not None]
    if existing and not overwrite:
        raise InputError(f"{existing[0]}: exists already; give overwrite to replace it", parameter="overwrite")
    names = {path.name for pair in files.values() for path in pair}
    claim_folder(folder, names.__contains__, "sample data")
    for split, (features, labels) in files.items():
        annotations: dict[str, VideoAnnotation] = {}
        # No lock, which some file systems refuse: nobody else knows the temporary file.
        with atomic_path(features) as aside, h5py.File(aside, "w", locking=False) as file:
            for number in range(videos[split]):
                video = world.video(split, number)
                dataset = file.create_dataset(video.annotation.name, data=video.features.astype(dtype))
                dataset.attrs["fps"] = video.annotation.fps
                dataset.attrs["duration"] = video.annotation.duration_s
                dataset.attrs["snippet_frames"] = SNIPPET_FRAMES
                annotations[video.annotation.name] = video.annotation
                yield video
        write_annotations_csv(labels, annotations)


def _runs(values: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Runs of equal neighbours: the first index of each run, and the index past its last."""
    cuts = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    return list(itertools.pairwise(cuts))


def _envelope(snippets: int, start: float, end: float, ramp: float, level: float) -> Array:
    """How strong an event is in each snippet, [T]: `level` at its bounds, rising to 1 over `ramp` snippets.

    A snippet at a bound has the mean over its frames, as features have.
    """
    envelope = np.zeros(snippets)
    first, past = max(int(np.floor(start)), 0), min(int(np.ceil(end)), snippets)
    if past <= first:
        return envelope
    points = first + (np.arange((past - first) * _FINE) + 0.5) / _FINE
    inside = np.minimum(points - start, end - points)
    height = np.where(inside >= 0, level + (1 - level) * np.clip(inside / max(ramp, 1e-9), 0, 1), 0.0)
    envelope[first:past] = height.reshape(-1, _FINE).mean(axis=1)
    return envelope


def _correlated_noise(rng: np.random.Generator, snippets: int, dim: int, correlation: float) -> Array:
    """Noise [T, D] of standard deviation 1 whose neighbours in time have the given correlation (first order)."""
    noise = rng.standard_normal((snippets, dim))
    noise[1:] *= np.sqrt(1 - correlation**2)
    for t in range(1, snippets):
        noise[t] += correlation * noise[t - 1]
    return noise
