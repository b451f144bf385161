"""`refineloc-doctor`: what it finds on this machine, and on others that are made up here."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import programs
import pytest

from refineloc.runtime.cli import doctor as module
from refineloc.runtime.cli.doctor import examine
from refineloc.runtime.cli.findings import Finding
from refineloc.runtime.errors import MissingExtraError
from refineloc.runtime.segments.rules import OneThreshold


def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return programs.run("refineloc-doctor", *arguments, cwd=cwd)


def findings(model: Path | None = None) -> dict[str, Finding]:
    return {finding.subject.strip(): finding for finding in examine(model)}


def installed(*names: str) -> Callable[[], list[Any]]:
    return lambda: [SimpleNamespace(metadata={"Name": name}, version="1.0") for name in names]


class _Engine:
    """Stands for an ONNX Runtime that lists `listed`, of which only `starting` really start."""

    __version__ = "test"

    def __init__(self, listed: list[str], starting: list[str]) -> None:
        self._listed = listed
        self._starting = starting
        self.SessionOptions = onnxruntime.SessionOptions

    def get_available_providers(self) -> list[str]:
        return self._listed

    def InferenceSession(self, content: bytes, *, providers: list[tuple[str, object]], **_: object) -> Any:
        asked = [name for name, _ in providers]
        got = [name for name in asked if name in self._starting] or ["CPUExecutionProvider"]
        if "CPUExecutionProvider" not in self._starting:
            raise RuntimeError("no provider at all\nand a second line")
        return SimpleNamespace(get_providers=lambda: got)


def engine(
    monkeypatch: pytest.MonkeyPatch, listed: list[str], starting: list[str], gpu_problem: str | None = None
) -> None:
    monkeypatch.setattr(module, "load_engine", lambda: _Engine(listed, starting))
    monkeypatch.setattr(module, "gpu_problem", lambda: gpu_problem)


CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"


def test_here_it_finds_an_engine_that_runs(tmp_path: Path) -> None:
    done = run(cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert not done.stderr
    assert "\x1b" not in done.stdout
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["ok", "provider", "cpu", "starts"] in lines
    assert f"ONNX Runtime {onnxruntime.__version__}" in done.stdout
    assert "compiled (segments, proposals, points, nms, video_scores, matching)" in done.stdout


def test_it_shows_what_a_model_says_of_itself(model_path: Path) -> None:
    done = run(model_path, cwd=model_path.parent)
    assert done.returncode == 0, done.stdout
    for text in (str(model_path), "5: jump, run, swim, throw, walk", "snippet_frames", "not measured", "paper"):
        assert text in done.stdout


@pytest.mark.parametrize(
    ("profile", "told", "not_told"),
    [
        ("paper", "alpha_a alpha_c", "thresholds scoring outer video_weight"),
        ("multi-threshold", "thresholds scoring outer video_weight", "alpha_a alpha_c"),
    ],
)
def test_settings_that_the_profile_does_not_use_are_not_told(
    make_model: Callable[..., Path], profile: str, told: str, not_told: str
) -> None:
    seen = findings(make_model(profile=profile))
    assert not set(told.split()) - seen.keys()
    assert not set(not_told.split()) & seen.keys()


def test_the_rule_for_streaming_is_told(make_model: Callable[..., Path]) -> None:
    assert findings(make_model())["streaming"].result == "no rule of its own"
    told = findings(make_model(streaming=OneThreshold(alpha_c=0.125)))["streaming"].result
    assert told.startswith("profile paper, top_k 2, ")
    assert "alpha_c 0.125" in told


def test_an_int8_model_on_a_machine_with_a_gpu_is_told_where_it_runs(
    monkeypatch: pytest.MonkeyPatch, make_model: Callable[..., Path]
) -> None:
    engine(monkeypatch, [CUDA, CPU], starting=[CUDA, CPU])
    whole, int8 = make_model(), make_model(precision="int8")
    of_model = [one for one in examine(int8) if one.subject == "model"]
    assert [one.level for one in of_model] == ["ok", "warn"]
    assert "run on the CPU" in of_model[1].result
    assert "--precision fp16" in of_model[1].cure
    assert [one.level for one in examine(whole) if one.subject == "model"] == ["ok"]
    engine(monkeypatch, [CUDA, CPU], starting=[CPU], gpu_problem="no driver")
    assert [one.level for one in examine(int8) if one.subject == "model"] == ["ok"]


def test_it_says_whether_the_engine_s_telemetry_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert findings()["telemetry"] == Finding("ok", "telemetry", "ONNX Runtime's is off (ORT_DISABLE_TELEMETRY=1)")
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    assert findings()["telemetry"].level == "warn"
    assert "ORT_DISABLE_TELEMETRY=0 leaves" in findings()["telemetry"].result


def test_a_model_that_cannot_be_used_fails(tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_text("no model at all")
    done = run(bad, cwd=tmp_path)
    assert done.returncode == 2
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("fail")]
    assert "bad.onnx" in line


def test_without_an_engine_detection_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> Any:
        raise MissingExtraError("no ONNX Runtime is installed: pip install 'refineloc[cpu]'")

    monkeypatch.setattr(module, "load_engine", absent)
    monkeypatch.setattr(module, "distributions", installed("numpy"))
    seen = findings()
    assert seen["engine"].level == "fail"
    assert "pip install 'refineloc[cpu]'" in seen["engine"].cure
    assert seen["packages"].level == "warn"
    assert "provider cpu" not in seen


@pytest.mark.parametrize("names", [("onnxruntime", "onnxruntime-gpu"), ("onnxruntime_gpu", "ONNXRuntime")])
def test_two_engines_in_one_folder_are_told_with_the_cure(
    monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    monkeypatch.setattr(module, "distributions", installed("numpy", *names))
    packages = findings()["packages"]
    assert packages.level == "warn"
    assert "onnxruntime 1.0, onnxruntime-gpu 1.0" in packages.result
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in packages.cure


def test_one_engine_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "distributions", installed("numpy", "onnxruntime", "onnxruntime-extensions"))
    assert findings()["packages"] == Finding("ok", "packages", "onnxruntime 1.0")


@pytest.mark.parametrize(
    ("listed", "starting", "gpu", "subject", "level", "told"),
    [
        ([TENSORRT, CUDA, CPU], [CUDA, CPU], None, "provider cpu", "ok", "starts"),
        ([TENSORRT, CUDA, CPU], [CUDA, CPU], None, "provider cuda", "ok", "starts"),
        ([TENSORRT, CUDA, CPU], [CUDA, CPU], None, "provider tensorrt", "warn", "is listed, does not start"),
        ([TENSORRT, CUDA, CPU], [CUDA, CPU], None, "NVIDIA GPU", "ok", "visible"),
        ([CUDA, CPU], [CPU], None, "provider cuda", "warn", "pip install 'onnxruntime-gpu[cuda,cudnn]'"),
        ([CUDA, CPU], [CUDA, CPU], "no driver here", "provider cuda", "warn", "no driver here"),
        ([CUDA, CPU], [CUDA, CPU], "no driver here", "NVIDIA GPU", "ok", "none: no driver here"),
        ([CPU, "Azure"], [CPU], None, "NVIDIA GPU", "warn", "pip install 'refineloc[gpu]'"),
        ([CPU, "Azure"], [CPU], None, "other providers", "ok", "Azure"),
        ([CPU], [], None, "provider cpu", "fail", "does not start"),
        ([CUDA], [CUDA], None, "provider cpu", "fail", "is not in the installed ONNX Runtime"),
    ],
)
def test_providers_are_what_really_starts(
    monkeypatch: pytest.MonkeyPatch,
    listed: list[str],
    starting: list[str],
    gpu: str | None,
    subject: str,
    level: str,
    told: str,
) -> None:
    engine(monkeypatch, listed, starting, gpu_problem=gpu)
    finding = findings()[subject]
    assert finding.level == level
    assert told in finding.result + finding.cure


def test_kernels_that_do_not_load_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "refineloc._ext.nms", None)
    kernels = findings()["kernels"]
    assert kernels.level == "fail"
    assert "build_ext" in kernels.cure


@pytest.mark.parametrize(("quota", "level"), [("50000 100000", "warn"), ("max 100000", "ok"), ("damaged", "ok")])
def test_a_container_that_has_less_than_its_cores_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quota: str, level: str
) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(module, "_CPU_MAX", tmp_path / "cpu.max")
    cpu = findings()["CPU"]
    assert cpu.level == level
    assert ("--threads 1" in cpu.cure) == (level == "warn")


def test_on_a_terminal_it_has_colours(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    code, shown = programs.on_terminal("refineloc-doctor", model_path, cwd=model_path.parent)
    assert code == 0
    assert "\x1b[" in shown
    assert "jump, run, swim" in shown
