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
from typing import Any, Literal, get_args, get_origin

from refineloc.runtime.errors import ConfigError, FeatureError, ModelError
from refineloc.runtime.features.streams import Stream, StreamOrder, stream_slice
from refineloc.runtime.segments.rules import OneThreshold, Rules, changed, settings_of

__all__ = ["FORMAT_VERSION", "KEY_PREFIX", "ModelMetadata", "Parity", "Precision"]

FORMAT_VERSION = 1  # raised when a reader of the earlier version would misread the file
KEY_PREFIX = "refineloc."

Precision = Literal["fp32", "fp16", "int8"]

_MAX_SIZE = 2**24  # of D, H, N: far above any real one, far below what would exhaust memory


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
        detection: how scores become segments; in the file its settings are keys beside the others.
        preset: name of the settings it was trained with, "" where there was none.
        base: name of the base model.
        iteration: η, the refinement iteration.
        layers: layers with weights on the way to the class logits; L of the base model refineloc.
        attention_values: columns of the logits that Ā^bf is made of, 2 or 1; 0: a base model without them.
        precision: of the weights and products: fp32, fp16 or int8. Inputs and outputs are float32 in all three.
        training_data: name of the training features, "" where unknown.
        producer: program and version that wrote the file.
        context_snippets: how many snippets to each side the logits of a snippet depend on.
        parity: how far the file is from the trained model; None where it was not measured.

    Raises:
        ModelError: a value out of range.
    """

    classes: tuple[str, ...]
    width: int
    snippet_frames: int
    stream: Stream
    stream_order: StreamOrder
    detection: Rules
    preset: str
    base: str
    iteration: int
    layers: int
    attention_values: int
    precision: Precision
    training_data: str
    producer: str
    context_snippets: int
    parity: Parity | None = None

    def __post_init__(self) -> None:
        _need(0 < len(self.classes) <= _MAX_SIZE, "classes: expected at least one name")
        for name in self.classes:
            good = isinstance(name, str) and name.strip() and name.isprintable()
            _need(bool(good), f"classes: expected names of printable characters, got {name!r}")
        _need(len(set(self.classes)) == len(self.classes), "classes: a name occurs twice")
        for key, low, high in (
            ("width", 1, _MAX_SIZE),
            ("snippet_frames", 1, _MAX_SIZE),
            ("iteration", 0, _MAX_SIZE),
            ("layers", 1, 64),
            ("attention_values", 0, 2),
            ("context_snippets", 0, _MAX_SIZE),
        ):
            value = getattr(self, key)
            _need(low <= value <= high, f"{key}: expected a number from {low} to {high}, got {value}")
        for key, known in (
            ("stream", get_args(Stream)),
            ("stream_order", get_args(StreamOrder)),
            ("precision", get_args(Precision)),
        ):
            value = getattr(self, key)
            _need(value in known, f"{key}: expected one of {', '.join(known)}, got {value!r}")

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
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        detection = values.pop("detection")
        if values["parity"] is None:
            del values["parity"]  # not measured, which is not said
        values |= {"format_version": FORMAT_VERSION} | asdict(detection)
        return {KEY_PREFIX + key: _as_text(value) for key, value in values.items()}

    @classmethod
    def from_props(cls, props: Mapping[str, str]) -> "ModelMetadata":
        """Read the `metadata_props` of an ONNX file; keys that do not begin with `refineloc.` are left alone.

        Raises:
            ModelError: a key is missing, or its value has the wrong form; the format version is not known. The message
                does not name the file, which the caller knows.
        """
        version = _read(props, "format_version", int)
        _need(
            version == FORMAT_VERSION,
            f"format_version: expected {FORMAT_VERSION}, got {version}; "
            + ("update refineloc" if version > FORMAT_VERSION else "export the model again"),
        )
        values = {
            each.name: _read(props, each.name, each.type)
            for each in fields(cls)
            if each.name not in ("detection", "parity") or KEY_PREFIX + each.name in props
        }
        return cls(**values, detection=_read_detection(props))


def _need(condition: bool, message: str) -> None:
    if not condition:
        raise ModelError(f"metadata: {message}")


def _as_text(value: Any) -> str:
    if isinstance(value, tuple):
        return json.dumps(list(value), ensure_ascii=False)
    if isinstance(value, Parity):
        return json.dumps(asdict(value), ensure_ascii=False, allow_nan=False)
    # str() of a float is the shortest text that reads back as the same float.
    return "none" if value is None else str(value)


def _read_detection(props: Mapping[str, str]) -> Rules:
    """The settings that the file's profile has; keys of the other kind of rule are left alone."""
    try:
        rules = changed(OneThreshold(), {"profile": _read(props, "profile", str)})
        return changed(rules, {each.name: _read(props, each.name, each.type) for each in settings_of(type(rules))})
    except ConfigError as error:
        raise ModelError(f"metadata: {error}") from error


def _read(props: Mapping[str, str], key: str, form: Any) -> Any:
    """The value of a key, of this type."""
    text = props.get(KEY_PREFIX + key)
    if text is None:
        raise ModelError(f"metadata: {KEY_PREFIX}{key} is missing; export the model with refineloc-export")
    parse, expected = _FORMS[str if get_origin(form) is Literal else form]
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


def _number_or_none(text: str) -> float | None:
    return None if text == "none" else _number(text)


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


# Of each type of a field: how its text is read, and what it is in words.
_FORMS: Mapping[Any, tuple[Callable[[str], Any], str]] = {
    int: (_integer, "a number"),
    float: (_number, "a number"),
    float | None: (_number_or_none, "a number or none"),
    str: (_text, "a text"),
    tuple[str, ...]: (_names, "a JSON list of names"),
    tuple[float, ...]: (_numbers, "a JSON list of numbers"),
    Parity | None: (_parity, "a JSON object"),
}
