"""CPU time to start: `python -m benchmarks startup`.

User and system time of whole processes, the median of ten; all run in turns, so that a slow phase of a shared machine
affects all. Bytecode is compiled in a run before, as pip does when it installs.
"""

import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.evaluation import PREDICTIONS, TRUTH
from benchmarks.timing import Row

RUNS = 10


def rows() -> list[Row]:
    """`refineloc-eval` against Python with NumPy, and embedding against ONNX Runtime."""
    python = (sys.executable, "-c")
    programs: dict[str, tuple[str, ...]] = {
        "NumPy": (*python, "import numpy"),
        "engine": (*python, "import onnxruntime"),
        "runtime": (*python, "import refineloc.runtime"),
        "detector": (*python, "from refineloc.runtime import Detector; import onnxruntime"),
    }
    if PREDICTIONS.exists():
        programs["eval"] = (str(Path(sys.executable).with_name("refineloc-eval")), str(PREDICTIONS), str(TRUTH))
    seconds = cpu_seconds(programs)
    for name, value in seconds.items():
        print(f"{name}: {1e3 * value:.0f} ms of CPU time")
    out = [Row("from refineloc.runtime import Detector", "import onnxruntime", seconds["detector"], seconds["engine"])]
    if "eval" in seconds:
        subject = f"refineloc-eval, the process, {PREDICTIONS.stat().st_size / 1e6:.0f} MB"
        out.append(Row(subject, "python -c 'import numpy'", seconds["eval"], seconds["NumPy"], "at least 0.33"))
    return out


def cpu_seconds(programs: dict[str, tuple[str, ...]]) -> dict[str, float]:
    """The median CPU time of each program, in seconds."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    # As many threads as cores would spin while they wait, which is not the start.
    environment["OPENBLAS_NUM_THREADS"] = "1"
    times: dict[str, list[float]] = {name: [] for name in programs}
    for run in range(1 + RUNS):
        for name, command in programs.items():
            before = _children()
            # Not in the repository, whose folder `refineloc` would be found first.
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/", env=environment)
            if run:
                times[name].append(_children() - before)
    return {name: statistics.median(values) for name, values in times.items()}


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
