"""Detection in a file of features, against its bounds: reading the file, and the matrix products.

    python -m benchmarks runtime

All three are measured in turns, so that a slow phase of the machine affects all. The larger of the two is the bound, as
reading and computing overlap. Features are 2,048 wide as I3D's, lengths are distributed as in THUMOS14, and the model
has two layers. Files are read from the page cache; from a disk below about 0.2 GB/s, reading is the bound.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import torch
from onnx import TensorProto, helper, numpy_helper
from small_model import METADATA

from benchmarks.timing import Row, race
from refineloc.export.graph import model_bytes
from refineloc.export.precision import build
from refineloc.runtime import Detector, open_features
from refineloc.runtime.model.limits import BATCH_SNIPPETS
from refineloc.runtime.model.metadata import Precision
from refineloc.runtime.model.session import create_session, load_engine
from refineloc.runtime.segments.rules import OneThreshold
from refineloc.training.models.bases.refineloc import RefineLoc

WIDTH, CLASSES, VIDEOS, BATCH = 2048, 100, 64, BATCH_SNIPPETS
ROUNDS_S = 12.0  # for each of the three


def rows() -> list[Row]:
    """Detection against its bounds, for three kinds of file and model; and the import against that of ONNX Runtime."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lengths = thumos14_lengths(VIDEOS)
        out = []
        for precision, dtype in (("fp32", np.float32), ("fp32", np.float16), ("int8", np.float16)):
            out += _end_to_end(folder, lengths, precision, dtype)  # type: ignore[arg-type]
    return [*out, _import_time()]


def thumos14_lengths(videos: int) -> np.ndarray:
    """Snippets of videos that are as long as THUMOS14's."""
    return np.clip(np.random.default_rng(0).lognormal(np.log(280), 0.8, videos), 8, 2000).astype(int)


def _end_to_end(folder: Path, lengths: np.ndarray, precision: Precision, dtype: type) -> list[Row]:
    features = folder / f"{np.dtype(dtype).name}.h5"
    if not features.exists():
        rng = np.random.default_rng(1)
        with h5py.File(features, "w") as file:
            for index, length in enumerate(lengths):
                file[f"v{index:03}"] = rng.standard_normal((length, WIDTH), dtype=np.float32).astype(dtype)
    detector = Detector(_model(folder, precision), provider="cpu", threads=_cores())

    def read() -> None:
        with open_features(features) as store:
            buffer = np.empty((int(lengths.max()), WIDTH), dtype)
            for name, length in zip(store.names, lengths, strict=True):
                store.read_into(name, buffer[:length], slice(0, WIDTH))

    def whole() -> None:
        with open_features(features) as store:
            for _ in detector.detect_many(store, fps=25.0):
                pass

    snippets = int(lengths.sum())
    subject = f"detect, {precision} model, {np.dtype(dtype).name} file, {snippets:,} snippets"
    whole_s, read_s, calls_s = race(whole, read, _products(folder, snippets, precision), budget_s=ROUNDS_S)
    products_s = calls_s * snippets / (_calls(snippets) * BATCH)  # as only whole calls were timed
    bound = max(read_s, products_s)
    return [
        Row(subject, "reading the file", whole_s, read_s),
        Row(subject, "its matrix products", whole_s, products_s),
        Row(subject, "the larger", whole_s, bound, "0.8" if precision == "fp32" else ""),
    ]


def _products(folder: Path, snippets: int, precision: Precision) -> Callable[[], None]:
    """The products of the layers alone, in calls of the detector's size.

    Float32: by NumPy's BLAS or ONNX Runtime, whichever is faster on this machine. Int8: ONNX Runtime's MatMulInteger,
    without quantisation.
    """
    shapes = [(WIDTH, WIDTH // 2), (WIDTH // 2, CLASSES), (WIDTH, WIDTH // 2), (WIDTH // 2, 2)]
    rng = np.random.default_rng(2)
    exact = precision != "int8"
    nodes, weights, inputs, outputs, feed = [], [], [], [], {}
    kinds = (TensorProto.FLOAT, TensorProto.FLOAT) if exact else (TensorProto.UINT8, TensorProto.INT32)
    for index, (wide, out) in enumerate(shapes):
        weight = rng.standard_normal((wide, out)).astype(np.float32) if exact else rng.integers(-90, 90, (wide, out))
        weights.append(numpy_helper.from_array(weight if exact else weight.astype(np.int8), f"w{index}"))
        nodes.append(
            helper.make_node("MatMul" if exact else "MatMulInteger", [f"x{index}", f"w{index}"], [f"y{index}"])
        )
        inputs.append(helper.make_tensor_value_info(f"x{index}", kinds[0], [BATCH, wide]))
        outputs.append(helper.make_tensor_value_info(f"y{index}", kinds[1], [BATCH, out]))
        values = rng.standard_normal((BATCH, wide)) if exact else rng.integers(0, 182, (BATCH, wide))
        feed[f"x{index}"] = values.astype(np.float32 if exact else np.uint8)
    graph = helper.make_graph(nodes, "products", inputs, outputs, weights)
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = create_session(load_engine(), str(folder), content.SerializeToString(), ["cpu"], _cores())

    def by_engine() -> None:
        session.run(None, feed)

    arrays = [(feed[f"x{index}"], numpy_helper.to_array(weight)) for index, weight in enumerate(weights)]

    def by_blas() -> None:
        for inputs, weight in arrays:
            inputs @ weight

    job = by_engine
    if exact:
        engine_s, blas_s = race(by_engine, by_blas, budget_s=1.0)
        job = by_engine if engine_s <= blas_s else by_blas

    def products() -> None:
        for _ in range(_calls(snippets)):
            job()

    return products


def _calls(snippets: int) -> int:
    return -(-snippets // BATCH)


def _model(folder: Path, precision: Precision) -> Path:
    path = folder / f"{precision}.onnx"
    if not path.exists():
        torch.manual_seed(0)
        metadata = replace(
            METADATA,
            classes=tuple(f"c{index}" for index in range(CLASSES)),
            width=WIDTH,
            detection=OneThreshold(),
            precision=precision,
        )
        path.write_bytes(model_bytes(build(RefineLoc(WIDTH, CLASSES), WIDTH, precision), metadata))
    return path


def _import_time() -> Row:
    """CPU time of the imports with compiled byte code, as pip leaves it; the least of five starts."""
    code = (
        "import time; begin = time.process_time(); import onnxruntime; between = time.process_time()\n"
        "from refineloc.runtime import Detector; print(between - begin, time.process_time() - between)"
    )
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        command = [sys.executable, "-c", code]
        times = [
            subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.split()
            for _ in range(6)
        ]
    engine_s, more_s = (min(float(row[column]) for row in times[1:]) for column in (0, 1))
    return Row(
        "import of ONNX Runtime and Detector, CPU time", "of ONNX Runtime alone", engine_s + more_s, engine_s, "+50 ms"
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
