"""Programs in processes of their own that need not load their packages again.

Python with torch takes 3 s to start, and the tests start hundreds of programs. A server that has loaded the packages is
forked instead: it has one thread, so nothing is held that a child could wait for. What a test says of loading itself,
or of a terminal, needs a real start: `subprocess`.
"""

import contextlib
import importlib
import multiprocessing
import os
import pty
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Self

from waiting import LAST_RESORT_S, wait_until

# Loaded once by the server; absent ones are left out.
PRELOADED = [
    "refineloc.evaluation.cli.evaluate",
    "refineloc.runtime.cli.detect",
    "refineloc.runtime.detector",
    "onnxruntime",
    "h5py",
    "rich.console",
    "refineloc.training.refine",
    "refineloc.export.cli.export",
    "torch.utils.tensorboard",
    "torch.onnx",
    "onnxscript",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
]
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(PRELOADED)


class Program:
    """A running program.

    Args:
        name: of a program that pip installed ("refineloc-train").
        arguments: of the command line.
        cwd, env: folder, and changes of the environment.
        before: Python that runs first.
    """

    def __init__(
        self, name: str, *arguments: object, cwd: Path, env: Mapping[str, str] | None = None, before: str = ""
    ) -> None:
        self._arguments = [name, *map(str, arguments)]
        self._folder = tempfile.TemporaryDirectory()
        self._out, self._err = (Path(self._folder.name, kind) for kind in ("out", "err"))
        (program,) = entry_points(group="console_scripts", name=name)
        given = (program.value, self._arguments, str(cwd), dict(env or {}), before, str(self._out), str(self._err))
        self._process = SERVER.Process(target=_run, args=given)
        self._process.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.send_signal(signal.SIGKILL)
        self.wait()
        self._folder.cleanup()

    def wait(self) -> subprocess.CompletedProcess[str]:
        """Its end: exit code (minus the number of the signal that ended it), stdout and stderr."""
        self._process.join(LAST_RESORT_S)
        code = self._process.exitcode
        assert code is not None, f"{self._arguments} hangs"
        return subprocess.CompletedProcess(self._arguments, code, self._out.read_text(), self._err.read_text())

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for what it does while it runs; an error if it ends before."""

        def holds() -> bool:
            # Its end is asked for first: what it did last counts.
            ended = self._process.exitcode is not None
            return condition() or ended

        wait_until(holds, f"{self._arguments} hangs")
        assert condition(), f"ended too early: {self.wait()}"

    def send_signal(self, number: signal.Signals) -> None:
        """Nothing happens where it has ended."""
        if self._process.exitcode is None and self._process.pid is not None:
            os.kill(self._process.pid, number)


def run(
    name: str, *arguments: object, cwd: Path, env: Mapping[str, str] | None = None, before: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; a traceback is a failure."""
    with Program(name, *arguments, cwd=cwd, env=env, before=before) as program:
        done = program.wait()
    assert "Traceback" not in done.stderr, done.stderr
    return done


def on_terminal(name: str, *arguments: object, cwd: Path, **env: str) -> tuple[int, str]:
    """Run a program on a terminal of 100 columns; gives its exit code and all that it showed."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", **env}
    command = [Path(sys.executable).with_name(name), *map(str, arguments)]
    with subprocess.Popen(command, cwd=cwd, stdout=follower, stderr=follower, env=environment) as process:
        os.close(follower)
        shown = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while chunk := os.read(leader, 65536):
                shown += chunk
    os.close(leader)
    return process.returncode, shown.decode()


def _run(main: str, arguments: list[str], cwd: str, env: dict[str, str], before: str, out: str, err: str) -> None:
    """In the child."""
    # What a shell starts in the background ignores Ctrl-C, and so do all processes below.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for path, descriptor in ((os.devnull, 0), (out, 1), (err, 2)):
        opened = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv = arguments
    exec(before, {})
    module, _, function = main.partition(":")
    getattr(importlib.import_module(module), function)()
