"""Calls of the model and of a backbone, by where the features lie and how many a call has."""

import importlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from benchmarks.gpu.measure import Sizes, best, flop, lengths_of, model_of, profile, rates, table
from refineloc.export.backbone import export_backbone
from refineloc.runtime.model.gpu import pinned_empty
from refineloc.runtime.model.session import Session
from refineloc.runtime.segments.rules import OneThreshold
from refineloc.runtime.video.backbone import Backbone

AT_ONCE = 6  # calls that two threads share


def session_alone(sizes: Sizes, folder: Path) -> list[str]:
    """Calls of the model: features in ordinary memory, page-locked, bound, and on the device already."""
    rows, notes = [], []
    pool = ThreadPoolExecutor(2)
    for precision in ("fp32", "fp16"):
        path = model_of(sizes, folder, precision, OneThreshold())  # type: ignore[arg-type]
        session = Session(path, sizes.device, batch_snippets=max(sizes.batches))  # type: ignore[arg-type]
        inner = session._here()
        rate = rates(sizes)["float32" if precision == "fp32" or sizes.device == "cpu" else "fp16"]
        for snippets in sizes.batches:
            ordinary = np.random.default_rng(0).standard_normal((snippets, sizes.width), dtype=np.float32)
            locked = pinned_empty(ordinary.size).reshape(ordinary.shape)
            locked[:] = ordinary
            lengths = lengths_of(snippets)
            inside = on_device(inner, locked, lengths, sizes)
            feed = {"features": ordinary, "lengths": lengths}
            jobs: list[Callable[[], object]] = [
                partial(inner.run, None, feed),
                partial(session.run, ordinary, lengths),
                partial(session.run, locked, lengths),
                partial(several, pool, partial(session.run, locked, lengths)),
                inside,
            ]
            seconds = [best(job, sizes.budget_s) for job in jobs]
            seconds[3] /= AT_ONCE
            share = flop(sizes, snippets) / seconds[-1] / rate
            cells = [f"{snippets / each / 1e6:.2f}" for each in seconds]
            rows.append((precision, f"{snippets:,}", *cells, f"{share:.2f}"))
            if sizes.device == "cuda" and snippets == sizes.batches[-2]:
                notes.append(f"{precision}, features on the device, calls of {snippets:,}: {profile(inside)}.")
    head = "model | snippets a call | plain run | bound | bound, page-locked | the same, two at a time"
    told = "Millions of snippets a second, and the share of the product rate that the calls on the device reach."
    out = [told, "", *table(f"{head} | features on the device | share of product rate", rows)]
    for note in notes:
        out += ["", note]
    return out


def several(pool: ThreadPoolExecutor, job: Callable[[], object]) -> None:
    """Calls that wait for each other only where the device is busy."""
    for _ in pool.map(lambda _: job(), range(AT_ONCE)):
        pass


def on_device(inner: Any, features: Any, lengths: Any, sizes: Sizes) -> Callable[[], object]:
    """A call on features that are on the device; results stay there."""
    binding = inner.io_binding()
    place = sizes.device if sizes.device == "cuda" else "cpu"
    held = onnxruntime.OrtValue.ortvalue_from_numpy(features, place, 0)
    binding.bind_ortvalue_input("features", held)
    binding.bind_cpu_input("lengths", lengths)
    for name in ("class_scores", "foreground", "attention", "video_scores"):
        binding.bind_output(name, place, 0)

    def run() -> Any:
        inner.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return held  # as long as the job lives

    return run


def backbone(sizes: Sizes, folder: Path) -> list[str]:
    """A backbone's frames a second, and its results against the CPU's."""
    torch.manual_seed(0)
    try:
        video = importlib.import_module("torchvision.models.video")
        module, name = video.r2plus1d_18(weights=None), "torchvision's r2plus1d_18"
        module.fc = torch.nn.Identity()
    except ImportError:
        module = torch.nn.Sequential(
            torch.nn.Conv3d(3, 64, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv3d(64, 256, 3, 2, 1), torch.nn.ReLU()
        )
        name = "two 3-D convolutions (torchvision is not installed)"
    if sizes.device == "cpu":
        module, name = torch.nn.Sequential(torch.nn.Conv3d(3, 8, 3, 2, 1), torch.nn.ReLU()), "one 3-D convolution"
    path = folder / "backbone.onnx"
    export_backbone(module, path, frames=16, size=sizes.frames)
    frames = np.random.default_rng(0).integers(0, 256, (16, 16, sizes.frames, sizes.frames, 3), np.uint8)
    ours, cpu = Backbone(path, sizes.device), Backbone(path, "cpu")  # type: ignore[arg-type]
    expected = cpu.features(frames[:4])
    difference = float(np.abs(ours.features(frames[:4]) - expected).max() / np.abs(expected).max())
    rows = []
    for snippets in (1, 4, 16):
        seconds = best(partial(ours.features, frames[:snippets]), sizes.budget_s)
        rows.append((snippets, f"{16 * snippets / seconds:,.0f}"))
    told = f"{name}, 16 frames of {sizes.frames} pixels, random weights"
    told += f"; largest difference from the CPU {difference:.1e} of the largest value."
    return [told, "", *table("snippets a call | frames a second", rows)]  # type: ignore[arg-type]
