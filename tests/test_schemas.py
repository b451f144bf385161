"""The JSON Schemas of docs/reference/schemas/: what the programs write is valid, and what our readers refuse is not."""

import copy
import importlib.util
import json
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import onnx
import pytest
from jsonschema import Draft202012Validator, ValidationError, validators
from small_model import PARITY, POINT, TUNING, WIDTH, metadata_with, write_features, write_model

from refineloc.evaluation.cli import convert
from refineloc.runtime import InputError, ModelError, ModelMetadata, read_annotations, read_detections
from refineloc.runtime.cli import detect
from refineloc.runtime.segments.rules import Boundaries, ManyThresholds, OneThreshold
from refineloc.training.settings.bases import base_names
from refineloc.training.settings.config import described_toml, resolve
from refineloc.training.settings.presets import PRESETS
from refineloc.training.settings.section import Layer

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs/reference/schemas"
CSV = (
    "video-name,t-start,t-end,label,video-duration,fps,video-num-frames\na,1,9,run,19.2,25,480\nb,2,3,jump,9.6,25,240\n"
)


def content(validator: Any, schema: Any, instance: str, _: Any) -> Iterator[ValidationError]:
    """A text that holds JSON, which jsonschema leaves alone by itself."""
    try:
        value = json.loads(instance)
    except ValueError:
        yield ValidationError(f"{instance!r} is no JSON")
    else:
        yield from validator.descend(value, schema)


def schema(name: str) -> Any:
    validator = validators.extend(Draft202012Validator, {"contentSchema": content})
    return validator(json.loads((FOLDER / name).read_text(encoding="utf-8")))


def load_generator() -> Any:
    spec = importlib.util.spec_from_file_location("schemas", ROOT / "docs/schemas.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_files_are_what_docs_schemas_py_makes() -> None:
    made = load_generator().schemas()
    assert sorted(made) == sorted(path.name for path in FOLDER.iterdir())
    for name, value in made.items():
        Draft202012Validator.check_schema(value)
        assert value["$id"].endswith(f"/docs/reference/schemas/{name}")
        assert json.loads((FOLDER / name).read_text(encoding="utf-8")) == value, "run: python docs/schemas.py"


@pytest.fixture
def found(call_program: Callable[..., CompletedProcess[str]], tmp_path: Path, rng: np.random.Generator) -> Path:
    """The folder in which refineloc-detect wrote found.json and found.jsonl."""
    write_model(tmp_path / "model.onnx")
    videos = {name: rng.standard_normal((60, WIDTH)).astype(np.float32) for name in ("a", "b")}
    write_features(tmp_path / "x.h5", videos, fps=25.0)
    for out in ("found.json", "found.jsonl"):
        done = call_program(detect.main, "x.h5", "--model", "model.onnx", "--provider", "cpu", "-o", out)
        assert done.returncode == 0, done.stderr
    return tmp_path


def test_detections_that_refineloc_detect_writes(found: Path) -> None:
    document = json.loads((found / "found.json").read_text())
    assert sum(map(len, document["results"].values())) > 3
    schema("detections.v1.json").validate(document)
    lines = (found / "found.jsonl").read_text().splitlines()
    assert len(lines) == 2
    for line in lines:
        schema("detections-line.v1.json").validate(json.loads(line))


DETECTION = {"label": "run", "score": 0.5, "segment": [1.0, 8.0]}
DAMAGE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no label": lambda each: each.pop("label"),
    "an empty label": lambda each: each.update(label=" "),
    "a number as label": lambda each: each.update(label=3),
    "no score": lambda each: each.pop("score"),
    "no segment": lambda each: each.pop("segment"),
    "one bound": lambda each: each.update(segment=[1.0]),
    "a bound of text": lambda each: each.update(segment=["x", 2.0]),
    "frames of years": lambda each: each.update(segment=[0.0, 1e10]),
    "a list": lambda each: each.update(score=[1.0]),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_detections_are_not_valid_and_are_refused(tmp_path: Path, damage: str) -> None:
    document: Any = {"version": "x", "results": {"a": [dict(DETECTION)]}, "external_data": {}}
    schema("detections.v1.json").validate(document)
    DAMAGE[damage](document["results"]["a"][0])
    (tmp_path / "damaged.json").write_text(json.dumps(document))
    assert not schema("detections.v1.json").is_valid(document)
    line = {"video": "a", "detections": document["results"]["a"]}
    assert not schema("detections-line.v1.json").is_valid(line)
    with pytest.raises(InputError):
        read_detections(tmp_path / "damaged.json")


def test_annotations_that_refineloc_convert_writes(
    call_program: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "truth.csv").write_text(CSV)
    (tmp_path / "weak.csv").write_text("video-name,label\na,run\n")
    (tmp_path / "found.json").write_text(json.dumps({"results": {"a": [DETECTION]}}))
    for given in (
        ["truth.csv", "truth.json"],
        ["weak.csv", "weak.json"],
        ["found.json", "training.json", "--to", "training", "--videos", "truth.csv"],
    ):
        done = call_program(convert.main, *given)
        assert done.returncode == 0, done.stderr
        document = json.loads((tmp_path / given[1]).read_text())
        assert document["database"]
        schema("annotations.v1.json").validate(document)
    for change in (
        {"annotations": [{"segment": [1, 2]}]},
        {"annotations": [{"label": "run", "segment": [1]}]},
        {"annotations": [{"label": "", "segment": [1, 2]}]},
        {"annotations": {}},
        {"annotations": [], "duration": "long"},
        {"annotations": [], "fps": -25.0},
    ):
        document = {"database": {"a": change}}
        (tmp_path / "damaged.json").write_text(json.dumps(document))
        assert not schema("annotations.v1.json").is_valid(document), change
        with pytest.raises(InputError):
            read_annotations(tmp_path / "damaged.json")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"stride_frames": 4, "backbone": "ab12", "parity": PARITY, "tuning": TUNING, "operating_points": (POINT,)},
        {"profile": "release", "min_score": -0.5, "pseudo_labels": "fused", "licence": "MIT", "preset": "auto"},
        {"profile": "multi-threshold", "thresholds": (0.0, 0.5), "streaming": OneThreshold(), "networks": 3},
        {"profile": "boundaries", "base": "student", "attention_values": 0},
    ],
    ids=["plain", "measured", "release", "multi-threshold", "boundaries"],
)
def test_metadata_of_model_files(changes: dict[str, Any]) -> None:
    props = metadata_with(**changes).to_props()
    validator = schema("model-metadata.v1.json")
    validator.validate(props)
    validator.validate({**props, "refineloc.later": "x", "others": "y"})
    for key in props:
        lacking = {name: text for name, text in props.items() if name != key}
        refused = not _read(lacking)
        assert validator.is_valid(lacking) != refused, key
    for key, text in (
        ("width", "1_000"),
        ("width", "2048.0"),
        ("format_version", "9"),
        ("classes", "jump, run"),
        ("classes", "[]"),
        ("classes", '["a", "a"]'),
        ("stream", "left"),
        ("profile", "mine"),
        ("top_k", "many"),
        ("min_score", "null"),
        ("suppression", "some"),
        ("training_data", "a\nb"),
        ("parity", '{"source": "x"}'),
        ("tuning", "[]"),
        ("operating_points", '[{"precision": 0.9}]'),
        ("streaming", '{"profile": "paper"}'),
    ):
        damaged = {**props, f"refineloc.{key}": text}
        assert not validator.is_valid(damaged), (key, text)
        assert not _read(damaged), (key, text)


def _read(props: dict[str, str]) -> bool:
    try:
        ModelMetadata.from_props(props)
    except ModelError:
        return False
    return True


def test_metadata_in_a_file(model_path: Path) -> None:
    props = {each.key: each.value for each in onnx.load(model_path).metadata_props}
    schema("model-metadata.v1.json").validate(props)


def test_settings_of_every_preset_and_base() -> None:
    validator = schema("settings.v1.json")
    layers = [{"preset": name} for name in PRESETS] + [{"model": {"base": name}} for name in base_names()]
    layers += [{"detection": {"profile": kind().profile}} for kind in (OneThreshold, ManyThresholds, Boundaries)]
    for layer in layers:
        validator.validate(layer)
        validator.validate(tomllib.loads(resolve(layer).to_toml()))
    validator.validate(tomllib.loads(described_toml(Layer("", {"preset": "auto"}))))
    validator.validate({"model": {"base": "mine.py#" + "a" * 64}, "pseudo": {"generator": "own.py"}})


@pytest.mark.parametrize(
    "settings",
    [
        {"trainig": {}},
        {"training": {"epoch": 3}},
        {"training": {"epochs": "3"}},
        {"training": {"epochs": 0}},
        {"training": {"precision": "float16"}},
        {"pseudo": {"generator": "none"}},
        {"pseudo": {"sampled": 1.5}},
        {"model": {"base": "none"}},
        {"model": {"options": {"filter_width": 3}}},
        {"model": {"base": "basnet", "options": {"layers": 3}}},
        {"detection": {"alpha_a": 2}},
        {"detection": {"profile": "multi-threshold", "alpha_a": 0.5}},
        {"detection": {"thresholds": [0.1]}},
        {"features": {"fps": 0}},
        {"profile": "other"},
    ],
    ids=str,
)
def test_settings_that_are_refused_are_not_valid(settings: dict[str, Any]) -> None:
    assert not schema("settings.v1.json").is_valid(settings)
    with pytest.raises(InputError):
        resolve(copy.deepcopy(settings))
