"""Epochs of training on a data set of ActivityNet's size, against their products."""

import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.measure import CLASSES, WHERE_TIME_GOES, Sizes, best, device_seconds, rates, short, table, wait
from benchmarks.training import products, student_products
from refineloc.runtime.segments.grid import SnippetGrid
from refineloc.runtime.segments.values import Segments
from refineloc.training.data.split import Split
from refineloc.training.fit import Labelled, fit
from refineloc.training.machine.products import products_in
from refineloc.training.models.base_model import build_model
from refineloc.training.scoring import detect
from refineloc.training.settings.config import resolve
from refineloc.training.targets import SegmentTargets


def random_split(sizes: Sizes, videos: int, seed: int) -> Split:
    """Features of noise in float16 on the device, with lengths that vary as ActivityNet's."""
    draws = np.random.default_rng(seed)
    lengths = torch.from_numpy(np.clip(draws.normal(sizes.length, sizes.length / 2, videos), 4, None).astype(np.int64))
    features = torch.empty((int(lengths.sum()), sizes.width), dtype=torch.float16, device=sizes.device)
    for part in features.split(65536):
        part.copy_(torch.randn(part.shape, device=sizes.device))
    classes = tuple(f"c{index}" for index in range(CLASSES))
    targets = torch.nn.functional.one_hot(torch.from_numpy(draws.integers(0, CLASSES, videos)), CLASSES).float()
    grids = tuple(SnippetGrid(25.0, 16, length * 16 / 25.0) for length in lengths.tolist())
    names = tuple(f"v{index:05}" for index in range(videos))
    return Split(
        names, features, lengths, targets, classes, grids, sizes.width, sizes.width, Path("noise"),
        device=torch.device(sizes.device),
    )  # fmt: skip


def training(sizes: Sizes, folder: Path) -> list[str]:
    """Epochs of a data set of ActivityNet's size, with the paper's settings for it, against their products."""
    train, val = random_split(sizes, sizes.train, 0), random_split(sizes, sizes.val, 1)
    labelled = [
        Labelled(split, (torch.rand(split.snippets) > 0.5).long(), torch.ones(2, device=sizes.device))
        for split in (train, val)
    ]
    base: dict[str, Any] = {"preset": "activitynet-i3d", "features": {"stream": "both"}, "training": {"epochs": 4}}
    precisions = ("float32", "tf32", "bf16") if sizes.device == "cuda" else ("float32", "bf16")
    rows, slowest = [], 0.0
    for precision in precisions:
        config = resolve(base, {"training": {"precision": precision}})
        seconds, scores = [], None
        with products_in(precision):
            begin = time.perf_counter()
            for epoch in fit(config, *labelled, 1, scored=True):
                wait()
                seconds.append(time.perf_counter() - begin)
                scores = epoch.scores or scores
                begin = time.perf_counter()
            assert scores is not None
            detect_s = best(lambda: detect(config, val, scores), 0.0, 1)  # noqa: B023
        epoch_s = min(seconds[1:])
        limit = products(train, val, build_model(config.model, sizes.width, CLASSES)) / rates(sizes)[precision]
        minutes = (200 * epoch_s + 4 * detect_s) / 60
        rows.append(
            (precision, f"{seconds[0]:.2f}", f"{epoch_s:.2f}", f"{limit:.2f}", f"{limit / epoch_s:.2f}",
             f"{detect_s:.2f}", f"{minutes:.1f}")
        )  # fmt: skip
        slowest = max(slowest, epoch_s)
    size = f"{train.snippets:,} + {val.snippets:,} snippets x {sizes.width} in float16 on the device"
    head = "precision | first epoch, s | epoch, s | its products alone, s | share | detection of one iteration, s"
    return [
        f"{size}.",
        "",
        *table(f"{head} | 4 iterations x 50 epochs, minutes (computed)", rows),
        "",
        profiled(sizes, labelled, base),
        "",
        *students(sizes),
    ]


def students(sizes: Sizes) -> list[str]:
    """Epochs of a student that is taught three segments a video, with the settings of `auto`: eight videos a step."""
    train, val = random_split(sizes, sizes.train // 10, 2), random_split(sizes, sizes.val // 10, 3)
    rows = []
    for precision in ("float32", "bf16"):
        own = {"training": {"precision": precision, "iterations": 2, "epochs": 4}, "student": {"first": 1}}
        config = resolve({"preset": "auto"}, own).of_iteration(1)
        hidden, levels = config.student.hidden, config.student.levels
        data = [Labelled(split, None, torch.ones(2), segments=random_targets(split, levels)) for split in (train, val)]
        epochs, seconds = fit(config, *data, 1), []
        with products_in(precision):
            for _ in range(4):
                begin = time.perf_counter()
                next(epochs)
                wait()
                seconds.append(time.perf_counter() - begin)
        limit = student_products(train, val, hidden, levels) / rates(sizes)[precision]
        step_ms = 1e3 * min(seconds[1:]) / (len(train) / config.training.batch_videos)
        rows.append((precision, f"{seconds[0]:.2f}", f"{min(seconds[1:]):.2f}", f"{step_ms:.1f}", f"{1e3 * limit:.2f}"))
    size = f"A student, {len(train):,} + {len(val):,} videos, {train.snippets:,} + {val.snippets:,} snippets"
    head = "precision | first epoch, s | epoch, s | by its steps of training, ms | its products alone, ms"
    return [f"{size}:", "", *table(head, rows)]


def random_targets(split: Split, levels: int) -> SegmentTargets:
    """Three segments in each video, of a third of it at most."""
    draws = np.random.default_rng(2)
    video = np.repeat(np.arange(len(split)), 3)
    lengths = split.lengths.numpy()[video]
    first = draws.uniform(0, lengths * (2 / 3))
    last = first + np.maximum(draws.uniform(0, lengths / 3) - 1, 0)
    label = draws.integers(0, len(split.classes), len(video))
    return SegmentTargets(Segments(video, label, first, last, np.ones(len(video))), split.lengths.numpy(), levels)


def profiled(sizes: Sizes, labelled: list[Labelled], base: dict[str, Any]) -> str:
    """Where the time of an epoch in bf16 goes on the device."""
    if sizes.device != "cuda":
        return ""
    config = resolve(base, {"training": {"precision": "bf16", "epochs": 2}})
    epochs = fit(config, *labelled, 1)
    next(epochs)
    wait()
    begin = time.perf_counter()
    spent = device_seconds(partial(next, epochs))
    whole_s = time.perf_counter() - begin
    top = sorted(spent.items(), key=lambda item: -item[1])[: 2 * WHERE_TIME_GOES]
    lines = "; ".join(f"{seconds:.3f} s `{short(name)}`" for name, seconds in top)
    works = f"{whole_s:.2f} s, of which the device works {sum(spent.values()):.2f} s"
    return f"An epoch in bf16 while it is profiled: {works}: {lines}."
