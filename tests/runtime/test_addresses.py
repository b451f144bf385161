"""Features, models, labels, films and outputs in an object store: a real S3 server, which the tests start."""

import os
import pickle
import subprocess
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import programs
import pytest
from object_store import BUCKET, ObjectStore, over_tls, serving
from small_model import write_features

from refineloc.runtime import FeatureError, OutputError, RefineLocError, StoreError, open_features, read_detections
from refineloc.runtime import addresses as module
from refineloc.runtime.addresses import Address, Ranges, as_path
from refineloc.runtime.features.shards import ShardWriter
from refineloc.runtime.files import atomic_write, check_writable

DETECT = ("refineloc-detect", "--provider", "cpu", "--threads", "1")
FEATURES, MODEL = f"s3://{BUCKET}/in/features.h5", f"s3://{BUCKET}/in/model.onnx"


def run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program with the store of this process: programs are forked from one that started before."""
    env = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "GOOGLE_"))}
    return programs.run(*arguments, env=env, **options)


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    with serving() as store:
        yield store


@pytest.fixture
def store(server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """The server, empty; what this process asks of it twice more at once."""
    server.empty()
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    soon = {"init_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=2), "base": 2.0}
    monkeypatch.setattr(module, "_RETRIES", {"max_retries": 2, "backoff": soon, "retry_timeout": timedelta(seconds=9)})
    module._store.cache_clear()
    yield server
    module._store.cache_clear()


@pytest.fixture
def folder(tmp_path: Path, model_path: Path, store: ObjectStore, rng: np.random.Generator) -> Path:
    """A folder with model.onnx and features.h5, which the store has too."""
    (tmp_path / "model.onnx").write_bytes(model_path.read_bytes())
    videos = {f"v{index:03}": rng.standard_normal((1 + index % 30, 24), np.float32) for index in range(40)}
    write_features(tmp_path / "features.h5", videos, fps=25.0)
    for name in ("model.onnx", "features.h5"):
        store.put(f"in/{name}", (tmp_path / name).read_bytes())
    return tmp_path


def paged(path: Path, videos: int, **layout: object) -> bytes:
    """A file as `refineloc-extract` writes it, with 50 KB a video."""
    with h5py.File(path, "w", fs_strategy="page", fs_page_size=2**16) as file:
        for index in range(videos):
            values = np.full((100, 256), index, np.float16)
            file.create_dataset(f"video_{index:04}", data=values, **layout).attrs["fps"] = 25.0
    return path.read_bytes()


@pytest.mark.parametrize("text", ["s3://bucket/a/b.h5", "gs://bucket/a.csv", "https://host:1/a/b.onnx"])
def test_an_address_keeps_its_form(text: str) -> None:
    """However it comes: a path of it has lost a slash."""
    for given in (text, Path(text), as_path(text), pickle.loads(pickle.dumps(as_path(text)))):
        address = as_path(given)
        assert isinstance(address, Address)
        assert str(address) == text == f"{address}"
    assert str(address.with_name("x.partial") / "y") == f"{text.rpartition('/')[0]}/x.partial/y"
    assert as_path("file:///tmp/x y.h5") == Path("/tmp/x y.h5")
    for plain in ("features.h5", "C:/films", "s3/x", "out:/x"):
        assert type(as_path(plain)) is type(Path())


def test_a_video_of_a_paged_file_takes_few_requests(store: ObjectStore, tmp_path: Path) -> None:
    content = paged(tmp_path / "f.h5", 200)
    address = store.put("f.h5", content)
    store.requests.clear()
    with open_features(address) as features:
        features.info("video_0123")
        before = len(store.requests)
        read = features.read("video_0123", slice(3, 9))
        assert (read == 123).all()
        assert read.shape == (100, 6)
        # The values are one request, whichever columns.
        assert len(store.requests) == before + 1 <= 10
        assert sum(size(ranged) for *_, ranged in store.requests) < 0.05 * len(content)


def size(ranged: str) -> int:
    begin, _, end = ranged.removeprefix("bytes=").partition("-")
    return int(end) - int(begin) + 1 if ranged else 0


@pytest.mark.parametrize("layout", [{}, {"compression": "gzip"}, {"chunks": (7, 256)}, {"dtype": ">f4"}])
def test_every_layout_reads_as_from_a_file(store: ObjectStore, tmp_path: Path, layout: dict[str, object]) -> None:
    address = store.put("f.h5", paged(tmp_path / "f.h5", 5, **layout))
    for untrusted in (False, True):
        with (
            open_features(address, untrusted=untrusted) as there,
            open_features(tmp_path / "f.h5", untrusted=untrusted) as here,
        ):
            assert there.names == here.names
            for name in there.names:
                assert there.info(name) == here.info(name)
                np.testing.assert_array_equal(there.read(name), here.read(name))


def test_programs_read_and_write_addresses(folder: Path, store: ObjectStore) -> None:
    assert run(*DETECT, "features.h5", "-o", "one.json", cwd=folder).returncode == 0
    given = (*DETECT, FEATURES, "--model", MODEL)
    done = run(*given, "-o", f"s3://{BUCKET}/out/all.json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(f"s3://{BUCKET}/out/all.json: ")
    assert store.get("out/all.json") == (folder / "one.json").read_bytes()
    for shard in (1, 2):
        assert run(*given, "-o", f"s3://{BUCKET}/parts", "--shard", f"{shard}/2", cwd=folder).returncode == 0
    done = run(*given, "-o", f"s3://{BUCKET}/parts", "--shard", "2/2", cwd=folder)
    assert "goes on after" in done.stderr
    assert run("refineloc-convert", f"s3://{BUCKET}/parts", "merged.json", cwd=folder).returncode == 0
    assert (folder / "merged.json").read_bytes() == (folder / "one.json").read_bytes()
    # The parts of the run without shards are gone, and nothing else was left.
    kept = ["in/features.h5", "in/model.onnx", "out/all.json", "parts/part-00001.jsonl", "parts/part-00002.jsonl"]
    assert store.names() == kept
    (name, *_) = read_detections(f"{store.url}/{BUCKET}/out/all.json")  # over http
    assert name == "v000"


@pytest.mark.parametrize(
    ("features", "out", "message"),
    [
        ("s3://nowhere/f.h5", "d.json", "s3://nowhere/f.h5: cannot be read: there is no such bucket"),
        (f"s3://{BUCKET}/none.h5", "d.json", f"s3://{BUCKET}/none.h5: no such file or folder"),
        (f"s3://{BUCKET}/in", "d.json", f"s3://{BUCKET}/in: holds no video; it holds 1 .h5 file"),
        (FEATURES, "s3://nowhere/d.json", "s3://nowhere/d.json: cannot be written: there is no such bucket"),
        (FEATURES, "http://127.0.0.1:1/d.json", "cannot be written: outputs go to s3:// and gs:// alone"),
        ("http://127.0.0.1:1/f.h5", "d.json", "f.h5: cannot be read: the store cannot be reached"),
    ],
)
def test_what_is_wrong_with_an_address_is_one_line(folder: Path, features: str, out: str, message: str) -> None:
    done = run(*DETECT, features, "-o", out, cwd=folder, before=SOON)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


SOON = "from refineloc.runtime import addresses; addresses._RETRIES['max_retries'] = 1"


def test_no_credentials_are_one_line(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are none, obstore asks the cloud's own machine; here a server that has none stands for it."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"{store.url}/169.254.169.254")
    store.fault = lambda method, path: 403 if "169.254" in path else None
    with pytest.raises(FeatureError, match=f"{BUCKET}/f.h5: cannot be read: no credentials: set AWS_ACCESS_KEY_ID"):
        open_features(f"s3://{BUCKET}/f.h5")


def test_a_store_that_fails_is_asked_again_and_then_named(store: ObjectStore, tmp_path: Path) -> None:
    address = store.put("features.h5", paged(tmp_path / "f.h5", 20))
    failing = iter([500, None, 503, None])
    store.fault = lambda method, path: next(failing, None)
    with open_features(address) as features:
        features.read("video_0001")
        store.fault = lambda method, path: 500
        with pytest.raises(StoreError, match=r"features.h5: the store answered 500 .*, after 2 retries$") as raised:
            features.read("video_0002")
        again = pickle.loads(pickle.dumps(raised.value))
        assert (str(again), again.why) == (str(raised.value), raised.value.why)


def test_a_store_that_does_not_answer_is_named(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TIMEOUTS", {"allow_http": True, "read_timeout": "100ms"})
    asked_enough = threading.Event()
    store.fault = lambda method, path: asked_enough.wait() and None
    try:
        with pytest.raises(FeatureError, match="cannot be read: the store did not answer in time"):
            open_features(f"s3://{BUCKET}/f.h5")
    finally:
        asked_enough.set()


def test_a_failing_store_ends_the_job_which_goes_on_later(folder: Path, store: ObjectStore) -> None:
    """It is no fault of a video: none of them gets an error."""
    out = f"s3://{BUCKET}/out"
    given = (*DETECT, FEATURES, "--model", MODEL, "-o", out, "--shard", "1/1")
    small = f"{SOON}\nfrom refineloc.runtime.cli import detect\ndetect._BLOCK_SNIPPETS = 100"
    store.fault = lambda method, path: 500 if path.endswith("part-00003.jsonl") and method == "PUT" else None
    done = run(*given, cwd=folder, before=small)
    assert done.returncode == 2
    assert f"{out}/part-00003.jsonl: cannot be written: the store answered 500" in done.stderr
    assert [key for key in store.names() if key.startswith("out/")] == ["out/part-00001.jsonl", "out/part-00002.jsonl"]
    store.fault = lambda method, path: None
    done = run(*given, cwd=folder, before=small)
    assert done.returncode == 0
    assert "goes on after" in done.stderr
    run(*DETECT, "features.h5", "-o", "one.json", cwd=folder)
    run("refineloc-convert", out, "merged.json", cwd=folder)
    assert (folder / "merged.json").read_bytes() == (folder / "one.json").read_bytes()


def test_an_upload_that_is_cut_short_leaves_nothing(store: ObjectStore) -> None:
    """Large ones go up in pieces, the second of which fails here."""
    address = f"s3://{BUCKET}/large.bin"
    pieces = iter([None, 500, 500, 500, 500])
    store.fault = lambda method, path: next(pieces, 500) if method == "PUT" else None
    with (
        pytest.raises(OutputError, match=r"large.bin: cannot be written: the store answered 500"),
        atomic_write(address, "wb") as file,
    ):
        file.write(bytes(7 * 2**20))
    store.fault = lambda method, path: None
    assert store.names() == []
    with atomic_write(address, "wb") as file:
        file.write(bytes(7 * 2**20))
    assert store.get("large.bin") == bytes(7 * 2**20)


def test_a_file_that_lost_its_end_and_one_that_changes(store: ObjectStore, tmp_path: Path) -> None:
    content = paged(tmp_path / "f.h5", 20)
    address = store.put("f.h5", content[: len(content) // 2])
    with pytest.raises(FeatureError, match=r"f.h5: not an HDF5 file, or its upload was cut short: .*truncated file"):
        open_features(address)
    store.put("f.h5", content)
    with open_features(address) as features:
        store.put("f.h5", content + b"\0")
        with pytest.raises(StoreError, match=r"f.h5: it changed while it was read"):
            features.read("video_0003")


def test_an_output_is_checked_before_the_work(store: ObjectStore) -> None:
    check_writable(f"s3://{BUCKET}/new/d.json")
    assert store.names() == []
    store.fault = lambda method, path: 403 if method == "PUT" else None
    with pytest.raises(OutputError, match="cannot be written: the store answered 403"):
        check_writable(f"s3://{BUCKET}/new/d.json")


def test_without_obstore_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "obstore", None)
    with pytest.raises(RefineLocError, match=r"s3://b/f.h5: addresses need obstore: pip install 'refineloc\[cloud\]'"):
        open_features("s3://b/f.h5")


def test_ranges_are_a_file(store: ObjectStore, rng: np.random.Generator) -> None:
    content = rng.bytes(300_000)
    address = as_path(store.put("x.bin", content))
    assert isinstance(address, Address)
    with Ranges(address) as ranges, address.open("rb") as file:
        for begin, length in ((0, 10), (65_530, 20), (100, 200_000), (299_990, 99), (300_000, 5), (65_536, 65_536)):
            ranges.seek(begin)
            assert ranges.read(length) == content[begin : begin + length]
        assert ranges.seek(-3, 2) == 299_997
        assert ranges.requests == 4  # three blocks of 64 KiB, and a read of more than one
        assert file.read() == content
    assert address.stat().st_size == 300_000
    assert address.parent.is_dir()
    assert not address.with_name("none").exists()


@pytest.mark.long
def test_films_and_their_features_lie_in_a_store(store: ObjectStore, tmp_path: Path) -> None:
    """Decoded from ranges of the object; the file of features is uploaded as a whole."""
    pytest.importorskip("av")
    from films import write_film
    from small_backbone import write_backbone

    write_backbone(tmp_path / "backbone.onnx")
    for name in ("a", "b"):
        write_film(tmp_path / f"{name}.mp4", range(0, 4000, 40))
        store.put(f"films/{name}.mp4", (tmp_path / f"{name}.mp4").read_bytes())
    extract = ("refineloc-extract", "--backbone", "backbone.onnx", "--provider", "cpu")
    done = run(*extract, f"s3://{BUCKET}/films", "-o", f"s3://{BUCKET}/features.h5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert run(*extract, "a.mp4", "b.mp4", "-o", "here.h5", cwd=tmp_path).returncode == 0
    with open_features(f"s3://{BUCKET}/features.h5") as there, open_features(tmp_path / "here.h5") as here:
        assert there.names == here.names == ("a", "b")
        for name in there.names:
            np.testing.assert_array_equal(there.read(name), here.read(name))
    assert [key for key in store.names() if "partial" in key] == []


def test_a_video_of_a_shard_is_one_request(store: ObjectStore, tmp_path: Path, rng: np.random.Generator) -> None:
    pytest.importorskip("pyarrow")
    videos = {f"v{index}": rng.standard_normal((300, 64)).astype(np.float16) for index in range(20)}
    folder = as_path(f"s3://{BUCKET}/shards")
    with ShardWriter(folder, 10**5) as writer:
        for name, values in videos.items():
            writer.add(name, values, {"fps": 25.0})
    with open_features(str(folder)) as features:
        features.read("v7")
        store.requests.clear()
        np.testing.assert_array_equal(features.read("v6"), videos["v6"])  # of the same shard
        assert [method for method, *_ in store.requests] == ["GET"]
        for name, values in videos.items():
            np.testing.assert_array_equal(features.read(name), values)


def test_google_s_store_is_read_and_written(folder: Path, store: ObjectStore) -> None:
    """obstore's client for it; the server is S3's, which has the same requests."""
    assert run(*DETECT, "features.h5", "-o", "one.json", cwd=folder).returncode == 0
    given = (*DETECT, f"gs://{BUCKET}/in/features.h5", "--model", f"gs://{BUCKET}/in/model.onnx")
    done = run(*given, "-o", f"gs://{BUCKET}/out/all.json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert store.get("out/all.json") == (folder / "one.json").read_bytes()
    assert store.names() == ["in/features.h5", "in/model.onnx", "out/all.json"]  # its parts are gone
    large = as_path(f"gs://{BUCKET}/large.bin")
    with atomic_write(large, "wb") as file:
        file.write(bytes(7 * 2**20))
    assert [path.name for path in large.parent.rglob("*.bin")] == ["large.bin"]
    with Ranges(Address(str(large))) as ranges:
        assert ranges.read_at(7 * 2**20 - 3, 9) == bytes(3)
        store.put("large.bin", b"another")
        with pytest.raises(StoreError, match=f"gs://{BUCKET}/large.bin: it changed while it was read"):
            ranges.read_at(0, 7)


def test_over_https_certificates_are_checked(
    folder: Path, store: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with over_tls(store, tmp_path) as (url, authority):
        address = f"{url}/{BUCKET}/in/features.h5"
        with pytest.raises(
            FeatureError, match=r"features.h5: cannot be read: its certificate is not trusted; SSL_CERT"
        ):
            open_features(address)
        module._store.cache_clear()
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        with open_features(address) as there, open_features(folder / "features.h5") as here:
            assert there.names == here.names
            np.testing.assert_array_equal(there.read("v007"), here.read("v007"))


def test_arrays_in_files_of_their_own(store: ObjectStore, tmp_path: Path, rng: np.random.Generator) -> None:
    """Folders of .npy and .npz, two streams, one file of many videos: as on a disk."""
    arrays = {f"v{index}": rng.standard_normal((300, 64)).astype(np.float16) for index in range(3)}
    for kind in ("npy", "npz", "two/rgb", "two/flow"):
        (tmp_path / kind).mkdir(parents=True)
    for name, array in arrays.items():
        np.save(tmp_path / f"npy/{name}.npy", array)
        np.save(tmp_path / f"two/rgb/{name}.npy", array)
        np.save(tmp_path / f"two/flow/{name}.npy", np.asfortranarray(array[:, :9]))
        np.savez_compressed(tmp_path / f"npz/{name}.npz", features=array, fps=25.0)
    np.save(tmp_path / "npy/v1_fps.npy", 12.5)
    several = np.empty(3, object)
    several[:] = list(arrays.values())
    np.save(tmp_path / "all.npy", several, allow_pickle=True)
    np.savez(tmp_path / "all.npz", **arrays)
    (tmp_path / "all.txt").write_text("\n".join(arrays))
    for path in sorted(tmp_path.rglob("*.*")):
        store.put(path.relative_to(tmp_path).as_posix(), path.read_bytes())
    for kind in ("npy", "npz", "two", "all.npy", "all.npz", "npy/v1.npy"):
        with open_features(f"s3://{BUCKET}/{kind}") as there, open_features(tmp_path / kind) as here:
            assert there.names == here.names
            assert there.two_streams == here.two_streams == (kind == "two")
            for name in there.names:
                assert there.info(name) == here.info(name)
                np.testing.assert_array_equal(there.read(name, slice(3, 60, 2)), here.read(name, slice(3, 60, 2)))
    with open_features(f"s3://{BUCKET}/npy") as features:
        assert features.info("v1").fps == 12.5
        store.requests.clear()
        features.read("v2")
        assert len(store.requests) < 8  # of its shape and of its values: size, header, rest of each
        store.fault = lambda method, path: 500
        with pytest.raises(StoreError, match=r"v2.npy: the store answered 500"):  # no fault of the video
            features.read("v2")


def test_patterns_of_films(store: ObjectStore) -> None:
    pytest.importorskip("av")
    from refineloc.runtime.video.films import find_films

    for name in ("day1/a.mp4", "day1/notes.txt", "day2/deep/b.mkv", "night/c.mp4", "day3.mp4", ".day/d.mp4"):
        store.put(f"films/{name}", b"x")
    root = f"s3://{BUCKET}/films"
    for pattern, names in {
        "day*": "a b day3",
        "day?/*": "a b",
        "*/[ac].mp4": "a c",
        "**/*.mp4": "a c day3",
        "**": "a b c day3",
    }.items():
        assert " ".join(find_films([f"{root}/{pattern}"])) == names, pattern
    assert find_films([f"{root}/n*/c.mp4"]) == {"c": as_path(f"{root}/night/c.mp4")}
    with pytest.raises(RefineLocError, match="there are no films"):
        find_films([f"{root}/x*"])
    with pytest.raises(RefineLocError, match="patterns are for s3:// and gs://"):
        find_films([f"{store.url}/{BUCKET}/*.mp4"])
