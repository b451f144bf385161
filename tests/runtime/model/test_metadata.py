"""The metadata of a model file: written, read back, and refused where it is not what it says."""

import dataclasses
import json

import pytest
from small_model import metadata_with

from refineloc.runtime.errors import ConfigError, FeatureError, ModelError
from refineloc.runtime.model.metadata import KEY_PREFIX, LATER_KEYS, ModelMetadata, OperatingScore, Parity, Tuning
from refineloc.runtime.segments.rules import ManyThresholds, OneThreshold

PARITY = Parity("val.h5", 3, 100, 1e-7, 2e-7, 3e-9, 0.0, 12, 1, 2, 0.25, 0.2375)
TUNING = Tuning(
    labels="five.csv",
    date="2026-11-26",
    videos=("a", "Läufer"),
    folds=2,
    changed=("widen: 2 -> 0",),
    tious="0.5",
    own_map=0.25,
    map=0.3,
    gain=-0.01,
    noise=0.02,
)
POINT = OperatingScore(
    precision=0.9,
    min_score=-0.1,
    tiou=0.5,
    recall=0.25,
    false_alarms_an_hour=None,
    true_positives=9,
    false_positives=1,
    labels="five.csv",
    date="2026-11-26",
    videos=2,
)
GOOD = metadata_with(
    classes=("Long jump", "Anstoß", "跳"),
    width=2048,
    preset="activitynet-i3d",
    alpha_c=0.1 + 0.2,  # has no short decimal form: must come back as the same float
    parity=PARITY,
)
MANY = dataclasses.replace(
    GOOD,
    detection=ManyThresholds(
        thresholds=(0.1 + 0.2, 0.0, 1e-9),
        curve="both",
        scoring="peak",
        scored_on="product",
        outer=1.5,
        length_power=0.3,
        video_term="multiply",
        video_weight=0.7,
        video_share=0.15,
        class_threshold=0.25,
        suppression="fuse",
        tiou=0.3,
        fuse_temperature=0.02,
        min_score=-0.5,
        max_detections=200,
        max_gap=3,
        top_k=9,
    ),
)


@pytest.mark.parametrize(
    "metadata",
    [
        GOOD,
        MANY,
        dataclasses.replace(GOOD, base="basnet", context_snippets=2),
        dataclasses.replace(
            GOOD, detection=OneThreshold(profile="release", suppression="soft", soft_sigma=0.3, widen=0)
        ),
        dataclasses.replace(GOOD, parity=None, preset="", training_data=""),
        dataclasses.replace(GOOD, stride_frames=4),
        dataclasses.replace(GOOD, tuning=TUNING, operating_points=(POINT, dataclasses.replace(POINT, precision=0.5))),
        dataclasses.replace(MANY, networks=5, streaming=OneThreshold(profile="release", alpha_a=0.1 + 0.2, top_k=1)),
        dataclasses.replace(
            GOOD, detection=OneThreshold(alpha_c=1e-7), parity=dataclasses.replace(PARITY, reference_map=None, map=None)
        ),
    ],
)
def test_comes_back_as_it_was_written(metadata: ModelMetadata) -> None:
    props = metadata.to_props()
    assert all(isinstance(text, str) and key.startswith("refineloc.") for key, text in props.items())
    assert ModelMetadata.from_props({**props, "someone.else": "x"}) == metadata


@pytest.mark.parametrize(
    ("metadata", "key"),
    [
        (metadata, key)
        for metadata in (GOOD, MANY)
        for key in sorted(
            metadata.to_props().keys() - {"refineloc.parity", *(KEY_PREFIX + each for each in LATER_KEYS)}
        )
    ],
)
def test_a_missing_key_is_named(metadata: ModelMetadata, key: str) -> None:
    props = metadata.to_props()
    del props[key]
    with pytest.raises(ModelError, match=key):
        ModelMetadata.from_props(props)


def test_files_of_0_1_0_mean_what_they_meant() -> None:
    """One network, and ŷ added to a contrast that its length does not change."""
    assert (GOOD.networks, MANY.detection.video_term, MANY.detection.length_power) == (1, "multiply", 0.3)
    props = {name: text for name, text in MANY.to_props().items() if name.removeprefix(KEY_PREFIX) not in LATER_KEYS}
    assert len(props) == len(MANY.to_props()) - 3
    before = dataclasses.replace(MANY.detection, video_term="add", length_power=0.0)
    assert ModelMetadata.from_props(props) == dataclasses.replace(MANY, detection=before)


def test_a_file_has_the_settings_of_its_kind_of_rule() -> None:
    ours, many = ({key.removeprefix("refineloc.") for key in each.to_props()} for each in (GOOD, MANY))
    assert ours - many == {"alpha_a", "alpha_c"}
    assert many - ours == {
        "thresholds",
        "curve",
        "scoring",
        "scored_on",
        "outer",
        "length_power",
        "video_term",
        "video_weight",
        "video_share",
        "class_threshold",
    }
    assert ModelMetadata.from_props({**MANY.to_props(), **GOOD.to_props()}) == GOOD, "keys of the other kind"


def test_a_stride_of_its_own_makes_a_file_that_earlier_readers_refuse() -> None:
    """They would take the window for the stride. Files without one stay as they were."""
    assert GOOD.to_props()["refineloc.format_version"] == "2"
    assert dataclasses.replace(GOOD, stride_frames=16) == GOOD
    props = dataclasses.replace(GOOD, stride_frames=4).to_props()
    assert (props["refineloc.format_version"], props["refineloc.stride_frames"]) == ("3", "4")


def test_columns_are_all_or_those_of_a_stream() -> None:
    assert GOOD.columns(2048, "f.h5") == slice(0, 2048)
    with pytest.raises(FeatureError, match=r"^f.h5: features have width 4096, the model expects 2048$"):
        GOOD.columns(4096, "f.h5")
    spatial = dataclasses.replace(GOOD, stream="spatial")
    assert (spatial.columns(2048, ""), spatial.columns(4096, "")) == (slice(0, 2048), slice(2048, 4096))
    with pytest.raises(FeatureError, match=r"expects 2048 .or 4096, both streams"):
        spatial.columns(1024, "")


def streaming_of(**changes: object) -> str:
    return json.dumps({**dataclasses.asdict(OneThreshold()), **changes})


# One setting more, a value out of range, another kind of rule, and rules that a running video cannot follow.
STREAMING = [
    streaming_of(more=1),
    streaming_of(alpha_a=2),
    streaming_of(profile="multi-threshold"),
    streaming_of(suppression="hard"),
    streaming_of(min_score=0.5),
    streaming_of(max_detections=9),
]

# What a setting of detection may be is tested with the settings, and here that texts of every form are read strictly.
WRONG = {
    "format_version": ["1", "5", "one"],
    "stride_frames": ["0", "4.0"],
    "classes": ["[]", '"Long jump"', '["a", 1]', '["a", "a"]', '["a", " "]', '["a\\nb"]', "[" * 100_000],
    "width": ["0", "2048.0", "1_0", "٣", "9" * 5000],
    "stream": ["rgb"],
    "alpha_a": ["nan", "1.0001"],
    "alpha_c": ["1e999"],
    "top_k": ["99999999"],
    "widen": ["none"],
    "suppression": ["yes"],
    "tiou": ["none"],
    "min_score": ["yes", "inf"],
    "max_detections": ["none"],
    "iteration": ["-1"],
    "attention_values": ["3"],
    "precision": ["fp64"],
    "context_snippets": ["-1"],
    "networks": ["0", "none"],
    "streaming": ["none", "[]", "{}", '{"alpha_a": 0.5}', "{", "[" * 100_000, *STREAMING],
    "base": ["a\nb"],
    "parity": ["[]", "{}", "{"],
    "profile": ["multi", "x" * 100_000],
    "thresholds": ["", '"0.5"', '["0.5"]', "[true]", "[NaN]", f"[{'9' * 5000}]", "[" * 100_000, f"[0{',0' * 999_999}]"],
    "scoring": ["mean"],
    "video_weight": ["none"],
}


@pytest.mark.parametrize(("key", "text"), [(key, text) for key, texts in WRONG.items() for text in texts])
def test_a_wrong_value_is_one_line_that_names_its_key(key: str, text: str) -> None:
    props = (GOOD if f"refineloc.{key}" in GOOD.to_props() else MANY).to_props()
    with pytest.raises(ModelError, match=key) as caught:
        ModelMetadata.from_props({**props, f"refineloc.{key}": text})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "change",
    [{"videos": -1}, {"videos": 1.5}, {"lost": True}, {"attention": float("nan")}, {"map": "high"}, {"more": 1}],
)
def test_parity_is_checked_too(change: dict[str, object]) -> None:
    record = json.dumps({**dataclasses.asdict(PARITY), **change})
    with pytest.raises(ModelError, match="parity"):
        ModelMetadata.from_props({**GOOD.to_props(), "refineloc.parity": record})


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("tuning", "[]", "tuning: expected a JSON object"),
        ("tuning", json.dumps(dataclasses.asdict(TUNING) | {"folds": -1}), "tuning.folds: expected a count, got -1"),
        ("tuning", json.dumps(dataclasses.asdict(TUNING) | {"videos": [1]}), "tuning.videos: expected a list of texts"),
        ("tuning", json.dumps(dataclasses.asdict(TUNING) | {"noise": -1.0}), "tuning.noise: expected a number of at"),
        ("operating_points", "{}", "operating_points: expected a JSON list of objects"),
        ("operating_points", "[1]", "operating_points: expected a JSON list of objects"),
        (
            "operating_points",
            json.dumps([dataclasses.asdict(POINT) | {"min_score": "x"}]),
            "operating_points.min_score: expected a number, got 'x'",
        ),
    ],
)
def test_what_was_chosen_later_is_read_strictly(key: str, text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        ModelMetadata.from_props(GOOD.to_props() | {f"refineloc.{key}": text})


def test_an_operating_point_has_a_name() -> None:
    metadata = dataclasses.replace(GOOD, operating_points=(POINT,))
    assert metadata.score_of("precision 0.9") == POINT.min_score
    with pytest.raises(ConfigError, match=r"no operating point of the model file: it has 'precision 0\.9'"):
        metadata.score_of("precision 0.90001")
