"""What a model file says of itself: the ONNX `metadata_props`, read strictly.

All that detection needs beside the graph is here, so that one file is enough. Keys begin with `refineloc.`; values are
strings, as ONNX has it: numbers as decimal text, `classes`, `thresholds` and `parity` as JSON, "none" for an absent
`nms`. Keys of others are left alone. docs/onnx.md lists them for readers in other languages.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeVar, get_args

from refineloc.runtime.errors import ConfigError, FeatureError, ModelError
from refineloc.runtime.features.streams import Stream, StreamOrder, stream_slice
from refineloc.runtime.segments.postprocess import THRESHOLDS, PostProcess, Profile, Scoring

__all__ = ["FORMAT_VERSION", "KEY_PREFIX", "ModelMetadata", "Parity", "Precision"]

FORMAT_VERSION = 1  # raised when a reader of the earlier version would misread the file
KEY_PREFIX = "refineloc."

Precision = Literal["fp32", "fp16", "int8"]

# Of the profile "multi-threshold" alone. Version 1 began without them: older files, of the other profiles, lack them,
# and a reader of that time refuses the profile, whose name it does not know.
_ADDED = ("thresholds", "scoring", "outer", "video_weight")
# Bases whose files may be older than `context_snippets`: each snippet's logits are its own. Of others it is not known.
_SNIPPET_WISE = ("refineloc", "wtalc")
_MAX_SIZE = 2**24  # of D, H, N: far above any real one, far below what would exhaust memory
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Parity:
    """How far the file is from the trained model, as measured when it was exported.

    Attributes:
        source: what it was measured on: a feature file's name, or "generated" features.
        videos, snippets: how many.
        class_scores, foreground, attention, video_scores: largest absolute difference of each output.
        detections: of the trained model.
        lost, gained: detections that only the trained model has, and only the file (same video, class and snippets).
        reference_map, map: average mAP (tIoU 0.5:0.05:0.95, fraction of 1) of the trained model and of the file, where
            ground truth is known.
    """

    source: str
    videos: int
    snippets: int
    class_scores: float
    foreground: float
    attention: float
    video_scores: float
    detections: int
    lost: int
    gained: int
    reference_map: float | None = None
    map: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "source":
                _need(isinstance(value, str), f"parity.source: expected a text, got {value!r}")
            elif field.name in ("videos", "snippets", "detections", "lost", "gained"):
                _need(type(value) is int and value >= 0, f"parity.{field.name}: expected a count, got {value!r}")
            elif value is not None or field.name not in ("reference_map", "map"):
                _need(
                    type(value) in (int, float) and math.isfinite(value) and value >= 0,
                    f"parity.{field.name}: expected a number of at least 0, got {value!r}",
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMetadata:
    """All that detection needs beside the graph, and where the model is from.

    Attributes:
        classes: names, in the order of the score columns; their number is N.
        width: D, the width of `features`.
        snippet_frames: H, frames a snippet.
        stream: which of the two streams the model takes.
        stream_order: how the two streams lie in files that hold both.
        profile: rules of post-processing, "paper", "release" or "multi-threshold".
        alpha_a, alpha_c, top_k, max_gap, widen, nms, thresholds, scoring, outer, video_weight: see `PostProcess`.
        preset: name of the settings it was trained with, "" where there was none.
        base: name of the base model.
        iteration: η, the refinement iteration.
        layers: layers with weights on the way to the class logits; L of the base model refineloc.
        attention_values: columns of the logits that Ā^bf is made of, 2 or 1; 0: a base model without them.
        precision: of the weights and products: fp32, fp16 or int8. Inputs and outputs are float32 in all three.
        training_data: name of the training features, "" where unknown.
        producer: program and version that wrote the file.
        parity: how far the file is from the trained model; None where it was not measured.
        context_snippets: how many snippets to each side the logits of a snippet depend on; None where it is not known.

    Raises:
        ModelError: a value out of range.
    """

    classes: tuple[str, ...]
    width: int
    snippet_frames: int
    stream: Stream
    stream_order: StreamOrder
    profile: Profile
    alpha_a: float
    alpha_c: float
    top_k: int
    max_gap: int
    widen: int
    nms: float | None
    preset: str
    base: str
    iteration: int
    layers: int
    attention_values: int
    precision: Precision
    training_data: str
    producer: str
    thresholds: tuple[float, ...] = THRESHOLDS
    scoring: Scoring = "contrast"
    outer: float = 0.25
    video_weight: float = 0.2
    parity: Parity | None = None
    context_snippets: int | None = None

    def __post_init__(self) -> None:
        if self.context_snippets is None and self.base in _SNIPPET_WISE:
            object.__setattr__(self, "context_snippets", 0)
        _need(0 < len(self.classes) <= _MAX_SIZE, "classes: expected at least one name")
        for name in self.classes:
            good = isinstance(name, str) and name.strip() and name.isprintable()
            _need(bool(good), f"classes: expected names of printable characters, got {name!r}")
        _need(len(set(self.classes)) == len(self.classes), "classes: a name occurs twice")
        for key, low, high in (
            ("width", 1, _MAX_SIZE),
            ("snippet_frames", 1, _MAX_SIZE),
            ("top_k", 1, _MAX_SIZE),
            ("max_gap", 0, _MAX_SIZE),
            ("widen", 0, _MAX_SIZE),
            ("iteration", 0, _MAX_SIZE),
            ("layers", 1, 64),
            ("attention_values", 0, 2),
        ):
            _check_between(key, getattr(self, key), low, high)
        if self.context_snippets is not None:
            _check_between("context_snippets", self.context_snippets, 0, _MAX_SIZE)
        for key, known in (
            ("stream", get_args(Stream)),
            ("stream_order", get_args(StreamOrder)),
            ("precision", get_args(Precision)),
        ):
            value = getattr(self, key)
            _need(value in known, f"{key}: expected one of {', '.join(known)}, got {value!r}")
        try:
            object.__setattr__(self, "thresholds", self.post_process().thresholds)
        except ConfigError as error:
            raise ModelError(f"metadata: {error}") from error

    def post_process(self) -> PostProcess:
        """How scores become segments, as the file says."""
        return PostProcess(
            profile=self.profile,
            alpha_a=self.alpha_a,
            alpha_c=self.alpha_c,
            top_k=self.top_k,
            max_gap=self.max_gap,
            widen=self.widen,
            nms=self.nms,
            thresholds=self.thresholds,
            scoring=self.scoring,
            outer=self.outer,
            video_weight=self.video_weight,
        )

    def columns(self, width: int, where: str) -> slice:
        """Which columns of features of this width the model takes: all, or its stream of two.

        Raises:
            FeatureError: neither; the message begins with `where`.
        """
        if width == self.width:
            return slice(0, width)
        if self.stream != "both" and width == 2 * self.width:
            return stream_slice(width, self.stream, self.stream_order)
        both = f" (or {2 * self.width}, both streams)" if self.stream != "both" else ""
        raise FeatureError(f"{where}: features have width {width}, the model expects {self.width}{both}")

    def to_props(self) -> dict[str, str]:
        """The `metadata_props` of the ONNX file."""
        props = {"format_version": str(FORMAT_VERSION)}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ("classes", "thresholds"):
                props[field.name] = json.dumps(list(value), ensure_ascii=False)
            elif value is None and field.name in ("parity", "context_snippets"):
                continue  # not known, which is not said
            elif field.name == "parity":
                props[field.name] = json.dumps(asdict(value), ensure_ascii=False, allow_nan=False)
            else:
                # str() of a float is the shortest text that reads back as the same float.
                props[field.name] = "none" if value is None else str(value)
        return {KEY_PREFIX + key: text for key, text in props.items()}

    @classmethod
    def from_props(cls, props: Mapping[str, str]) -> "ModelMetadata":
        """Read the `metadata_props` of an ONNX file; keys that do not begin with `refineloc.` are left alone.

        Raises:
            ModelError: a key is missing, or its value has the wrong form; the format version is not known. The message
                does not name the file, which the caller knows.
        """
        version = _read(props, "format_version", _integer, "a number")
        _need(
            version == FORMAT_VERSION,
            f"format_version: expected {FORMAT_VERSION}, got {version}; "
            + ("update refineloc" if version > FORMAT_VERSION else "export the model again"),
        )
        profile: Any = _read(props, "profile", _text, "a text")
        added: dict[str, Any] = {}
        for key, parse, expected in (("parity", _parity, "a JSON object"), ("context_snippets", _integer, "a number")):
            if KEY_PREFIX + key in props:
                added[key] = _read(props, key, parse, expected)
        if profile == "multi-threshold" or any(KEY_PREFIX + key in props for key in _ADDED):
            added |= {
                "thresholds": _read(props, "thresholds", _numbers, "a JSON list of numbers"),
                "scoring": _read(props, "scoring", _text, "a text"),
                "outer": _read(props, "outer", _number, "a number"),
                "video_weight": _read(props, "video_weight", _number, "a number"),
            }
        return cls(
            classes=_read(props, "classes", _names, "a JSON list of names"),
            width=_read(props, "width", _integer, "a number"),
            snippet_frames=_read(props, "snippet_frames", _integer, "a number"),
            stream=_read(props, "stream", _text, "a text"),
            stream_order=_read(props, "stream_order", _text, "a text"),
            profile=profile,
            alpha_a=_read(props, "alpha_a", _number, "a number"),
            alpha_c=_read(props, "alpha_c", _number, "a number"),
            top_k=_read(props, "top_k", _integer, "a number"),
            max_gap=_read(props, "max_gap", _integer, "a number"),
            widen=_read(props, "widen", _integer, "a number"),
            nms=_read(props, "nms", lambda text: None if text == "none" else _number(text), "a number or none"),
            preset=_read(props, "preset", _text, "a text"),
            base=_read(props, "base", _text, "a text"),
            iteration=_read(props, "iteration", _integer, "a number"),
            layers=_read(props, "layers", _integer, "a number"),
            attention_values=_read(props, "attention_values", _integer, "a number"),
            precision=_read(props, "precision", _text, "a text"),
            training_data=_read(props, "training_data", _text, "a text"),
            producer=_read(props, "producer", _text, "a text"),
            **added,
        )


def _need(condition: bool, message: str) -> None:
    if not condition:
        raise ModelError(f"metadata: {message}")


def _check_between(key: str, value: float, low: float, high: float) -> None:
    # NaN fails every comparison, so it is refused too.
    _need(low <= value <= high, f"{key}: expected a number from {low:g} to {high:g}, got {value}")


def _read(props: Mapping[str, str], key: str, parse: Callable[[str], _T], expected: str) -> _T:
    text = props.get(KEY_PREFIX + key)
    if text is None:
        raise ModelError(f"metadata: {KEY_PREFIX}{key} is missing; export the model with refineloc-export")
    try:
        return parse(text)
    except (ValueError, TypeError, RecursionError) as error:
        # A ModelError is a ValueError too, and already says what is wrong.
        if isinstance(error, ModelError):
            raise
        shown = text if len(text) <= 40 else text[:40] + "..."
        raise ModelError(f"metadata: {key}: expected {expected}, got {shown!r}") from error


def _text(text: str) -> Any:
    if not text.isprintable():
        raise ValueError("control characters")
    return text


def _integer(text: str) -> int:
    # int() alone would take "1_000", " 7 " and other digits than ASCII's.
    if not re.fullmatch(r"-?[0-9]{1,12}", text):
        raise ValueError("not an integer")
    return int(text)


def _number(text: str) -> float:
    if not re.fullmatch(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?", text):
        raise ValueError("not a number")
    return float(text)


def _names(text: str) -> tuple[str, ...]:
    names = json.loads(text)
    if not isinstance(names, list):
        raise ValueError("not a list")
    if not all(isinstance(name, str) for name in names):
        raise ValueError("not all are texts")
    return tuple(names)


def _numbers(text: str) -> tuple[float, ...]:
    numbers = json.loads(text)
    if not isinstance(numbers, list):
        raise ValueError("not a list")
    if not all(type(number) in (int, float) for number in numbers):  # true and false are ints to isinstance
        raise ValueError("not all are numbers")
    return tuple(numbers)


def _parity(text: str) -> Parity:
    record = json.loads(text)
    if not isinstance(record, dict):
        raise ValueError("not an object")
    return Parity(**record)  # unknown or missing keys: TypeError
