"""Models from a hub, with huggingface_hub and a stand-in of the hub's HTTP interface."""

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub")

from hub_stand_in import Hub, hub_on_this_machine

from refineloc.runtime import ConfigError, Detector, MissingExtraError, ModelError, StoreError

REPO = "acme/sports"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    cache = tmp_path_factory.mktemp("hf")
    with pytest.MonkeyPatch.context() as monkeypatch, hub_on_this_machine(cache, monkeypatch) as hub:
        yield hub


@pytest.fixture
def hub(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The server without files, and an empty cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    server.files.clear()
    server.requests.clear()
    server.private, server.gated, server.in_git, server.spoilt = set(), set(), False, False
    return server


@pytest.fixture(scope="module")
def content(model_path: Path) -> bytes:
    return model_path.read_bytes()


def test_a_model_is_fetched_once_and_then_taken_without_the_network(hub: Hub, content: bytes) -> None:
    hub.put(REPO, "model.onnx", content)
    detector = Detector.from_hub(REPO, provider="cpu", top_k=1)
    assert (detector.classes, detector.settings.top_k) == (("jump", "run", "swim", "throw", "walk"), 1)
    assert [method for method, path in hub.requests if path.startswith("/storage/")] == ["GET"]
    hub.requests.clear()
    hub.put(REPO, "model.onnx", content + b"\x72\x00")  # an empty metadata entry: another file, the same model
    assert repr(Detector.from_hub(REPO, provider="cpu", top_k=1)) == repr(detector)
    assert not hub.requests
    updated = Detector.from_hub(
        REPO, update=True, provider="cpu", sha256=hashlib.sha256(content + b"\x72\x00").hexdigest()
    )
    assert hub.requests
    assert updated.classes == detector.classes


def test_a_revision_and_a_file_in_a_folder(hub: Hub, content: bytes) -> None:
    hub.put(REPO, "int8/model.onnx", content, "v1.0")
    commit = hub.put(REPO, "int8/model.onnx", content, "refs/pr/4")
    assert Detector.from_hub(REPO, filename="int8/model.onnx", revision="v1.0", provider="cpu")
    assert Detector.from_hub(REPO, filename="int8/model.onnx", revision=commit, provider="cpu")


@pytest.mark.parametrize("in_git", [False, True])
@pytest.mark.parametrize("cached", [False, True])
def test_a_file_that_is_not_what_its_hash_says_is_refused(
    hub: Hub, content: bytes, tmp_path: Path, cached: bool, in_git: bool
) -> None:
    """Neither the hub's client nor a cache finds a byte that has changed."""
    hub.in_git = in_git
    hub.put(REPO, "model.onnx", content)
    if cached:
        Detector.from_hub(REPO, provider="cpu")
        (blob,) = (tmp_path / "cache").rglob("blobs/*")
        blob.write_bytes(content[:-1] + b"?")
    hub.spoilt = True
    with pytest.raises(
        ModelError, match=r"acme/sports/model\.onnx: the copy .* is damaged: it has not the hash"
    ) as caught:
        Detector.from_hub(REPO, provider="cpu")
    (copy,) = (word for word in str(caught.value).split() if str(tmp_path) in word)
    os.remove(copy)  # what the message asks for
    hub.spoilt = False
    assert Detector.from_hub(REPO, provider="cpu")


def test_a_cache_without_links_is_compared_when_it_is_fetched(
    hub: Hub, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows."""
    monkeypatch.setattr("huggingface_hub.file_download.are_symlinks_supported", lambda *_: False)
    hub.put(REPO, "model.onnx", content)
    hub.spoilt = True
    with pytest.raises(ModelError, match="is damaged") as caught:
        Detector.from_hub(REPO, provider="cpu")
    (copy,) = (word for word in str(caught.value).split() if word.endswith(".onnx") and os.path.isabs(word))
    os.remove(copy)
    hub.spoilt = False
    assert Detector.from_hub(REPO, provider="cpu")
    hub.requests.clear()
    assert Detector.from_hub(REPO, provider="cpu")
    assert not hub.requests


def test_a_given_hash_holds_for_the_cache_too(hub: Hub, content: bytes) -> None:
    hub.put(REPO, "model.onnx", content)
    digest = hashlib.sha256(content).hexdigest()
    assert Detector.from_hub(REPO, sha256=digest.upper(), provider="cpu")
    with pytest.raises(ModelError, match=f"its SHA-256 is {digest}, expected {'0' * 64}"):
        Detector.from_hub(REPO, sha256="0" * 64, provider="cpu")


def test_a_file_from_a_hub_passes_the_guard(hub: Hub) -> None:
    hub.put(REPO, "model.onnx", b"<html>")
    with pytest.raises(ModelError, match="refineloc-export"):
        Detector.from_hub(REPO, provider="cpu")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"repo": "acme/none"}, ModelError, "acme/none/model.onnx: no such repository, or a private one"),
        ({"repo": "acme/secret"}, ModelError, "no such repository, or a private one; for that log in"),
        ({"repo": "acme/gated"}, ModelError, "asks for an agreement: accept it on the repository's page"),
        ({"repo": REPO, "revision": "v9"}, ModelError, "has no revision 'v9'"),
        ({"repo": REPO, "filename": "other.onnx"}, ModelError, "no such file in revision 'main'; give filename"),
    ],
)
def test_what_a_hub_refuses(
    hub: Hub, content: bytes, arguments: dict[str, str], error: type[Exception], words: str
) -> None:
    for repo in (REPO, "acme/secret", "acme/gated"):
        hub.put(repo, "model.onnx", content)
    hub.private, hub.gated = {"acme/secret"}, {"acme/gated"}
    with pytest.raises(error) as caught:
        Detector.from_hub(**arguments)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        *(
            {"repo": repo}
            for repo in ("sports", "../../etc", "a/b/c", "a--b/c", "a/..", "/a/b", "a/b.git", "a\\b/c", "")
        ),
        *(
            {"filename": name}
            for name in ("../model.onnx", "/model.onnx", "a//m.onnx", "a\\m.onnx", "C:m.onnx", "m.bin")
        ),
        *({"filename": name} for name in ("./model.onnx", "a/.../m.onnx", "a\0.onnx")),
        *({"revision": name} for name in ("../x", "/main", "a/../b", "", "-x", "a//b")),
        *({"sha256": text} for text in ("abc", "g" * 64)),
    ],
    ids=lambda arguments: repr(next(iter(arguments.values()))),
)
def test_names_that_lead_elsewhere_are_refused_before_anything_is_asked(hub: Hub, arguments: dict[str, str]) -> None:
    (name,) = arguments
    with pytest.raises(ConfigError, match=f"^{name}: expected"):
        Detector.from_hub(**{"repo": REPO, **arguments})
    assert not hub.requests


def test_a_hub_that_does_not_answer(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = hub.url.rpartition(":")[0] + ":1/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", nobody)
    with pytest.raises(StoreError, match=r"acme/sports/model\.onnx: the hub cannot be asked: "):
        Detector.from_hub(REPO)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(StoreError, match="HF_HUB_OFFLINE forbids to fetch one"):
        Detector.from_hub(REPO)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'refineloc\[hub\]'"):
        Detector.from_hub(REPO)


@pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # huggingface_hub's own call
def test_a_model_and_its_card_are_pushed_and_come_back(
    hub: Hub, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    from refineloc.export import push_to_hub, write_card

    model = make_model(iteration=3)
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    commit = push_to_hub(model, "acme/new")
    assert hub.created["acme/new"] is True  # private
    card = hub.files["acme/new", "main", "README.md"].decode()
    assert digest in card
    assert hub.messages[-1] == f"model.onnx, SHA-256 {digest}"
    detector = Detector.from_hub("acme/new", revision=commit, sha256=digest, provider="cpu")
    assert detector.metadata.iteration == 3
    # A card that was corrected goes along; one of another file is an error.
    written = write_card(model)
    written.write_text(written.read_text() + "\nOf our own.\n")
    push_to_hub(model, "acme/new", message="again")
    assert hub.files["acme/new", "main", "README.md"].endswith(b"Of our own.\n")
    assert hub.messages[-1] == "again"
    written.write_text("# Another")
    with pytest.raises(ConfigError, match=r"is not of .*: it has not its SHA-256"):
        push_to_hub(model, "acme/new")
