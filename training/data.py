"""A split in memory: the features of all videos packed one after another, and their labels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from refineloc.runtime.annotations import Annotations, read_annotations
from refineloc.runtime.errors import AnnotationError, FeatureError, InputError
from refineloc.runtime.features import FeatureStore, open_features, stream_slice
from refineloc.runtime.grid import SnippetGrid
from refineloc.training.config import Config

__all__ = ["Batch", "Split", "load_split", "read_labels"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Some videos of a split, packed.

    Attributes:
        videos: their indices in the split, int64 [V].
        features: float32 [S, D].
        lengths: snippets of each video, int64 [V].
        targets: labels, float32 [V, N], each row sums to 1.
        rows: the snippets' indices in the split, int64 [S].
    """

    videos: Tensor
    features: Tensor
    lengths: Tensor
    targets: Tensor
    rows: Tensor


@dataclass(frozen=True, slots=True)
class Split:
    """All videos of a split.

    Attributes:
        names: the videos, sorted.
        features: [S, D], float32 or as stored in float16, snippets of all videos one after another.
        lengths: int64 [V].
        targets: labels, float32 [V, N], each row sums to 1.
        classes: names, N of them.
        grids: snippets to seconds for each video, None where its fps is not known.
        width: of the feature file, before the choice of a stream.
        source: the feature file.
    """

    names: tuple[str, ...]
    features: Tensor
    lengths: Tensor
    targets: Tensor
    classes: tuple[str, ...]
    grids: tuple[SnippetGrid | None, ...]
    width: int
    source: Path

    def __len__(self) -> int:
        return len(self.names)

    @property
    def snippets(self) -> int:
        """S, of all videos."""
        return self.features.shape[0]

    def batch(self, videos: Tensor) -> Batch:
        """Pack the videos of these indices, in this order."""
        lengths = self.lengths[videos]
        # Row r of the batch is the snippet that lies r - (rows before its video) into its video.
        starts = (torch.cumsum(self.lengths, 0) - self.lengths)[videos]
        before = torch.cumsum(lengths, 0) - lengths
        rows = torch.arange(int(lengths.sum()), device=lengths.device) + torch.repeat_interleave(
            starts - before, lengths
        )
        features = self.features.index_select(0, rows).float()
        return Batch(videos, features, lengths, self.targets[videos], rows)

    def to(self, device: torch.device) -> "Split":
        """The same split with its tensors on a device."""
        return Split(
            self.names,
            self.features.to(device),
            self.lengths.to(device),
            self.targets.to(device),
            self.classes,
            self.grids,
            self.width,
            self.source,
        )


def read_labels(path: Path) -> Annotations:
    """Labels alone: whatever times the file has are not read, so that nothing in training can depend on them."""
    return read_annotations(path, times=False)


def load_split(
    features: Path,
    labels: Annotations,
    config: Config,
    *,
    classes: Sequence[str] | None = None,
    fps: float | None = None,
    allow_missing: bool = False,
    advance: Callable[[int], None] = lambda steps: None,
) -> Split:
    """Read the features of all labelled videos.

    Args:
        features: HDF5 file or folder.
        labels: of the split.
        config: stream, snippet length and which labels of a video count.
        classes: those of training; those of `labels` if left out.
        fps: of videos for which neither file states it.
        allow_missing: go on with the videos that both have, instead of refusing.
        advance: called with 1 after each video.

    Raises:
        FeatureError: features that cannot be used; a video without snippets; videos of several widths.
        AnnotationError: a label that training does not know, or labels that leave a single class.
        InputError: videos in only one of the two files.
    """
    known = tuple(classes) if classes is not None else _classes(labels, config)
    with open_features(features) as store:
        names = _common_videos(store, labels, allow_missing)
        infos = [store.info(name) for name in names]
        width = infos[0].width
        for info in infos:
            where = f"{features}: video {info.name!r}"
            if not info.snippets:
                raise FeatureError(f"{where}: has no snippets; leave it out or extract its features again")
            if info.width != width:
                raise FeatureError(f"{where}: features have width {info.width}, those of {names[0]!r} have {width}")
            if info.snippet_frames not in (None, config.features.snippet_frames):
                raise FeatureError(
                    f"{where}: its snippets have {info.snippet_frames} frames, the configuration says "
                    f"{config.features.snippet_frames}; give --set features.snippet_frames={info.snippet_frames}"
                )
        columns = stream_slice(width, config.features.stream, config.features.stream_order)
        lengths = np.array([info.snippets for info in infos], dtype=np.int64)
        # float16 stays float16 in memory, half the size; a batch is float32.
        dtype = np.float16 if all(info.dtype == np.float16 for info in infos) else np.float32
        packed = np.empty((int(lengths.sum()), columns.stop - columns.start), dtype=dtype)
        at = 0
        for info in infos:
            store.read_into(info.name, packed[at : at + info.snippets], columns)
            at += info.snippets
            advance(1)
    grids = []
    for info in infos:
        stated = labels[info.name]
        rate = stated.fps or info.fps or fps
        duration = stated.duration_s or info.duration_s
        grids.append(SnippetGrid(rate, config.features.snippet_frames, duration) if rate else None)
    return Split(
        names=names,
        features=torch.from_numpy(packed),
        lengths=torch.from_numpy(lengths),
        targets=torch.from_numpy(_targets(labels, names, known, config)),
        classes=known,
        grids=tuple(grids),
        width=width,
        source=features,
    )


def _classes(labels: Annotations, config: Config) -> tuple[str, ...]:
    if len(labels.classes) < 2:
        raise AnnotationError(
            f"{labels.path}: has {len(labels.classes)} class; video labels teach nothing with fewer than 2 classes"
        )
    if config.training.labels == "first":
        unused = sorted(set(labels.classes) - {video.labels[0] for video in labels.values()})
        if unused:
            raise AnnotationError(
                f"{labels.path}: {len(unused)} classes are never a video's first label, the first is {unused[0]!r}; "
                "no video would train them: --set training.labels=all"
            )
    return labels.classes


def _targets(
    labels: Annotations, names: Sequence[str], classes: Sequence[str], config: Config
) -> npt.NDArray[np.float32]:
    index = {label: position for position, label in enumerate(classes)}
    targets = np.zeros((len(names), len(classes)), dtype=np.float32)
    for row, name in enumerate(names):
        wanted = labels[name].labels if config.training.labels == "all" else labels[name].labels[:1]
        for label in wanted:
            if label not in index:
                raise AnnotationError(
                    f"{labels.path}: video {name!r}: label {label!r} does not occur in the training labels"
                )
            targets[row, index[label]] = 1.0 / len(wanted)
    return targets


def _common_videos(store: FeatureStore, labels: Annotations, allow_missing: bool) -> tuple[str, ...]:
    with_features = set(store.names)
    for missing, text in (
        (sorted(labels.keys() - with_features), f"videos of {labels.path} have no features in {store.path}"),
        (sorted(with_features - labels.keys()), f"videos of {store.path} have no labels in {labels.path}"),
    ):
        if missing and not allow_missing:
            raise InputError(
                f"{len(missing)} {text}, the first is {missing[0]!r}; --allow-missing goes on without them"
            )
    names = tuple(sorted(labels.keys() & with_features))
    if not names:
        raise InputError(f"{store.path} and {labels.path} have no video in common")
    return names
