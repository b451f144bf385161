"""A model repository for NVIDIA Triton Inference Server.

    DIR/refineloc/config.pbtxt      what Triton needs to know, and our metadata as `parameters`
    DIR/refineloc/labels.txt        the class names, a line each, in the order of the score columns
    DIR/refineloc/1/model.onnx      the file as exported

    tritonserver --model-repository DIR

Triton's ONNX Runtime backend runs the file as it is. Clients send `features` [S, D] and `lengths` [V] and get the four
outputs of docs/onnx.md. A request is a packed batch of its own, so Triton's batcher, which would need one shape for all
requests, stays off (`max_batch_size: 0`); send several videos in a request, about 2,000 snippets together.
"""

import os
from pathlib import Path

from refineloc.runtime.errors import ConfigError, OutputError
from refineloc.runtime.files import atomic_write, check_writable
from refineloc.runtime.model.metadata import ModelMetadata
from refineloc.runtime.model.session import Session

__all__ = ["check_triton_folder", "triton_config", "write_triton"]


def check_triton_folder(folder: str | os.PathLike[str], name: str = "refineloc") -> None:
    """Fail before an export, not after it, where `write_triton` cannot write; leaves nothing there.

    Raises:
        OutputError: a folder cannot be written, or a file is in its place.
    """
    place = Path(folder) / name / "1"
    there = next(path for path in (place, *place.parents) if path.exists())
    if not there.is_dir():
        raise OutputError(f"{there}: cannot hold a model repository: it is a file; give a folder")
    check_writable(there / "model.onnx")


def write_triton(folder: str | os.PathLike[str], model: str | os.PathLike[str], name: str = "refineloc") -> Path:
    """Write a model repository, or one more model into one that is there.

    Args:
        folder: of the repository; made where it is missing.
        model: an ONNX file that refineloc-export wrote.
        name: of the model in the repository, and of its folder.

    Returns:
        The model's folder.

    Raises:
        ConfigError: a name that cannot be a folder's.
        ModelError: not a file that refineloc-export wrote.
        OutputError: the folder cannot be written.
    """
    if name in ("", ".", "..") or name != Path(name).name or not name.isprintable() or '"' in name:
        raise ConfigError(f"name: expected the name of one folder, got {name!r}")
    source = Path(model)
    metadata = Session(source, provider="cpu", threads=1).metadata
    place = Path(folder) / name
    try:
        (place / "1").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{place}: cannot be written: {(error.strerror or str(error)).lower()}") from error
    # The configuration comes last: Triton takes no folder without one for a model.
    with atomic_write(place / "1" / "model.onnx", "wb") as file:
        file.write(source.read_bytes())
    with atomic_write(place / "labels.txt") as file:
        file.write("".join(f"{label}\n" for label in metadata.classes))
    with atomic_write(place / "config.pbtxt") as file:
        file.write(triton_config(metadata, name))
    return place


def triton_config(metadata: ModelMetadata, name: str) -> str:
    """The text of `config.pbtxt` (Triton's ModelConfig, as protobuf text)."""
    width, classes = metadata.width, len(metadata.classes)
    lines = [f"name: {_quoted(name)}", 'backend: "onnxruntime"', "max_batch_size: 0"]
    for kind, tensor, element, dims in (
        ("input", "features", "TYPE_FP32", [-1, width]),
        ("input", "lengths", "TYPE_INT64", [-1]),
        ("output", "class_scores", "TYPE_FP32", [-1, classes]),
        ("output", "foreground", "TYPE_FP32", [-1]),
        ("output", "attention", "TYPE_FP32", [-1]),
        ("output", "video_scores", "TYPE_FP32", [-1, classes]),
    ):
        labels = ' label_filename: "labels.txt"' if tensor == "video_scores" else ""
        lines.append(f"{kind} [ {{ name: {_quoted(tensor)} data_type: {element} dims: {dims}{labels} }} ]")
    lines += [
        f"parameters {{ key: {_quoted(key)} value {{ string_value: {_quoted(value)} }} }}"
        for key, value in metadata.to_props().items()
    ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A string of protobuf text: its escapes are C's."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
