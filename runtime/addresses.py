"""Addresses of object stores in the place of paths: s3://BUCKET/KEY, gs://BUCKET/KEY, https://HOST/PATH.

obstore (the extra `cloud`) reads and writes them, with the credentials of the environment. It is used directly and not
through fsspec: h5py may hang where a file object works in a thread of Python, as those of fsspec do (h5py issue 2019).

What is written appears whole or not at all, as stores take an object as a whole. There are no folders in a store: one
is there where an object has its name before a slash. Nothing is locked.
"""

import contextlib
import errno
import functools
import io
import os
import re
import stat
from collections import OrderedDict
from collections.abc import Generator, Iterator
from datetime import timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from refineloc.runtime.errors import MissingExtraError, StoreError

__all__ = ["Address", "Ranges", "as_path", "open_here_and_there"]

_ADDRESS = re.compile(r"(s3|gs|https?|file):[/\\]+")
# A store that answers 500, or that it is asked too much, is asked again, each time later.
_RETRIES: Any = {
    "max_retries": 8,
    "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=15), "base": 2.0},
    "retry_timeout": timedelta(minutes=3),
}
_TIMEOUTS: Any = {
    "connect_timeout": "5s",
    "read_timeout": "60s",
    "timeout": "1h",
    "allow_http": True,
}  # who wants http has written it
_BLOCK = 2**16  # bytes: small reads become whole blocks; the page of the files that refineloc-extract writes
_BLOCKS = 256  # that are kept of a file
_BUFFER = 2**22  # bytes of a request of what is read from its beginning to its end
_CREDENTIALS = (
    "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (GOOGLE_APPLICATION_CREDENTIALS for gs://), or "
    "AWS_SKIP_SIGNATURE=true (GOOGLE_SKIP_SIGNATURE) for a public bucket"
)
# What a message of obstore holds, and what is wrong then.
_REASONS = (
    ("NoSuchBucket", "there is no such bucket"),
    ("Missing AccessKeyId", _CREDENTIALS),
    ("Missing SecretAccessKey", _CREDENTIALS),
    ("169.254.169.254", _CREDENTIALS),  # where a machine of a cloud would have them
    ("metadata.google.internal", _CREDENTIALS),
    ("Precondition", "it changed while it was read; wait until it is complete, and start again"),
    ("InvalidCertificate", "its certificate is not trusted; SSL_CERT_FILE names the file of those that are"),
    ("TimedOut", "the store did not answer in time"),
    ("error sending request", "the store cannot be reached"),
)

if TYPE_CHECKING:
    _Base = Path
else:
    _Base = type(Path())  # Path itself cannot be derived from before Python 3.12


def as_path(path: str | os.PathLike[str]) -> Path:
    """What a name stands for: an `Address`, or a path; file:// is one too. A `Path` of an address is put right."""
    if isinstance(path, Address):
        return path
    text = os.fspath(path)
    match = _ADDRESS.match(text)
    if match is None:
        return Path(path)
    if match[1] == "file":
        return Path(f"/{text[match.end() :]}")
    return Address(text)


def open_here_and_there(path: Path) -> "io.BufferedReader | Ranges":
    """Open an input of which parts are read: at an address, each part is a request."""
    return Ranges(path) if isinstance(path, Address) else path.open("rb")


class Address(_Base):
    """An object in a store, or a folder of some, with those methods of a `Path` that inputs and outputs need.

    Raises:
        FileNotFoundError: of each method: there is no such object.
        StoreError: there is no such bucket, or the store, or the way to it, has something against it.
        MissingExtraError: obstore is not installed.
    """

    __slots__ = ()

    def __str__(self) -> str:
        return _ADDRESS.sub(r"\1://", super().__str__(), count=1).replace("\\", "/")

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Size and time of change of an object; or that it is a folder."""
        try:
            with self._asking() as (obstore, store, key):
                if not key:
                    raise FileNotFoundError  # the bucket
                meta = obstore.head(store, key)
        except FileNotFoundError:
            if not self.has_folders() or next(self._objects(), None) is None:
                raise
            return os.stat_result((stat.S_IFDIR | 0o777, *(0,) * 9))
        changed = meta["last_modified"].timestamp()
        values = (stat.S_IFREG | 0o666, 0, 0, 1, 0, 0, meta["size"], *(int(changed),) * 3)
        return os.stat_result(values, {"st_mtime_ns": int(changed * 1e9)})

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Whether there is an object or a folder."""
        return self._mode() != 0

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Whether there is an object."""
        return stat.S_ISREG(self._mode())

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Whether there is a folder."""
        return stat.S_ISDIR(self._mode())

    def open(self, mode: str = "r", buffering: int = -1, *_: Any, **__: Any) -> IO[Any]:  # type: ignore[override]
        """The object, to be read as bytes; with `buffering` 0 by ranges (`Ranges`)."""
        if mode != "rb":
            raise ValueError(f"{self}: is opened for reading bytes alone, not as {mode!r}")
        ranges = Ranges(self)
        return io.BufferedReader(ranges, _BUFFER) if buffering else ranges  # type: ignore[return-value]

    def read_bytes(self) -> bytes:
        """All of the object, in one request."""
        with self._asking() as (obstore, store, key):
            return bytes(obstore.get(store, key).bytes())

    def upload(self, source: Path | bytes) -> None:
        """Make the object, or replace it, as a whole."""
        if not self.has_folders():
            raise self._error("outputs go to s3:// and gs:// alone")
        with self._asking() as (obstore, store, key):
            obstore.put(store, key, source)

    def iterdir(self) -> Generator["Address"]:
        """The objects and folders of a folder, in the order of names."""
        parts = len(self.parts)
        yield from dict.fromkeys(Address(*path.parts[: parts + 1]) for path in self._objects())

    def glob(self, pattern: str, **_: Any) -> Iterator["Address"]:  # type: ignore[override]
        """The objects and folders of a folder whose name fits a pattern."""
        return (path for path in self.iterdir() if fnmatchcase(path.name, pattern))

    def rglob(self, pattern: str, **_: Any) -> Iterator["Address"]:  # type: ignore[override]
        """The objects of a folder, at any depth, whose name fits a pattern."""
        return (path for path in self._objects() if fnmatchcase(path.name, pattern))

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object; one that is not there is no error, which a store would not tell."""
        with contextlib.suppress(FileNotFoundError), self._asking() as (obstore, store, key):
            obstore.delete(store, key)

    def mkdir(self, *_: Any, **__: Any) -> None:
        """Nothing: a store makes no folders."""

    def rmdir(self) -> None:
        """Nothing: a folder ends with its last object."""

    def resolve(self, strict: bool = False) -> "Address":
        """The address itself."""
        return self

    absolute = resolve

    def has_folders(self) -> bool:
        """Whether it is of a store that lists its objects and takes new ones, as https:// is not."""
        return not self._scheme().startswith("http")

    def _error(self, why: str) -> StoreError:
        return StoreError(f"{self}: {why}", why=why)

    def _scheme(self) -> str:
        return str(self).partition(":")[0]

    def _mode(self) -> int:
        try:
            return self.stat().st_mode
        except FileNotFoundError:
            return 0

    def _objects(self) -> Iterator["Address"]:
        """All objects below a folder, in the order of names; hidden ones are left out."""
        root = self.parts[:2]
        with self._asking() as (obstore, store, key):
            for page in obstore.list(store, f"{key}/" if key else None):
                for meta in page:
                    path = Address(*root, meta["path"])
                    if not any(part.startswith(".") for part in path.parts[len(self.parts) :]):
                        yield path

    @contextlib.contextmanager
    def _asking(self) -> Iterator[tuple[Any, Any, str]]:
        """obstore, the store, and the name of the object in it; errors become those of a file."""
        if len(self.parts) < 2:
            raise self._error("names no bucket")
        try:
            import obstore
            from obstore.exceptions import BaseError
        except ImportError as error:
            raise MissingExtraError(f"{self}: addresses need obstore: pip install 'refineloc[cloud]'") from error
        try:
            yield obstore, _store(f"{self._scheme()}://{self.parts[1]}"), "/".join(self.parts[2:])
        except (BaseError, OSError) as error:
            if isinstance(error, FileNotFoundError) and "NoSuchBucket" not in str(error):
                raise FileNotFoundError(errno.ENOENT, "no such object", str(self)) from error
            raise self._error(_why(error)) from error


class Ranges(io.RawIOBase):
    """An object that is read by ranges: a request for each read of more than a block, and for each new block.

    An object that changed since it was opened is an error, where the store has a mark of its content (ETag).

    Attributes:
        address: of the object.
        size: of the object, bytes.
        mark: of its content (ETag); None where the store gives none.
        requests, bytes: so far, after the request for the size.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        with address._asking() as (obstore, store, key):
            meta = obstore.head(store, key)
        self.size: int = meta["size"]
        self.mark: str | None = meta["e_tag"]
        self._position = self.requests = self.bytes = 0
        self._blocks: OrderedDict[int, memoryview] = OrderedDict()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = max(start + offset, 0)
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read_at(self._position, len(view))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def read_at(self, begin: int, size: int) -> bytes | memoryview:
        """So many bytes from a place on; fewer at the end of the object."""
        end = min(begin + size, self.size)
        if end <= begin:
            return b""
        if end - begin > _BLOCK:
            return self._request(begin, end)
        first, last = begin // _BLOCK, (end - 1) // _BLOCK
        blocks = b"".join(self._block(number) for number in range(first, last + 1))
        return blocks[begin - first * _BLOCK : end - first * _BLOCK]

    def _block(self, number: int) -> memoryview:
        block = self._blocks.pop(number, None)
        if block is None:
            block = self._request(number * _BLOCK, min((number + 1) * _BLOCK, self.size))
        self._blocks[number] = block  # the last one is the latest
        if len(self._blocks) > _BLOCKS:
            self._blocks.popitem(last=False)
        return block

    def _request(self, begin: int, end: int) -> memoryview:
        options: Any = {"range": (begin, end)} | ({"if_match": self.mark} if self.mark else {})
        with self.address._asking() as (obstore, store, key):
            data = memoryview(obstore.get(store, key, options=options).bytes())
        self.requests += 1
        self.bytes += len(data)
        if len(data) != end - begin:
            raise self.address._error(f"the store gave {len(data)} of {end - begin} bytes")
        return data


@functools.lru_cache
def _store(root: str) -> Any:
    from obstore.store import from_url

    return from_url(root, client_options=_TIMEOUTS, retry_config=_RETRIES)


def _why(error: Exception) -> str:
    """What is wrong, out of a message of obstore, which is several lines and ends with its own source."""
    text = str(error).partition("\n\nDebug source")[0]
    for mark, why in _REASONS:
        if mark in str(error):
            return why
    tries = re.search(r"after (\d+) retries", text)
    again = f", after {tries[1]} retries" if tries else ""
    answer = re.search(r"status code: (\d+ [^:\n]*)", text)
    if answer:
        code = re.search(r"<Code>(\w+)</Code>", text)
        name = f" ({code[1]})" if code else ""
        return f"the store answered {answer[1]}{name}{again}"
    return " ".join(text.split())[:200]
