"""W-TALC's annotation folders: the released one, pickles only where they are allowed, and damaged or odd files."""

import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refineloc.evaluation.formats.wtalc_arrays import read_wtalc_arrays
from refineloc.runtime.annotations import read_annotations
from refineloc.runtime.errors import AnnotationError


def test_the_released_folder(shared_data: Path) -> None:
    folder = shared_data / "wtalc-thumos14reduced"
    with pytest.raises(AnnotationError, match=r"segments\.npy: holds Python objects.*allow_pickle reads it"):
        read_wtalc_arrays(folder)
    videos = read_wtalc_arrays(folder, allow_pickle=True)
    assert len(videos) == 412
    first = videos["video_validation_0000051"]
    assert first.start.tolist() == [67.5, 85.9, 139.3]
    assert first.segment_labels == ("Billiards",) * 3
    assert (first.duration_s, first.fps, first.subset) == (169.794, 30.0, "validation")
    assert len(videos.classes) == 20
    test = read_wtalc_arrays(folder, allow_pickle=True, subset="test")
    assert {video.subset for video in test.values()} == {"test"}
    # The same annotations as the released CSV's, whose classes have numbers and whose rows are in another order.
    released = read_annotations(shared_data / "refineloc-release" / "thumos14_valid_groundtruth.csv")
    both = set(released) & set(videos)
    assert len(both) > 150
    same = [name for name in both if np.array_equal(np.sort(released[name].start), np.sort(videos[name].start))]
    assert len(same) > 0.9 * len(both)


class Harmful:
    """Unpickling this runs a program."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("unpickled",))


def write(folder: Path, segments: Any, labels: Any, names: tuple[bytes, ...] = (b"a",)) -> Path:
    """A folder whose videos all have these segments and labels."""
    np.save(folder / "videoname.npy", np.array(names))
    for name, value in (("segments", segments), ("labels", labels)):
        array = np.empty(len(names), dtype=object)
        array[:] = [value] * len(names)
        np.save(folder / f"{name}.npy", array, allow_pickle=True)
    return folder


def test_objects_are_unpickled_only_where_that_is_allowed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path, [[0.0, 1.0]], [Harmful()])
    np.save(folder / "segments.npy", np.zeros((1, 0, 2)))  # a plain array, so that labels.npy comes next
    with pytest.raises(AnnotationError, match=r"labels\.npy: holds Python objects"):
        read_wtalc_arrays(folder)
    assert "unpickled" not in capfd.readouterr().out
    with pytest.raises(AnnotationError, match="expected a name in UTF-8, got None"):
        read_wtalc_arrays(folder, allow_pickle=True)
    assert "unpickled" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("segments", "labels", "message"),
    [
        ([[0.0, 1.0], [1.0, 2.0]], [b"x"], "2 segments and 1 label"),
        ([[0.0]], [b"x"], "not enough values"),
        ([["a", "b"]], [b"x"], "could not convert"),
        ([[0.0, np.inf]], [b"x"], "not a finite number"),
        ([[0.0, 1e10]], [b"x"], r"1e\+10 s is no time of a video"),
        ([[0.0, 1.0]], [3], "expected a name in UTF-8, got 3"),
        ([[0.0, 1.0]], [b"\xff"], "can't decode"),
        (7, [b"x"], "not iterable"),
        ([[0.0, 10**400]], [b"x"], "too large"),
        ([[0.0, 1.0]], ["\udc80"], "expected a name in UTF-8"),
    ],
)
def test_odd_rows(tmp_path: Path, segments: Any, labels: Any, message: str) -> None:
    with pytest.raises(AnnotationError, match=f"video 'a': .*{message}"):
        read_wtalc_arrays(write(tmp_path, segments, labels), allow_pickle=True)


@pytest.mark.parametrize("core", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_rows_may_be_arrays_of_numpy_1_or_2(tmp_path: Path, core: bytes) -> None:
    folder = write(tmp_path, [[0.0, 1.0]], [b"x"])
    for name, value in (("segments", np.array([[0.5, 1.5], [2.0, 3.0]])), ("labels", (np.str_("x"), np.bytes_(b"y")))):
        rows = np.empty(1, dtype=object)
        rows[0] = value
        whole = (folder / f"{name}.npy").read_bytes()
        header = whole[: 10 + struct.unpack("<H", whole[8:10])[0]]
        content = pickle.dumps(rows, protocol=2)  # names are lines of text there
        (folder / f"{name}.npy").write_bytes(header + content.replace(b"numpy._core.multiarray", core))
    video = read_wtalc_arrays(folder, allow_pickle=True)["a"]
    assert (video.start.tolist(), video.end.tolist()) == ([0.5, 2.0], [1.5, 3.0])
    assert video.segment_labels == ("x", "y")


def test_a_video_twice(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="video 'a': is there twice"):
        read_wtalc_arrays(write(tmp_path, [[0.0, 1.0]], [b"x"], names=(b"a", b"a")), allow_pickle=True)


def header(kind: str, shape: str) -> bytes:
    """A .npy file of 8 bytes that states this type and shape."""
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + bytes(8)


@pytest.mark.parametrize(
    "content",
    [
        header("|S1", "(1000000000000,)"),
        header("|S0", "(1000000000,)"),
        header("<f8", "(-1,)"),
        b"PK\x03\x04" + bytes(60),  # an archive of arrays
        None,
    ],
)
def test_damaged_and_missing_files(tmp_path: Path, content: bytes | None) -> None:
    folder = write(tmp_path, [[0.0, 1.0]], [b"x"])
    if content is None:
        (folder / "videoname.npy").unlink()
    else:
        (folder / "videoname.npy").write_bytes(content)
    with pytest.raises(AnnotationError, match=r"videoname\.npy: "):
        read_wtalc_arrays(folder, allow_pickle=True)


def test_a_pickle_that_is_cut(tmp_path: Path) -> None:
    folder = write(tmp_path, [[0.0, 1.0]], [b"x"])
    whole = (folder / "labels.npy").read_bytes()
    (folder / "labels.npy").write_bytes(whole[:-20])
    with pytest.raises(AnnotationError, match=r"labels\.npy: cannot be read as \.npy"):
        read_wtalc_arrays(folder, allow_pickle=True)
