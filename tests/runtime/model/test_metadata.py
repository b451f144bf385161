"""The metadata of a model file: written, read back, and refused where it is not what it says."""

import dataclasses

import pytest

from refineloc.runtime.errors import FeatureError, ModelError
from refineloc.runtime.model.metadata import ModelMetadata, Parity
from refineloc.runtime.segments.postprocess import PostProcess

PARITY = Parity("val.h5", 3, 100, 1e-7, 2e-7, 3e-9, 0.0, 12, 1, 2, 0.25, 0.2375)
GOOD = ModelMetadata(
    classes=("Long jump", "Anstoß", "跳"),
    width=2048,
    snippet_frames=16,
    stream="both",
    stream_order="temporal-spatial",
    profile="paper",
    alpha_a=0.5,
    alpha_c=0.1 + 0.2,  # has no short decimal form: must come back as the same float
    top_k=2,
    max_gap=1,
    widen=2,
    nms=None,
    preset="activitynet-i3d",
    base="refineloc",
    iteration=3,
    layers=2,
    attention_values=2,
    precision="fp32",
    training_data="train.h5",
    producer="refineloc 0.1.0",
    parity=PARITY,
)
MANY = dataclasses.replace(
    GOOD, profile="multi-threshold", thresholds=(0.1 + 0.2, 0.0, 1e-9), scoring="peak", outer=1.5, video_weight=0.7
)
ADDED = ("thresholds", "scoring", "outer", "video_weight")


@pytest.mark.parametrize(
    "metadata",
    [
        GOOD,
        MANY,
        dataclasses.replace(GOOD, base="basnet", context_snippets=2),
        dataclasses.replace(GOOD, base="mine", context_snippets=None),
        dataclasses.replace(MANY, profile="release"),  # kept for who changes the profile
        dataclasses.replace(GOOD, nms=0.7, parity=None, preset="", training_data=""),
        dataclasses.replace(GOOD, alpha_c=1e-7, parity=dataclasses.replace(PARITY, reference_map=None, map=None)),
    ],
)
def test_comes_back_as_it_was_written(metadata: ModelMetadata) -> None:
    props = metadata.to_props()
    assert all(isinstance(text, str) and key.startswith("refineloc.") for key, text in props.items())
    assert ModelMetadata.from_props({**props, "someone.else": "x"}) == metadata


@pytest.mark.parametrize("key", sorted(GOOD.to_props().keys() - {"refineloc.parity", "refineloc.context_snippets"}))
def test_a_missing_key_is_named(key: str) -> None:
    props = GOOD.to_props()
    del props[key]
    with pytest.raises(ModelError, match=key):
        ModelMetadata.from_props(props)


def without(props: dict[str, str], *keys: str) -> dict[str, str]:
    return {key: text for key, text in props.items() if key.removeprefix("refineloc.") not in keys}


def test_a_file_from_before_many_thresholds_is_read() -> None:
    assert ModelMetadata.from_props(without(GOOD.to_props(), *ADDED)) == GOOD
    assert GOOD.post_process() == PostProcess(alpha_c=0.1 + 0.2)


@pytest.mark.parametrize(("base", "context"), [("refineloc", 0), ("wtalc", 0), ("basnet", None), ("mine", None)])
def test_a_file_from_before_context_snippets_is_read(base: str, context: int | None) -> None:
    """What its base model looks at is known of the two that look at no neighbour; of others it is not guessed."""
    old = without(dataclasses.replace(GOOD, base=base, context_snippets=7).to_props(), "context_snippets")
    assert ModelMetadata.from_props(old).context_snippets == context


def test_columns_are_all_or_those_of_a_stream() -> None:
    assert GOOD.columns(2048, "f.h5") == slice(0, 2048)
    with pytest.raises(FeatureError, match=r"^f.h5: features have width 4096, the model expects 2048$"):
        GOOD.columns(4096, "f.h5")
    spatial = dataclasses.replace(GOOD, stream="spatial")
    assert (spatial.columns(2048, ""), spatial.columns(4096, "")) == (slice(0, 2048), slice(2048, 4096))
    with pytest.raises(FeatureError, match=r"expects 2048 .or 4096, both streams"):
        spatial.columns(1024, "")


@pytest.mark.parametrize("key", ADDED)
def test_many_thresholds_need_all_their_settings(key: str) -> None:
    with pytest.raises(ModelError, match=f"{key} is missing"):
        ModelMetadata.from_props(without(MANY.to_props(), key))
    with pytest.raises(ModelError, match="is missing"):
        ModelMetadata.from_props(without(MANY.to_props(), *ADDED))


def test_post_processing_is_as_the_file_says() -> None:
    settings = ModelMetadata.from_props(dataclasses.replace(MANY, nms=0.7, max_gap=3, widen=4, top_k=9).to_props())
    assert settings.post_process() == PostProcess(
        profile="multi-threshold",
        alpha_c=0.1 + 0.2,
        top_k=9,
        max_gap=3,
        widen=4,
        nms=0.7,
        thresholds=(0.1 + 0.2, 0.0, 1e-9),
        scoring="peak",
        outer=1.5,
        video_weight=0.7,
    )


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("format_version", "2"),
        ("format_version", "0"),
        ("format_version", "one"),
        ("classes", ""),
        ("classes", "[]"),
        ("classes", '"Long jump"'),
        ("classes", '["a", 1]'),
        ("classes", '["a", "a"]'),
        ("classes", '["a", " "]'),
        ("classes", '["a\\nb"]'),
        ("classes", "[" * 100_000),
        ("width", "0"),
        ("width", "-5"),
        ("width", "2048.0"),
        ("width", "1_0"),
        ("width", "٣"),
        ("width", "9" * 5000),
        ("snippet_frames", ""),
        ("stream", "rgb"),
        ("stream_order", "temporal"),
        ("profile", "Paper"),
        ("alpha_a", "nan"),
        ("alpha_a", "1.0001"),
        ("alpha_c", "-0.1"),
        ("alpha_c", "1e999"),
        ("top_k", "0"),
        ("max_gap", "-1"),
        ("widen", "none"),
        ("nms", "yes"),
        ("nms", "2"),
        ("iteration", "-1"),
        ("layers", "0"),
        ("attention_values", "3"),
        ("precision", "fp64"),
        ("context_snippets", "-1"),
        ("context_snippets", "none"),
        ("base", "a\nb"),
        ("parity", "[]"),
        ("parity", "{}"),
        ("parity", "{"),
        ("profile", "multi"),
        ("profile", "x" * 100_000),
        ("thresholds", ""),
        ("thresholds", "[]"),
        ("thresholds", "0.5"),
        ("thresholds", '"0.5"'),
        ("thresholds", '["0.5"]'),
        ("thresholds", "[true]"),
        ("thresholds", "[[0.5]]"),
        ("thresholds", "[0.5, null]"),
        ("thresholds", "[NaN]"),
        ("thresholds", "[Infinity]"),
        ("thresholds", "[1.0000001]"),
        ("thresholds", "[-1e-300]"),
        ("thresholds", f"[{'9' * 4000}]"),
        ("thresholds", f"[{'9' * 5000}]"),
        ("thresholds", "[" * 100_000),
        ("thresholds", "[0.5" + ", 0.5" * 1000 + "]"),
        ("thresholds", "[0" + ",0" * 999_999 + "]"),
        ("scoring", "mean"),
        ("scoring", "x" * 100_000),
        ("outer", "-0.1"),
        ("outer", "1e999"),
        ("outer", "nan"),
        ("video_weight", "-1"),
        ("video_weight", "none"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_its_key(key: str, text: str) -> None:
    with pytest.raises(ModelError, match=key) as caught:
        ModelMetadata.from_props({**GOOD.to_props(), f"refineloc.{key}": text})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "change",
    [{"videos": -1}, {"videos": 1.5}, {"lost": True}, {"attention": float("nan")}, {"map": "high"}, {"more": 1}],
)
def test_parity_is_checked_too(change: dict[str, object]) -> None:
    import json

    record = json.dumps({**dataclasses.asdict(PARITY), **change})
    with pytest.raises(ModelError, match="parity"):
        ModelMetadata.from_props({**GOOD.to_props(), "refineloc.parity": record})
