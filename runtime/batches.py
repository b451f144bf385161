"""Reads the features of the next batch while the model runs on this one.

    reader thread           model thread            the caller's thread
    read, convert, check -> run the model        -> segments, seconds, writing

Each stage is an iterator over the one before it, and `ahead` runs an iterator in a thread of its own. ONNX Runtime and
the kernels release the GIL, so the stages overlap. At most three batches of features exist at a time. A model on a GPU
is faster than one reader: there several threads read the videos of a batch, and four batches exist.
"""

import collections
import contextlib
import itertools
import math
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from refineloc.runtime.features.checks import check_finite
from refineloc.runtime.features.store import FeatureStore
from refineloc.runtime.segments.agreement import TimedVideo
from refineloc.runtime.segments.grid import SnippetGrid

if TYPE_CHECKING:
    from refineloc.runtime.model.half import HalfToFloat

__all__ = ["FeatureBatch", "Planned", "ahead", "pack", "read_batches"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Planned:
    """A video to be read. Its shape and times were checked against the model.

    Attributes:
        name: of the video.
        snippets: T.
        half: whether the file has float16.
        columns: the columns that the model takes.
        grid: snippets to seconds.
        timed: what states its times.
    """

    name: str
    snippets: int
    half: bool
    columns: slice
    grid: SnippetGrid
    timed: TimedVideo | None = None


class FeatureBatch(NamedTuple):
    """Videos for one call of the model.

    Attributes:
        names, grids: of V videos.
        lengths: their numbers of snippets, int64 [V].
        features: float32 [S, D], one video after another. A view of the reader's buffer, valid until the batch after
            the next one is requested.
    """

    names: list[str]
    grids: list[SnippetGrid]
    lengths: npt.NDArray[np.int64]
    features: npt.NDArray[np.float32]


def pack(lengths: Sequence[int], limit: int) -> Iterator[slice]:
    """Split consecutive videos into calls of at most `limit` snippets; a longer video is a call of its own.

    The split after a batch does not depend on the batches before it, so a resumed run has the same batches.
    """
    begin = size = 0
    for index, length in enumerate(lengths):
        if index > begin and size + length > limit:
            yield slice(begin, index)
            begin, size = index, 0
        size += length
    if begin < len(lengths):
        yield slice(begin, len(lengths))


def read_batches(
    store: FeatureStore,
    planned: Sequence[Planned],
    width: int,
    limit: int,
    to_float: Callable[[], "HalfToFloat"],
    empty: Callable[[tuple[int, ...]], npt.NDArray[np.float32]],
    readers: int = 1,
) -> Generator[FeatureBatch]:
    """Read videos into batches.

    Args:
        store, planned: where the videos are, and which, in the order of the batches.
        width: D of the model.
        limit: snippets of a call, see `pack`.
        to_float: gives the converter of float16; called only if a video has float16.
        empty: allocates the buffers; that of `gpu.PinnedBuffers` if the model runs on a GPU.
        readers: threads that read, where the store allows more than one.

    Raises:
        FeatureError: a video cannot be read, or has NaN or infinite values.
    """
    batches = [planned[part] for part in pack([video.snippets for video in planned], limit)]
    sizes = [sum(video.snippets for video in videos) for videos in batches]
    fitting = [size for size in sizes if size <= limit]
    scratch, several = _Scratch(), readers > 1 and store.concurrent
    # One batch waits and one is in use (see `ahead`), so the third buffer is free for the next batch. Several readers
    # begin with the one after it, so that none of them waits for the last video of a batch.
    buffers = [empty((max(fitting), width)) for _ in fitting[: 3 + several]]
    ring = itertools.cycle(buffers)
    begun: collections.deque[tuple[FeatureBatch, list[Callable[[], None]]]] = collections.deque()
    with _readers(readers if several else 1) as submit:
        for videos, size in zip(batches, sizes, strict=True):
            lengths = np.array([video.snippets for video in videos], dtype=np.int64)
            features = next(ring)[:size] if size <= limit else store.room(videos[0].name, (size, width))
            ends = np.cumsum(lengths)
            jobs = [
                submit(partial(_read, store, video, features[begin:end], to_float, scratch))
                for video, begin, end in zip(videos, ends - lengths, ends, strict=True)
            ]
            names, grids = [video.name for video in videos], [video.grid for video in videos]
            begun.append((FeatureBatch(names, grids, lengths, features), jobs))
            if len(begun) > several:
                yield _finished(*begun.popleft())
        while begun:
            yield _finished(*begun.popleft())


@contextlib.contextmanager
def _readers(count: int) -> Iterator[Callable[[Callable[[], None]], Callable[[], None]]]:
    """Takes jobs for this many threads and gives what waits for each; one does its jobs when it is waited for."""
    if count == 1:
        yield lambda job: job
        return
    from concurrent.futures import ThreadPoolExecutor  # see `ahead`

    pool = ThreadPoolExecutor(count, "refineloc-reader")

    def submit(job: Callable[[], None]) -> Callable[[], None]:
        try:
            return pool.submit(job).result
        except RuntimeError:  # the main thread has ended, see `ahead`
            return job

    try:
        yield submit
    finally:
        pool.shutdown(cancel_futures=True)


def _finished(batch: FeatureBatch, jobs: list[Callable[[], None]]) -> FeatureBatch:
    """The batch, once it was read; raises the first error in the order of its videos."""
    for wait in jobs:
        wait()
    return batch


class _Scratch(threading.local):
    """Memory for float16 features, of each thread: to ask for it anew for each video would take as long as reading."""

    flat: npt.NDArray[np.float16] = np.empty(0, np.float16)

    def room(self, store: FeatureStore, name: str, shape: tuple[int, int]) -> npt.NDArray[np.float16]:
        size = math.prod(shape)
        if size > len(self.flat):
            self.flat = np.empty(0, np.float16)
            self.flat = store.room(name, shape, np.float16).reshape(-1)
        return self.flat[:size].reshape(shape)


def _read(
    store: FeatureStore,
    video: Planned,
    out: npt.NDArray[np.float32],
    to_float: Callable[[], "HalfToFloat"],
    scratch: _Scratch,
) -> None:
    if not video.half:
        store.read_into(video.name, out, video.columns)
        return
    half = scratch.room(store, video.name, (len(out), out.shape[1]))
    store.read_into(video.name, half, video.columns, finite=False)
    to_float()(half, out)
    check_finite(out, f"{store.path}: video {video.name!r}")


def ahead(items: Generator[_T]) -> Generator[_T]:
    """Run a generator in a thread of its own: one item waits for the caller while the thread makes the next.

    An error of the generator is raised in the caller, after the items before it. Leaving early (`break`, an error,
    `close()`) waits for the thread to stop, so the caller may then close what the generator reads from.
    """
    # Imported here: it loads logging, which embedding with arrays does not need.
    from concurrent.futures import Future, ThreadPoolExecutor

    end: Any = object()
    waiting: collections.deque[Future[_T]] = collections.deque()
    with contextlib.closing(items), ThreadPoolExecutor(1, "refineloc-ahead") as pool:

        def request() -> None:
            # A pool takes nothing any more once the main thread has ended. Another thread goes on without it.
            with contextlib.suppress(RuntimeError):
                waiting.append(pool.submit(next, items, end))

        try:
            request()
            request()
            while (item := waiting.popleft().result() if waiting else next(items, end)) is not end:
                request()
                yield item
        finally:
            pool.shutdown(cancel_futures=True)
