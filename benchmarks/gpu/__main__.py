"""The report: `python -m benchmarks.gpu`."""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import torch

import benchmarks.gpu
from benchmarks.gpu.calls import backbone, session_alone
from benchmarks.gpu.epochs import training
from benchmarks.gpu.exact import suite, used
from benchmarks.gpu.files import end_to_end
from benchmarks.gpu.measure import KINDS, SMALL, Sizes, rates, table


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


def ceilings(sizes: Sizes) -> list[str]:
    """What the card can do."""
    rows = [
        (name, f"{rate / 1e12:.3g} TFLOP/s" if name in KINDS else f"{rate / 1e9:.1f} GB/s")
        for name, rate in rates(sizes).items()
    ]
    return table("products, copies | measured", rows)  # type: ignore[arg-type]


def main() -> int:
    """Measure, and print or write the report."""
    parser = argparse.ArgumentParser(
        description=benchmarks.gpu.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
