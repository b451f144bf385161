"""What the parts of the report share: sizes, timing, tables, the model, what the card can do."""

import functools
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))  # for the small model's metadata

from small_model import METADATA

from refineloc.export.graph import model_bytes
from refineloc.export.precision import build
from refineloc.runtime.model.metadata import Precision
from refineloc.runtime.segments.rules import Rules
from refineloc.training.machine.products import products_in
from refineloc.training.models.bases.refineloc import RefineLoc

CLASSES = 100
LENGTH = 280  # median snippets of a video, as in THUMOS14
KINDS = ("float32", "tf32", "bf16", "fp16")  # of products
WHERE_TIME_GOES = 6  # kernels in a profile


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        device: "cuda" or "cpu".
        width: D.
        batches: snippets of a call.
        videos: of the feature file.
        train, val: videos of training, with `length` snippets in the mean.
        length: as in ActivityNet, at 16 frames.
        frames: side of the backbone's frames in pixels.
        budget_s: for each timing.
    """

    device: str
    width: int = 2048
    batches: tuple[int, ...] = (2048, 8192, 32768, 65536)
    videos: int = 400
    train: int = 10_024
    val: int = 4_926
    length: int = 94
    frames: int = 112
    budget_s: float = 0.3


SMALL = Sizes("cpu", width=64, batches=(256, 512), videos=6, train=60, val=30, length=40, frames=32, budget_s=0.02)


def best(job: Callable[[], object], budget_s: float, least: int = 3) -> float:
    """Seconds of the fastest run, each until the device is idle; the first runs are not counted."""
    for _ in range(2):
        job()
    wait()
    times: list[float] = []
    while len(times) < least or sum(times) < budget_s:
        begin = time.perf_counter()
        job()
        wait()
        times.append(time.perf_counter() - begin)
    return min(times)


def wait() -> None:
    """Until the device has done what it was asked for."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def table(head: str, rows: list[tuple[object, ...]]) -> list[str]:
    """A Markdown table; the columns of `head` are separated by "|"."""
    names = [name.strip() for name in head.split("|")]
    cells = [" | ".join(str(cell) for cell in row) for row in rows]
    return [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}", *(f"| {line} |" for line in cells)]


Rates = dict[str, float]


@functools.cache
def rates(sizes: Sizes) -> Rates:
    """What the device can do: FLOP/s of products by kind, and bytes/s of copies."""
    snippets, width = max(sizes.batches), sizes.width
    out: Rates = {}
    for name, kind, precision in (
        ("float32", torch.float32, "highest"),
        ("tf32", torch.float32, "high"),
        ("bf16", torch.bfloat16, "highest"),
        ("fp16", torch.float16, "highest"),
    ):
        features = torch.randn(snippets, width, device=sizes.device).to(kind)
        weight = torch.randn(width, width, device=sizes.device).to(kind)
        with products_in("tf32" if precision == "high" else "float32"):
            out[name] = 2.0 * snippets * width * width / best(lambda: features @ weight.T, sizes.budget_s)  # noqa: B023
    if sizes.device == "cuda":
        host = torch.randn(2**26)  # 256 MiB
        locked, target = host.pin_memory(), torch.empty_like(host, device="cuda")
        out["to the card"] = host.nbytes / best(lambda: target.copy_(host), sizes.budget_s)
        out["to the card, page-locked"] = host.nbytes / best(lambda: target.copy_(locked), sizes.budget_s)
        other = torch.empty_like(target)
        out["on the card"] = 2 * host.nbytes / best(lambda: other.copy_(target), sizes.budget_s)
    return out


def model_of(sizes: Sizes, folder: Path, precision: Precision, rules: Rules) -> Path:
    """RefineLoc of two layers, exported."""
    path = folder / f"{precision}-{type(rules).__name__}.onnx"
    if not path.exists():
        torch.manual_seed(0)
        metadata = replace(
            METADATA,
            classes=tuple(f"c{index}" for index in range(CLASSES)),
            width=sizes.width,
            detection=rules,
            precision=precision,
        )
        path.write_bytes(model_bytes(build(RefineLoc(sizes.width, CLASSES), sizes.width, precision), metadata))
    return path


def flop(sizes: Sizes, snippets: int) -> float:
    """Of the products of the two branches, forward."""
    half = sizes.width // 2
    return 2.0 * snippets * (2 * sizes.width * half + half * (CLASSES + 2))


def lengths_of(snippets: int) -> Any:
    """Videos that fill a call."""
    count = max(snippets // LENGTH, 1)
    return np.array([*[LENGTH] * (count - 1), snippets - LENGTH * (count - 1)], np.int64)


def profile(job: Callable[[], object]) -> str:
    """Where the device's time goes while a job runs five times: kernels and copies, whoever starts them."""
    spent = device_seconds(lambda: [job() for _ in range(5)])
    whole = sum(spent.values()) or 1.0
    top = sorted(spent.items(), key=lambda item: -item[1])[:WHERE_TIME_GOES]
    return "; ".join(f"{100 * seconds / whole:.0f} % `{short(name)}`" for name, seconds in top)


def device_seconds(job: Callable[[], object]) -> dict[str, float]:
    """Seconds of the device by kernel and kind of copy."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as recorded

    with recorded(activities=[ProfilerActivity.CUDA], acc_events=True) as record:
        job()
        wait()
    return {event.key: float(event.self_device_time_total) / 1e6 for event in record.key_averages()}


def short(name: str) -> str:
    """A kernel's name without its template arguments."""
    return re.sub(r"[<(].*", "", name.removeprefix("void ")).strip().replace("|", "/")[-60:]
