"""The lock of a run's folder: one process trains there at a time."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from refineloc.runtime.errors import ConfigError
from refineloc.runtime.files import make_folder, writing
from refineloc.runtime.locks import try_lock
from refineloc.training.run.folder import RunFolder

__all__ = ["locked"]

_LOCK_S = 3.0  # as long as a killed process may take to be gone


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from training into a folder, which is made where it is not there.

    The lock ends with the process, however that ends.

    Raises:
        ConfigError: another process has it.
        OutputError: the folder cannot be written.
    """
    end = time.monotonic() + _LOCK_S
    path = RunFolder(folder).lock
    make_folder(folder)
    with writing(folder):
        while True:
            # Opened anew each time: who had it before removes it.
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            if try_lock(descriptor) and _is(path, descriptor):
                break
            os.close(descriptor)
            if time.monotonic() > end:
                raise ConfigError(
                    f"{folder}: another process trains there; wait for its end, or begin another run",
                    parameter="folder",
                )
            time.sleep(0.1)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _is(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
