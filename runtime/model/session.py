"""The ONNX Runtime session: which provider really runs, the metadata of the file, one call on a packed batch."""

import contextlib
import ctypes
import functools
import os
import re
import threading
import warnings
import weakref
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from refineloc.runtime.addresses import as_path
from refineloc.runtime.cores import physical_cores
from refineloc.runtime.errors import (
    ConfigError,
    EngineError,
    FeatureError,
    MissingExtraError,
    ModelError,
    RefineLocError,
    counted,
    first_line,
)
from refineloc.runtime.files import make_folder
from refineloc.runtime.model.gpu import PinnedBuffers, gpu_problem
from refineloc.runtime.model.limits import BATCH_SNIPPETS, MAX_BATCH_SNIPPETS, MAX_THREADS, MOST_CALLS
from refineloc.runtime.model.metadata import KEY_PREFIX, ModelMetadata
from refineloc.runtime.model.onnx_guard import ModelSource, read_model
from refineloc.runtime.scalars import as_whole
from refineloc.runtime.segments.rules import Boundaries
from refineloc.runtime.segments.values import POINT_SCORES, SNIPPET_SCORES, Scores

__all__ = [
    "NOT_LOADED",
    "ONNX_NAMES",
    "EngineWarning",
    "LoadedModel",
    "Provider",
    "Session",
    "create_session",
    "cuda_problem",
    "load_engine",
    "running_provider",
    "start_session",
]

Provider = Literal["auto", "tensorrt", "cuda", "cpu"]

# Our name of a provider -> ONNX Runtime's.
ONNX_NAMES: dict[str, str] = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
# Why a listed provider does not run.
NOT_LOADED = "its libraries do not load (pip install 'onnxruntime-gpu[cuda,cudnn]' brings CUDA's)"
_NO_TENSORRT = "the libraries of TensorRT 10 do not load (pip install 'tensorrt-cu13<11' brings them)"
_OUTPUTS, _OF_POINTS = list(SNIPPET_SCORES), list(POINT_SCORES)
# What ONNX Runtime says of a file of a later ONNX, among the names of its C++ functions.
_NEWER_MODEL = re.compile(r"Unsupported model IR version: \d+|Opset \d+ is under development")
_FATAL_ONLY = 4  # of ONNX Runtime's log severities: errors are raised as exceptions and need not be printed


class EngineWarning(UserWarning):
    """`provider="auto"` runs on a slower provider than the installed engine was built for."""


class LoadedModel:
    """A model file and ONNX Runtime's session of it. In a forked process it goes on, with threads of its own.

    Args:
        model, provider, threads, spin: see `Session`.
        call_once, sizes: see `start_session`.
        cache: where TensorRT keeps its engines, a folder that is there.

    Attributes:
        name, provider: see `Session`.

    Raises:
        ModelError, EngineError, MissingExtraError: see `Session`.
    """

    def __init__(
        self,
        model: ModelSource,
        provider: Provider,
        threads: int,
        call_once: Callable[[Any, int], None],
        sizes: tuple[int, int],
        *,
        spin: bool = False,
        cache: Path | None = None,
    ) -> None:
        engine = load_engine()
        self.name, content = read_model(model)
        # What the model is read from again: where there is a path, its bytes need not stay in memory.
        self._model = str(as_path(model).absolute()) if isinstance(model, (str, os.PathLike)) else content
        self._checksum = zlib.crc32(content)
        self._threads, self._spin = threads, spin
        create = functools.partial(create_session, engine, self.name, content, threads=threads, spin=spin, cache=cache)
        session, self.provider = start_session(engine, create, content, provider, call_once, sizes=sizes)
        self._sessions = {threads: session}  # of this process, by the threads of a call
        _loaded.add(self)

    def _must_be(self, checksum: int) -> None:
        """Refuse a file that was replaced: the processes of one program give the same results."""
        if checksum != self._checksum:
            raise ModelError(f"{self.name}: was replaced after it was loaded; load it again, in the first process")

    def _here(self, threads: int | None = None) -> Any:
        """ONNX Runtime's session of this process, whose calls take so many threads; if left out, all."""
        threads = self._threads if threads is None else threads
        if threads not in self._sessions:  # two threads may both make one, which does no harm
            if self.provider != "cpu":
                raise EngineError(
                    f"{self.name}: provider {self.provider!r} cannot run in a forked process; start it with 'spawn' "
                    "(multiprocessing.get_context), or load the model after the fork only"
                )
            _, content = read_model(self._model)
            self._must_be(zlib.crc32(content))
            self._sessions[threads] = create_session(
                load_engine(), self.name, content, ["cpu"], threads, spin=self._spin
            )
        return self._sessions[threads]

    def _leave_behind(self) -> None:
        """In a forked process: give up the sessions of the parent, whose threads are not here.

        To end one would wait for them for ever, or crash. So its memory stays, shared with the parent, to the end of
        the process. A CPU session of one thread has no others, and goes on.
        """
        for threads in list(self._sessions):
            if self.provider != "cpu" or threads != 1:
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._sessions.pop(threads)))


# Those of this process, for its forked children.
_loaded: "weakref.WeakSet[LoadedModel]" = weakref.WeakSet()


def _after_fork() -> None:
    for model in list(_loaded):
        model._leave_behind()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Session(LoadedModel):
    """One loaded model file; safe to call from many threads at once.

    It can be pickled and copied: the other process makes it anew from the path or bytes, and the settings. In a forked
    process it goes on, with threads of its own.

    Args:
        model: the ONNX file; docs/reference/onnx.md is its format. See `read_model` for what can be given.
        provider: "cuda", "tensorrt" or "cpu" is used or is an error. "auto" takes CUDA if it really runs, else the CPU,
            with one warning if the installed engine was built for CUDA. "auto" never takes TensorRT, which builds its
            engines at the start and needs minutes for it.
        threads: CPU threads of one call, up to 1,024; 0 takes one for each physical core.
        batch_snippets: the largest number of snippets in a call; TensorRT builds its engines for it.
        engine_cache: a folder where TensorRT keeps its engines for the next start; made if it is missing. Engines are
            code: trust the folder as you trust the program.
        spin: whether threads wait for work by spinning, which takes a core each for some time after every call.

    Attributes:
        name: of the model, in messages: its path where it has one.
        metadata: of the file.
        has_points: whether the model finds segments itself (`Points`).
        calls: how many calls `beside` others use the threads best. 1: each takes all threads, and one runs at a time.
        provider: what really runs: "cpu", "cuda" or "tensorrt". ONNX Runtime may list or register a provider that
            cannot run, so on a GPU one snippet was run.

    Raises:
        ModelError: not a file that refineloc-export wrote, or one that needs a newer ONNX Runtime or refineloc.
        EngineError: the given provider cannot run here.
        MissingExtraError: no ONNX Runtime is installed.
        ConfigError: a value out of range, or an engine cache without TensorRT.
        OutputError: the engine cache cannot be made.
    """

    def __init__(
        self,
        model: ModelSource,
        provider: Provider = "auto",
        threads: int = 0,
        *,
        batch_snippets: int = BATCH_SNIPPETS,
        engine_cache: str | os.PathLike[str] | None = None,
        spin: bool = False,
    ) -> None:
        if provider not in ("auto", *ONNX_NAMES):
            raise ConfigError(f"provider: expected auto, tensorrt, cuda or cpu, got {provider!r}")
        threads = _count("threads", threads, 0, MAX_THREADS)
        batch_snippets = _count("batch_snippets", batch_snippets, 1, MAX_BATCH_SNIPPETS)
        if engine_cache is not None and provider != "tensorrt":
            raise ConfigError(f"engine_cache: goes with the provider 'tensorrt', got {provider!r}")
        cache = None if engine_cache is None else make_folder(engine_cache)
        super().__init__(model, provider, threads, _call_once, (1, batch_snippets), spin=bool(spin), cache=cache)
        self.metadata = _checked_metadata(self.name, self._here())
        self.has_points = _has_points(self._here())
        self.calls, self._share = 1, threads
        if self.provider == "cpu" and self.metadata.precision == "int8":
            cores = threads or physical_cores()
            share = -(-cores // MOST_CALLS)
            if cores > share:
                self.calls, self._share = cores // share, share
                self._here(share)  # made now: later the file may be gone
        self._outputs = PinnedBuffers()
        self._arguments = {
            "provider": provider,
            "threads": threads,
            "batch_snippets": batch_snippets,
            "engine_cache": None if cache is None else os.path.abspath(cache),
            "spin": self._spin,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return _made_anew, (self._model, self._arguments, self._checksum)

    def run(
        self,
        features: npt.NDArray[np.float32],
        lengths: npt.NDArray[np.int64],
        names: Sequence[str] | None = None,
        *,
        beside: bool = False,
    ) -> Scores:
        """Scores of a packed batch.

        Args:
            features: float32 [S, D], the snippets of the videos one after another.
            lengths: int64 [V], with the sum S.
            names: of the videos, for errors.
            beside: whether others of the `calls` run at the same time, so that this one takes its share of the threads.

        Raises:
            EngineError: ONNX Runtime fails: out of memory, or a graph that cannot be run.
            FeatureError: a video's features are so large that they overflow in the model.
            ModelError: scores of another shape, or not finite for any features, as of damaged weights.
        """
        scores = self._run(features, lengths, beside)
        rows, classes = {"video_scores": len(lengths)}, len(self.metadata.classes)
        for name in SNIPPET_SCORES:
            values = getattr(scores, name)
            shape = (rows.get(name, len(features)), classes)[: values.ndim]
            if values.shape != shape:
                raise ModelError(
                    f"{self.name}: its {name} have shape {values.shape}, expected {shape}; "
                    "the file is damaged, export it again"
                )
        if scores.points is not None and len(features) and not scores.points.levels(lengths):
            raise ModelError(
                f"{self.name}: its {len(scores.points.scores)} points are not those of videos of "
                f"{len(features)} snippets; the file is damaged, export it again"
            )
        if not _finite(scores):
            raise self._not_finite(features, lengths, names)
        return scores

    def _run(self, features: npt.NDArray[np.float32], lengths: npt.NDArray[np.int64], beside: bool = False) -> Scores:
        session = self._here(self._share if beside else None)
        try:
            if self.provider == "cpu":
                names = _OUTPUTS + _OF_POINTS * self.has_points
                return Scores.of(session.run(names, {"features": features, "lengths": lengths}))
            with self._outputs.lent() as empty:
                return _run_bound(session, features, lengths, len(self.metadata.classes), empty, self.has_points)
        except Exception as error:  # ONNX Runtime's exceptions have no public base class
            raise EngineError(
                f"{self.name}: ONNX Runtime fails on {counted(len(features), 'snippet')}: {first_line(error)}"
            ) from error

    def _not_finite(
        self, features: npt.NDArray[np.float32], lengths: npt.NDArray[np.int64], names: Sequence[str] | None
    ) -> RefineLocError:
        """Why scores are not finite: the features of a video, or the file if ordinary features give such scores too."""
        ordinary = np.random.default_rng(0).standard_normal((8, features.shape[1]), dtype=np.float32)
        if _finite(self._run(ordinary, np.array([8], dtype=np.int64))):
            ends = np.cumsum(lengths)
            for index, (begin, end) in enumerate(zip(ends - lengths, ends, strict=True)):
                video = features[begin:end]
                if len(video) and not _finite(self._run(video, lengths[index : index + 1])):
                    where = names[index] if names is not None else f"video {index} of the call"
                    precision = self.metadata.precision
                    other = "; fp32 has more room" if precision == "fp16" else ""
                    # Without the model's path: a service passes on what is wrong with features.
                    return FeatureError(
                        f"{where}: its features, as large as {np.abs(video).max():.3g}, overflow in the {precision} "
                        f"model{other}; extract this video's features again or leave it out"
                    )
        return ModelError(f"{self.name}: its scores have values not finite; the file is damaged, export it again")


def _made_anew(model: ModelSource, arguments: dict[str, Any], checksum: int) -> Session:
    session = Session(model, **arguments)
    session._must_be(checksum)
    return session


def load_engine() -> Any:
    """The module onnxruntime.

    Raises:
        MissingExtraError: it is not installed, or damaged; the message says how to install it.
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


def start_session(
    engine: Any,
    create: Callable[[list[str]], Any],
    content: bytes,
    provider: Provider,
    call_once: Callable[[Any, int], None],
    *,
    sizes: tuple[int, int],
) -> tuple[Any, str]:
    """A session, and the provider that really runs.

    Args:
        engine: the module, by `load_engine`.
        create: makes a session of the model that tries these providers, best first.
        content: of the model.
        provider: see `Session`.
        call_once: runs a session on zeros of a size; a GPU that cannot run is found by it.
        sizes: the smallest and the largest; TensorRT builds its engines for the range.
    """
    wanted = "cuda" if provider == "auto" else provider
    if wanted == "cpu":
        return create(["cpu"]), "cpu"
    listed = engine.get_available_providers()
    if provider != "auto" and ONNX_NAMES[wanted] not in listed:
        raise EngineError(
            f"provider {provider!r} is not in the installed ONNX Runtime {engine.__version__}, which has "
            f"{', '.join(listed)}; pip uninstall -y onnxruntime, then pip install 'refineloc[gpu]'"
        )
    providers = ["cuda", "cpu"]
    called: tuple[int, ...] = sizes[:1]
    if wanted == "tensorrt":
        # CUDA runs what TensorRT lacks: float64 products and integer sums. An engine is built for the range of shapes
        # that were seen. So both ends of the range are run now, and no length between them builds another engine.
        # Ranges could be stated instead (trt_profile_min_shapes); then a longer video would be an error.
        providers, called = ["tensorrt", *providers], sizes
    session, problem = _on_gpu(engine, create, content, providers, call_once, called)
    if session is not None:
        return session, wanted
    session = create(["cpu"])  # a ModelError if nothing can run the file
    if provider != "auto":
        raise EngineError(f"provider {provider!r} cannot run here: {problem}; provider 'cpu' runs anywhere")
    if ONNX_NAMES["cuda"] in listed:
        _warn_once(f"refineloc runs on the CPU: {problem}; the provider 'cpu' asks for that and silences this")
    return session, "cpu"


def _on_gpu(
    engine: Any,
    create: Callable[[list[str]], Any],
    content: bytes,
    providers: list[str],
    call_once: Callable[[Any, int], None],
    sizes: tuple[int, ...],
) -> tuple[Any, str]:
    """A session that ran calls of these sizes on the first of the providers; or None, and the reason."""
    problem = cuda_problem(engine)
    if problem is not None:
        return None, problem
    # The file has the operator's name as plain text. The session would run, with every product on the CPU.
    if b"MatMulInteger" in content:
        return None, "the model is int8, whose products only the CPU has; for a GPU export it as fp16 or fp32"
    try:
        session = create(providers)
    except ModelError as error:
        return None, _NO_TENSORRT if "install TensorRT" in str(error) else str(error)
    if running_provider(session) != providers[0]:
        return None, NOT_LOADED
    try:
        for size in sizes:
            call_once(session, size)
    except Exception as error:  # ONNX Runtime's exceptions have no public base class
        return None, f"the first call failed: {first_line(error)}"
    return session, ""


def _call_once(session: Any, snippets: int) -> None:
    """Run it on zeros, one snippet for each video. `_checked_metadata` refuses models of another kind."""
    shapes = {value.name: value.shape for value in session.get_inputs()}
    width = shapes.get("features", [None])[-1]
    if isinstance(width, int) and width <= 2**24:
        features = np.zeros((snippets, width), dtype=np.float32)
        session.run(None, {"features": features, "lengths": np.ones(snippets, dtype=np.int64)})


def create_session(
    engine: Any,
    name: str,
    content: bytes,
    providers: list[str],
    threads: int,
    *,
    spin: bool = False,
    cache: Path | None = None,
) -> Any:
    """A session of ONNX Runtime; it may run on a later provider of the list than the first (`running_provider`).

    Args:
        engine: the module, by `load_engine`.
        name, content: of the model; the name is for errors.
        providers: ours, best first.
        threads, spin, cache: see `Session`.

    Raises:
        ModelError: ONNX Runtime cannot load it.
    """
    options = engine.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
    options.log_severity_level = _FATAL_ONLY
    if providers != ["cpu"]:
        _preload(engine)
    settings: dict[str, dict[str, str]] = {
        # A search for the best convolution at each new length would take longer than the call. TensorFloat-32, which
        # the engine takes by default, has ten bits: scores would be off by 1e-3. fp16 files are the faster ones.
        "cuda": {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"},
        "tensorrt": {},
        "cpu": {},
    }
    if cache is not None:
        settings["tensorrt"] = {
            "trt_engine_cache_enable": "True",
            "trt_engine_cache_path": str(cache),
            "trt_timing_cache_enable": "True",
            "trt_timing_cache_path": str(cache),
        }
    try:
        return engine.InferenceSession(
            content,
            sess_options=options,
            providers=[(ONNX_NAMES[provider], settings[provider]) for provider in providers],
            enable_fallback=0,  # ONNX Runtime's fallback would print to stdout and try other providers
        )
    except Exception as error:  # ONNX Runtime's exceptions have no public base class
        newer = _NEWER_MODEL.search(str(error))
        if newer is not None:
            raise ModelError(
                f"{name}: is newer than the installed ONNX Runtime {engine.__version__} ({newer[0]}): "
                "pip install -U onnxruntime (or onnxruntime-gpu, where that is installed)"
            ) from error
        raise ModelError(f"{name}: ONNX Runtime cannot load it: {first_line(error)}") from error


def running_provider(session: Any) -> str:
    """The provider that a session of ONNX Runtime runs on, by our name if it has one."""
    first = session.get_providers()[0]
    return next((name for name, onnx_name in ONNX_NAMES.items() if onnx_name == first), str(first))


def cuda_problem(engine: Any) -> str | None:
    """Why CUDA cannot run here, as far as is known before a session is made; None if it may run."""
    if ONNX_NAMES["cuda"] not in engine.get_available_providers():
        return "the installed ONNX Runtime has no CUDA"
    return gpu_problem()


def _checked_metadata(name: str, session: Any) -> ModelMetadata:
    """The metadata of the file, checked against its inputs and outputs: a file must not lie about D or N."""
    try:
        inputs, outputs = session.get_inputs(), session.get_outputs()
        shapes = {value.name: (value.shape, value.type) for value in (*inputs, *outputs)}
        names = [value.name for value in inputs], [value.name for value in outputs]
        props = session.get_modelmeta().custom_metadata_map
    except UnicodeDecodeError as error:
        raise ModelError(f"{name}: damaged: its names or metadata are not UTF-8") from error
    if any(key.startswith(KEY_PREFIX + "backbone.") for key in props):
        raise ModelError(f"{name}: is a backbone, which makes features of films; give a model that refineloc trained")
    plain = sorted(names[0]) == ["features", "lengths"] and set(_OUTPUTS) <= set(names[1])
    # A file of a later format may have other outputs, and its metadata say which refineloc reads it.
    if not plain and not any(key.startswith(KEY_PREFIX) for key in props):
        raise _other_model(name, *names)
    try:
        metadata = ModelMetadata.from_props(props)
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from error
    if not plain:
        raise _other_model(name, *names)
    wanted: dict[str, tuple[list[int | None], str]] = {
        "features": ([None, metadata.width], "tensor(float)"),
        "lengths": ([None], "tensor(int64)"),
        "class_scores": ([None, len(metadata.classes)], "tensor(float)"),
        "foreground": ([None], "tensor(float)"),
        "attention": ([None], "tensor(float)"),
        "video_scores": ([None, len(metadata.classes)], "tensor(float)"),
    }
    if isinstance(metadata.detection, Boundaries) or _has_points(session):
        wanted |= {
            "point_scores": ([None, len(metadata.classes)], "tensor(float)"),
            "distances": ([None, 2], "tensor(float)"),
        }
    for value_name, (shape, kind) in wanted.items():
        if value_name not in shapes:
            raise ModelError(f"{name}: its metadata do not fit its graph: it has no {value_name}; export it again")
        got_shape, got_kind = shapes[value_name]
        fits = len(got_shape) == len(shape) and all(
            want is None or got == want for got, want in zip(got_shape, shape, strict=True)
        )
        if not fits or got_kind != kind:
            raise ModelError(
                f"{name}: its metadata do not fit its graph: {value_name} is {got_kind} {got_shape}, expected {kind} "
                f"{['any' if size is None else size for size in shape]}; export it again"
            )
    return metadata


def _has_points(session: Any) -> bool:
    """Whether the model finds segments itself."""
    return any(value.name in _OF_POINTS for value in session.get_outputs())


def _other_model(name: str, inputs: list[str], outputs: list[str]) -> ModelError:
    return ModelError(
        f"{name}: not a refineloc model: expected the inputs features, lengths and the outputs "
        f"{', '.join(_OUTPUTS)}; got {', '.join(inputs)} -> {', '.join(outputs)}"
    )


_warned: set[str] = set()


def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, EngineWarning, stacklevel=5)


_preloading = threading.Lock()
_preloaded: set[Any] = set()  # modules; one, except in tests


def _preload(engine: Any) -> None:
    """Let ONNX Runtime find CUDA and cuDNN in pip's packages, without torch; once in a process.

    Its output is discarded: it prints every library that it does not find, and the session tells whether CUDA runs.
    Redirection is process-wide, so one thread at a time: another would save the redirected stream as the original one,
    and "restore" it.
    """
    with _preloading:
        if engine in _preloaded or not hasattr(engine, "preload_dlls"):
            return
        with (
            open(os.devnull, "w") as nowhere,
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            engine.preload_dlls()
        _preloaded.add(engine)


def _run_bound(
    session: Any,
    features: npt.NDArray[np.float32],
    lengths: npt.NDArray[np.int64],
    classes: int,
    empty: Callable[[tuple[int, ...]], npt.NDArray[np.float32]],
    has_points: bool = False,
) -> Scores:
    """`session.run` that reads inputs in place and writes outputs into arrays of `empty`, which are copied.

    For a GPU: with page-locked memory the driver makes no second copy. The outputs are a hundredth of the features, so
    copying them takes less time than locking memory for each call. How many points there are, the engine tells, and
    takes memory for them itself.
    """
    snippets = (len(features),)
    shapes = ((*snippets, classes), snippets, snippets, (len(lengths), classes))
    outputs = [empty(shape) for shape in shapes]
    binding = session.io_binding()
    binding.bind_cpu_input("features", np.ascontiguousarray(features))
    binding.bind_cpu_input("lengths", np.ascontiguousarray(lengths, dtype=np.int64))
    for name, output in zip(_OUTPUTS, outputs, strict=True):
        binding.bind_output(name, "cpu", 0, np.float32, list(output.shape), output.ctypes.data)
    for name in _OF_POINTS * has_points:
        binding.bind_output(name, "cpu")
    binding.synchronize_inputs()
    session.run_with_iobinding(binding)
    binding.synchronize_outputs()
    points = [value.numpy() for value in binding.get_outputs()[len(outputs) :]]
    return Scores.of([*(output.copy() for output in outputs), *points])


def _finite(scores: Scores) -> bool:
    with np.errstate(invalid="ignore"):
        return all(np.isfinite(values.sum()) for values in scores.arrays)  # one fast pass and no temporary array


def _count(name: str, value: object, low: int, high: int) -> int:
    count = as_whole(value)
    if count is None or not low <= count <= high:
        raise ConfigError(f"{name}: expected a whole number from {low:,} to {high:,}, got {value!r:.40}")
    return count
