"""Model files from a hub: Hugging Face's, or another that HF_ENDPOINT names. Needs the extra `hub`.

Offline first: a copy in the cache is used without a word to the network. What is fetched is compared with the hash that
the hub states, which huggingface_hub itself does not do: it compares the size alone.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from refineloc.runtime.errors import ConfigError, MissingExtraError, ModelError, RefineLocError, StoreError

__all__ = ["asking_hub", "check_revision", "fetch_model", "load_hub", "repository"]

_NAME = "[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_REPOSITORY = re.compile(f"{_NAME}/{_NAME}")
_MOST_NAME = 96  # characters of a repository's name, the hub's own limit
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/+-]{0,254}")
_FILE = re.compile(r"[^\\:\x00-\x1f]{1,1000}\.onnx")
_MOST_BYTES = 2**31  # of an ONNX file
_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


def fetch_model(repo: str, filename: str, revision: str, sha256: str | None, update: bool) -> Path:
    """The path of a model file in the cache, fetched where it is not there, and its content compared with its hash.

    Args and errors: see `Detector.from_hub`.
    """
    where = f"{repository(repo)}/{_checked_file(filename)}"
    check_revision(revision)
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise ConfigError(f"sha256: expected 64 hexadecimal digits, got {sha256!r:.80}")
    hub = load_hub()
    path = None if update else _cached(hub, repo, filename, revision)
    stated = "" if path is None else _stated_by_cache(path)
    if path is None:
        with asking_hub(where, revision):
            metadata = hub.get_hf_file_metadata(hub.hf_hub_url(repo, filename, revision=revision))
            if (metadata.size or 0) > _MOST_BYTES:
                raise ModelError(f"{where}: larger than 2 GiB, which no single ONNX file can be")
            # The commit of which this is the size and the hash: a branch may go on between the two requests.
            commit, stated = metadata.commit_hash, metadata.etag or ""
            path = Path(hub.hf_hub_download(repo, filename, revision=revision))
            if commit not in path.parts:
                stated = _stated_by_cache(path)
    _check_content(path, where, stated, sha256)
    return path


def load_hub() -> Any:
    """The module huggingface_hub.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return import_module("huggingface_hub")
    except ImportError as error:
        raise MissingExtraError(
            f"models from a hub need huggingface_hub: pip install 'refineloc[hub]' ({error})"
        ) from error


def repository(repo: str) -> str:
    """The name of a repository.

    Raises:
        ConfigError: another form than OWNER/NAME.
    """
    plain = isinstance(repo, str) and len(repo) <= _MOST_NAME and _REPOSITORY.fullmatch(repo)
    if not plain or "--" in repo or ".." in repo or repo.endswith(".git"):
        raise ConfigError(f"repo: expected OWNER/NAME of a repository, got {repo!r:.120}")
    return repo


def check_revision(revision: str) -> None:
    """Check the name of a branch, tag or commit: the cache has files of such names.

    Raises:
        ConfigError: another form.
    """
    if not isinstance(revision, str) or not _REVISION.fullmatch(revision) or ".." in revision or "//" in revision:
        raise ConfigError(f"revision: expected a branch, tag or commit, got {revision!r:.120}")


@contextlib.contextmanager
def asking_hub(where: str, revision: str = "") -> Iterator[None]:
    """Turn what huggingface_hub raises into one line of ours.

    Raises:
        ModelError: there is no such repository, revision or file, or it may not be seen.
        StoreError: the hub cannot be reached, or refuses.
    """
    errors = import_module("huggingface_hub.errors")
    try:
        yield
    except RefineLocError:
        raise
    except errors.GatedRepoError as error:
        raise ModelError(
            f"{where}: asks for an agreement: accept it on the repository's page, and {_LOG_IN}"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(f"{where}: no such repository, or a private one; for that {_LOG_IN}") from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(f"{where}: the repository has no revision {revision!r}", parameter="revision") from error
    except errors.LocalEntryNotFoundError as error:
        raise StoreError(f"{where}: the hub does not answer, and there is no copy in the cache") from error
    except errors.EntryNotFoundError as error:
        raise ModelError(
            f"{where}: the repository has no such file in revision {revision!r}; give filename", parameter="filename"
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise StoreError(f"{where}: no copy in the cache, and HF_HUB_OFFLINE forbids to fetch one") from error
    except Exception as error:  # its HTTP library's, which differs from version to version
        said = " ".join(str(error).split())[:300] or type(error).__name__
        status = getattr(getattr(error, "response", None), "status_code", None)
        cure = f"; {_LOG_IN}" if status in (401, 403) else ""
        raise StoreError(f"{where}: the hub cannot be asked: {said}{cure}") from error


def _checked_file(filename: str) -> str:
    parts = filename.split("/") if isinstance(filename, str) and _FILE.fullmatch(filename) else [""]
    if not all(part.strip(" .") for part in parts):
        raise ConfigError(f"filename: expected the path of an .onnx file in the repository, got {filename!r:.120}")
    return filename


def _cached(hub: Any, repo: str, filename: str, revision: str) -> Path | None:
    path = hub.try_to_load_from_cache(repo, filename, revision=revision)
    return Path(path) if isinstance(path, str) else None  # else it is not there, or is known not to be in the hub


def _stated_by_cache(path: Path) -> str:
    """The hash that the hub stated of a file in the cache: the name of what its link leads to; "" without links."""
    return Path(os.readlink(path)).name if path.is_symlink() else ""


def _check_content(path: Path, where: str, stated: str, sha256: str | None) -> None:
    """Compare a file with the hash that the hub states (SHA-256 of a large file, git's SHA-1 of another) and the given.

    A cache without links (on Windows) does not keep the hub's hash: its copies were compared when they were fetched.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    digest = hashlib.sha256(content).hexdigest()
    if sha256 is not None and digest != sha256.lower():
        raise ModelError(
            f"{where}: its SHA-256 is {digest}, expected {sha256.lower()}: another file, or another revision"
        )
    if len(stated) == 64:
        same = digest == stated
    elif len(stated) == 40:
        same = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == stated
    else:
        same = not stated or sha256 is not None
    if not same:
        raise ModelError(
            f"{where}: the copy {os.path.realpath(path)} is damaged: it has not the hash that the hub states "
            f"({stated[:64]}); remove it and fetch it again"
        )
