"""A split: the features of all videos, packed in memory or read ahead from their file, and the videos' labels."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from refineloc.runtime.annotations import Annotations
from refineloc.runtime.errors import AnnotationError, FeatureError, counted, counted_of
from refineloc.runtime.features.checks import check_backbone
from refineloc.runtime.features.opening import open_features
from refineloc.runtime.features.shared import shared_videos
from refineloc.runtime.features.store import FeatureInfo, FeatureStore
from refineloc.runtime.features.streams import stream_slice
from refineloc.runtime.segments.agreement import TimedVideo, check_times, same_length
from refineloc.runtime.segments.grid import SnippetGrid
from refineloc.runtime.segments.times import VideoTimes, video_times
from refineloc.training.data.labels import leak
from refineloc.training.models.layers.packing import spans
from refineloc.training.settings.config import SNIPPET_FRAMES, Config

__all__ = ["Batch", "OnDisk", "Split", "load_split", "refuse_same_features"]

_CPU = torch.device("cpu")
_TWO_STREAMS = 2048  # the width of RGB and flow features of I3D and TSN, joined
_SNIPPETS_A_CALL = 16_384  # bounds the memory, and fills the matrix products


@dataclass(frozen=True, slots=True)
class Batch:
    """Some videos of a split, packed; `features`, `lengths` and `targets` are on the split's device.

    Attributes:
        videos: their indices in the split, int64 [V].
        features: float32 [S, D].
        lengths: snippets of each video, int64 [V].
        targets: labels, float32 [V, N], each row sums to 1, or to 0 as in the split.
        rows: the snippets' indices in the split, int64 [S].
        judged: which videos have a loss, bool [V]; None: all.
    """

    videos: Tensor
    features: Tensor
    lengths: Tensor
    targets: Tensor
    rows: Tensor
    judged: Tensor | None = None


@dataclass(frozen=True, slots=True)
class OnDisk:
    """Features that stay in their file, for splits larger than the memory they may take.

    Attributes:
        store: open, for as long as the split is used.
        columns: of the chosen stream.
        dtype: as stored.
    """

    store: FeatureStore
    columns: slice
    dtype: type[np.float16] | type[np.float32]

    def read(
        self, names: Sequence[str], lengths: Sequence[int], advance: Callable[[int], None] = lambda steps: None
    ) -> Tensor:
        """The features of some videos one after another, [S, D]; `advance` is called with 1 after each video."""
        features = np.empty((sum(lengths), self.columns.stop - self.columns.start), self.dtype)
        end = 0
        for name, length in zip(names, lengths, strict=True):
            start, end = end, end + length
            self.store.read_into(name, features[start:end], self.columns)
            advance(1)
        return torch.from_numpy(features)


@dataclass(frozen=True, slots=True)
class Split:
    """All videos of a split.

    Attributes:
        names: the videos, sorted.
        features: [S, D], float32 or as stored in float16, snippets of all videos one after another; or their file.
        lengths: int64 [V], on the CPU.
        targets: labels, float32 [V, N], each row sums to 1, or to 0 where a video has no label that is trained.
        classes: names, N of them.
        grids: snippets to seconds for each video, None where its fps is not known.
        file_width: of the feature file, before the choice of a stream.
        width: D, after it.
        source: the feature file.
        device: where batches go.
        background: videos without any label, which are background throughout, bool [V]; None: there is none.
        judged: videos that have a loss, bool [V]: not those of a class that is not trained; None: all.
        snippet_frames: H, frames a snippet.
        stride_frames: S, frames from one snippet to the next.
        backbone: what the features were extracted with, "" if no video states it.
        columns: those of the file that are taken.
        two_streams: whether the file is known to hold two streams.
    """

    names: tuple[str, ...]
    features: Tensor | OnDisk
    lengths: Tensor
    targets: Tensor
    classes: tuple[str, ...]
    grids: tuple[SnippetGrid | None, ...]
    file_width: int
    width: int
    source: Path
    device: torch.device = _CPU
    background: Tensor | None = None
    judged: Tensor | None = None
    snippet_frames: int = SNIPPET_FRAMES
    stride_frames: int = SNIPPET_FRAMES
    backbone: str = ""
    columns: slice = field(default_factory=lambda: slice(None))
    two_streams: bool = False

    def __len__(self) -> int:
        return len(self.names)

    @property
    def snippets(self) -> int:
        """S, of all videos."""
        return int(self.lengths.sum())

    @property
    def digest(self) -> str:
        """SHA-256 of the videos' names, lengths and labels: tells data sets apart without reading features."""
        text = json.dumps([self.names, self.lengths.tolist(), self.classes])
        if self.judged is not None:  # of two rows without a label one may be of background, the other of a class
            text += json.dumps(self.judged.tolist())
        return hashlib.sha256(text.encode() + self.targets.numpy().tobytes()).hexdigest()

    @property
    def bytes_held(self) -> int:
        """What the features take in memory."""
        return self.features.nbytes if isinstance(self.features, Tensor) else 0

    def chunks(self) -> Sequence[Tensor]:
        """All videos in order (indices, on the CPU), in groups of about as many snippets as one call takes."""
        call = (torch.cumsum(self.lengths, 0) - 1) // _SNIPPETS_A_CALL
        _, counts = torch.unique_consecutive(call, return_counts=True)
        chunks: Sequence[Tensor] = torch.split(torch.arange(len(self)), counts.tolist())
        return chunks

    def batches(self, groups: Sequence[Tensor], windows: Tensor | None = None) -> Iterator[Batch]:
        """Each group of videos (indices, on the CPU) as a batch, in this order.

        With `windows`, int64 [V, 2], of each video only this: first snippet, and how many. Features that do not lie on
        the device yet are fetched by a thread, one batch ahead of the one in use.
        """
        if not groups or (isinstance(self.features, Tensor) and self.features.device == self.device):
            yield from (self._batch(group, windows) for group in groups)
            return
        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(self._batch, groups[0], windows)
            for group in groups[1:]:
                ready, coming = coming.result(), pool.submit(self._batch, group, windows)
                yield ready
            yield coming.result()

    def _batch(self, videos: Tensor, windows: Tensor | None) -> Batch:
        whole = self.lengths[videos]
        first, lengths = windows[videos].unbind(1) if windows is not None else (torch.zeros_like(whole), whole)
        starts = (torch.cumsum(self.lengths, 0) - self.lengths)[videos]
        rows = spans(starts + first, lengths)
        if isinstance(self.features, OnDisk):
            features = self.features.read([self.names[video] for video in videos.tolist()], whole.tolist())
            if windows is not None:
                features = features[spans(torch.cumsum(whole, 0) - whole + first, lengths)]
        else:
            features = self.features.index_select(0, rows.to(self.features.device))
        # Moved as stored: half the bytes where that is float16.
        features = features.to(self.device).float()
        judged = None if self.judged is None else self.judged[videos].to(self.device)
        return Batch(videos, features, lengths.to(self.device), self.targets[videos].to(self.device), rows, judged)

    def to(self, device: torch.device, room: int | None = None) -> "Split":
        """The same split for training on a device; features go there where they fit into `room` bytes."""
        features = self.features
        if isinstance(features, Tensor) and (room is None or features.nbytes <= room):
            features = features.to(device)
        return dataclasses.replace(self, features=features, device=device)


def load_split(
    features: Path | FeatureStore,
    labels: Annotations,
    config: Config,
    *,
    classes: Sequence[str] | None = None,
    fps: float | None = None,
    allow_missing: bool = False,
    elsewhere: Collection[str] = (),
    memory: int | None = None,
    advance: Callable[[int], None] = lambda steps: None,
) -> Split:
    """Read the features of all labelled videos.

    Args:
        features: HDF5 file or folder, or a store, which stays open.
        labels: of the split, read without times, so that nothing in training can depend on them.
        config: stream, snippet length and which labels of a video count.
        classes: those of training, without which labels of other classes are left; those of the videos that are read
            if left out.
        fps: of videos for which neither file states it.
        allow_missing: go on with the videos that both have, instead of refusing.
        elsewhere: videos with labels of another split, whose features the file may have as well.
        memory: bytes that the features may take; where they take more they stay in their file, which is then read for
            each batch. No limit if left out.
        advance: called with 1 after each video.

    Raises:
        FeatureError: features that cannot be used; a video without snippets; videos of several widths.
        AnnotationError: no label that training knows, or labels that leave a single class.
        InputError: videos in only one of the two files.
    """
    with contextlib.ExitStack() as until_read:
        store = until_read.enter_context(open_features(features)) if isinstance(features, Path) else features
        names = shared_videos(store, labels, allow_missing=allow_missing, elsewhere=elsewhere)
        if classes is None:
            # Not those of videos that are missing: nothing would train their outputs.
            classes = _classes(labels.only(set(names)), config)
        known = tuple(classes)
        infos = [store.info(name) for name in names]
        frames = config.features.snippet_frames or infos[0].snippet_frames or SNIPPET_FRAMES
        stride = config.features.stride_frames or infos[0].stride_frames or frames
        _check(infos, store.path, frames, stride)
        width = infos[0].width
        columns = stream_slice(width, config.features.stream, config.features.stream_order)
        # float16 stays float16 in memory, half the size; a batch is float32.
        dtype = np.float16 if all(info.dtype == np.float16 for info in infos) else np.float32
        lengths = [info.snippets for info in infos]
        file = OnDisk(store, columns, dtype)
        size = sum(lengths) * (columns.stop - columns.start) * np.dtype(dtype).itemsize
        grids = _grids(infos, labels, config, frames, stride, store.path, fps)
        targets = torch.from_numpy(_targets(labels, names, known, config))
        no_label = torch.tensor([not labels[name].labels for name in names])
        judged = targets.any(dim=1) | no_label
        if not judged.any():
            raise AnnotationError(f"{labels.path}: no video has a label that occurs in the training labels")
        split = Split(
            names=names,
            features=file if memory is not None and size > memory else file.read(names, lengths, advance),
            lengths=torch.tensor(lengths, dtype=torch.int64),
            targets=targets,
            classes=known,
            grids=grids,
            file_width=width,
            width=columns.stop - columns.start,
            source=store.path,
            background=no_label if no_label.any() else None,
            judged=None if judged.all() else judged,
            snippet_frames=frames,
            stride_frames=stride,
            backbone=next((info.backbone for info in infos if info.backbone), ""),
            columns=columns,
            two_streams=store.two_streams or width == _TWO_STREAMS,
        )
        if isinstance(split.features, OnDisk):
            until_read.pop_all()
        return split


def refuse_same_features(train: Split, val: Split, labels: Annotations) -> None:
    """Refuse videos of two splits that have the same features under two names. Features in memory alone are compared.

    Raises:
        AnnotationError: there are some; `labels` names the validation's file.
    """
    if not (isinstance(train.features, Tensor) and isinstance(val.features, Tensor)):
        return
    own: Sequence[Tensor] = torch.split(train.features, train.lengths.tolist())
    others: Sequence[Tensor] = torch.split(val.features, val.lengths.tolist())
    # Most videos differ in length or in a first snippet, so that hardly any are compared whole.
    alike: dict[int, list[int]] = {}
    for index, features in enumerate(own):
        alike.setdefault(_signature(features), []).append(index)
    pairs = [
        (val.names[index], train.names[other])
        for index, features in enumerate(others)
        for other in alike.get(_signature(features), ())
        if torch.equal(features.float(), own[other].float())
    ]
    if pairs:
        name, other = pairs[0]
        videos = len({name for name, _ in pairs})
        raise leak(
            labels,
            f"{counted_of(videos, len(val), 'validation video', 'has', 'have')} a training video's features",
            f"{name!r} ({other!r})",
        )


def _signature(features: Tensor) -> int:
    """Equal where features [T, D] are."""
    return hash((len(features), features[0].float().numpy().tobytes()))


def _grids(
    infos: Sequence[FeatureInfo],
    labels: Annotations,
    config: Config,
    frames: int,
    stride: int,
    path: Path,
    fps: float | None,
) -> tuple[SnippetGrid | None, ...]:
    grids = []
    for info in infos:
        rate = config.features.fps if info.fps is None else info.fps
        times = video_times(VideoTimes(rate, info.duration_s), labels[info.name], fps=fps)
        grids.append(times.grid(frames, stride))
    timed = [TimedVideo(info, labels[info.name], grid) for info, grid in zip(infos, grids, strict=True) if grid]
    check_times(timed, path, labels.path, settings="features.")
    return tuple(grids)


def _check(infos: Sequence[FeatureInfo], features: Path, frames: int, stride: int) -> None:
    first = infos[0]
    stated = next((info for info in infos if info.backbone), first)
    for info in infos:
        where = f"{features}: video {info.name!r}"
        check_backbone(info.backbone, stated.backbone, where, f"those of {stated.name!r} are")
        if not info.snippets:
            raise FeatureError(f"{where}: has no snippets; leave it out or extract its features again")
        if info.width != first.width:
            length = same_length(infos)
            how = f"; all videos have {length} rows: are they saved as D x T? Save them transposed" if length else ""
            raise FeatureError(
                f"{where}: features have width {info.width}, those of {first.name!r} have {first.width}{how}"
            )
        if info.snippet_frames not in (None, frames):
            raise FeatureError(
                f"{where}: its snippets have {counted(info.snippet_frames, 'frame')}, not the {frames} "
                f"of the settings or of the other videos; give features.snippet_frames={info.snippet_frames}",
                parameter="setting",
            )
        if info.stride_frames not in (None, stride):
            raise FeatureError(
                f"{where}: its snippets have a stride of {counted(info.stride_frames, 'frame')}, not the {stride} "
                f"of the settings or of the other videos; give features.stride_frames={info.stride_frames}",
                parameter="setting",
            )


def _classes(labels: Annotations, config: Config) -> tuple[str, ...]:
    if len(labels.classes) < 2:
        raise AnnotationError(
            f"{labels.path}: has {len(labels.classes)} class; video labels teach nothing with fewer than 2 classes"
        )
    if config.training.labels == "first":
        unused = sorted(set(labels.classes) - {label for video in labels.values() for label in video.labels[:1]})
        if unused:
            raise AnnotationError(
                f"{labels.path}: {counted(len(unused), 'class is', 'classes are')} never a video's first label, the "
                f"first is {unused[0]!r}; "
                "no video would train them: give training.labels=all",
                parameter="setting",
            )
    return labels.classes


def _targets(
    labels: Annotations, names: Sequence[str], classes: Sequence[str], config: Config
) -> npt.NDArray[np.float32]:
    index = {label: position for position, label in enumerate(classes)}
    targets = np.zeros((len(names), len(classes)), dtype=np.float32)
    for row, name in enumerate(names):
        wanted = labels[name].labels if config.training.labels == "all" else labels[name].labels[:1]
        trained = [label for label in wanted if label in index]
        for label in trained:
            targets[row, index[label]] = 1.0 / len(trained)
    return targets
