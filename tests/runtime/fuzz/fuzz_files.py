"""Changes files and reads each in a process of its own: what test_fuzz.py and `make fuzz` run.

    python fuzz_files.py FOLDER CASES SEED [FIRST]

FOLDER holds what `fuzz_mutations.write_features` and `write_models` write. Some files point to others in it; the kernel
(inotify) tells whether a case opened one of them. Prints one JSON object: how many cases were read and refused, the
most memory that one took, and what failed (inputs that failed stay in FOLDER). Case number and seed decide the bytes:
CASES 1 and FIRST of a case that failed run it again.
"""

import collections
import ctypes
import functools
import json
import mmap
import os
import resource
import shutil
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import fuzz_mutations
import numpy as np

from refineloc.runtime.cli import detect
from refineloc.runtime.errors import RefineLocError
from refineloc.runtime.features import opening

MEMORY = 1 << 30  # bytes that a case may ask for on top of what the libraries hold
VIDEO = 32 << 20  # bytes that a video may have
# Bytes that a case may really take, whatever it answers: a video, a chunk, and what the libraries load on the way.
GROWTH = 96 << 20
CPU_SECONDS, LAST_RESORT_S = 20, 600  # a case hangs that takes as many of the processor, or waits so long
READ, REFUSED, TRACEBACK, GREEDY = 0, 10, 11, 12
IN_OPEN = 0x20  # of inotify
PART = Path("plain.json.partial", "part-00001.jsonl")

open_features = functools.partial(opening.open_features, max_video_bytes=VIDEO, untrusted=True)


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
    values = np.random.default_rng(0).standard_normal((9, width)).astype(np.float32)
    for one in detector.detect(values, fps=25.0):
        assert one.start < one.end


def read_folder(path: Path) -> None:
    read_features(path.parent)


def run_detect(path: Path, *, given: Path | None = None) -> None:
    """refineloc-detect, whose only words are one line where it refuses."""
    detect.open_features = open_features  # type: ignore[assignment]
    model = path.parent / "model.onnx" if given is None else given.parent / "model.onnx"
    options = ["--model", str(model), "--provider", "cpu", "--threads", "1", "--fps", "25", "--batch-snippets", "8"]
    options.append("--untrusted")
    out = path.with_suffix(".json")
    sys.argv = ["refineloc-detect", str(given or path), "-o", str(out), *options, *(["--resume"] if given else [])]
    said = path.with_suffix(".said")
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 2)
    try:
        detect.main()
    except SystemExit as end:
        text = said.read_text()
        lines = [line for line in text.splitlines() if not line.startswith("warning: ")]
        if end.code == 0 and out.exists():
            return
        if end.code == 2 and len(lines) == 1 and lines[0].startswith("error: "):
            raise RefineLocError(f"{path}: {lines[0]}") from None
        raise AssertionError(f"exit code {end.code}: {text}") from None


def run_resumed(path: Path) -> None:
    partial = path.with_suffix(".json.partial")
    partial.mkdir()
    path.rename(partial / PART.name)
    run_detect(path, given=path.parent.parent / "plain.h5")


# What is changed, how, and who reads it.
KINDS: list[tuple[str, str, Callable[[bytes, np.random.Generator], bytes], Callable[[Path], None]]] = [
    ("h5", "plain.h5", fuzz_mutations.changed_bytes, read_features),
    ("h5", "grouped.h5", fuzz_mutations.changed_bytes, read_features),
    ("h5", "packed.h5", fuzz_mutations.changed_bytes, read_features),
    ("h5", "pointing.h5", fuzz_mutations.changed_bytes, read_features),
    ("h5 bomb", "packed.h5", fuzz_mutations.bomb, read_features),
    ("onnx", "model.onnx", fuzz_mutations.changed_bytes, read_model),
    ("onnx pointing", "model.onnx", fuzz_mutations.pointing, read_model),
    ("npy", "array.npy", fuzz_mutations.header_of_npy, read_folder),
    ("part", str(PART), fuzz_mutations.part, run_resumed),
    ("detect", "packed.h5", fuzz_mutations.changed_bytes, run_detect),
    ("npz", "arrays.npz", fuzz_mutations.archive, read_features),
    ("npz", "arrays.npz", fuzz_mutations.changed_bytes, read_features),
]


class Trap:
    """Tells whether a file was opened, by whomever."""

    def __init__(self, paths: list[Path]) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        for path in paths:
            if libc.inotify_add_watch(self._descriptor, os.fsencode(path), IN_OPEN) < 0:
                raise OSError(ctypes.get_errno(), "inotify_add_watch")
            path.read_bytes()
            if not self.sprung():
                raise OSError(f"{path}: was opened, and inotify says nothing")

    def __del__(self) -> None:
        if self._descriptor >= 0:  # the kernel gives a user few of them
            os.close(self._descriptor)

    def sprung(self) -> bool:
        """Whether one of them was opened since the last look."""
        try:
            return bool(os.read(self._descriptor, 1 << 16))
        except BlockingIOError:
            return False


def one_case(path: Path, log: Path, read: Callable[[Path], None], peak: mmap.mmap) -> int:
    """In the child: reads the file, and says how that went, and in `peak` how many bytes it took."""
    held = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    room = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    signal.alarm(LAST_RESORT_S)
    code = READ
    try:
        read(path)
    except RefineLocError as error:
        message = str(error)
        code = REFUSED
        # An .npy file goes by its folder, and a model by the video that it was tried on.
        if "\n" in message or str(path if read in (read_features, read_model) else path.parent) not in message:
            log.write_text(f"message: {message}")
            code = TRACEBACK
    except BaseException:
        log.write_text(traceback.format_exc())
        code = TRACEBACK
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - held
    peak[:8] = max(0, grown).to_bytes(8, "little")
    if code in (READ, REFUSED) and grown > GROWTH:
        log.write_text(f"took {grown >> 20} MiB")
        return GREEDY
    return code


def write_part(folder: Path) -> None:
    """What a run on plain.h5 leaves that was killed at its end; in a child, as it starts threads."""
    child = os.fork()
    if child == 0:
        detect.remove_parts = lambda _: None  # type: ignore[assignment]
        options = ["--model", str(folder / "model.onnx"), "--provider", "cpu", "--threads", "1", "--fps", "25"]
        sys.argv = ["x", str(folder / "plain.h5"), "-o", str(folder / "plain.json"), *options, "--batch-snippets", "8"]
        try:
            detect.main()
        except SystemExit as end:
            os._exit(int(end.code or 0))  # the libraries that were loaded before the fork do not end well in it
    if os.waitpid(child, 0)[1] or not (folder / PART).exists():
        sys.exit("refineloc-detect fails on a good file")


def main(folder: Path, cases: int, seed: int, first: int = 0) -> None:
    # Loaded once, before the forks. Neither starts threads before a file is opened.
    import onnxruntime  # noqa: F401

    import refineloc.runtime.detector  # noqa: F401

    warnings.simplefilter("ignore")
    write_part(folder)
    trap = Trap([folder / fuzz_mutations.OUTSIDE_RAW, folder / fuzz_mutations.OUTSIDE_H5])
    peak = mmap.mmap(-1, 8)
    counts: collections.Counter[str] = collections.Counter()
    most: collections.Counter[str] = collections.Counter()
    failures = []
    for case in range(first, first + cases):
        kind, name, change, read = KINDS[case % len(KINDS)]
        source = folder / name
        # A folder of .npy files holds one; a part lies where nothing else is called as its output.
        own = folder / f"case-{case}" if read in (read_folder, run_resumed) else folder
        own.mkdir(exist_ok=True)
        path = own / f"case-{case}{''.join(source.suffixes)}"
        path.write_bytes(change(source.read_bytes(), np.random.default_rng([seed, case])))
        log = folder / f"case-{case}.log"
        peak[:8] = bytes(8)
        child = os.fork()
        if child == 0:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)  # what the libraries themselves print
            os.dup2(null, 2)
            os._exit(one_case(path, log, read, peak))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        known = {
            READ: "read",
            REFUSED: "refused",
            TRACEBACK: "traceback",
            GREEDY: "memory",
            -signal.SIGALRM: "hang",
            -signal.SIGPROF: "hang",
        }
        how = "opened another file" if trap.sprung() else known.get(code, "crash")
        counts[f"{kind} {how}"] += 1
        most[kind] = max(most[kind], int.from_bytes(peak[:8], "little") >> 20)
        if how in ("read", "refused"):
            for left in {*folder.glob(f"case-{case}.*"), *folder.glob(f"case-{case}")}:
                if left.is_dir():
                    shutil.rmtree(left)
                else:
                    left.unlink()
        else:
            text = log.read_text() if log.exists() else f"exit status {code}"
            failures.append([case, kind, how, text])
    print(json.dumps({"counts": counts, "most MiB": most, "failures": failures}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
