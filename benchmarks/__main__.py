"""Print ratios against named peers: `python -m benchmarks [evaluation] [segments] [proposals] [nms] ...`.

Training has a program of its own, as it takes minutes: `python -m benchmarks.training`.
"""

import platform
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # for the NumPy twins

from benchmarks import evaluation, nms, proposals, runtime, segments, startup
from benchmarks.timing import race, table


def machine() -> str:
    """The processor, as the system names it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = f"{names[0]}, {len(names)} cores" if names else platform.processor()
    return (
        f"{name}; {platform.system()} {platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}"
    )


def memcpy_bandwidth() -> float:
    """Bytes a second that one core reads and writes when it copies 64 MiB."""
    source = np.ones(2**23)
    target = np.empty_like(source)
    (seconds,) = race(lambda: np.copyto(target, source))
    return 2 * source.nbytes / seconds


def main() -> None:
    wanted = set(sys.argv[1:]) or {"evaluation", "segments", "proposals", "nms", "runtime", "startup"}
    bandwidth = memcpy_bandwidth()
    print(f"{machine()}; memcpy {bandwidth / 1e9:.1f} GB/s\n")
    rows = []
    if "evaluation" in wanted:
        rows += evaluation.rows()
    if "segments" in wanted:
        rows += segments.rows(bandwidth)
    if "proposals" in wanted:
        rows += proposals.rows(bandwidth)
    if "nms" in wanted:
        rows += nms.rows() + nms.batched()
    if "runtime" in wanted:
        rows += runtime.rows()
    if "startup" in wanted:
        rows += startup.rows()
    print(table(rows))


if __name__ == "__main__":
    main()
