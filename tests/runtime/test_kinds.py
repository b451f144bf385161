"""Files of another kind than was expected: what they are, and that the arguments may be swapped."""

import io
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from refineloc.runtime import AnnotationError, DetectionError, ModelError, read_annotations, read_detections
from refineloc.runtime.kinds import mistaken
from refineloc.runtime.model.onnx_guard import read_model


def hdf5() -> bytes:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file["v"] = np.ones((3, 4), np.float32)
    return content.getvalue()


def npy() -> bytes:
    content = io.BytesIO()
    np.save(content, np.ones((3, 4), np.float32))
    return content.getvalue()


def npz() -> bytes:
    content = io.BytesIO()
    np.savez(content, v=np.ones((3, 4), np.float32))
    return content.getvalue()


def archive(*names: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name in names:
            file.writestr(name, b"content")
    return content.getvalue()


BINARIES = [
    (hdf5(), r"is an HDF5 file, as of features; give .* \(arguments swapped\?\)$"),
    (npy(), r"is a NumPy array \(.npy\), as of features; give .*swapped"),
    (npz(), r"is NumPy arrays \(.npz\), as of features; give .*swapped"),
    (archive("[Content_Types].xml"), r"is a file of Excel or Word; give .* \(save the table as CSV\)$"),
    (archive("model/data.pkl"), r"is PyTorch's \(.pt\), which is not read; give [^(]*$"),
    (archive("labels.csv"), r"is a zip archive; give .* \(unpack it\)$"),
    (b"\x1f\x8b\x08\0", r"is compressed with gzip; give .* \(unpack it\)$"),
    (b"\x80\x04\x95", "is a pickle, which is not read; give"),
    (b"%PDF-1.7\n", "is a PDF; give"),
    (b"\0\0\0 ftypisom", "is a film; give"),
    (b'\x40\0\0\0\0\0\0\0{"__metadata__":', r"is the weights of a run \(.safetensors\); give .*refineloc-export"),
]
TEXTS = [
    (b"\xef\xbb\xbfVideo Name;label\n", "is a table of labels or detections; give"),
    (b'{ "results": {}}', "is a JSON of labels or detections; give"),
    (b'{"version": 1}', "is a JSON of labels or detections; give"),
    (b"version https://git-lfs.github.com/spec/v1\noid", r"is a pointer of Git LFS.*\(git lfs pull\)$"),
    (b"\n<!DOCTYPE HTML>", r"is a web page; give .* \(download the file itself\)$"),
]
MODEL = (Path(__file__).parents[1] / "data/model.onnx").read_bytes()


@pytest.mark.parametrize(("content", "message"), [*BINARIES, *TEXTS])
def test_a_model_that_is_something_else(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=f"model.onnx: {message}"):
        read_model(tmp_path / "model.onnx")


@pytest.mark.parametrize(("content", "message"), [*BINARIES, (MODEL, "is an ONNX model; give .*swapped")])
def test_a_text_that_is_something_else(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "f.csv").write_bytes(content)
    with pytest.raises(AnnotationError, match=f"f.csv: {message}"):
        read_annotations(tmp_path / "f.csv")
    with pytest.raises(DetectionError, match=f"f.csv: {message}"):
        read_detections(tmp_path / "f.csv")


def test_labels_as_detections(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("video-name,t-start,t-end,label\nv,0,1,jump\n")
    with pytest.raises(DetectionError, match=r"labels have no scores \(arguments swapped\?\)$"):
        read_detections(tmp_path / "labels.csv")


def test_the_expected_kind_is_damaged() -> None:
    assert mistaken(MODEL[:50], "", own="an ONNX") == ""
    assert mistaken(b"anything", "") == mistaken(b"", "") == mistaken(b'{"a"', "", texts=False) == ""
