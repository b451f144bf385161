"""The settings of detection, defined once: how scores become segments (docs/explanation/method.md).

There are three kinds of rule, a type each. `OneThreshold` keeps a snippet by its foreground and one class threshold
(RefineLoc: profiles "paper" and "release"). `ManyThresholds` takes the runs of normalised curves above each of many
(BaS-Net, W-TALC and all since: profile "multi-threshold"). Every base model can use both. `Boundaries` takes the
segments that a model finds itself (the student: profile "boundaries"). The profile tells which kind it is. What they
find is suppressed alike.

A setting is a field of one of them, or of `_Shared`. Its default, bounds and description stand there and nowhere else.
The checks, the metadata of a model file, the options of refineloc-detect, refineloc-doctor and the section [detection]
of a run read them. Only the keywords of `Detector` are written out, for readers and type checkers; a test compares.
"""

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args, get_origin

import numpy as np

from refineloc.runtime.errors import ConfigError
from refineloc.runtime.scalars import as_number, as_whole

__all__ = [
    "MAX_THRESHOLDS",
    "Boundaries",
    "Curve",
    "ManyThresholds",
    "OneThreshold",
    "Profile",
    "Rules",
    "ScoredOn",
    "Scoring",
    "Setting",
    "Suppression",
    "VideoTerm",
    "changed",
    "every_setting",
    "needs_whole_video",
    "profiles_with",
    "settings_of",
    "unused",
]

_OneProfile = Literal["paper", "release"]
_ManyProfile = Literal["multi-threshold"]
_OwnProfile = Literal["boundaries"]
Profile = Literal[_OneProfile, _ManyProfile, _OwnProfile]
Scoring = Literal["contrast", "peak"]
Curve = Literal["class", "foreground", "both"]
ScoredOn = Literal["class", "product"]
VideoTerm = Literal["add", "multiply"]
Suppression = Literal["none", "hard", "soft", "vote", "fuse", "soft-vote"]

_WITH_TIOU: tuple[Suppression, ...] = ("hard", "vote", "fuse", "soft-vote")

MAX_THRESHOLDS = 1_000  # finer than any curve needs; bounds what a hostile model file can cost
_MAX_COUNT = 2**24  # far above any real number of classes or snippets
_FINITE = sys.float_info.max


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, as its field defines it.

    Attributes:
        name: of the field.
        type: of its values: a Literal of texts, int, float, `float | None`, or `tuple[float, ...]`.
        default: its value where nobody gives one.
        description: what it does, with the source of the default.
        least, most: bounds, both included, of a number or of each number of a list.
        used_by: the kinds of suppression that use it; empty where all do.
    """

    name: str
    type: Any
    default: Any
    description: str
    least: float
    most: float
    used_by: tuple[Suppression, ...] = ()

    @property
    def expected(self) -> str:
        """Its values in words."""
        if get_origin(self.type) is Literal:
            return " or ".join(map(repr, get_args(self.type)))
        bounds = (
            f" of at least {self.least:g}" if self.most == _FINITE else f" from {self.least:g} to {self.most:,.10g}"
        )
        if self.least == -_FINITE:
            bounds = ""
        if self.type == tuple[float, ...]:
            return f"1 to {MAX_THRESHOLDS:,} numbers{bounds}"
        kind = "a whole number" if self.type is int else "a finite number" if self.most == _FINITE else "a number"
        return kind + bounds + (", or none" if self.type == float | None else "")

    def checked(self, value: Any) -> Any:
        """The value in its plain Python type.

        Raises:
            ConfigError: the value is of another type, or out of range.
        """
        if get_origin(self.type) is Literal:
            if isinstance(value, str) and value in get_args(self.type):
                return value
        elif self.type == tuple[float, ...]:
            several = isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, str)
            if several and 0 < len(value) <= MAX_THRESHOLDS and all(map(self._is_inside, value)):
                return tuple(map(as_number, value))
        elif value is None and self.type == float | None:
            return None
        elif self._is_inside(value):
            number = as_whole(value) if self.type is int else as_number(value)
            if number is not None:
                return number
        raise ConfigError(f"{self.name}: expected {self.expected}, got {value!r:.40}")

    def _is_inside(self, value: Any) -> bool:
        number = as_number(value)
        return number is not None and self.least <= number <= self.most  # NaN fails every comparison


def _about(
    description: str, least: float = 0, most: float = _FINITE, used_by: tuple[Suppression, ...] = ()
) -> dict[str, Any]:
    return {"description": description, "least": least, "most": most, "used_by": used_by}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shared:
    """What all kinds have."""

    profile: str
    top_k: int = field(default=2, metadata=_about("classes a video, by ŷ", 1, _MAX_COUNT))
    suppression: Suppression = field(
        default="none",
        metadata=_about(
            "of overlapping segments of a class, none keeps all (the paper); hard keeps the best; vote adds the scores "
            "of the others to its own (the released code); fuse takes the mean of their times (GauFuse); soft lowers "
            "the scores of the others (soft-NMS); soft-vote is fuse, with 1 - product of (1 - score) "
            "as the score, then soft (after ActionFormer)"
        ),
    )
    tiou: float = field(
        default=0.5, metadata=_about("tIoU with the best above which segments overlap", 0, 1, _WITH_TIOU)
    )
    soft_sigma: float = field(
        default=0.5,
        metadata=_about(
            "scores are lowered by exp(-tIoU² / soft_sigma) (Bodla and others, ICCV 2017; 0.3 in CO2-Net)",
            1e-6,
            1e6,
            ("soft", "soft-vote"),
        ),
    )
    fuse_temperature: float = field(
        default=0.2,
        metadata=_about(
            "a segment weighs exp(score / fuse_temperature) in the mean (GauFuse)", 1e-6, 1e6, ("fuse", "soft-vote")
        ),
    )
    min_score: float | None = field(
        default=None, metadata=_about("least score of a segment, after suppression; none keeps all", -_FINITE)
    )
    max_detections: int = field(
        default=0, metadata=_about("the best of a video that are kept, after suppression; 0 keeps all", 0, _MAX_COUNT)
    )

    def __post_init__(self) -> None:
        for setting in settings_of(type(self)):  # type: ignore[arg-type]
            object.__setattr__(self, setting.name, setting.checked(getattr(self, setting.name)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfRuns(_Shared):
    """What the kinds have whose segments are runs of snippets."""

    max_gap: int = field(
        default=1, metadata=_about("removed snippets that may separate kept ones of a segment", 0, _MAX_COUNT)
    )
    widen: int = field(
        default=2, metadata=_about("snippets added at both ends of a segment, within the video", 0, _MAX_COUNT)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OneThreshold(_OfRuns):
    """RefineLoc's rules: a snippet is kept by its foreground and by one threshold on its class activation.

    The fields are settings (docs/reference/settings.md). `max_gap` is not used by "release", which joins dilated runs.

    Raises:
        ConfigError: a value of another type, or out of range.
    """

    profile: _OneProfile = field(
        default="paper", metadata=_about("rules of the paper or of the released code (docs/explanation/method.md)")
    )
    alpha_a: float = field(default=0.5, metadata=_about("α_A: most background Ā^bf_bg of a kept snippet", 0, 1))
    alpha_c: float = field(default=0.005, metadata=_about("α_C: least class activation C̄ of a kept snippet", 0, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyThresholds(_OfRuns):
    """Rules of BaS-Net and W-TALC: runs of a curve, min-max normalised over the video, above many thresholds.

    A run that several thresholds or curves give is one segment. Its score is the contrast (the mean inside, less that
    in a ring outside: AutoLoc, BaS-Net) or the peak (the largest value inside: W-TALC). ŷ is added or multiplies it.

    The fields are settings (docs/reference/settings.md).

    Raises:
        ConfigError: a value of another type, or out of range.
    """

    profile: _ManyProfile = field(
        default="multi-threshold",
        metadata=_about("runs of normalised curves above each of many thresholds (docs/explanation/method.md)"),
    )
    thresholds: tuple[float, ...] = field(
        default=tuple(step / 40 for step in range(10)),
        metadata=_about("of the normalised curve; 0, 0.025, ... 0.225 in BaS-Net, section 4.1", 0, 1),
    )
    curve: Curve = field(
        default="class",
        metadata=_about(
            "whose runs are segments: the class activation (BaS-Net, W-TALC), the foreground, with the same runs for "
            "every class (ASM-Loc, CO2-Net), or both (CoLA)"
        ),
    )
    scoring: Scoring = field(
        default="contrast", metadata=_about("inside against outside (AutoLoc, BaS-Net), or the peak (W-TALC)")
    )
    scored_on: ScoredOn = field(
        default="class",
        metadata=_about(
            "inside and outside of what: of the class activation (normalised for the contrast: BaS-Net), or of the "
            "foreground times it (CO2-Net)"
        ),
    )
    outer: float = field(
        default=0.25, metadata=_about("contrast: width of the outside at each side, as a share of the segment's length")
    )
    length_power: float = field(
        default=0.0,
        metadata=_about(
            "contrast or peak is multiplied by the segment's length in snippets to this power, as the contrast alone "
            "is highest in the middle of a long action; 0 leaves it",
            0,
            1,
        ),
    )
    video_term: VideoTerm = field(
        default="add",
        metadata=_about(
            "how ŷ enters a segment's score: video_weight times it is added (BaS-Net, W-TALC), or the score, at least "
            "0, is multiplied by it, so that segments of an unlikely class stay below all of a likely one"
        ),
    )
    video_weight: float = field(default=0.2, metadata=_about("weight of ŷ in a segment's score, where it is added"))
    video_share: float = field(
        default=0.0,
        metadata=_about(
            "ŷ is the mean class activation of this share of the video's snippets, those of the highest foreground; "
            "0: the model's own ŷ",
            0,
            1,
        ),
    )
    class_threshold: float = field(
        default=0.0,
        metadata=_about("least ŷ of a class, as a share of the best class's ŷ; 0 keeps all of the top_k", 0, 1),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Boundaries(_Shared):
    """The segments that a model finds itself, one for each of its points and classes (ActionFormer, ECCV 2022).

    A segment's score is that of its point and class, times ŷ_n over the best ŷ of the video.

    The fields are settings (docs/reference/settings.md).

    Raises:
        ConfigError: a value of another type, or out of range.
    """

    profile: _OwnProfile = field(
        default="boundaries",
        metadata=_about("segments that the model finds itself; of models that were trained as a student"),
    )
    point_score: float = field(
        default=0.005, metadata=_about("least score of a segment before suppression (ActionFormer: 0.001)", 1e-6, 1)
    )
    class_threshold: float = field(
        default=0.1,
        metadata=_about("least ŷ of a class, as a share of the best class's ŷ; 0 keeps all of the top_k", 0, 1),
    )


Rules = OneThreshold | ManyThresholds | Boundaries
_KINDS: tuple[type[Rules], ...] = get_args(Rules)


def settings_of(kind: type[Rules]) -> tuple[Setting, ...]:
    """The settings of a kind of rule, in the order of its fields; the first is `profile`."""
    return tuple(
        Setting(name=each.name, type=each.type, default=each.default, **each.metadata) for each in fields(kind)
    )


def every_setting() -> tuple[Setting, ...]:
    """The settings of all kinds, each once; the first is `profile`, which takes the profiles of all."""
    by_name = {setting.name: setting for kind in _KINDS for setting in settings_of(kind)}
    by_name["profile"] = replace(by_name["profile"], type=Profile, default="paper", description="rules of detection")
    return tuple(by_name.values())


def profiles_with(name: str) -> tuple[str, ...]:
    """The profiles whose kind of rule has a setting of this name."""
    return tuple(profile for kind in _KINDS if name in kind.__dataclass_fields__ for profile in _profiles(kind))


def changed(rules: Rules, values: Mapping[str, Any]) -> Rules:
    """The rules with other values; where `profile` asks for another kind, what both kinds share is kept.

    Raises:
        ConfigError: there is no such setting, it is one of another kind, or its value is out of range.
    """
    profile = every_setting()[0].checked(values.get("profile", rules.profile))
    kind = next(kind for kind in _KINDS if profile in _profiles(kind))
    known = [setting.name for setting in settings_of(kind)]
    for name in sorted(values.keys() - set(known)):
        if not profiles_with(name):
            raise ConfigError(f"{name}: no setting of detection; known: {', '.join(known)}")
        others = " or ".join(map(repr, profiles_with(name)))
        raise ConfigError(f"{name}: a setting of the profile {others}, not of {profile!r}")
    kept = {name: getattr(rules, name) for name in known if hasattr(rules, name)}
    return kind(**{**kept, **values, "profile": profile})


def needs_whole_video(rules: Rules) -> str:
    """The first setting that a running video cannot follow; "" where it can follow all.

    Many thresholds are of curves whose least and largest values are known at the end, and segments that a model finds
    itself overlap; suppression, the least score and the cap compare final scores.
    """
    if not isinstance(rules, OneThreshold):
        return "profile"
    default = OneThreshold()
    names = ("suppression", "min_score", "max_detections")
    return next((name for name in names if getattr(rules, name) != getattr(default, name)), "")


def unused(rules: Rules, names: Collection[str]) -> str:
    """Which of these settings the rules do not use, and what to do; "" where they use all."""
    for setting in settings_of(type(rules)):
        if setting.name in names and setting.used_by and rules.suppression not in setting.used_by:
            kinds = " or ".join(map(repr, setting.used_by))
            return f"{setting.name}: used by suppression {kinds}, not by {rules.suppression!r}; give suppression"
    return ""


def _profiles(kind: type[Rules]) -> tuple[str, ...]:
    return get_args(settings_of(kind)[0].type)
