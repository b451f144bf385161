"""Reads the features of the next batch while the model runs on this one.

    reader thread           model threads           the caller's thread
    read, check, convert -> run the model        -> segments, seconds, writing

Each stage is an iterator over the one before it, and `ahead` runs an iterator in threads of its own. ONNX Runtime and
the kernels release the GIL, so the stages overlap. At most three batches of features exist at a time. A model on a GPU
is faster than one reader: there several threads read the videos of a batch, and four batches exist.

Where calls run beside each other (int8 on a CPU), each thread reads a batch and then runs the model on it. One more
thread that reads ahead took 13 % more time: it takes a core from the calls.
"""

import collections
import contextlib
import itertools
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from refineloc.runtime.features.store import FeatureStore
from refineloc.runtime.segments.agreement import TimedVideo
from refineloc.runtime.segments.grid import SnippetGrid

if TYPE_CHECKING:
    from refineloc.runtime.model.half import HalfToFloat

__all__ = ["FeatureBatch", "Planned", "ahead", "pack", "read_batches"]

_T = TypeVar("_T")
_U = TypeVar("_U")


def _same(item: Any) -> Any:
    return item


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
            the next one is requested, or until the thread that asked for this one asks again (`read_batches`).
        left: how many batches come after it, as far as is known.
    """

    names: list[str]
    grids: list[SnippetGrid]
    lengths: npt.NDArray[np.int64]
    features: npt.NDArray[np.float32]
    left: int = 0


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
    threads: int = 1,
) -> Generator[FeatureBatch]:
    """Read videos into batches.

    Args:
        store, planned: where the videos are, and which, in the order of the batches.
        width: D of the model.
        limit: snippets of a call, see `pack`.
        to_float: gives the converter of float16; called only if a video has float16.
        empty: allocates the buffers; that of `gpu.PinnedBuffers` if the model runs on a GPU.
        readers: threads that read, where the store allows more than one.
        threads: how many `ahead` runs this generator and the model in; 1: the model has a thread of its own.

    Raises:
        FeatureError: a video cannot be read, or has NaN or infinite values.
    """
    batches = [planned[part] for part in pack([video.snippets for video in planned], limit)]
    sizes = [sum(video.snippets for video in videos) for videos in batches]
    # Threads keep room for longer videos too: memory that is new takes as long as reading.
    most = limit if threads == 1 else 2 * limit
    fitting = [size for size in sizes if size <= most]
    several = readers > 1 and store.concurrent and threads == 1
    longest = max((video for video in planned if video.half), key=lambda video: video.snippets, default=None)
    half_shape = (0 if longest is None else longest.snippets, width)
    # Memory for float16 features: to ask for it anew for each video would take as long as reading.
    scratch = _kept(lambda: store.room("" if longest is None else longest.name, half_shape, np.float16), several)
    shape = max(fitting, default=0), width
    if threads == 1:
        # One batch waits and one is in use (see `ahead`), so the buffer after those is free for the next batch. Several
        # readers begin with the batch after the next, so that none of them waits for the last video of a batch.
        ring = itertools.cycle([empty(shape) for _ in fitting[: 3 + several]])
        buffer: Callable[[], npt.NDArray[np.float32]] = partial(next, ring)
    else:  # a thread reads again when it has done with its batch
        buffer = _kept(lambda: empty(shape), True)
    begun: collections.deque[tuple[FeatureBatch, list[Callable[[], None]]]] = collections.deque()
    with _readers(readers if several else 1) as submit:
        for index, (videos, size) in enumerate(zip(batches, sizes, strict=True)):
            lengths = np.array([video.snippets for video in videos], dtype=np.int64)
            features = buffer()[:size] if size <= most else store.room(videos[0].name, (size, width))
            ends = np.cumsum(lengths)
            jobs = [
                submit(partial(_read, store, video, features[begin:end], to_float, scratch))
                for video, begin, end in zip(videos, ends - lengths, ends, strict=True)
            ]
            names, grids = [video.name for video in videos], [video.grid for video in videos]
            begun.append((FeatureBatch(names, grids, lengths, features, len(batches) - 1 - index), jobs))
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


def _kept(make: Callable[[], npt.NDArray[Any]], each: bool) -> Callable[[], npt.NDArray[Any]]:
    """Gives one array, every time; with `each` another one to each thread."""
    if each:
        own = _OfThread(make)
        return lambda: own.array
    array = make()
    return lambda: array


class _OfThread(threading.local):
    def __init__(self, make: Callable[[], npt.NDArray[Any]]) -> None:
        self.array = make()


def _read(
    store: FeatureStore,
    video: Planned,
    out: npt.NDArray[np.float32],
    to_float: Callable[[], "HalfToFloat"],
    scratch: Callable[[], npt.NDArray[np.float16]],
) -> None:
    if not video.half:
        store.read_into(video.name, out, video.columns)
        return
    half = scratch()[: len(out)]
    store.read_into(video.name, half, video.columns)
    to_float()(half, out)


def ahead(items: Generator[_T], step: Callable[[_T], _U] = _same, threads: int = 1) -> Generator[_U]:
    """Run a generator, and `step` on each of its items, in threads of their own; the results come in order.

    One result waits for the caller while each thread makes another. One thread at a time runs the generator. Errors of
    it and of `step` are raised in the caller, after the results before them. Leaving early (`break`, an error,
    `close()`) waits for the threads to stop, so the caller may then close what the generator reads from.
    """
    # Imported here: it loads logging, which embedding with arrays does not need.
    from concurrent.futures import Future, ThreadPoolExecutor

    end: Any = object()
    waiting: collections.deque[Future[_U]] = collections.deque()
    turn = threading.Event()  # set when all items that were asked for have been taken
    turn.set()

    def make(turn: threading.Event, next_turn: threading.Event) -> _U:
        turn.wait()
        try:
            item: Any = next(items, end)
        finally:
            next_turn.set()
        return end if item is end else step(item)

    with contextlib.closing(items), ThreadPoolExecutor(threads, "refineloc-ahead") as pool:

        def request() -> None:
            nonlocal turn
            next_turn = threading.Event()
            # A pool takes nothing any more once the main thread has ended. Another thread goes on without it.
            with contextlib.suppress(RuntimeError):
                waiting.append(pool.submit(make, turn, next_turn))
                turn = next_turn

        try:
            for _ in range(threads + 1):
                request()
            while (result := waiting.popleft().result() if waiting else make(turn, turn)) is not end:
                request()
                yield result
        finally:
            pool.shutdown(cancel_futures=True)
