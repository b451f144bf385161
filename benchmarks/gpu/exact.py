"""Whether the GPU is really used, and gives what the CPU gives."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.gpu.measure import Sizes, lengths_of, model_of, profile, table
from refineloc.runtime import Detector
from refineloc.runtime.errors import RefineLocError
from refineloc.runtime.model.session import Session
from refineloc.runtime.segments.rules import ManyThresholds, OneThreshold

ROOT = Path(__file__).resolve().parents[2]


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
            worst = max(float(np.abs(a - b).max()) for a, b in zip(scores.arrays, reference.arrays, strict=True))
            verdict = "yes" if worst <= bound and session.provider == provider else "NO"
            rows.append((provider, precision, session.provider, f"{worst:.1e}", f"{verdict} (bound {bound:g})"))
            if provider == "cuda":
                spent = profile(partial(session.run, features, lengths))
                notes.append(f"Kernels of the {precision} model, by share of the device's time: {spent}.")
    out = table("asked for | model | runs on | largest difference of scores from the CPU's | within the bound", rows)
    for note in notes:
        out += ["", note]
    return [*out, "", same_detections(sizes, folder)]


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


def suite(sizes: Sizes) -> list[str]:
    """The suite's tests that need a GPU."""
    paths = [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("tests/**/test_real_gpu.py"))]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--show-capture=no", "--tb=short", *paths]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines = done.stdout.strip().splitlines()
    if done.returncode and sizes.device == "cuda":
        raise RuntimeError("\n".join(lines[-60:]))
    return [f"`pytest {' '.join(paths)}`: {lines[-1].strip('= ') if lines else done.stderr[-300:]}"]
