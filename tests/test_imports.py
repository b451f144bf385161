"""The one direction of imports (training, export -> evaluation -> runtime -> _ext), and what embedding costs."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_model import WIDTH, write_model

import refineloc.evaluation
import refineloc.runtime
from refineloc.runtime import read_detections

ROOT = Path(__file__).resolve().parents[1]
ABOVE_RUNTIME = ("refineloc.evaluation", "refineloc.training", "refineloc.export")
TRAINING_PACKAGES = ("torch", "onnx", "onnxscript", "pandas", "pydantic")
FORBIDDEN = {
    "_ext": ("refineloc.runtime", *ABOVE_RUNTIME, *TRAINING_PACKAGES),
    "runtime": (*ABOVE_RUNTIME, *TRAINING_PACKAGES),
    "evaluation": ("refineloc.training", "refineloc.export", "onnxruntime", *TRAINING_PACKAGES),
    "training": ("refineloc.export",),
}
# The public names.
RUNTIME = """
AnnotationError Annotations Boundaries ConfigError Detection DetectionError Detections Detector EngineError
EngineWarning FeatureError FeatureStore InputError InputWarning ManyThresholds MissingExtraError ModelError
ModelMetadata OneThreshold OutputError Points RefineLocError Scores Segments SnippetGrid StoreError StreamingDetector
VideoAnnotation VideoError open_features read_annotations read_detections write_detections
"""
EVALUATION = """
DEFAULT_TIOUS Calibration Diagnosis Difference Doubt Evaluation Intervals Matching OperatingPoint OperatingPoints
at_precision at_score average_recall bootstrap calibration check_plausible compare diagnose evaluate match_detections
video_scores
"""


def imported_names(path: Path) -> set[str]:
    """Every module that a file imports, at its top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_imports_go_one_way(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    for path in files:
        for name in imported_names(path):
            for forbidden in FORBIDDEN[folder]:
                assert name != forbidden, f"{path} imports {name}"
                assert not name.startswith(forbidden + "."), f"{path} imports {name}"


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/").stdout


def test_embedding_loads_what_a_detector_needs() -> None:
    """Float16's converter comes with the first float16 features; files of labels, evaluation and programs never."""
    loaded = run_python(
        "import sys; from refineloc.runtime import Detector\n"
        "from refineloc.runtime.model.session import load_engine; load_engine(); print(*sys.modules)"
    ).split()
    ours = {name.removeprefix("refineloc.runtime.") for name in loaded if name.startswith("refineloc.runtime.")}
    assert "model.session" in ours
    assert not {"model.half", "annotations", "streaming", "features.hdf5", "cli"} & ours
    assert {"onnxruntime", "numpy"} <= set(loaded)
    assert not {"refineloc.evaluation", *TRAINING_PACKAGES, "typer", "rich", "h5py", "matplotlib"} & set(loaded)
    slow = {"fcntl", "tomllib", "argparse", "logging", "asyncio", "csv", "shutil", "tempfile", "uuid"}
    assert not slow & (set(loaded) - set(bare()))


def bare() -> list[str]:
    """What NumPy and ONNX Runtime load of themselves."""
    return run_python("import sys, numpy, numpy.typing, onnxruntime; print(*sys.modules)").split()


def test_detect_runs_where_no_package_of_training_can_be_imported(tmp_path: Path) -> None:
    """tests/test_runtime_only.py, a long test, installs it where there are none."""
    write_model(tmp_path / "model.onnx")
    np.save(tmp_path / "v.npy", np.random.default_rng(0).standard_normal((60, WIDTH)).astype(np.float32))
    # typer imports pydantic where it is installed.
    absent = {*TRAINING_PACKAGES, "matplotlib"} - {"pydantic"}
    arguments = [".", "--model", "model.onnx", "--fps", "25", "--provider", "cpu"]
    code = (
        f"import os, sys; sys.modules |= dict.fromkeys({absent!r})\n"
        f"os.chdir({str(tmp_path)!r}); sys.argv = ['refineloc-detect', *{arguments}]\n"
        "from refineloc.runtime.cli.detect import main; main()"
    )
    run_python(code)
    assert len(read_detections(tmp_path / "detections.json")["v"]) > 0


def test_the_runtime_s_tests_need_no_torch() -> None:
    """They are collected where torch cannot be imported; a test that needs it inside says so with `importorskip`."""
    code = (
        "import sys, pytest; sys.modules['torch'] = None\n"
        f"sys.exit(pytest.main([{str(ROOT / 'tests/runtime')!r}, '--collect-only', '-q', '-p', 'no:cacheprovider']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout


def test_reading_detections_does_not_start_the_engine() -> None:
    loaded = run_python(
        "import sys; from refineloc.runtime import read_detections; print(*{n.split('.')[0] for n in sys.modules})"
    ).split()
    assert "onnxruntime" not in loaded


def test_without_an_engine_the_error_has_the_install_line() -> None:
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from refineloc.runtime import Detector, MissingExtraError\n"
        "try: Detector('model.onnx')\n"
        "except MissingExtraError as error: print(error)\n"
    )
    assert "pip install 'refineloc[cpu]'" in run_python(code)


def test_public_names_are_pinned() -> None:
    assert refineloc.runtime.__all__ == RUNTIME.split()
    for name in refineloc.runtime.__all__:
        assert getattr(refineloc.runtime, name) is not None
    assert set(dir(refineloc.runtime)) == set(refineloc.runtime.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = refineloc.runtime.nothing


def test_public_names_of_evaluation_are_pinned() -> None:
    assert refineloc.evaluation.__all__ == EVALUATION.split()
    assert callable(refineloc.evaluation.bootstrap)  # the function, not the module of this name
