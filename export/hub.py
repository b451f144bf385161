"""Models to a hub: the file and its card, in one commit (`refineloc.runtime.Detector.from_hub` gets them back)."""

import hashlib
import os

from refineloc.export.card import CARD, model_card
from refineloc.runtime.addresses import as_path
from refineloc.runtime.errors import ConfigError, ModelError
from refineloc.runtime.files import is_file, read_content
from refineloc.runtime.hub import asking_hub, check_revision, load_hub, repository
from refineloc.runtime.model.onnx_guard import read_model

__all__ = ["push_to_hub"]


def push_to_hub(
    model: str | os.PathLike[str],
    repo: str,
    *,
    revision: str = "main",
    private: bool = True,
    message: str = "",
) -> str:
    """Upload a model file and its card to Hugging Face's hub, or another that HF_ENDPOINT names, in one commit.

    The card is README.md beside the model where there is one, so that what was added to it goes along; else it is made.
    It needs a token that may write: log in with `hf auth login`, or set HF_TOKEN.

    Args:
        model: path of the file, `.onnx`, whose name it keeps; `Detector.from_hub` looks for model.onnx by itself.
        repo: OWNER/NAME of the repository, which is made if it is missing.
        revision: the branch.
        private: whether a repository that is made can be seen by its owner alone. One that is there stays as it is.
        message: of the commit; the default names the file and its SHA-256.

    Returns:
        The identity of the commit, which `Detector.from_hub` takes as `revision`.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        ConfigError: a repo, revision or name of another form, or a README.md beside the model that is of another
            file: it has not its SHA-256.
        ModelError: not a file that refineloc-export wrote, or a repository that may not be seen.
        StoreError: the hub does not answer, or refuses.
    """
    repository(repo)
    check_revision(revision)
    filename = as_path(model).name
    if not filename.endswith(".onnx"):
        raise ConfigError(f"model: expected a name that ends in .onnx, got {filename!r:.120}")
    hub = load_hub()
    _, content = read_model(model)
    digest = hashlib.sha256(content).hexdigest()
    card = _card(model, digest)
    api = hub.HfApi(library_name="refineloc")
    additions = [
        hub.CommitOperationAdd(path_in_repo=filename, path_or_fileobj=content),
        hub.CommitOperationAdd(path_in_repo=CARD, path_or_fileobj=card),
    ]
    with asking_hub(repo, revision):
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.create_commit(
            repo, additions, commit_message=message or f"{filename}, SHA-256 {digest}", revision=revision
        )
    return str(commit.oid)


def _card(model: str | os.PathLike[str], digest: str) -> bytes:
    made = model_card(model).encode()  # also where it is not used: it reads the file as a detector does
    beside = as_path(model).with_name(CARD)
    if not is_file(beside, ModelError):
        return made
    card = read_content(beside, ModelError, "")
    if digest.encode() not in card:
        raise ConfigError(f"{beside}: is not of {model}: it has not its SHA-256, {digest}; write the card anew")
    return card
