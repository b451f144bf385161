"""Reading ahead: the features of the next batch are read while the model runs on this one.

    reader thread           model thread            the caller's thread
    read, convert, check -> run the model        -> segments, seconds, writing

Each stage is an iterator over the one before it, and `ahead` gives an iterator a thread of its own. ONNX Runtime and
the kernels work without the GIL, so the stages overlap. At most three batches of features exist at a time, whatever
the file's size.
"""

import contextlib
import itertools
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from refineloc.runtime.features.checks import check_finite
from refineloc.runtime.features.store import FeatureStore
from refineloc.runtime.segments.grid import SnippetGrid

if TYPE_CHECKING:
    from refineloc.runtime.model.half import HalfToFloat

__all__ = ["FeatureBatch", "Planned", "ahead", "pack", "read_batches"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Planned:
    """A video to be read, whose shape and times were looked at and fit the model.

    Attributes:
        name: of the video.
        snippets: T.
        half: the file has it in float16.
        columns: which of its columns the model takes.
        grid: its times.
    """

    name: str
    snippets: int
    half: bool
    columns: slice
    grid: SnippetGrid


class FeatureBatch(NamedTuple):
    """Videos for one call of the model.

    Attributes:
        names, grids: of V videos.
        lengths: their snippets, int64 [V].
        features: float32 [S, D], one video after another; belongs to the reader, which fills it again once the batch
            after the next is asked for.
    """

    names: list[str]
    grids: list[SnippetGrid]
    lengths: npt.NDArray[np.int64]
    features: npt.NDArray[np.float32]


def pack(lengths: Sequence[int], limit: int) -> Iterator[slice]:
    """Which neighbours go into one call: as many as have `limit` snippets together; a longer video goes alone.

    The packing from any batch on does not depend on the batches before it, so a resumed run packs as the first one did.
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
) -> Generator[FeatureBatch]:
    """Read videos into batches.

    Args:
        store: where they are.
        planned: the videos, in the order of the batches.
        width: D of the model.
        limit: snippets a call, see `pack`.
        to_float: gives what converts float16; called where a video has it.
        empty: makes the buffers; of `gpu.PinnedBuffers` where the model runs on a GPU.

    Raises:
        FeatureError: a video cannot be read, or has NaN or infinite values.
    """
    parts = [planned[which] for which in pack([video.snippets for video in planned], limit)]
    sizes = [sum(video.snippets for video in videos) for videos in parts]
    fitting = [size for size in sizes if size <= limit]
    # With one batch waiting and one in use (`ahead` of depth 1), a third buffer is free for the next: when the reader
    # begins to fill a buffer again, the batch that had it was left by the model two batches ago.
    buffers = [empty((max(fitting), width)) for _ in fitting[:3]]
    ring = itertools.cycle(buffers)
    for videos, size in zip(parts, sizes, strict=True):
        lengths = np.array([video.snippets for video in videos], dtype=np.int64)
        features = next(ring)[:size] if size <= limit else store.room(videos[0].name, (size, width))
        ends = np.cumsum(lengths)
        for video, begin, end in zip(videos, ends - lengths, ends, strict=True):
            _read(store, video, features[begin:end], to_float)
        yield FeatureBatch([video.name for video in videos], [video.grid for video in videos], lengths, features)


def _read(
    store: FeatureStore, video: Planned, out: npt.NDArray[np.float32], to_float: Callable[[], "HalfToFloat"]
) -> None:
    if not video.half:
        store.read_into(video.name, out, video.columns)
        return
    half = store.room(video.name, out.shape, np.float16)
    store.read_into(video.name, half, video.columns, finite=False)
    to_float()(half, out)
    check_finite(out, f"{store.path}: video {video.name!r}")


class _Failed(NamedTuple):
    error: BaseException


class _End:
    pass


class _Ahead(Generic[_T]):
    """The thread of `ahead`, and the queue that it fills."""

    def __init__(self, items: Iterator[_T], depth: int) -> None:
        self._items = items
        self._ready: queue.Queue[_T | _Failed | _End] = queue.Queue(maxsize=depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="refineloc-ahead", daemon=True)

    def run(self) -> Generator[_T]:
        """Start the thread, and give what it makes."""
        self._thread.start()
        try:
            while True:
                item = self._ready.get()
                if isinstance(item, _Failed):
                    raise item.error
                if isinstance(item, _End):
                    return
                yield item
        finally:
            self._stop.set()
            while self._thread.is_alive():
                with contextlib.suppress(queue.Empty):
                    self._ready.get_nowait()  # lets a waiting put end, which then sees that it should stop
                self._thread.join(0.01)

    def _work(self) -> None:
        try:
            # The iterator is closed in the thread that ran it, and stops what runs ahead of itself.
            closing: Any = (
                contextlib.closing(self._items) if hasattr(self._items, "close") else contextlib.nullcontext()
            )
            with closing:
                for item in self._items:
                    self._ready.put(item)
                    if self._stop.is_set():
                        return
            self._ready.put(_End())
        except BaseException as error:  # whatever it is, it is raised again where the items are awaited
            self._ready.put(_Failed(error))


def ahead(items: Iterator[_T], depth: int = 1) -> Generator[_T]:
    """Run an iterator in a thread of its own, up to `depth` items ahead of what is taken from it.

    Errors arrive where the items do, in their place. Leaving early (a `break`, an error, `close()`) stops the thread
    before control goes on, so what the iterator reads from may be closed then.
    """
    return _Ahead(items, depth).run()
