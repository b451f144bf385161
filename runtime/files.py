"""Files: outputs that appear whole or not at all (written aside, flushed, then renamed), and what inputs are.

An output may be an address of a store (`runtime/addresses.py`), or a stream: standard output ("-"), an open descriptor
(/dev/stdout, /dev/fd/N), a pipe, or a device such as /dev/null. A stream is written to and never replaced.
"""

import contextlib
import errno
import os
import re
import select
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Literal

from refineloc.runtime.addresses import Address, as_path
from refineloc.runtime.errors import InputError, OutputError, RefineLocError, StoreError

__all__ = [
    "TEMPORARY",
    "atomic_path",
    "atomic_write",
    "check_writable",
    "claim_folder",
    "is_file",
    "is_folder",
    "is_stdout",
    "is_stream",
    "make_folder",
    "output_ending",
    "read_content",
    "reason",
    "status_of",
    "writing",
]

TEMPORARY = ".refineloc-"  # begins the names of what is not whole yet; eight characters of mkstemp's follow
_LOGS = (".log", ".out", ".err")  # what shells and queues are told to write beside the outputs
_SUFFIX = 12  # the longest suffix that a temporary file keeps; longer ones are no file type
_STANDARD = "-"  # standard output, in the place of a file's name
_WAIT_S = 10.0  # how long a pipe may be without a program at its other end
_MAX_STREAM = 2**30  # bytes of an input; an endless one must end
_NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)  # of opening a pipe or a device; 0 on Windows


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path. When the block ends well, the file written there takes the place of `path`.

    A link is followed. A file that is there keeps its mode, and its owner where that is allowed. A stream gets the
    bytes of the temporary file.

    On any error the temporary file is removed, an earlier `path` stays as it was, and nothing is written to a stream.
    The temporary file has the suffix of `path`, for writers that choose a format by it.

    Raises:
        OutputError: the folder is missing or cannot be written, the disk is full, `path` is neither a file nor a
            stream, or no program reads the pipe.
    """
    target = as_path(path)
    stream = is_stream(path)
    aside = _temporary(path, stream)
    try:
        yield aside
        with writing(path):
            if isinstance(target, Address):
                target.upload(aside)
            elif stream:
                import shutil  # it, tempfile and uuid are of outputs alone, and take time to load

                with aside.open("rb") as source, _opened_stream(path) as sink:
                    shutil.copyfileobj(source, sink)
            else:
                _replace(Path(os.path.realpath(target)), aside)
    except OSError as error:
        # An error of another file, such as an input that the block reads, keeps its type and message.
        if isinstance(error, OutputError) or (error.filename and Path(str(error.filename)) != aside):
            raise
        raise OutputError(f"{path}: cannot be written: {reason(error)}") from error
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """Open a temporary file that takes the place of `path` when the block ends well (see `atomic_path`)."""
    encoding, newline = ("utf-8", "") if mode == "w" else (None, None)  # "": the same bytes on every system
    with atomic_path(path) as aside, aside.open(mode, encoding=encoding, newline=newline) as handle:
        yield handle


def check_writable(path: str | os.PathLike[str], suffixes: tuple[str, ...] = ()) -> None:
    """Check before hours of work that an output can be written.

    Raises:
        InputError: another ending than `suffixes`, if there are any (see `output_ending`).
        OutputError: the folder is missing or cannot be written, or `path` is neither a file nor a stream.
    """
    if suffixes:
        output_ending(path, suffixes)
    stream = is_stream(path)
    _temporary(path, stream).unlink()
    target = as_path(path)
    if isinstance(target, Address):
        import uuid

        attempt = target.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
        with writing(path):
            attempt.upload(b"")
        with contextlib.suppress(OSError):  # where nothing may be removed, an empty object stays
            attempt.unlink()
    if not stream:
        return
    with writing(path):
        descriptor = _descriptor(path)
        if descriptor is not None:
            os.write(descriptor, b"")  # an error where it is closed, or open for reading only
        elif not os.access(path, os.W_OK):  # not opened: the reader of a pipe would take the close for the end
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def output_ending(path: str | os.PathLike[str], endings: tuple[str, ...]) -> str:
    """Which of `endings` says the format of an output: that of its name; of a stream without one the first.

    Raises:
        InputError: another ending, and no stream.
    """
    ending = Path(path).suffix.lower()
    if ending in endings:
        return ending
    if is_stream(path):
        return endings[0]
    raise InputError(f"{path}: expected an output name that ends in {', '.join(endings)}")


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Whether an output is a stream (see the module's docstring); False for what cannot be an output, too."""
    if _descriptor(path) is not None:
        return True
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def is_stdout(path: str | os.PathLike[str]) -> bool:
    """Whether an output is this process's standard output."""
    return _descriptor(path) == 1


def make_folder(path: str | os.PathLike[str], *, parents: bool = True) -> Path:
    """Make a folder, and with `parents` those that it lies in, where there is none yet.

    Raises:
        OutputError: it cannot be made, or a file has its name.
    """
    folder = as_path(path)
    try:
        folder.mkdir(parents=parents, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made a folder: {reason(error)}") from error
    return folder


def claim_folder(path: str | os.PathLike[str], is_ours: Callable[[str], bool], what: str) -> Path:
    """Make a folder for outputs, or take one that is empty or holds such outputs alone.

    Hidden files do not count, which systems and editors leave, and neither do logs of the program that writes there.

    Args:
        path: of the folder.
        is_ours: whether a file or folder in it, by its name, is an output of the same kind.
        what: the outputs are, for the message ("a run").

    Raises:
        OutputError: it cannot be made, a file has its name, or it holds something else, which stays as it is.
    """
    folder = make_folder(path)
    with writing(folder):
        names = sorted(entry.name for entry in folder.iterdir())
    others = [name for name in names if not name.startswith(".") and not name.endswith(_LOGS) and not is_ours(name)]
    if others:
        raise OutputError(f"{folder}: holds {others[0]!r:.80}, which is not of {what}; give a new or an empty folder")
    return folder


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an OSError of the block into an OutputError that names `path`."""
    try:
        yield
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{path}: cannot be written: {reason(error)}") from error


def status_of(path: str | os.PathLike[str], error: type[RefineLocError]) -> os.stat_result | None:
    """What the system says of an input; None where nothing has its name.

    For `Path.exists` and its like, which raise an OSError of their own for some of what a user can give.

    Raises:
        RefineLocError: of the type `error`: the system refuses to look, as for a name that is too long or a folder that
            may not be entered.
    """
    try:
        return as_path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as problem:
        raise error(f"{path}: cannot be read: {reason(problem)}") from problem
    except ValueError:
        raise error(f"{str(path)!r}: cannot be the name of a file") from None


def is_file(path: str | os.PathLike[str], error: type[RefineLocError]) -> bool:
    """Whether an input is a file, and no folder, pipe or device (see `status_of`)."""
    status = status_of(path, error)
    return status is not None and stat.S_ISREG(status.st_mode)


def is_folder(path: str | os.PathLike[str], error: type[RefineLocError]) -> bool:
    """Whether an input is a folder (see `status_of`)."""
    status = status_of(path, error)
    return status is not None and stat.S_ISDIR(status.st_mode)


def read_content(path: str | os.PathLike[str], error: type[RefineLocError], hint: str) -> bytes:
    """All bytes of a file or stream.

    A stream is a pipe ("-" is standard input) that a program writes, or the null device. It is read to its end, up to
    1 GiB.

    Raises:
        RefineLocError: of the type `error`: the file is missing (the message ends with `hint`) or cannot be read; or no
            program writes the pipe.
    """
    source = as_path(path)
    descriptor = _descriptor(path, standard=0)
    regular = False
    if descriptor is None:
        status = status_of(path, error)
        if status is None:
            raise error(f"{source}: no such file; {hint}")
        if stat.S_ISDIR(status.st_mode):
            raise error(f"{source}: is a folder; {hint}")
        regular = stat.S_ISREG(status.st_mode)
    try:
        return source.read_bytes() if regular else _read_stream(path, descriptor)
    except OSError as problem:
        raise error(f"{source}: cannot be read: {reason(problem)}") from problem


def _temporary(path: str | os.PathLike[str], stream: bool) -> Path:
    """A new file beside an output, or, for a stream, in the system's folder for temporary files.

    Its name is short however long the name of the output is.
    """
    folder = None
    path = as_path(path)
    if not stream and not isinstance(path, Address):
        try:
            mode = os.stat(path).st_mode
        except FileNotFoundError:
            pass
        except OSError as error:  # such as a name that is too long
            raise OutputError(f"{path}: cannot be written: {reason(error)}") from error
        except ValueError:
            raise OutputError(f"{str(path)!r}: cannot be the name of a file") from None
        else:
            if not stat.S_ISREG(mode):
                kind = "folder" if stat.S_ISDIR(mode) else "disk" if stat.S_ISBLK(mode) else "socket"
                raise OutputError(f"{path}: is a {kind}; give the name of a file to write")
        folder = os.path.dirname(os.path.realpath(path))
    suffix = Path(path).suffix
    import tempfile

    with writing(path):
        descriptor, name = tempfile.mkstemp(
            dir=folder, prefix=TEMPORARY, suffix=suffix if len(suffix) <= _SUFFIX else ""
        )
    os.close(descriptor)
    return Path(name)


def _replace(target: Path, aside: Path) -> None:
    """Give the file `aside` the name `target`; of a file that has the name it takes mode and owner."""
    _flush(aside)
    try:
        before = target.stat()
    except FileNotFoundError:
        aside.chmod(0o666 & ~_umask())  # mkstemp makes files that only their owner can read
    else:
        if hasattr(os, "chown"):
            with contextlib.suppress(OSError):  # only root may give a file away
                os.chown(aside, before.st_uid, before.st_gid)
        aside.chmod(stat.S_IMODE(before.st_mode))
    aside.replace(target)


def _descriptor(path: str | os.PathLike[str], standard: int = 1) -> int | None:
    """The descriptor that a name stands for, `standard` for "-"; None for all other names.

    Opening /dev/stdout anew would begin at the start of the file that a shell sent it to, and a rename would take the
    file away from under the shell.
    """
    name = os.fspath(path)
    if name == _STANDARD:
        return standard
    for _ in range(8):  # links: /dev/stdout -> /proc/self/fd/1
        folder, last = os.path.split(name)
        try:
            if re.fullmatch("[0-9]{1,7}", last) and os.path.realpath(folder) in (f"/proc/{os.getpid()}/fd", "/dev/fd"):
                return int(last)
            name = os.path.join(folder, os.readlink(name))
        except (OSError, ValueError):  # not a link
            return None
    return None


def _opened_stream(path: str | os.PathLike[str]) -> IO[bytes]:
    """A stream, open for writing.

    Raises:
        OutputError: no program reads the pipe.
    """
    descriptor = _descriptor(path)
    if descriptor is not None:
        if sys.stdout is not None:
            sys.stdout.flush()  # what was printed before comes first
        return os.fdopen(os.dup(descriptor), "wb")
    end = time.monotonic() + _WAIT_S
    while True:
        try:
            # Not a plain open, which would wait forever for a reader.
            opened = os.open(path, os.O_WRONLY | _NO_WAIT)
            break
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            if time.monotonic() > end:
                raise OutputError(f"{path}: cannot be written: no program reads this pipe") from None
            time.sleep(0.02)
    if _NO_WAIT:
        os.set_blocking(opened, True)
    return os.fdopen(opened, "wb")


def _read_stream(path: str | os.PathLike[str], descriptor: int | None) -> bytes:
    """All that comes out of a pipe, or of a descriptor.

    Raises:
        OSError: a device that is not at its end at once (it might never be), no program writes the pipe, or too much.
    """
    opened = os.dup(descriptor) if descriptor is not None else os.open(path, os.O_RDONLY | _NO_WAIT)
    with os.fdopen(opened, "rb", buffering=0) as stream:
        mode = os.fstat(opened).st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            if not select.select([opened], [], [], 0)[0] or stream.read(1):
                raise OSError("is a device; give a file or a pipe")
            return b""
        content = bytearray()
        if descriptor is None:
            content += _first_bytes(opened)
            os.set_blocking(opened, True)
        while chunk := stream.read(2**20):
            content += chunk
            if len(content) > _MAX_STREAM:
                raise OSError("gives more than 1 GiB; write it into a file first")
        return bytes(content)


def _first_bytes(opened: int) -> bytes:
    """What a pipe that was opened without waiting has at first; b"" where its writer is slow.

    Raises:
        OSError: no program has it open for writing.
    """
    end = time.monotonic() + _WAIT_S
    while time.monotonic() <= end:
        try:
            if content := os.read(opened, 2**16):
                return content
        except BlockingIOError:  # there is a writer
            return b""
        time.sleep(0.02)
    raise OSError("no program writes this pipe")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)  # Windows flushes only what is open for writing
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def reason(error: OSError) -> str:
    """What the system says of an error, for a message of ours."""
    if isinstance(error, StoreError):
        return error.why
    return error.strerror.lower() if error.strerror else str(error)
