"""How far an exported file is from the trained model, measured on features, and the tolerances."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from refineloc.evaluation import evaluate, match_detections
from refineloc.runtime.annotations import Annotations
from refineloc.runtime.batches import pack
from refineloc.runtime.detections import Detections
from refineloc.runtime.errors import InputError, ModelError, counted
from refineloc.runtime.features.shared import shared_videos
from refineloc.runtime.features.store import FeatureStore
from refineloc.runtime.model.limits import BATCH_SNIPPETS
from refineloc.runtime.model.metadata import ModelMetadata, Parity, Precision
from refineloc.runtime.model.session import Session
from refineloc.runtime.segments.agreement import TimedVideo, check_times
from refineloc.runtime.segments.grid import SnippetGrid
from refineloc.runtime.segments.postprocess import segments
from refineloc.runtime.segments.times import video_times
from refineloc.runtime.segments.values import POINT_SCORES, SNIPPET_SCORES, Scores, Segments
from refineloc.training.data.split import Split
from refineloc.training.models.base_model import BaseModel

__all__ = [
    "TOLERANCES", "Sample", "Tolerance", "Video", "generated_sample", "measure", "problems", "read_sample", "sample_of",
]  # fmt: skip

# Enough videos for reliable figures, few enough that an export takes seconds.
MAX_SNIPPETS = 50_000


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a file may be from the trained model.

    Attributes:
        scores: largest difference of any output (they are in [0, 1]; distances as shares, see `measure`).
        detections: detections lost or gained, as a share of the trained model's. One that moved (one lost, one gained)
            is always allowed, as a score can lie on a threshold.
        map: by how much average mAP may fall (fraction of 1).
    """

    scores: float
    detections: float
    map: float


# A few times the measured values (docs/reference/onnx.md): a file beyond has a defect, or its model does not tolerate
# rounding.
TOLERANCES: Mapping[Precision, Tolerance] = {
    "fp32": Tolerance(scores=1e-4, detections=0.002, map=0.0005),
    "fp16": Tolerance(scores=5e-3, detections=0.01, map=0.001),
    "int8": Tolerance(scores=0.1, detections=0.10, map=0.01),
}


class Video(NamedTuple):
    """One video to measure on: features float32 [T, D], and its grid of seconds if its fps is known."""

    name: str
    features: npt.NDArray[np.float32]
    grid: SnippetGrid | None


@dataclass(frozen=True, slots=True)
class Sample:
    """What parity is measured on.

    Attributes:
        source: the name of the feature file, or "generated".
        videos: the videos.
        annotations: ground truth of these videos, None if not known.
    """

    source: str
    videos: tuple[Video, ...]
    annotations: Annotations | None = None


def read_sample(
    store: FeatureStore, metadata: ModelMetadata, annotations: Annotations | None, fps: float | None = None
) -> Sample:
    """Videos spread evenly over a feature file, about 50,000 snippets at most.

    Args:
        store: has the model's features, or both streams if the model takes one.
        metadata: of the model.
        annotations: if they have segments, mAP is compared too. They give fps and durations that the store lacks.
        fps: of videos for which neither states it.

    Raises:
        FeatureError: features of another width.
        InputError: no video in common.
    """
    names = store.names if annotations is None else shared_videos(store, annotations, allow_missing=True)
    infos = [info for info in map(store.info, names) if info.snippets]
    if not infos:
        raise InputError(f"{store.path}: no video to compare the file with the trained model on")
    videos, timed = [], []
    for info in infos[:: _step(info.snippets for info in infos)]:
        labels = annotations[info.name] if annotations is not None else None
        # Without fps, snippets are compared and mAP is not.
        grid = video_times(info, labels, fps=fps).grid(
            metadata.snippet_frames, info.stride_frames or metadata.stride_frames
        )
        columns = metadata.columns(info.width, f"{store.path}: video {info.name!r}")
        if grid is not None:
            timed.append(TimedVideo(info, labels, grid))
        videos.append(Video(info.name, store.read(info.name, columns), grid))
    check_times(timed, store.path, "the labels" if annotations is None else annotations.path)
    truth = None
    if annotations is not None and annotations.has_times and all(video.grid for video in videos):
        truth = Annotations({video.name: annotations[video.name] for video in videos}, annotations.path)
    return Sample(store.path.name, tuple(videos), truth)


def sample_of(split: Split, truth: Annotations | None) -> Sample:
    """The same of a split that is in memory, which has the model's features.

    Args:
        split: videos with snippets.
        truth: their times; None where they are not known.
    """
    chosen = range(len(split))[:: _step(split.lengths.tolist())]
    videos = [
        Video(split.names[index], batch.features.cpu().numpy(), split.grids[index])
        for index, batch in zip(chosen, split.batches([torch.tensor([index]) for index in chosen]), strict=True)
    ]
    known = truth is not None and all(video.grid for video in videos)
    annotations = Annotations({v.name: truth[v.name] for v in videos}, truth.path) if known and truth else None
    return Sample(split.source.name, tuple(videos), annotations)


def _step(snippets: Iterable[int]) -> int:
    """Every how many-th video is taken, so that they have about `MAX_SNIPPETS` snippets."""
    return -(-sum(snippets) // MAX_SNIPPETS)


def generated_sample(model: BaseModel, metadata: ModelMetadata, seed: int = 0) -> Sample:
    """Generated features, for a checkpoint that comes without data.

    Random features give most models no detections, and so nothing to compare. So each snippet is moved along the
    gradient of the logits of one class and of the foreground. The amount changes slowly over time and takes both
    through their whole range.
    """
    generator = np.random.default_rng(seed)
    videos = []
    for index, snippets in enumerate((1, 2, 3, 10, 100, 280, 600, 2000)):
        noise = np.maximum(generator.standard_normal((snippets, metadata.width)), 0.0).astype(np.float32)
        features = torch.from_numpy(noise).requires_grad_()
        with torch.enable_grad():
            class_logits, attention_logits, *_ = model(features, torch.tensor([snippets]))
            foreground = attention_logits[:, -1] - (attention_logits[:, 0] if attention_logits.shape[1] == 2 else 0.0)
            wanted = class_logits[:, index % len(metadata.classes)] + foreground
            (gradient,) = torch.autograd.grad(wanted.sum(), features)
        phase = generator.uniform(0.0, 2.0 * np.pi) + np.arange(snippets) / 3.0
        change = torch.from_numpy(10.0 * np.sin(phase)).float()[:, None]
        moved = features.detach() + change * gradient / gradient.square().sum(dim=1, keepdim=True).clamp_min(1e-12)
        videos.append(Video(f"generated-{index}", moved.numpy(), None))
    return Sample("generated", tuple(videos))


def measure(model: BaseModel, session: Session, sample: Sample) -> Parity:
    """Run the trained model and the file on the same videos and compare outputs, detections and mAP.

    The difference of a student's distance is a share of it, or of one snippet where it is shorter.

    Raises:
        ModelError: the outputs of the trained model are not finite, or those of the file for any features.
        FeatureError: a video's features overflow in the file.
    """
    metadata = session.metadata
    model = model.eval()
    outputs = SNIPPET_SCORES + (POINT_SCORES if model.levels else ())
    largest = dict.fromkeys(outputs, 0.0)
    # Of the trained model and of the file: segments by video.
    results: tuple[dict[str, Segments], dict[str, Segments]] = {}, {}
    for part in pack([len(video.features) for video in sample.videos], BATCH_SNIPPETS):
        batch = sample.videos[part]
        names = [f"{sample.source}: video {video.name!r}" for video in batch]
        features = np.concatenate([video.features for video in batch])
        lengths = np.array([len(video.features) for video in batch], dtype=np.int64)
        both = _torch_scores(model, features, lengths), session.run(features, lengths, names)
        for name, expected, got in zip(outputs, *(each.arrays for each in both), strict=True):
            scale = np.maximum(expected, 1.0) if name == "distances" else 1.0
            difference = float((np.abs(expected - got) / scale).max(initial=0.0))
            if not math.isfinite(difference):  # max() below would skip NaN
                raise ModelError(f"{sample.source}: the trained model's {name} are not finite; nothing to compare with")
            largest[name] = max(largest[name], difference)
        for scores, result in zip(both, results, strict=True):
            by_video = segments(scores, lengths, metadata.detection).by_video(len(batch))
            result.update(zip((video.name for video in batch), by_video, strict=True))
    keys = [{(name, *key) for name, detected in result.items() for key in _keys(detected)} for result in results]
    reference_map, file_map = None, None
    if sample.annotations is not None:
        reference_map, file_map = (_average_map(result, sample, metadata.classes) for result in results)
    return Parity(
        source=sample.source,
        videos=len(sample.videos),
        snippets=sum(len(video.features) for video in sample.videos),
        **largest,
        detections=len(keys[0]),
        lost=len(keys[0] - keys[1]),
        gained=len(keys[1] - keys[0]),
        reference_map=reference_map,
        map=file_map,
    )


def problems(parity: Parity, tolerance: Tolerance) -> list[str]:
    """What exceeds the tolerance, in words; empty if nothing does."""
    too_far = []
    for name in SNIPPET_SCORES + POINT_SCORES:
        difference = getattr(parity, name)
        if difference is not None and not difference <= tolerance.scores:
            too_far.append(f"{name} differs by {difference:.2g} (at most {tolerance.scores:g})")
    changed = parity.lost + parity.gained
    moved = parity.lost <= 1 and parity.gained <= 1
    if not moved and changed > tolerance.detections * parity.detections:
        too_far.append(
            f"{changed} of {counted(parity.detections, 'detection')} lost or gained (at most "
            f"{100 * tolerance.detections:g} %)"
        )
    if parity.reference_map is not None and parity.map is not None:
        fall = parity.reference_map - parity.map
        if fall > tolerance.map:
            too_far.append(f"average mAP falls by {100 * fall:.2f} points (at most {100 * tolerance.map:g})")
    return too_far


def _torch_scores(model: BaseModel, features: npt.NDArray[np.float32], lengths: npt.NDArray[np.int64]) -> Scores:
    with torch.inference_mode():
        packed = torch.from_numpy(lengths)
        outputs = model(torch.from_numpy(features), packed)
        parts = (*model.activations(outputs, packed), *model.points(outputs))
    return Scores.of(part.numpy() for part in parts)


def _keys(segments: Segments) -> Iterator[tuple[int, int, int]]:
    """What identifies a segment of a video: class, first and last snippet.

    To the nearest whole snippet: fused bounds are means, which move a little with every score.
    """
    bounds = (np.rint(each).astype(np.int64).tolist() for each in (segments.first, segments.last))
    return zip(segments.label.tolist(), *bounds, strict=True)


def _average_map(segments: Mapping[str, Segments], sample: Sample, classes: tuple[str, ...]) -> float:
    """Average mAP of the segments, as by refineloc-eval."""
    assert sample.annotations is not None  # for the type checker: the caller has checked
    detections = {
        video.name: Detections.from_segments(video.grid, segments[video.name], classes)
        for video in sample.videos
        if video.grid is not None  # all have one: a sample with ground truth knows all fps
    }
    return float(evaluate(match_detections(detections, sample.annotations)).average_mAP)
