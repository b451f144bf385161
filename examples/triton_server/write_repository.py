"""A model repository for NVIDIA Triton Inference Server, from a file that refineloc-export wrote.

    python examples/triton_server/write_repository.py model.onnx DIR [NAME]

README.md beside this file says what it writes. No Triton server was ever run on it.
"""

import sys
from pathlib import Path

from refineloc.runtime.errors import RefineLocError
from refineloc.runtime.model.metadata import ModelMetadata
from refineloc.runtime.model.session import Session


def write_repository(model: Path, repository: Path, name: str = "refineloc") -> Path:
    """Write the model and its configuration into a repository, which may hold other models.

    Returns:
        The model's folder.

    Raises:
        ModelError: not a file that refineloc-export wrote.
        OSError: the folder cannot be written.
    """
    metadata = Session(model, provider="cpu", threads=1).metadata
    folder = repository / name
    (folder / "1").mkdir(parents=True, exist_ok=True)
    (folder / "1" / "model.onnx").write_bytes(model.read_bytes())
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in metadata.classes), encoding="utf-8")
    # The configuration comes last: Triton ignores a folder without one.
    (folder / "config.pbtxt").write_text(configuration(metadata, name), encoding="utf-8")
    return folder


def configuration(metadata: ModelMetadata, name: str) -> str:
    """The text of `config.pbtxt` (Triton's ModelConfig, as protobuf text)."""
    width, classes = metadata.width, len(metadata.classes)
    lines = [f"name: {quoted(name)}", 'backend: "onnxruntime"', "max_batch_size: 0"]
    for kind, tensor, element, dims in (
        ("input", "features", "TYPE_FP32", [-1, width]),
        ("input", "lengths", "TYPE_INT64", [-1]),
        ("output", "class_scores", "TYPE_FP32", [-1, classes]),
        ("output", "foreground", "TYPE_FP32", [-1]),
        ("output", "attention", "TYPE_FP32", [-1]),
        ("output", "video_scores", "TYPE_FP32", [-1, classes]),
    ):
        labels = ' label_filename: "labels.txt"' if tensor == "video_scores" else ""
        lines.append(f"{kind} [ {{ name: {quoted(tensor)} data_type: {element} dims: {dims}{labels} }} ]")
    lines += [
        f"parameters {{ key: {quoted(key)} value {{ string_value: {quoted(value)} }} }}"
        for key, value in metadata.to_props().items()
    ]
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """A string of protobuf text, which has C's escapes."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: write_repository.py MODEL.onnx DIR [NAME]")
    try:
        print(write_repository(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]))
    except (RefineLocError, OSError) as error:
        sys.exit(f"error: {error}")
