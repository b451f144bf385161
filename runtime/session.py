"""The ONNX Runtime session: which provider really runs, what the file says of itself, one call on a packed batch."""

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from refineloc.runtime.errors import ConfigError, EngineError, MissingExtraError, ModelError
from refineloc.runtime.gpu import gpu_problem
from refineloc.runtime.metadata import ModelMetadata
from refineloc.runtime.onnx_guard import read_model
from refineloc.runtime.postprocess import Scores

__all__ = [
    "ONNX_NAMES",
    "EngineWarning",
    "Provider",
    "Session",
    "create_session",
    "cuda_problem",
    "load_engine",
    "running_provider",
]

Provider = Literal["auto", "tensorrt", "cuda", "cpu"]

# Our name of a provider -> ONNX Runtime's.
ONNX_NAMES: dict[str, str] = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
_OUTPUTS = list(Scores._fields)
_FATAL_ONLY = 4  # of ONNX Runtime's log severities: its errors reach us as exceptions, so it need not print them


class EngineWarning(UserWarning):
    """`provider="auto"` runs on a slower provider than the installed engine was built for."""


class Session:
    """One loaded model file; safe to call from many threads at once.

    Args:
        path: the ONNX file; its format is DESIGN section 3.
        provider: "auto" takes CUDA where it really runs, else the CPU, and warns once where the engine was built for
            CUDA; a provider named is used or is an error. TensorRT builds an engine a shape range at first use, which
            takes minutes, so "auto" never takes it.
        threads: of one call on the CPU; 0 takes one a physical core.

    Attributes:
        metadata: what the file says of itself.
        provider: what really runs: "cpu", "cuda" or "tensorrt". The session is asked; a listed provider is no proof.

    Raises:
        ModelError: not a file that refineloc-export wrote.
        EngineError: the provider that was named cannot run here.
        MissingExtraError: no ONNX Runtime is installed.
    """

    def __init__(self, path: str | os.PathLike[str], provider: Provider = "auto", threads: int = 0) -> None:
        if provider not in ("auto", *ONNX_NAMES):
            raise ConfigError(f"provider: expected auto, tensorrt, cuda or cpu, got {provider!r}")
        if threads < 0:
            raise ConfigError(f"threads: expected 0 (one a core) or more, got {threads}")
        self.path = Path(path)
        engine = load_engine()
        content = read_model(self.path)
        self._session, self.provider = _start(engine, self.path, content, provider, threads)
        self.metadata = _checked_metadata(self.path, self._session)

    def run(self, features: npt.NDArray[np.float32], lengths: npt.NDArray[np.int64]) -> Scores:
        """Scores of a packed batch.

        Args:
            features: float32 [S, D], the snippets of the videos one after another.
            lengths: int64 [V], which sum to S.

        Raises:
            EngineError: ONNX Runtime fails: out of memory, or a graph that cannot be run.
            ModelError: scores of another shape, or not finite: weights that are damaged.
        """
        try:
            scores = Scores(*self._session.run(_OUTPUTS, {"features": features, "lengths": lengths}))
        except Exception as error:  # ONNX Runtime's own exceptions share no public base class
            raise EngineError(
                f"{self.path}: ONNX Runtime fails on {len(features)} snippets: {_first_line(error)}"
            ) from error
        rows, classes = {"video_scores": len(lengths)}, len(self.metadata.classes)
        for name, values in scores._asdict().items():
            shape = (rows.get(name, len(features)), classes)[: values.ndim]
            if values.shape != shape or not np.isfinite(values.sum()):  # a sum: one fast pass, no temporary
                what = f"shape {values.shape}, expected {shape}" if values.shape != shape else "values not finite"
                raise ModelError(f"{self.path}: its {name} have {what}; the file is damaged, export it again")
        return scores


def load_engine() -> Any:
    """ONNX Runtime's module.

    Raises:
        MissingExtraError: it is not installed, or damaged; the message has the cure.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(
            "no ONNX Runtime is installed: pip install 'refineloc[cpu]' (or 'refineloc[gpu]' for NVIDIA; never both)"
        ) from error
    if not hasattr(onnxruntime, "InferenceSession"):
        raise MissingExtraError(
            "ONNX Runtime is damaged, as it is when onnxruntime and onnxruntime-gpu are both installed or one was "
            "removed: pip uninstall -y onnxruntime onnxruntime-gpu, then pip install 'refineloc[cpu]' (or [gpu])"
        )
    return onnxruntime


def _start(engine: Any, path: Path, content: bytes, provider: Provider, threads: int) -> tuple[Any, str]:
    """A session, and the provider that it really got."""
    if provider in ("cpu", "auto"):
        problem = "not asked for" if provider == "cpu" else cuda_problem(engine)
        if problem is None:
            session = create_session(engine, path, content, ["cuda", "cpu"], threads)
            if running_provider(session) == "cuda":
                return session, "cuda"
            problem = "its libraries do not load (pip install 'onnxruntime-gpu[cuda,cudnn]' brings them)"
        if provider == "auto" and ONNX_NAMES["cuda"] in engine.get_available_providers():
            _warn_once(f"refineloc runs on the CPU: {problem}; provider='cpu' asks for that and silences this")
        return create_session(engine, path, content, ["cpu"], threads), "cpu"

    if ONNX_NAMES[provider] not in engine.get_available_providers():
        raise EngineError(
            f"provider {provider!r} is not in the installed ONNX Runtime {engine.__version__}, which has "
            f"{', '.join(engine.get_available_providers())}; pip uninstall -y onnxruntime, "
            "then pip install 'refineloc[gpu]'"
        )
    problem = cuda_problem(engine)
    if problem is None:
        session = create_session(engine, path, content, [provider, "cpu"], threads)
        if running_provider(session) == provider:
            return session, provider
        problem = "its libraries do not load (pip install 'onnxruntime-gpu[cuda,cudnn]' brings CUDA's)"
    raise EngineError(f"provider {provider!r} cannot run here: {problem}; provider 'cpu' runs anywhere")


def create_session(engine: Any, path: Path, content: bytes, providers: list[str], threads: int) -> Any:
    """ONNX Runtime's own session; it may run on a later provider of the list than the first (`running_provider`).

    Args:
        engine: see `load_engine`.
        path: names the model in errors.
        content: the model.
        providers: our names, best first.
        threads: of one call on the CPU; 0 takes one a physical core.

    Raises:
        ModelError: ONNX Runtime cannot load it.
    """
    options = engine.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    if providers != ["cpu"] and hasattr(engine, "preload_dlls"):
        with _quiet():
            engine.preload_dlls()  # finds CUDA and cuDNN in pip packages, without torch
    settings = {
        # A search for the best convolution at each new length would cost more than the call.
        "cuda": {"cudnn_conv_algo_search": "HEURISTIC"},
        "tensorrt": {},
        "cpu": {},
    }
    try:
        return engine.InferenceSession(
            content,
            sess_options=options,
            providers=[(ONNX_NAMES[name], settings[name]) for name in providers],
            enable_fallback=0,  # its own fallback prints to stdout and tries again with other providers
        )
    except Exception as error:  # ONNX Runtime's own exceptions share no public base class
        raise ModelError(f"{path}: ONNX Runtime cannot load it: {_first_line(error)}") from error


def running_provider(session: Any) -> str:
    """The provider that a session of ONNX Runtime really got, by our name where we have one."""
    first = session.get_providers()[0]
    return next((name for name, onnx_name in ONNX_NAMES.items() if onnx_name == first), str(first))


def cuda_problem(engine: Any) -> str | None:
    """Why CUDA cannot run here, as far as can be told before a session is made; None where it may."""
    if ONNX_NAMES["cuda"] not in engine.get_available_providers():
        return "the installed ONNX Runtime has no CUDA"
    return gpu_problem()


def _checked_metadata(path: Path, session: Any) -> ModelMetadata:
    """The file's metadata, compared with its inputs and outputs: a file must not lie about D or N."""
    try:
        inputs, outputs = session.get_inputs(), session.get_outputs()
        shapes = {one.name: (one.shape, one.type) for one in (*inputs, *outputs)}
        names = [one.name for one in inputs], [one.name for one in outputs]
        props = session.get_modelmeta().custom_metadata_map
    except UnicodeDecodeError as error:
        raise ModelError(f"{path}: damaged: its names or metadata are not UTF-8") from error
    if sorted(names[0]) != ["features", "lengths"] or not set(_OUTPUTS) <= set(names[1]):
        raise ModelError(
            f"{path}: not a refineloc model: expected the inputs features, lengths and the outputs "
            f"{', '.join(_OUTPUTS)}; got {', '.join(names[0])} -> {', '.join(names[1])}"
        )
    try:
        metadata = ModelMetadata.from_props(props)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    wanted: dict[str, tuple[list[int | None], str]] = {
        "features": ([None, metadata.width], "tensor(float)"),
        "lengths": ([None], "tensor(int64)"),
        "class_scores": ([None, len(metadata.classes)], "tensor(float)"),
        "foreground": ([None], "tensor(float)"),
        "attention": ([None], "tensor(float)"),
        "video_scores": ([None, len(metadata.classes)], "tensor(float)"),
    }
    for name, (shape, kind) in wanted.items():
        got_shape, got_kind = shapes[name]
        fits = len(got_shape) == len(shape) and all(
            want is None or got == want for got, want in zip(got_shape, shape, strict=True)
        )
        if not fits or got_kind != kind:
            raise ModelError(
                f"{path}: its metadata do not fit its graph: {name} is {got_kind} {got_shape}, expected {kind} "
                f"{['any' if size is None else size for size in shape]}; export it again"
            )
    return metadata


_warned: set[str] = set()


def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, EngineWarning, stacklevel=5)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """`preload_dlls` prints each library that it does not find; whether CUDA runs is asked of the session instead."""
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
