"""A student's file: the time of all operators against that of its products, on one thread.

    .venv/bin/python -m benchmarks.operators [--features 128] [--hidden 64] [--classes 20] [--networks 4]

ONNX Runtime's profiler times each operator of a call of 2,048 snippets in 8 videos, with random weights. The time of an
operator is that below which a fifth of its calls are, as other programs only ever add time.
"""

import argparse
import json
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from refineloc.export.precision import build
from refineloc.training.models.ensemble import as_one
from refineloc.training.models.student import Student
from refineloc.training.settings.student import StudentConfig

SNIPPETS, VIDEOS, CALLS = 2048, 8, 30
PRODUCTS = {"Gemm", "FusedGemm", "MatMul", "FusedMatMul"}


def microseconds(model: bytes, width: int) -> dict[str, float]:
    """Of a call, by kind of operator."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    rng = np.random.default_rng(0)
    inputs = {
        "features": rng.standard_normal((SNIPPETS, width)).astype(np.float32),
        "lengths": np.full(VIDEOS, SNIPPETS // VIDEOS),
    }
    with tempfile.TemporaryDirectory() as folder:
        options.enable_profiling, options.profile_file_prefix = True, f"{folder}/profile"
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        for _ in range(CALLS):
            session.run(None, inputs)
        events = json.loads(Path(session.end_profiling()).read_text())
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times[event["args"]["op_name"], event["name"]].append(event["dur"])
    of_kind: dict[str, float] = defaultdict(float)
    for (kind, _), durations in times.items():
        of_kind[kind] += float(np.quantile(durations, 0.2))
    return of_kind


def main() -> None:
    """Print the ratio, and the operators that take longest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("features", 128), ("hidden", 64), ("classes", 20), ("networks", 4)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    torch.manual_seed(0)
    settings = StudentConfig(hidden=options.hidden)
    networks = [Student(options.features, options.classes, settings) for _ in range(options.networks)]
    graph = build(as_one(networks).eval(), options.features, "fp32")
    times = microseconds(graph.SerializeToString(), options.features)
    everything, products = sum(times.values()), sum(times[kind] for kind in PRODUCTS)
    print(f"{everything / 1e3:.1f} ms, products {products / 1e3:.1f} ms, {everything / products:.2f} times")
    for kind, value in sorted(times.items(), key=lambda item: -item[1])[:10]:
        print(f"{kind:20} {value / 1e3:8.2f} ms")


if __name__ == "__main__":
    main()
