"""From a file of features to detections."""

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmarks.gpu.measure import LENGTH, Sizes, best, model_of, table
from refineloc.runtime import Detector, open_features
from refineloc.runtime.batches import read_batches
from refineloc.runtime.model.gpu import PinnedBuffers
from refineloc.runtime.segments.rules import ManyThresholds, OneThreshold


def end_to_end(sizes: Sizes, folder: Path) -> list[str]:
    """Detection in a file of features in the page cache, by snippets of a call, precision and rule."""
    lengths = np.clip(np.random.default_rng(0).lognormal(np.log(LENGTH), 0.8, sizes.videos), 8, 2000).astype(int)
    snippets = int(lengths.sum())
    rng = np.random.default_rng(1)
    names = {np.float16: folder / "float16.h5", np.float32: folder / "float32.h5"}
    for dtype, path in names.items():
        with h5py.File(path, "w") as file:
            for index, length in enumerate(lengths):
                file[f"v{index:04}"] = rng.standard_normal((length, sizes.width), dtype=np.float32).astype(dtype)
    one, many = OneThreshold(), ManyThresholds()
    rows = []
    for dtype, precision, rules in (
        (np.float16, "fp32", one),
        (np.float16, "fp16", one),
        (np.float16, "fp16", many),
        (np.float32, "fp32", one),
    ):
        path, model = names[dtype], model_of(sizes, folder, precision, rules)  # type: ignore[arg-type, index]
        make = partial(Detector, model, provider=sizes.device)
        detectors = [make(batch_snippets=batch) for batch in sizes.batches[:3]]
        seconds = [best(partial(whole, detector, path), sizes.budget_s) for detector in detectors]
        detectors[1]._readers = 1
        seconds.append(best(partial(whole, detectors[1], path), sizes.budget_s))
        with without_page_locking():
            seconds.append(best(partial(whole, make(batch_snippets=sizes.batches[1]), path), sizes.budget_s))
        detectors[1]._readers = detectors[0]._readers
        seconds.append(best(partial(only_read, detectors[1], path), sizes.budget_s))
        seconds.append(best(partial(read, path, lengths, sizes), sizes.budget_s))
        plan_s = best(partial(only_planned, detectors[1], path), sizes.budget_s)
        cells = [f"{snippets / each / 1e6:.2f}" for each in seconds]
        rows.append((np.dtype(dtype).name, precision, type(rules).__name__, *cells, f"{plan_s / seconds[1]:.2f}"))
    calls = " | ".join(f"calls of {batch:,}" for batch in sizes.batches[:3])
    middle = f"{sizes.batches[1]:,}"
    head = f"file | model | rule | {calls} | {middle}, one reader | {middle}, not page-locked"
    told = f"Millions of snippets a second, {len(lengths)} videos, {snippets:,} snippets."
    told += f" All are looked at before the first is read: the last column is its share of the time at {middle}."
    return [told, "", *table(f"{head} | batches alone | reading alone, one thread | looking at all", rows)]


@contextlib.contextmanager
def without_page_locking() -> Iterator[None]:
    """Buffers in ordinary memory."""
    before = PinnedBuffers._take
    PinnedBuffers._take = lambda self, size: np.empty(size, np.float32)  # type: ignore[method-assign]
    try:
        yield
    finally:
        PinnedBuffers._take = before  # type: ignore[method-assign]


def only_planned(detector: Detector, path: Path) -> None:
    """What comes before the first video is read."""
    with open_features(path) as store:
        detector.plan(store, store.names, fps=25.0)


def only_read(detector: Detector, path: Path) -> None:
    """All but the model and what follows it."""
    with open_features(path) as store, detector._buffers.lent() as empty:
        planned = detector.plan(store, store.names, fps=25.0)
        limit, width = detector._batch_snippets, detector.metadata.width
        for _ in read_batches(store, planned, width, limit, detector._half_to_float, empty, detector._readers):
            pass


def read(path: Path, lengths: Any, sizes: Sizes) -> None:
    """All features of a file, on one thread."""
    with open_features(path) as store:
        buffer = np.empty((int(lengths.max()), sizes.width), store.info(store.names[0]).dtype)
        for name, length in zip(store.names, lengths, strict=True):
            store.read_into(name, buffer[:length], slice(0, sizes.width))


def whole(detector: Detector, path: Path) -> None:
    """Detection in all videos of a file."""
    with open_features(path) as store:
        for _ in detector.detect_many(store, fps=25.0):
            pass
