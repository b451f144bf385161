"""`refineloc-doctor`: what detection would run on here, or a data set; and the cure of each thing that is wrong."""

import os
import platform
from collections.abc import Iterator
from dataclasses import fields
from importlib import import_module
from importlib.metadata import distributions
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from refineloc import __version__
from refineloc.runtime.cli.common import VersionOption, new_app, run_app
from refineloc.runtime.cli.findings import Finding, show
from refineloc.runtime.errors import InputError, RefineLocError
from refineloc.runtime.model.gpu import gpu_problem
from refineloc.runtime.model.half import CAST_MODEL
from refineloc.runtime.model.metadata import ModelMetadata
from refineloc.runtime.model.session import (
    NOT_LOADED,
    ONNX_NAMES,
    Session,
    create_session,
    load_engine,
    running_provider,
)
from refineloc.runtime.segments.rules import OneThreshold, settings_of

__all__ = ["examine", "main"]

# The distributions that install ONNX Runtime; all of them into the one folder `onnxruntime`.
_ENGINES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino", "onnxruntime-qnn")
_KERNELS = ("segments", "proposals", "points", "nms", "video_scores", "matching")
_REINSTALL = f"pip uninstall -y {' '.join(_ENGINES[:2])}; then pip install 'refineloc[cpu]', or 'refineloc[gpu]'"
_TO_GPU = f"pip uninstall -y {_ENGINES[0]}; then pip install 'refineloc[gpu]'"
_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")  # of a Linux control group: microseconds of CPU a period

_FEATURES = (".h5", ".hdf5", ".hdf", ".npy", ".npz")

app = new_app("refineloc-doctor")


def examine(model: Path | None = None) -> Iterator[Finding]:
    """Everything that detection needs here, in the order in which it is needed.

    Args:
        model: an ONNX file to look at as well.
    """
    machine = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    yield Finding("ok", "refineloc", f"{__version__}, {machine}")
    yield _kernels()
    yield _packages()
    yield from _cores()
    try:
        engine = load_engine()
    except RefineLocError as error:
        yield Finding("fail", "engine", str(error), _REINSTALL)
        return  # providers and models are the engine's
    yield Finding("ok", "engine", f"ONNX Runtime {engine.__version__}")
    yield _telemetry()
    yield from _providers(engine)
    if model is not None:
        yield from _model(model, engine)


def _kernels() -> Finding:
    try:
        for name in _KERNELS:
            import_module(f"refineloc._ext.{name}")
    except ImportError as error:
        cure = "install a wheel, or compile them: python setup.py build_ext --inplace"
        return Finding("fail", "kernels", f"do not load: {error}", cure)
    return Finding("ok", "kernels", f"compiled ({', '.join(_KERNELS)})")


def _packages() -> Finding:
    # A name can be found twice on the path (a folder of a build beside site-packages); that is one installation.
    names = {str(each.metadata["Name"]).lower().replace("_", "-"): each.version for each in distributions()}
    engines = {name: names[name] for name in _ENGINES if name in names}
    listed = ", ".join(f"{name} {version}" for name, version in engines.items())
    if len(engines) > 1:
        return Finding("warn", "packages", f"{listed}: they share one folder and overwrite each other", _REINSTALL)
    if not engines:
        return Finding("warn", "packages", "no package of ONNX Runtime that pip knows", _REINSTALL)
    return Finding("ok", "packages", listed)


def _cores() -> Iterator[Finding]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _container_cores()
    if quota is not None and quota < usable:
        yield Finding(
            "warn",
            "CPU",
            f"{usable} logical cores, of which this container may use the time of {quota:g}; the default of one "
            "thread a physical core does not see that",
            f"give --threads {max(1, int(quota))} (in Python: threads=)",
        )
    else:
        yield Finding("ok", "CPU", f"{usable} logical cores; threads=0, the default, takes one a physical core")


def _container_cores() -> float | None:
    """How many cores' time the control group allows; None where it sets no limit."""
    try:
        quota, period = _CPU_MAX.read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError):  # no such file outside Linux and cgroup v2; "max" where there is no limit
        return None


def _telemetry() -> Finding:
    """Whether ONNX Runtime sends usage data; refineloc/__init__.py turns it off unless the user says otherwise."""
    value = os.environ.get("ORT_DISABLE_TELEMETRY", "")
    if value.strip().lower() in ("1", "true", "yes", "on"):
        return Finding("ok", "telemetry", f"ONNX Runtime's is off (ORT_DISABLE_TELEMETRY={value})")
    result = (
        f"ORT_DISABLE_TELEMETRY={value} leaves ONNX Runtime's on, if it has one (1.29 and later): it sends usage data"
    )
    return Finding("warn", "telemetry", result, "unset ORT_DISABLE_TELEMETRY, or set it to 1")


def _providers(engine: Any) -> Iterator[Finding]:
    """Listed providers are no proof that they run: each is asked to run a model of one node."""
    listed = engine.get_available_providers()
    gpu = gpu_problem()
    if gpu is not None:
        yield Finding("ok", "NVIDIA GPU", f"none: {gpu}")
    elif ONNX_NAMES["cuda"] not in listed:
        yield Finding("warn", "NVIDIA GPU", "visible, and the installed ONNX Runtime has no CUDA", _TO_GPU)
    else:
        yield Finding("ok", "NVIDIA GPU", "visible")
    for name in reversed(ONNX_NAMES):  # the CPU first: the others matter less
        subject = f"provider {name}"
        if ONNX_NAMES[name] not in listed:
            if name == "cpu":
                yield Finding("fail", subject, "is not in the installed ONNX Runtime", _REINSTALL)
            continue
        problem = _why_not(engine, name) if name == "cpu" or gpu is None else gpu
        if problem is None:
            yield Finding("ok", subject, "starts")
        elif name == "cpu":
            yield Finding("fail", subject, f"does not start: {problem}", _REINSTALL)
        else:
            cure = "detection runs on the CPU; provider='cpu' asks for that without a warning"
            yield Finding("warn", subject, f"is listed, does not start: {problem}", cure)
    others = sorted(set(listed) - set(ONNX_NAMES.values()))
    if others:
        yield Finding("ok", "other providers", f"listed and not used by refineloc: {', '.join(others)}")


def _why_not(engine: Any, name: str) -> str | None:
    """Why a provider does not start; None where it does."""
    try:
        session = create_session(engine, "a model of one node", CAST_MODEL, [name], 1)
    except RefineLocError as error:
        return str(error)
    return None if running_provider(session) == name else NOT_LOADED


def _model(path: Path, engine: Any) -> Iterator[Finding]:
    try:
        metadata = Session(path, "cpu", threads=1).metadata
    except RefineLocError as error:
        yield Finding("fail", "model", str(error), "write it again with refineloc-export")
        return
    yield Finding("ok", "model", f"{path}, {path.stat().st_size:,} bytes")
    if metadata.precision == "int8" and ONNX_NAMES["cuda"] in engine.get_available_providers() and not gpu_problem():
        result = "is int8, of which CUDA has no products: they run on the CPU also where there is a GPU"
        yield Finding("warn", "model", result, "refineloc-export --precision fp16 for the GPU, or provider='cpu'")
    for name, value in _facts(metadata):
        yield Finding("ok", f"  {name}", value)


def _facts(metadata: ModelMetadata) -> Iterator[tuple[str, str]]:
    """The metadata, a line each; what is empty is not worth a line."""
    for field in fields(metadata):
        value = getattr(metadata, field.name)
        if field.name == "classes":
            yield "classes", f"{len(value)}: {', '.join(value)}"
        elif field.name == "detection":
            for setting in settings_of(type(value)):
                stated = getattr(value, setting.name)
                yield setting.name, "none" if stated is None else str(stated)
        elif field.name == "streaming":
            names = [] if value is None else [setting.name for setting in settings_of(OneThreshold)]
            yield "streaming", ", ".join(f"{name} {getattr(value, name)}" for name in names) or "no rule of its own"
        elif field.name == "parity":
            for part in fields(value) if value is not None else ():
                yield f"parity.{part.name}", str(getattr(value, part.name))
            if value is None:
                yield "parity", "not measured"
        elif field.name == "tuning" and value is not None:
            yield (
                "tuning",
                f"on {len(value.videos)} videos of {value.labels}, {value.date}: "
                + ("; ".join(value.changed) or "the rule stayed as it was"),
            )
        elif field.name == "operating_points":
            for point in value or ():
                yield (
                    point.name,
                    f"min_score {point.min_score:.7g} at tIoU {point.tiou:g} ({point.labels}, {point.date})",
                )
        elif value not in ("", None):
            yield field.name, str(value)


@app.command()
def doctor(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="[MODEL|FEATURES]",
            help="ONNX file that refineloc-export wrote: shows what it says of itself. Or features (an HDF5 file, a "
            "folder, a .npy file of many videos): looks the data set through, and nothing else.",
        ),
    ] = None,
    labels: Annotated[
        list[Path] | None,
        typer.Option(help="Of FEATURES: their labels, CSV or JSON; may be given again, for each split."),
    ] = None,
    fps: Annotated[float | None, typer.Option(help="Of FEATURES that do not state it: frames a second.")] = None,
    snippet_frames: Annotated[
        int | None, typer.Option(min=1, help="Of FEATURES that do not state it: frames a snippet; 16 if left out.")
    ] = None,
    stride_frames: Annotated[
        int | None,
        typer.Option(min=1, help="Of FEATURES that do not state it: frames from one snippet to the next."),
    ] = None,
    _version: VersionOption = False,
) -> None:
    """Look at what detection needs here (engine, providers that really start, GPU, kernels, a model file), or at data.

    Exit code 0 where detection can run, on the CPU or better, or where training and detection would take the data; 2
    where not.
    """
    if path is not None and (labels or _holds_features(path)):
        from refineloc.runtime.cli.dataset import Stated, examine_data

        findings = examine_data(path, labels or [], Stated(fps, snippet_frames, stride_frames))
    elif labels or fps is not None or snippet_frames or stride_frames:
        raise InputError("--labels, --fps, --snippet-frames and --stride-frames: of FEATURES, which are not given")
    else:
        findings = examine(path)
    if not show(findings):
        raise typer.Exit(2)


def _holds_features(path: Path) -> bool:
    if path.is_dir() or path.suffix.lower() in _FEATURES:
        return True
    if path.suffix.lower() == ".onnx" or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x89HDF"


def main() -> NoReturn:
    """Entry point of the console script."""
    run_app(app)


if __name__ == "__main__":
    main()
