"""The JSON Schemas of docs/reference/schemas/: what the programs write, for whoever checks files without refineloc.

    python docs/schemas.py      writes them anew

Settings, and the keys of a model file, come from where they are defined. A test compares the files with this.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from refineloc.runtime.model.metadata import (
    FORMAT_VERSION,
    KEY_PREFIX,
    LATER_KEYS,
    ModelMetadata,
    OperatingScore,
    Parity,
    Tuning,
)
from refineloc.runtime.segments.rules import (
    MAX_THRESHOLDS,
    OneThreshold,
    Rules,
    Setting,
    every_setting,
    settings_of,
)
from refineloc.runtime.text import FURTHEST_S
from refineloc.training.settings.bases import base_names
from refineloc.training.settings.config import GENERATORS, Config
from refineloc.training.settings.model import find_base

__all__ = ["FOLDER", "schemas"]

FOLDER = Path(__file__).resolve().parent / "reference" / "schemas"
_PLACE = "https://github.com/refineloc/refineloc/raw/main/docs/reference/schemas/"
_KINDS: tuple[type[Rules], ...] = get_args(Rules)
_NAME = {"type": "string", "pattern": r"\S"}
_SECONDS = {"type": "number", "minimum": -FURTHEST_S, "maximum": FURTHEST_S}
_SEGMENT = {"type": "array", "items": _SECONDS, "minItems": 2, "maxItems": 2}
_NUMBER = r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?"
_PRINTABLE = r"^[^\u0000-\u001f\u007f-\u009f]*$"


def schemas() -> dict[str, dict[str, Any]]:
    """All schemas, by the name of their file. The number in it rises when a file of before would no longer be valid."""
    made = {
        "detections.v1.json": _detections(),
        "detections-line.v1.json": _detections_line(),
        "annotations.v1.json": _annotations(),
        "model-metadata.v1.json": _model_metadata(),
        "settings.v1.json": _settings(),
    }
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {name: {"$schema": dialect, "$id": _PLACE + name, **schema} for name, schema in made.items()}


def _detections_of_a_video() -> dict[str, Any]:
    return {
        "type": "array",
        "description": "best first",
        "items": {
            "type": "object",
            "properties": {
                "label": _NAME,
                "score": {"type": "number", "description": "higher is more certain"},
                "segment": {**_SEGMENT, "description": "start and end, in seconds"},
            },
            "required": ["label", "score", "segment"],
        },
    }


def _detections() -> dict[str, Any]:
    return {
        "title": "Detections",
        "description": "ActivityNet's JSON, as refineloc-detect writes it to *.json",
        "type": "object",
        "properties": {
            "version": {"type": "string"},
            "results": {
                "type": "object",
                "description": "by video",
                "propertyNames": {"pattern": r"\S"},
                "additionalProperties": _detections_of_a_video(),
            },
            "external_data": {
                "type": "object",
                "description": "model, provider and settings, where refineloc wrote it",
            },
        },
        "required": ["version", "results", "external_data"],
    }


def _detections_line() -> dict[str, Any]:
    return {
        "title": "Detections of one video",
        "description": "a line of the JSON lines that refineloc-detect writes to *.jsonl",
        "type": "object",
        "properties": {"video": _NAME, "detections": _detections_of_a_video()},
        "required": ["video", "detections"],
    }


def _annotations() -> dict[str, Any]:
    annotation = {
        "type": "object",
        "properties": {
            "label": _NAME,
            "segment": {**_SEGMENT, "description": "start and end, in seconds; absent where no times are known"},
            "label_id": {"type": "integer", "minimum": 0, "description": "in training data for other programs"},
            "score": {"type": "number", "description": "of a pseudo label, in training data for other programs"},
        },
        "required": ["label"],
    }
    video = {
        "type": "object",
        "properties": {
            "subset": {"type": "string"},
            "duration": {"type": "number", "exclusiveMinimum": 0, "description": "seconds"},
            "fps": {"type": "number", "exclusiveMinimum": 0, "description": "frames a second"},
            "frame": {"type": "integer", "minimum": 1, "description": "number of frames"},
            "annotations": {"type": "array", "items": annotation},
        },
        "required": ["annotations"],
    }
    return {
        "title": "Labels and ground truth",
        "description": "ActivityNet's JSON, as refineloc-convert writes it and every program reads it",
        "type": "object",
        "properties": {
            "version": {"type": "string"},
            "taxonomy": {"type": "array"},
            "database": {
                "type": "object",
                "description": "by video",
                "propertyNames": {"pattern": r"\S"},
                "additionalProperties": video,
            },
        },
        "required": ["database"],
    }


def _model_metadata() -> dict[str, Any]:
    """Of the texts in an ONNX file; a text that holds JSON has its schema as `contentSchema`."""
    optional = {each.name for each in fields(ModelMetadata) if each.default is not MISSING}
    keys = [each for each in fields(ModelMetadata) if each.name != "detection"]
    texts = {each.name: _text_of(each.name, each.type) for each in keys}
    texts["format_version"] = {"enum": [str(version) for version in range(2, FORMAT_VERSION + 1)]}
    texts["profile"] = {"enum": list(get_args(every_setting()[0].type))}
    required = ["format_version", "profile", *(each.name for each in keys if each.name not in optional)]
    return {
        "title": "Metadata of a model file",
        "description": "the metadata_props of an ONNX file, texts by key (onnx.md); keys of others are allowed",
        "type": "object",
        "additionalProperties": {"type": "string"},
        "properties": {KEY_PREFIX + name: text for name, text in texts.items()},
        "required": [KEY_PREFIX + name for name in required],
        "allOf": [_where_profile(kind) for kind in _KINDS],
    }


def _where_profile(kind: type[Rules]) -> dict[str, Any]:
    """The keys that a file has beside those of every file, by its profile."""
    profile, *settings = settings_of(kind)
    key = KEY_PREFIX + profile.name
    return {
        "if": {"properties": {key: {"enum": list(get_args(profile.type))}}, "required": [key]},
        "then": {
            "properties": {KEY_PREFIX + each.name: _text_of_setting(each) for each in settings},
            "required": [KEY_PREFIX + each.name for each in settings if each.name not in LATER_KEYS],
        },
    }


def _text_of(name: str, kind: Any) -> dict[str, Any]:
    if get_origin(kind) is Literal:
        return {"enum": list(get_args(kind))}
    if kind in (int, int | None):
        return {"type": "string", "pattern": "^[0-9]{1,12}$"}
    if kind is str:
        return {"type": "string", "pattern": _PRINTABLE}
    content: dict[str, Any] = {
        "classes": {"type": "array", "items": _NAME, "minItems": 1, "uniqueItems": True},
        "streaming": _rules_of(OneThreshold, complete=True),
        "parity": _record(Parity),
        "tuning": _record(Tuning),
        "operating_points": {"type": "array", "items": _record(OperatingScore)},
    }[name]
    return {"type": "string", "contentMediaType": "application/json", "contentSchema": content}


def _text_of_setting(setting: Setting) -> dict[str, Any]:
    about = {"description": setting.description}
    if get_origin(setting.type) is Literal:
        return {"enum": list(get_args(setting.type)), **about}
    if setting.type == tuple[float, ...]:
        content = _value_of_setting(setting)
        return {"type": "string", "contentMediaType": "application/json", "contentSchema": content, **about}
    number = "-?[0-9]{1,12}" if setting.type is int else _NUMBER
    return {"type": "string", "pattern": f"^({number}{'|none' if setting.type == float | None else ''})$", **about}


def _value_of_setting(setting: Setting) -> dict[str, Any]:
    if get_origin(setting.type) is Literal:
        return {"enum": list(get_args(setting.type))}
    number: dict[str, Any] = {"type": "integer" if setting.type is int else "number"}
    number |= {
        name: bound for name, bound in (("minimum", setting.least), ("maximum", setting.most)) if abs(bound) < 1e300
    }
    if setting.type == tuple[float, ...]:
        return {"type": "array", "items": number, "minItems": 1, "maxItems": MAX_THRESHOLDS}
    return {"anyOf": [number, {"type": "null"}]} if setting.type == float | None else number


def _rules_of(kind: type[Rules], *, complete: bool) -> dict[str, Any]:
    settings = settings_of(kind)
    properties = {
        each.name: {**_value_of_setting(each), "description": each.description}
        | ({} if complete else {"default": _plain(each.default)})
        for each in settings
    }
    return {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "required": list(properties) if complete else ["profile"],
    }


def _record(kind: type[Any]) -> dict[str, Any]:
    """A record in JSON: its types are checked as `ModelMetadata` checks them."""
    properties: dict[str, Any] = {}
    for each in fields(kind):
        if each.type is str:
            value: dict[str, Any] = {"type": "string"}
        elif each.type is int:
            value = {"type": "integer", "minimum": 0}
        elif each.type == tuple[str, ...]:
            value = {"type": "array", "items": {"type": "string"}}
        else:
            value = {"type": "number"} | ({} if each.name in ("gain", "min_score") else {"minimum": 0})
            value = value if each.type is float else {"anyOf": [value, {"type": "null"}]}
        properties[each.name] = value
    required = [each.name for each in fields(kind) if each.default is MISSING]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _settings() -> dict[str, Any]:
    """Of `--config` and of a run's config.toml, by pydantic; with the rules that it does not see."""
    schema = Config.model_json_schema()
    sections = schema["$defs"]
    del sections["Section"]
    for section in (schema, *sections.values()):
        section["additionalProperties"] = False
        for name, value in section["properties"].items():
            value.pop("title", None)
            if "$ref" in value:
                value.pop("default", None)  # each of its settings has its own
            elif any(each == {"type": "null"} for each in value.get("anyOf", ())):
                numbers = [each for each in value["anyOf"] if each != {"type": "null"}]
                section["properties"][name] = {
                    "anyOf": [*numbers, {"const": "none"}],
                    "default": "none",
                    "description": value["description"],
                }
    sections["PseudoConfig"]["properties"]["generator"] |= _or_own(GENERATORS)
    model = sections["ModelConfig"]
    model["properties"]["base"] |= _or_own(base_names())
    model["properties"]["options"] = {"type": "object", "description": model["properties"]["options"]["description"]}
    model["allOf"] = list(map(_where_base, base_names()))
    schema["properties"]["detection"] = {"anyOf": list(map(_detection, _KINDS))}
    schema["properties"]["profile"] = {
        "enum": ["paper", "release"],
        "description": "release: as the released code does",
    }
    return {**schema, "title": "Settings of a run", "description": "TOML, of refineloc-train --config and config.toml"}


def _or_own(names: Mapping[str, str] | Any) -> dict[str, Any]:
    return {"anyOf": [{"enum": list(names)}, {"pattern": r"\.py(#[0-9a-f]{64})?$"}]}


def _where_base(name: str) -> dict[str, Any]:
    options = find_base(name).options.model_json_schema()
    for value in options["properties"].values():
        value.pop("title", None)
    options = {"type": "object", "properties": options["properties"], "additionalProperties": False}
    given: dict[str, Any] = {"properties": {"base": {"const": name}}}
    if name != Config().model.base:  # which is also that of a file without it
        given["required"] = ["base"]
    return {"if": given, "then": {"properties": {"options": options}}}


def _detection(kind: type[Rules]) -> dict[str, Any]:
    rules = _rules_of(kind, complete=False)
    for value in rules["properties"].values():
        if {"type": "null"} in value.get("anyOf", ()):  # TOML has no null
            value["anyOf"] = [value["anyOf"][0], {"const": "none"}]
    if kind is OneThreshold:
        del rules["required"]
    return rules


def _plain(value: Any) -> Any:
    return "none" if value is None else list(value) if isinstance(value, tuple) else value


def _texts() -> Iterator[tuple[Path, str]]:
    for name, schema in schemas().items():
        yield FOLDER / name, json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the files."""
    FOLDER.mkdir(exist_ok=True)
    for path, text in _texts():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
