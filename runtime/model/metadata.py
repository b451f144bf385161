"""What a model file says of itself: the ONNX `metadata_props`, read strictly.

They hold all that detection needs beside the graph, so that one file is enough. Keys begin with `refineloc.`; other
keys are ignored. Values are strings, as in ONNX: decimal numbers, JSON for `classes`, `thresholds`, `streaming`,
`parity`, `tuning` and `operating_points`, and "none" for a `min_score` that is off. onnx.md lists the keys.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args, get_origin

from refineloc.runtime.errors import ConfigError, FeatureError, ModelError
from refineloc.runtime.features.streams import Stream, StreamOrder, stream_slice
from refineloc.runtime.segments.rules import Boundaries, OneThreshold, Rules, changed, needs_whole_video, settings_of

__all__ = [
    "FORMAT_VERSION",
    "KEY_PREFIX",
    "LATER_KEYS",
    "SUMMED_BASE",
    "WHOLE_CONTEXT",
    "ModelMetadata",
    "OperatingScore",
    "Parity",
    "Precision",
    "Tuning",
    "as_text",
    "read_value",
]

# Raised when readers of the earlier version would misread the file. A file has the lowest version that can read it: 3
# where the stride is not H, which readers of version 2 take it for; 4 where its rule takes the model's own segments.
FORMAT_VERSION = 4
_STRIDE_VERSION, _LEAST_VERSION = 3, 2
KEY_PREFIX = "refineloc."
SUMMED_BASE = "refineloc"  # the base model whose ŷ is the sum of attention times C̄, so that it streams

Precision = Literal["fp32", "fp16", "int8"]

_OPTIONAL = (
    "backbone",
    "stride_frames",
    "streaming",
    "parity",
    "tuning",
    "operating_points",
    "pseudo_labels",
    "licence",
)  # keys that a file has where they are known, or not the default
# Keys that format 2 got after the first files of it. A file without one is of then, and means the default.
LATER_KEYS = ("networks", "video_term", "length_power")
_MAX_SIZE = 2**24  # of D, H, N: far above any real one, far below what would exhaust memory
WHOLE_CONTEXT = _MAX_SIZE  # `context_snippets` of a base model whose logits depend on the whole video


@dataclass(frozen=True, slots=True)
class Parity:
    """How far the file is from the trained model, measured at export.

    Attributes:
        source: what it was measured on: the name of a feature file, or "generated".
        videos, snippets: how many.
        class_scores, foreground, attention, video_scores: largest absolute difference of each output.
        point_scores, distances: the same of a student, distances in snippets; None of other models.
        detections: number of detections of the trained model.
        lost, gained: number of detections of the trained model alone, and of the file alone. Detections are the same
            if video, class and snippets (to whole ones) are.
        reference_map, map: average mAP (tIoU 0.5:0.05:0.95, fraction of 1) of the trained model and of the file; None
            without ground truth.
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
    point_scores: float | None = None
    distances: float | None = None

    def __post_init__(self) -> None:
        _check_record("parity", self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What the rule of detection was chosen on, by refineloc-tune (docs/how-to/tune.md).

    Attributes:
        labels: the name of the file of annotations.
        date: of the day, ISO 8601.
        videos: names of the videos.
        folds: of the cross-validation.
        changed: what was changed, each "setting: value before -> value now"; empty where the own rule stayed.
        tious: thresholds of average mAP, as text.
        own_map, map: average mAP on these videos before and now, fractions of 1; the latter is too high, as they chose.
        gain, noise: cross-validated gain of the best change in average mAP, and its standard error.
    """

    labels: str
    date: str
    videos: tuple[str, ...]
    folds: int
    changed: tuple[str, ...]
    tious: str
    own_map: float
    map: float
    gain: float
    noise: float

    def __post_init__(self) -> None:
        _check_record("tuning", self)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingScore:
    """A least score for applications, and what it gave where it was chosen (docs/how-to/tune.md).

    Attributes:
        precision: the one that was wanted, fraction of 1.
        min_score: the lowest score that gives it.
        tiou: at which a detection is right.
        recall: of the annotations, fraction of 1.
        false_alarms_an_hour: None where the durations were not known.
        true_positives, false_positives: how many detections had at least this score.
        labels, date, videos: as of `Tuning`, but how many videos.
    """

    precision: float
    min_score: float
    tiou: float
    recall: float
    false_alarms_an_hour: float | None
    true_positives: int
    false_positives: int
    labels: str
    date: str
    videos: int

    def __post_init__(self) -> None:
        _check_record("operating_points", self)

    @property
    def name(self) -> str:
        """What a detector takes as `min_score`: "precision 0.9"."""
        return f"precision {self.precision:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMetadata:
    """All that detection needs beside the graph, and the origin of the model.

    Attributes:
        classes: names, in the order of the score columns; their number is N.
        width: D, the width of `features`.
        snippet_frames: H, frames a snippet.
        stream: which of the two streams the model takes.
        stream_order: order of the two streams in files that hold both.
        detection: how scores become segments; each of its settings is a key of the file.
        preset: name of the settings it was trained with, "" for none.
        base: name of the base model.
        iteration: η, the refinement iteration.
        layers: number of layers with weights before the class logits; L of the base model refineloc.
        attention_values: columns of the logits of Ā^bf, 2 or 1; 0 for a base model without them.
        precision: of the weights and products: fp32, fp16 or int8. Inputs and outputs are float32 in all three.
        training_data: name of the training features, "" if not known.
        producer: program and version that wrote the file.
        context_snippets: on how many snippets to each side the logits of a snippet depend; `WHOLE_CONTEXT`: on all.
        networks: K, of the networks whose mean scores the graph gives; 1 for a single one.
        streaming: how segments are found in a running video where `detection` needs the whole one; None where nothing
            was frozen for it.
        parity: how far the file is from the trained model; None if it was not measured.
        stride_frames: S, frames from one snippet to the next; None in a file and here: H.
        backbone: what the training features were extracted with (`FeatureInfo.backbone`); "" if not known.
        tuning: what `detection` was chosen on after training; None if it was not.
        operating_points: least scores for applications, which `detection` does not use; None where there are none.
        pseudo_labels: generator of those it was trained with, "" if there were none, or if it is not known.
        licence: of the file, as its maker states it, such as "CC-BY-4.0"; "" if not known.

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
    networks: int = 1
    streaming: OneThreshold | None = None
    parity: Parity | None = None
    stride_frames: int | None = None
    backbone: str = ""
    tuning: Tuning | None = None
    operating_points: tuple[OperatingScore, ...] | None = None
    pseudo_labels: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        _need(0 < len(self.classes) <= _MAX_SIZE, "classes: expected at least one name")
        for name in self.classes:
            printable = isinstance(name, str) and name.strip() and name.isprintable()
            _need(bool(printable), f"classes: expected names of printable characters, got {name!r}")
        _need(len(set(self.classes)) == len(self.classes), "classes: a name occurs twice")
        for key, low, high in (
            ("width", 1, _MAX_SIZE),
            ("snippet_frames", 1, _MAX_SIZE),
            ("iteration", 0, _MAX_SIZE),
            ("layers", 1, 64),
            ("attention_values", 0, 2),
            ("context_snippets", 0, _MAX_SIZE),
            ("networks", 1, _MAX_SIZE),
            *([] if self.stride_frames is None else [("stride_frames", 1, _MAX_SIZE)]),
        ):
            value = getattr(self, key)
            _need(low <= value <= high, f"{key}: expected a number from {low} to {high}, got {value}")
        for key, allowed in (
            ("stream", get_args(Stream)),
            ("stream_order", get_args(StreamOrder)),
            ("precision", get_args(Precision)),
        ):
            value = getattr(self, key)
            _need(value in allowed, f"{key}: expected one of {', '.join(allowed)}, got {value!r}")
        if self.stride_frames == self.snippet_frames:
            object.__setattr__(self, "stride_frames", None)
        if self.streaming is not None and (name := needs_whole_video(self.streaming)):
            raise ModelError(f"metadata: streaming: its {name} needs the whole video")

    def columns(self, width: int, where: str, rows: int = 0) -> slice:
        """The columns that the model takes of features of this width: all, or one of two streams.

        Args:
            width: of the features.
            where: begins the message of an error.
            rows: of the features, which may have been saved as D x T.

        Raises:
            FeatureError: the width is neither the model's nor twice that.
        """
        if width == self.width:
            return slice(0, width)
        if self.stream != "both" and width == 2 * self.width:
            return stream_slice(width, self.stream, self.stream_order)
        both = f" (or {2 * self.width}, both streams)" if self.stream != "both" else ""
        exchanged = "; they seem to be saved as D x T: save them transposed" if rows == self.width else ""
        raise FeatureError(f"{where}: features have width {width}, the model expects {self.width}{both}{exchanged}")

    def score_of(self, name: str) -> float:
        """The least score of an operating point, such as "precision 0.9".

        Raises:
            ConfigError: the file has no such point; the message says which it has.
        """
        points = {point.name: point.min_score for point in self.operating_points or ()}
        if name in points:
            return points[name]
        known = f"it has {', '.join(map(repr, points))}" if points else "it has none; refineloc-tune writes them"
        raise ConfigError(
            f"min_score: expected a finite number, or none, got {name!r:.40}, which is no operating point of the model "
            f"file: {known}"
        )

    def to_props(self) -> dict[str, str]:
        """The `metadata_props` of the ONNX file."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        detection = values.pop("detection")
        for name in _OPTIONAL:
            if values[name] in (None, ""):
                del values[name]
        version = _LEAST_VERSION if self.stride_frames is None else _STRIDE_VERSION
        version = FORMAT_VERSION if isinstance(self.detection, Boundaries) else version
        values |= {"format_version": version} | asdict(detection)
        return {KEY_PREFIX + key: as_text(value) for key, value in values.items()}

    @classmethod
    def from_props(cls, props: Mapping[str, str]) -> "ModelMetadata":
        """Read the `metadata_props` of an ONNX file; keys that do not begin with `refineloc.` are ignored.

        Raises:
            ModelError: a key is missing or its value has the wrong form, or the format version is unknown. The message
                does not name the file: the caller adds it.
        """
        version = read_value(props, "format_version", int)
        _need(
            _LEAST_VERSION <= version <= FORMAT_VERSION,
            f"format_version: expected {_LEAST_VERSION} to {FORMAT_VERSION}, got {version}; "
            + ("update refineloc" if version > FORMAT_VERSION else "export the model again"),
        )
        values = {
            field.name: read_value(props, field.name, field.type)
            for field in fields(cls)
            if field.name not in ("detection", *_OPTIONAL, *LATER_KEYS) or KEY_PREFIX + field.name in props
        }
        return cls(**values, detection=_read_detection(props))


def _check_record(what: str, record: Any) -> None:
    """Check the types of a record's fields; numbers are finite, and all but `gain` and `min_score` at least 0."""
    for field in fields(record):
        value = getattr(record, field.name)
        where = f"{what}.{field.name}: expected"
        if field.type is str:
            _need(isinstance(value, str), f"{where} a text, got {value!r}")
        elif field.type is int:
            _need(type(value) is int and value >= 0, f"{where} a count, got {value!r}")
        elif field.type == tuple[str, ...]:
            texts = isinstance(value, (list, tuple)) and all(isinstance(text, str) for text in value)
            _need(texts, f"{where} a list of texts, got {value!r:.40}")
            object.__setattr__(record, field.name, tuple(value))
        elif value is not None or field.type is float:
            good = type(value) in (int, float) and math.isfinite(value)
            if field.name not in ("gain", "min_score"):
                _need(good and value >= 0, f"{where} a number of at least 0, got {value!r}")
            _need(good, f"{where} a number, got {value!r}")


def _need(condition: bool, message: str) -> None:
    if not condition:
        raise ModelError(f"metadata: {message}")


def as_text(value: Any) -> str:
    """The text of a value in the file."""
    if isinstance(value, tuple) and value and isinstance(value[0], OperatingScore):
        return json.dumps([asdict(each) for each in value], ensure_ascii=False, allow_nan=False)
    if isinstance(value, tuple):
        return json.dumps(list(value), ensure_ascii=False)
    if isinstance(value, (Parity, OneThreshold, Tuning)):
        return json.dumps(asdict(value), ensure_ascii=False, allow_nan=False)
    # str() of a float gives the shortest text that reads as the same float.
    return "none" if value is None else str(value)


def _read_detection(props: Mapping[str, str]) -> Rules:
    """The settings of the file's profile; keys of the other kind of rule are ignored."""
    try:
        rules = changed(OneThreshold(), {"profile": read_value(props, "profile", str)})
        return changed(
            rules,
            {
                setting.name: read_value(props, setting.name, setting.type)
                for setting in settings_of(type(rules))
                if setting.name not in LATER_KEYS or KEY_PREFIX + setting.name in props
            },
        )
    except ConfigError as error:
        raise ModelError(f"metadata: {error}") from error


def read_value(props: Mapping[str, str], key: str, kind: Any) -> Any:
    """The value of a key, of the type `kind`.

    Raises:
        ModelError: the key is missing, or its text is none of that type.
    """
    text = props.get(KEY_PREFIX + key)
    if text is None:
        raise ModelError(f"metadata: {KEY_PREFIX}{key} is missing; export the model with refineloc-export")
    parse, expected = _FORMS[str if get_origin(kind) is Literal else kind]
    try:
        return parse(text)
    except (ValueError, TypeError, RecursionError) as error:
        # A ModelError is a ValueError too; its message is complete.
        if isinstance(error, ModelError):
            raise
        shown = text if len(text) <= 40 else text[:40] + "..."
        raise ModelError(f"metadata: {key}: expected {expected}, got {shown!r}") from error


def _text(text: str) -> Any:
    if not text.isprintable():
        raise ValueError("control characters")
    return text


def _integer(text: str) -> int:
    # int() alone would accept "1_000", " 7 " and digits that are not ASCII.
    if not re.fullmatch(r"-?[0-9]{1,12}", text):
        raise ValueError("not an integer")
    return int(text)


def _number(text: str) -> float:
    if not re.fullmatch(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?", text):
        raise ValueError("not a number")
    return float(text)


def _number_or_none(text: str) -> float | None:
    return None if text == "none" else _number(text)


def _list(text: str) -> tuple[Any, ...]:
    values = json.loads(text)
    if not isinstance(values, list):
        raise ValueError("not a list")
    return tuple(values)  # what takes them checks each


def _parity(text: str) -> Parity:
    record = json.loads(text)
    if not isinstance(record, dict):
        raise ValueError("not an object")
    return Parity(**record)  # unknown or missing keys: TypeError


def _tuning(text: str) -> Tuning:
    record = json.loads(text)
    if not isinstance(record, dict):
        raise ValueError("not an object")
    return Tuning(**record)


def _operating_points(text: str) -> tuple[OperatingScore, ...]:
    return tuple(OperatingScore(**record) for record in _list(text))  # what is no object: TypeError


def _streaming(text: str) -> OneThreshold:
    record = json.loads(text)
    names = {setting.name for setting in settings_of(OneThreshold)}
    if not isinstance(record, dict) or record.keys() != names:
        raise ValueError("not an object of these settings")
    try:
        return OneThreshold(**record)
    except ConfigError as error:
        raise ModelError(f"metadata: streaming: {error}") from error


# By type of a field: how its text is read, and what is expected, in words.
_FORMS: Mapping[Any, tuple[Callable[[str], Any], str]] = {
    int: (_integer, "a number"),
    int | None: (_integer, "a number"),
    float: (_number, "a number"),
    float | None: (_number_or_none, "a number or none"),
    str: (_text, "a text"),
    tuple[str, ...]: (_list, "a JSON list of names"),
    tuple[float, ...]: (_list, "a JSON list of numbers"),
    tuple[int, ...]: (_list, "a JSON list of numbers"),
    OneThreshold | None: (_streaming, "a JSON object of the settings of one threshold"),
    Parity | None: (_parity, "a JSON object"),
    Tuning | None: (_tuning, "a JSON object"),
    tuple[OperatingScore, ...] | None: (_operating_points, "a JSON list of objects"),
}
