"""What a GPU gives: is it used, are its results those of the CPU, how fast against what the card can do.

    make gpu                                                  on a machine with an NVIDIA GPU, in minutes
    .venv/bin/python -m benchmarks.gpu [--out FILE]           the same, where onnxruntime-gpu[cuda,cudnn] is installed
    .venv/bin/python -m benchmarks.gpu --device cpu --small   rehearses the script without a GPU, in a minute

The report is Markdown, as RESULTS.md takes it. A part that fails says why in the report, the others go on, and the
exit code is 1.

What a bare machine needs: a driver for CUDA 13, onnxruntime-gpu 1.31 with NVIDIA's packages `nvidia-cublas`,
`nvidia-cuda-runtime`, `nvidia-curand`, `nvidia-cufft`, `nvidia-cuda-nvrtc` and `nvidia-cudnn-cu13` (its extras cuda and
cudnn), torch >= 2.9 built for CUDA. TensorRT is tried and needs libnvinfer 10.

Rates of products are measured on the card by torch, at the shapes of the first layer of both branches. Features are
2,048 wide. Of several runs the best counts.
"""

import argparse
import contextlib
import functools
import importlib
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnxruntime
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # for the small model's metadata

from small_model import METADATA

from benchmarks.training import products
from refineloc.export.backbone import export_backbone
from refineloc.export.graph import model_bytes
from refineloc.export.precision import build
from refineloc.runtime import Detector, open_features
from refineloc.runtime.batches import read_batches
from refineloc.runtime.errors import RefineLocError
from refineloc.runtime.model.gpu import PinnedBuffers, pinned_empty
from refineloc.runtime.model.metadata import Precision
from refineloc.runtime.model.session import Session
from refineloc.runtime.segments.grid import SnippetGrid
from refineloc.runtime.segments.rules import ManyThresholds, OneThreshold, Rules
from refineloc.runtime.video.backbone import Backbone
from refineloc.training.data.split import Split
from refineloc.training.fit import Labelled, fit
from refineloc.training.machine.products import products_in
from refineloc.training.models.base_model import build_model
from refineloc.training.models.bases.refineloc import RefineLoc
from refineloc.training.scoring import detect
from refineloc.training.settings.config import resolve

ROOT = Path(__file__).resolve().parents[1]
CLASSES = 100
LENGTH = 280  # median snippets of a video, as in THUMOS14
KINDS = ("float32", "tf32", "bf16", "fp16")  # of products
AT_ONCE = 6  # calls that two threads share
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


def machine(sizes: Sizes) -> list[str]:
    """Card, driver and versions."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        card = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        card = "no NVIDIA GPU"
    return [
        f"Card: {card}. {os.cpu_count()} CPU cores, Python {platform.python_version()}, NumPy {np.__version__}, torch "
        f"{torch.__version__} (CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}), ONNX Runtime "
        f"{onnxruntime.__version__} ({', '.join(onnxruntime.get_available_providers())}). Measured on {sizes.device}.",
    ]


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


def ceilings(sizes: Sizes) -> list[str]:
    """What the card can do."""
    rows = [
        (name, f"{rate / 1e12:.3g} TFLOP/s" if name in KINDS else f"{rate / 1e9:.1f} GB/s")
        for name, rate in rates(sizes).items()
    ]
    return table("products, copies | measured", rows)  # type: ignore[arg-type]


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


def used(sizes: Sizes, folder: Path) -> list[str]:
    """Whether the GPU is really used, and gives the CPU's results."""
    rng = np.random.default_rng(0)
    snippets = sizes.batches[0]
    features, lengths = rng.standard_normal((snippets, sizes.width), dtype=np.float32), lengths_of(snippets)
    reference = Session(model_of(sizes, folder, "fp32", OneThreshold()), "cpu").run(features, lengths)
    rows, notes = [], []
    providers = ("cuda", "tensorrt") if sizes.device == "cuda" else ("cpu",)
    for provider in providers:
        for precision, bound in (("fp32", 1e-5), ("fp16", 5e-3)):
            path = model_of(sizes, folder, precision, OneThreshold())  # type: ignore[arg-type]
            try:
                session = Session(path, provider, batch_snippets=snippets)  # type: ignore[arg-type]
            except RefineLocError as error:
                rows.append((provider, precision, "does not start", "", error))
                continue
            scores = session.run(features, lengths)
            worst = max(float(np.abs(a - b).max()) for a, b in zip(scores, reference, strict=True))
            verdict = "yes" if worst <= bound and session.provider == provider else "NO"
            rows.append((provider, precision, session.provider, f"{worst:.1e}", f"{verdict} (bound {bound:g})"))
            if provider == "cuda":
                spent = profile(partial(session.run, features, lengths))
                notes.append(f"Kernels of the {precision} model, by share of the device's time: {spent}.")
    out = table("asked for | model | runs on | largest difference of scores from the CPU's | within the bound", rows)
    for note in notes:
        out += ["", note]
    return [*out, "", same_detections(sizes, folder)]


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


def same_detections(sizes: Sizes, folder: Path) -> str:
    """`detect_many` on the device against the CPU."""
    rng = np.random.default_rng(1)
    videos = {f"v{index}": rng.standard_normal((50 + 40 * index, sizes.width), dtype=np.float32) for index in range(8)}
    path = model_of(sizes, folder, "fp32", ManyThresholds())
    device, cpu = (
        dict(Detector(path, provider=provider).detect_many(videos, fps=25.0))  # type: ignore[arg-type]
        for provider in (sizes.device, "cpu")
    )
    total = sum(len(detections) for detections in cpu.values())
    worst, other = 0.0, 0
    for name, expected in cpu.items():
        places = {(d.label, d.start, d.end): d.score for d in expected}
        got = {(d.label, d.start, d.end): d.score for d in device[name]}
        other += len(places.keys() ^ got.keys())
        worst = max([worst, *(abs(places[key] - got[key]) for key in places.keys() & got.keys())])
    return (
        f"`detect_many` of {len(videos)} videos: {total} detections on the CPU, {other} that only one of the two has, "
        f"largest difference of a score {worst:.1e}."
    )


@contextlib.contextmanager
def without_page_locking() -> Iterator[None]:
    """Buffers in ordinary memory."""
    before = PinnedBuffers._take
    PinnedBuffers._take = lambda self, size: np.empty(size, np.float32)  # type: ignore[method-assign]
    try:
        yield
    finally:
        PinnedBuffers._take = before  # type: ignore[method-assign]


def session_alone(sizes: Sizes, folder: Path) -> list[str]:
    """Calls of the model: features in ordinary memory, page-locked, bound, and on the device already."""
    rows, notes = [], []
    pool = ThreadPoolExecutor(2)
    for precision in ("fp32", "fp16"):
        path = model_of(sizes, folder, precision, OneThreshold())  # type: ignore[arg-type]
        session = Session(path, sizes.device, batch_snippets=max(sizes.batches))  # type: ignore[arg-type]
        inner = session._session
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
            store.read_into(name, buffer[:length], slice(0, sizes.width), finite=False)


def whole(detector: Detector, path: Path) -> None:
    """Detection in all videos of a file."""
    with open_features(path) as store:
        for _ in detector.detect_many(store, fps=25.0):
            pass


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
    ]


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


def suite(sizes: Sizes) -> list[str]:
    """The suite's tests that need a GPU."""
    paths = [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("tests/**/test_real_gpu.py"))]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--show-capture=no", "--tb=short", *paths]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines = done.stdout.strip().splitlines()
    if done.returncode and sizes.device == "cuda":
        raise RuntimeError("\n".join(lines[-60:]))
    return [f"`pytest {' '.join(paths)}`: {lines[-1].strip('= ') if lines else done.stderr[-300:]}"]


def main() -> int:
    """Measure, and print or write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="little of everything, to try the script")
    parser.add_argument("--out", type=Path, help="the report; stdout if left out")
    parser.add_argument("--only", nargs="*", default=[], help="parts, by their names in the report")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("no GPU: torch sees none; --device cpu --small rehearses the script", file=sys.stderr)
        return 2
    sizes = replace(SMALL, device=options.device) if options.small else Sizes(options.device)
    report, failed = [*machine(sizes)], 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts: dict[str, Callable[[], list[str]]] = {
            "What the card can do": lambda: ceilings(sizes),
            "Used, and exact": lambda: used(sizes, folder),
            "Calls of the model": lambda: session_alone(sizes, folder),
            "From a feature file to detections": lambda: end_to_end(sizes, folder),
            "Backbone": lambda: backbone(sizes, folder),
            "Training": lambda: training(sizes, folder),
            "Tests": lambda: suite(sizes),
        }
        for title, part in parts.items():
            if options.only and not any(word.lower() in title.lower() for word in options.only):
                continue
            begin = time.perf_counter()
            try:
                lines = part()
            except Exception:  # one part must not take the others with it
                failed, lines = failed + 1, ["FAILED:", "```", *traceback.format_exc().splitlines()[-40:], "```"]
            report += ["", f"### {title} ({time.perf_counter() - begin:.0f} s)", "", *lines]
            if options.out is not None:
                options.out.write_text("\n".join(report) + "\n")
            print("\n".join(report[-len(lines) - 2 :]), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
