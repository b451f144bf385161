"""The settings of detection: what they may be, and what changing the kind of rule keeps."""

import inspect
from typing import Any

import numpy as np
import pytest

from refineloc.runtime.detector import Detector
from refineloc.runtime.errors import ConfigError
from refineloc.runtime.segments.rules import (
    MAX_THRESHOLDS,
    ManyThresholds,
    OneThreshold,
    changed,
    every_setting,
    profiles_with,
    settings_of,
    unused,
)


def test_the_default_thresholds_are_those_of_bas_net() -> None:
    assert ManyThresholds().thresholds == tuple(np.arange(0, 0.25, 0.025).round(3).tolist())


@pytest.mark.parametrize("thresholds", [[0.1, 0.2], np.array([0.1, 0.2]), (0.1, 0.2)])
def test_thresholds_become_a_tuple_of_numbers(thresholds: Any) -> None:
    rules = ManyThresholds(thresholds=thresholds)
    assert rules.thresholds == (0.1, 0.2)
    assert all(type(threshold) is float for threshold in rules.thresholds)
    assert hash(rules) == hash(ManyThresholds(thresholds=(0.1, 0.2)))


def test_numbers_of_numpy_become_those_of_python() -> None:
    rules = OneThreshold(alpha_a=np.float32(0.25), alpha_c=1, top_k=np.int64(3))  # type: ignore[arg-type]
    assert repr((rules.alpha_a, rules.alpha_c, rules.top_k)) == "(0.25, 1.0, 3)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"profile": "many"},
            "profile: expected 'paper' or 'release' or 'multi-threshold' or 'boundaries', got 'many'",
        ),
        ({"profile": ["paper"]}, "profile: expected 'paper'"),
        ({"scoring": "mean"}, "scoring: expected 'contrast' or 'peak', got 'mean'"),
        ({"thresholds": ()}, r"thresholds: expected 1 to 1,000 numbers from 0 to 1, got \(\)"),
        ({"thresholds": [0.5] * (MAX_THRESHOLDS + 1)}, "thresholds: expected 1 to 1,000 numbers"),
        ({"thresholds": 0.5}, "thresholds: expected 1 to 1,000 numbers from 0 to 1, got 0.5"),
        ({"thresholds": ["0.5"]}, "thresholds: expected 1 to 1,000 numbers"),
        ({"thresholds": [True]}, "thresholds: expected 1 to 1,000 numbers"),
        ({"thresholds": [0.1, 1.1]}, r"thresholds: expected 1 to 1,000 numbers from 0 to 1, got \[0.1, 1.1\]"),
        ({"thresholds": [float("nan")]}, "thresholds"),
        ({"outer": -0.5}, "outer: expected a finite number of at least 0"),
        ({"outer": 10**400}, "outer"),
        ({"video_weight": float("inf")}, "video_weight: expected a finite number"),
        ({"max_gap": -1}, "max_gap: expected a whole number from 0 to 16,777,216, got -1"),
        ({"top_k": "a"}, "top_k: expected a whole number from 1 to 16,777,216, got 'a'"),
        ({"widen": 2.0}, "widen: expected a whole number from 0 to 16,777,216, got 2.0"),
        ({"top_k": True}, "top_k"),
        ({"alpha_a": "0.5"}, "alpha_a: expected a number from 0 to 1, got '0.5'"),
        (
            {"suppression": None},
            "suppression: expected 'none' or 'hard' or 'soft' or 'vote' or 'fuse' or 'soft-vote', got None",
        ),
        ({"tiou": None}, "tiou: expected a number from 0 to 1, got None"),
        ({"fuse_temperature": 0.0}, "fuse_temperature: expected a number from 1e-06 to 1,000,000, got 0.0"),
        ({"min_score": "none"}, "min_score: expected a finite number, or none, got 'none'"),
        ({"min_score": float("-inf")}, "min_score"),
        ({"max_detections": -1}, "max_detections: expected a whole number from 0 to 16,777,216, got -1"),
        ({"curve": "all"}, "curve: expected 'class' or 'foreground' or 'both', got 'all'"),
        ({"video_share": 1.5}, "video_share: expected a number from 0 to 1, got 1.5"),
    ],
)
def test_settings_out_of_range(change: dict[str, Any], message: str) -> None:
    (name,) = change
    profile = {} if name == "profile" else {"profile": profiles_with(name)[0]}
    with pytest.raises(ConfigError, match=f"^{message}"):
        changed(OneThreshold(), profile | change)


def test_another_kind_of_rule_keeps_what_both_have() -> None:
    ours = OneThreshold(alpha_a=0.3, alpha_c=0.2, top_k=7, max_gap=4, widen=1, tiou=0.6)
    many = changed(ours, {"profile": "multi-threshold", "outer": 0.5})
    assert many == ManyThresholds(outer=0.5, top_k=7, max_gap=4, widen=1, tiou=0.6)
    assert changed(many, {"profile": "release"}) == OneThreshold(
        profile="release", top_k=7, max_gap=4, widen=1, tiou=0.6
    )
    assert changed(ours, {"profile": "release"}) == changed(ours, {"profile": "release", "alpha_a": 0.3})
    assert changed(changed(many, {"min_score": 0.5}), {"min_score": None}).min_score is None


@pytest.mark.parametrize("suppression", ["none", "hard", "vote", "fuse", "soft", "soft-vote"])
def test_settings_that_the_suppression_does_not_use_are_told(suppression: Any) -> None:
    rules = OneThreshold(suppression=suppression)
    used = {"hard": {"tiou"}, "vote": {"tiou"}, "fuse": {"tiou", "fuse_temperature"}, "soft": {"soft_sigma"}}
    used["soft-vote"] = {"tiou", "fuse_temperature", "soft_sigma"}
    for name in ("tiou", "fuse_temperature", "soft_sigma", "min_score", "max_detections", "top_k"):
        is_used = name in used.get(suppression, set()) or name in ("min_score", "max_detections", "top_k")
        assert (unused(rules, {name}) == "") == is_used
    assert unused(OneThreshold(suppression="soft"), {"tiou"}) == (
        "tiou: used by suppression 'hard' or 'vote' or 'fuse' or 'soft-vote', not by 'soft'; give suppression"
    )


def test_a_setting_of_the_other_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^thresholds: a setting of the profile 'multi-threshold', not of 'paper'$"):
        changed(OneThreshold(), {"thresholds": [0.5]})
    with pytest.raises(ConfigError, match=r"^alpha_a: a setting of the profile 'paper' or 'release', not of 'multi-"):
        changed(OneThreshold(), {"profile": "multi-threshold", "alpha_a": 0.5})
    with pytest.raises(ConfigError, match=r"^alpha_b: no setting of detection; known: profile, top_k"):
        changed(OneThreshold(), {"alpha_b": 0.5})


@pytest.mark.parametrize("kind", [OneThreshold, ManyThresholds])
def test_every_setting_has_a_description_and_a_good_default(kind: Any) -> None:
    rules = kind()
    for setting in settings_of(kind):
        assert setting.description
        assert setting.checked(setting.default) == getattr(rules, setting.name)


def test_a_detector_has_the_settings_as_keywords() -> None:
    keywords = inspect.signature(Detector).parameters
    others = {"model", "provider", "threads", "batch_snippets", "engine_cache", "spin"}
    assert keywords.keys() - others == {setting.name for setting in every_setting()}
    assert inspect.getdoc(Detector) is not None
    for setting in every_setting():
        assert f"    {setting.name}: " in str(inspect.getdoc(Detector))
