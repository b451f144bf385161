"""The runtime as people deploy it: our wheel beside numpy, ONNX Runtime, h5py and typer, no training packages."""

import json
import os
import re
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_model import WIDTH, write_features, write_model

from refineloc.evaluation import evaluate, match_detections
from refineloc.runtime import Detector, open_features, read_annotations, read_detections

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[1]
NEEDED = ("numpy", "onnxruntime", "h5py", "typer", "rich")
UNREACHABLE = re.compile(
    "No matching distribution found|Could not fetch URL|ConnectionError|Connection refused|timed out"
)

Run = Callable[..., str]


def command(*arguments: object, cwd: Path) -> str:
    # No PYTHONPATH: nothing of the environment that runs the tests may be seen.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([*map(str, arguments)], capture_output=True, text=True, cwd=cwd, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, built: tuple[Path, Path]) -> Run:
    """Runs a program of an environment that has the wheel and what the runtime needs."""
    work = tmp_path_factory.mktemp("runtime-only")
    place = work / "venv"
    venv.create(place)
    python = place / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    got = subprocess.run(
        [*pip, "install", "-q", "-c", str(ROOT / "constraints.txt"), *NEEDED], capture_output=True, text=True
    )
    if got.returncode and UNREACHABLE.search(got.stderr):
        pytest.skip(f"pip reaches no index: {got.stderr.strip().splitlines()[-1]}")
    assert got.returncode == 0, got.stderr[-3000:]
    command(*pip, "install", "-q", "--no-deps", built[1], cwd=work)
    return lambda program, *arguments: command(place / "bin" / program, *arguments, cwd=work)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model.onnx and features.h5."""
    folder = tmp_path_factory.mktemp("files")
    write_model(folder / "model.onnx")
    rng = np.random.default_rng(0)
    videos = {f"v{index}": rng.standard_normal((20 + index, WIDTH), np.float32) for index in range(8)}
    write_features(folder / "features.h5", videos, fps=25.0)
    return folder


def test_it_has_no_training_packages(run: Run) -> None:
    # pydantic is not in this list: recent versions of typer bring it themselves. The test below shows that ours
    # does not load it.
    code = "import importlib.util as u; print([n for n in ('torch', 'onnx', 'onnxscript', 'pandas') if u.find_spec(n)])"
    assert run("python", "-c", code).strip() == "[]"
    assert "site-packages" in run("python", "-c", "import refineloc; print(refineloc.__file__)")


def test_embedding_runs_and_loads_no_more_than_it_needs(run: Run, files: Path) -> None:
    code = (
        "import json, sys, numpy as np\n"
        "from refineloc.runtime import Detector\n"
        f"detector = Detector({str(files / 'model.onnx')!r})\n"
        f"x = np.random.default_rng(3).standard_normal((40, {WIDTH})).astype(np.float32)\n"
        "print(json.dumps([[d.start, d.end, d.label, d.score] for d in detector.detect(x, fps=25.0)]))\n"
        "print(detector.provider, *sorted({name.split('.')[0] for name in sys.modules}))\n"
    )
    detections, loaded = run("python", "-c", code).splitlines()
    x = np.random.default_rng(3).standard_normal((40, WIDTH)).astype(np.float32)
    expected = [
        [one.start, one.end, one.label, one.score]
        for one in Detector(files / "model.onnx", provider="cpu").detect(x, fps=25.0)
    ]
    assert len(expected) > 1
    got = json.loads(detections)
    assert [one[:3] for one in got] == [one[:3] for one in expected]
    np.testing.assert_allclose([one[3] for one in got], [one[3] for one in expected], atol=1e-5)
    assert loaded.startswith("cpu ")
    assert not {"pydantic", "typer", "rich", "h5py"} & set(loaded.split())


def test_detect_and_eval_agree_with_this_environment(run: Run, files: Path, tmp_path: Path) -> None:
    out = tmp_path / "detections.json"
    run("refineloc-detect", files / "features.h5", "--model", files / "model.onnx", "--out", out)
    here = Detector(files / "model.onnx", provider="cpu")
    with open_features(files / "features.h5") as store:
        expected = dict(here.detect_many(store))
    found = read_detections(out)
    assert found.keys() == expected.keys()
    assert sum(map(len, found.values())) > 8
    for name, own in expected.items():
        assert sorted(found[name].label.tolist()) == sorted(own.label.tolist())
        np.testing.assert_allclose(np.sort(found[name].start), np.sort(own.start))
        np.testing.assert_allclose(np.sort(found[name].score), np.sort(own.score), atol=1e-5)

    # Ground truth: the first action that was found in each video, a little later; so the score is neither 0 nor 1.
    truth = tmp_path / "truth.csv"
    first = {name: next(iter(own)) for name, own in expected.items() if len(own)}
    rows = [f"{name},{one.start + 0.4},{one.end + 0.4},{one.label}" for name, one in first.items()]
    truth.write_text("\n".join(["video-name,t-start,t-end,label", *rows]) + "\n")
    scores = tmp_path / "scores.json"
    run("refineloc-eval", out, truth, "--json", scores)
    average = evaluate(match_detections(found, read_annotations(truth))).average_mAP
    assert 0 < average < 1
    assert json.loads(scores.read_text())["average_mAP"] == pytest.approx(average)


def test_doctor_is_content(run: Run, files: Path) -> None:
    shown = run("refineloc-doctor", files / "model.onnx")
    assert re.search(r"^ok +provider cpu +starts$", shown, re.MULTILINE)
    assert re.search(r"^ok +packages +onnxruntime \d", shown, re.MULTILINE)
    assert "5: jump, run, swim, throw, walk" in shown
    assert "\nfail" not in shown
