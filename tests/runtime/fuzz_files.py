"""Changes bytes of HDF5 and ONNX files and reads each in a process of its own: what test_fuzz.py and `make fuzz` run.

    python fuzz_files.py FOLDER CASES SEED

FOLDER holds the files to start from (*.h5, *.onnx) and named pipes that some of them point to as data outside: who
opens one waits for ever, and is counted as hanging. Prints one JSON object: how many were read and refused, and what
failed (inputs that failed stay in FOLDER). Case number and seed decide the bytes.
"""

import collections
import json
import os
import resource
import signal
import sys
import traceback
import warnings
from pathlib import Path

import numpy as np

from refineloc.runtime.errors import RefineLocError
from refineloc.runtime.features import open_features

MEMORY = 1 << 30  # bytes that a case may take on top of what the libraries hold
SECONDS = 20
READ, REFUSED, TRACEBACK = 0, 10, 11
SIZES = (0, 1, 0x7FFFFFFF, 0x80000000, 2**40, 2**63 - 1, 2**64 - 1)


def mutate(content: bytes, generator: np.random.Generator) -> bytes:
    """One to four changes: bytes, bits, sizes, blocks, a cut, a repetition."""
    changed = bytearray(content)
    for _ in range(generator.integers(1, 5)):
        at = int(generator.integers(len(changed)))
        kind = generator.integers(7)
        if kind <= 1:
            changed[at] = generator.integers(256)
        elif kind == 2:
            changed[at] ^= 1 << generator.integers(8)
        elif kind == 3:
            size = SIZES[generator.integers(len(SIZES))].to_bytes(8, "little")
            changed[at : at + 8] = size[: len(changed) - at]
        elif kind == 4:
            length = min(int(generator.integers(1, 64)), len(changed) - at)
            changed[at : at + length] = generator.bytes(length)
        elif kind == 5:
            changed[at:at] = changed[at : at + int(generator.integers(1, 64))]
        elif generator.integers(3) == 0 and at:
            del changed[at:]
    return bytes(changed)


def read_features(path: Path) -> None:
    with open_features(path) as store:
        # Each video by itself: one that is refused must not hide the next.
        errors = []
        for name in store.names:
            try:
                info = store.info(name)
                assert store.read(name).shape == (info.snippets, info.width)
            except RefineLocError as error:
                errors.append(error)
        if errors:
            raise errors[0]


def read_model(path: Path) -> None:
    from refineloc.runtime.detector import Detector

    detector = Detector(path, provider="cpu", threads=1)
    width = detector.metadata.width
    features = np.random.default_rng(0).standard_normal((9, width)).astype(np.float32)
    for one in detector.detect(features, fps=25.0):
        assert one.start < one.end


def one_case(path: Path, log: Path) -> int:
    """In the child: reads the file, and says how that went."""
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.alarm(SECONDS)
    try:
        (read_model if path.suffix == ".onnx" else read_features)(path)
    except RefineLocError as error:
        message = str(error)
        if "\n" in message or not message.startswith(str(path)):
            log.write_text(f"message: {message}")
            return TRACEBACK
        return REFUSED
    except BaseException:
        log.write_text(traceback.format_exc())
        return TRACEBACK
    return READ


def main(folder: Path, cases: int, seed: int) -> None:
    # Loaded once, before the forks. Neither starts threads before a file is opened.
    import h5py  # noqa: F401
    import onnxruntime  # noqa: F401

    import refineloc.runtime.detector  # noqa: F401

    warnings.simplefilter("ignore")
    sources = sorted([*folder.glob("*.h5"), *folder.glob("*.onnx")])
    counts: collections.Counter[str] = collections.Counter()
    failures = []
    for case in range(cases):
        source = sources[case % len(sources)]
        path = folder / f"case-{case}{source.suffix}"
        path.write_bytes(mutate(source.read_bytes(), np.random.default_rng([seed, case])))
        log = folder / f"case-{case}.log"
        child = os.fork()
        if child == 0:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 2)  # what the libraries themselves print
            os._exit(one_case(path, log))
        status = os.waitpid(child, 0)[1]
        code = os.waitstatus_to_exitcode(status)
        how = {READ: "read", REFUSED: "refused", TRACEBACK: "traceback", -signal.SIGALRM: "hang"}.get(code, "crash")
        counts[f"{source.suffix[1:]} {how}"] += 1
        if how in ("read", "refused"):
            path.unlink()
        else:
            text = log.read_text() if log.exists() else f"exit status {code}"
            failures.append([case, source.name, how, text])
    print(json.dumps({"counts": counts, "failures": failures}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
