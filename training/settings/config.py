"""The configuration of a run: every setting with its unit and its source; unknown keys are refused."""

import copy
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from refineloc.runtime.errors import ConfigError
from refineloc.runtime.features.streams import Stream, StreamOrder
from refineloc.runtime.segments.postprocess import THRESHOLDS, PostProcess, Profile, Scoring
from refineloc.training.settings.presets import PRESETS
from refineloc.training.settings.presets import preset as settings_of

__all__ = ["Config", "Generator", "Precision", "base_defaults", "parse_assignment", "read_toml", "recorded", "resolve"]

Generator = Literal["uniform", "distribution-aware", "class-activation", "attention", "segment", "oracle"]
Precision = Literal["float32", "bf16", "tf32"]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
# TOML has no value for "none", so it is a word there.
OrNone = BeforeValidator(lambda value: None if value == "none" else value)


class _Section(BaseModel):
    # Strict: `true` and "3" are no numbers. Neither infinity nor NaN is a setting.
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, strict=True, allow_inf_nan=False)


class FeatureConfig(_Section):
    """Which features the model sees."""

    stream: Stream = Field("both", description="temporal or spatial half of the columns, or both (paper, section 4.1)")
    stream_order: StreamOrder = Field(
        "temporal-spatial", description="how the streams lie in the files; RefineLoc's have the temporal first"
    )
    snippet_frames: int = Field(16, ge=1, description="H, frames a snippet: 16 for I3D, 15 for TSN (section 4.1)")


class ModelConfig(_Section):
    """The base model."""

    base: str = Field("refineloc", description="base model (section 3.1; Table 5): a file of training/models/bases/")
    layers: int = Field(2, ge=1, le=4, description="refineloc: L, fully connected layers of each branch (section 3.1)")
    attention_values: Literal[1, 2] = Field(
        2,
        description="refineloc: outputs of the attention branch: 2 (paper), or 1 with a sigmoid (released, THUMOS14)",
    )
    options: dict[str, Any] = Field({}, description="of the other base models (docs/base-models.md)")

    @model_validator(mode="after")
    def _of_the_base(self) -> Self:
        """The base model's own settings, checked and whole."""
        if self.base == "refineloc" and not self.options:
            return self  # torch, which base models import, is not needed to know this one's
        from refineloc.training.models.base_model import find_base

        try:
            options = find_base(self.base).options.model_validate(self.options)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ValueError(f"options.{where} of {self.base}: {first['msg']}, got {first['input']!r}") from error
        self.options.update(options.model_dump())
        return self


class DetectionConfig(_Section):
    """How scores become detections (section 3.1)."""

    profile: Profile = Field("paper", description="rules of the paper or of the released code (docs/method.md)")
    alpha_a: Share = Field(0.5, description="α_A: most background Ā^bf_bg of a kept snippet")
    alpha_c: Share = Field(0.005, description="α_C: least class activation C̄ of a kept snippet")
    top_k: int = Field(2, ge=1, description="classes a video, by ŷ")
    max_gap: int = Field(1, ge=0, description="removed snippets that may separate kept ones of a segment")
    widen: int = Field(2, ge=0, description="snippets added at both ends of a segment")
    nms: Annotated[Share | None, OrNone] = Field(
        None, description='tIoU above which the weaker segment of a class is dropped; "none": keep'
    )
    thresholds: tuple[Share, ...] = Field(
        THRESHOLDS,
        min_length=1,
        strict=False,  # TOML's lists
        description="multi-threshold: of the normalised class activation (BaS-Net, section 4.1)",
    )
    scoring: Scoring = Field("contrast", description="multi-threshold: inside against outside (BaS-Net), or the peak")
    outer: float = Field(0.25, ge=0, description="contrast: width of the outside, as a share of the segment's length")
    video_weight: float = Field(0.2, ge=0, description="multi-threshold: weight of ŷ in a segment's score")

    def post_process(self) -> PostProcess:
        """The runtime's form of these settings."""
        return PostProcess(**self.model_dump())


class PseudoConfig(_Section):
    """How an iteration's scores become the next one's pseudo labels (section 3.2)."""

    generator: Generator = Field("segment", description="of the five of section 3.2; oracle: from the true times")
    beta: float = Field(4.0, ge=0, description="β, weight of the pseudo loss (section 3.2)")
    sampled: Share = Field(0.8, description="S, share of each video's snippets that keep their pseudo label")
    weighted: bool = Field(True, description="weigh background and foreground by [1-w, w], w = share of background")
    foreground: Share = Field(0.5, description="segment: least foreground of a kept snippet (1 - α_A)")
    class_activation: Share = Field(0.005, description="segment: least class activation C̄_n of a kept snippet (α_C)")
    normalised: Share = Field(
        0.5, description="segment, where detection is multi-threshold: the one threshold of the normalised activation"
    )
    max_class_activation: Share = Field(0.5, description="class-activation: threshold on max_n C̄ (section 3.2)")
    attention: float = Field(1.0, ge=0, description="attention: threshold on Ā^time, as a multiple of 1/T")
    top_k: int = Field(2, ge=1, description="segment: classes a video, by ŷ")
    widen: int = Field(0, ge=0, description="segment: snippets added at both ends (paper: none; released code: 2)")
    past_end: int = Field(0, ge=0, description="segment: further snippets at the end (released code: 1)")
    foreground_share: Annotated[Share | None, OrNone] = Field(
        None,
        description='distribution-aware: share of foreground, a reference only; "none": the true one, which needs '
        "times in the training labels",
    )


class TrainingConfig(_Section):
    """The optimisation of one iteration, and of the loop (section 4.1)."""

    iterations: int = Field(4, ge=1, description="models to train: M_0 .. M_(iterations-1)")
    epochs: int = Field(50, ge=1, description="epochs an iteration")
    batch_videos: int = Field(32, ge=1, description="videos a batch")
    learning_rate: float = Field(1e-4, gt=0, description="Adam's, at the start of each iteration")
    weight_decay: float = Field(
        0.0, ge=0, description="Adam's, of all weights (W-TALC and BaS-Net, released code: 5e-4)"
    )
    decay: float = Field(0.9, gt=0, lt=1, description="of the learning rate, when the validation loss stops falling")
    patience: int = Field(
        1,
        ge=0,
        description="epochs without a lower validation loss, lower by 1e-4 of it, before a decay (released code)",
    )
    select: Literal["best", "last"] = Field(
        "best",
        description="an iteration's weights: of the lowest validation loss, or of the last epoch (released code)",
    )
    video_loss: Literal["paper", "release"] = Field(
        "paper", description="refineloc: paper: -log ŷ_y; release: -sum_t Ā^time_t log C̄_(t,y)"
    )
    pseudo_loss: Literal["paper", "release"] = Field(
        "paper",
        description="one-value attention, weighted: paper: by [1-w, w], over their sum; release: foreground by the "
        "square root of w, over the number of labels",
    )
    labels: Literal["all", "first"] = Field("all", description="a video's labels: all, or the first in sorted order")
    precision: Precision = Field(
        "float32",
        description="of the matrix products: bf16 halves their time on some CPUs (docs/training.md); tf32 on CUDA GPUs",
    )
    evaluate_every: int = Field(
        1, ge=0, description="epochs between scores (mAP) on the validation videos; 0: once an iteration"
    )
    checkpoint_s: float = Field(
        30.0, ge=0, description="least seconds between checkpoints of an unfinished iteration; 0: every epoch"
    )
    stop_after: int = Field(
        0, ge=0, description="end the loop after so many iterations without a better one; 0: never (released code: 3)"
    )
    stop_by: Literal["loss", "mAP"] = Field(
        "loss",
        description="what is better, for stop_after: a lower validation loss (of those after iteration 0), or a higher "
        "average mAP, which needs times in the validation labels (released code)",
    )
    seed: int = Field(0, ge=0, description="of weights, order of videos, sampling and random labels")


class Config(_Section):
    """All settings of a run."""

    preset: str = Field("", description="the preset that this began with")
    features: FeatureConfig = FeatureConfig()
    model: ModelConfig = ModelConfig()
    detection: DetectionConfig = DetectionConfig()
    pseudo: PseudoConfig = PseudoConfig()
    training: TrainingConfig = TrainingConfig()

    def document(self) -> dict[str, Any]:
        """Every setting by section, as TOML can hold it: "none" for None."""
        return {name: _plain(value) for name, value in self.model_dump().items()}

    def to_toml(self) -> str:
        """The resolved configuration, without what the base model does not have."""
        settings = self.document()
        for section, keys in self._unused().items():
            for key in keys:
                del settings[section][key]
        return tomli_w.dumps(settings)

    def _unused(self) -> Mapping[str, tuple[str, ...]]:
        """Settings that the base model does not have, by section; `base_defaults` refuses them."""
        return _REFINELOC_ONLY if self.model.base != "refineloc" else {}

    def described_toml(self) -> str:
        """Like `to_toml`, with the meaning of every setting above it and the source of its value, for `--show-config`.

        Both follow from the values, so that the file gives the same text when it is read again.
        """
        lines = [
            "# Above each setting: its meaning with the source of its default; where the value is another, its source.",
            f'preset = "{self.preset}"',
        ]
        for name in type(self).model_fields:
            section = getattr(self, name)
            if isinstance(section, BaseModel):
                values = {key: value for key, value in section if key not in self._unused().get(name, ())}
                options = values.pop("options", {})
                lines += ["", f"[{name}]", *self._described(name, values, type(section))]
                if options:
                    lines += ["", f"[{name}.options]", *self._described("", options, _options_of(section))]
        return "\n".join(lines) + "\n"

    def _described(self, section: str, values: Mapping[str, Any], model: type[BaseModel]) -> Iterator[str]:
        for key, value in values.items():
            yield f"# {model.model_fields[key].description}"
            if value != model.model_fields[key].default:
                yield f"# value: {self._source_of(section, key, value)}"
            yield tomli_w.dumps({key: _plain(value)}, multiline_strings=False).strip()

    def _source_of(self, section: str, key: str, value: Any) -> str:
        """Where a value is from that is not the default."""
        known: list[tuple[str, Mapping[str, Any]]] = []
        if self.model.base != "refineloc":
            known.append((f"default of the base model {self.model.base}", _base_layer(self.model.base)))
        if self.preset in PRESETS:
            begun = PRESETS[self.preset]
            known.append((f"preset {self.preset}: {begun.source_of(section, key)}", begun.settings))
        known.append(("as in the released code (profile release)", _RELEASE))
        for source, layer in known:
            stated = layer.get(section, {})
            if key in stated and _plain(stated[key]) == _plain(value):
                return source
        return "your own"


# Settings of RefineLoc's own base model alone.
_REFINELOC_ONLY = {"model": ("layers", "attention_values"), "training": ("video_loss",)}


def _plain(value: Any) -> Any:
    """A value as TOML can hold it."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, tuple):
        return list(value)
    return "none" if value is None else value


def _base_layer(base: str) -> Mapping[str, Any]:
    from refineloc.training.models.base_model import find_base

    return find_base(base).defaults


def _options_of(section: Any) -> type[BaseModel]:
    from refineloc.training.models.base_model import find_base

    return find_base(section.base).options


# What the released code does differently, beside post-processing (DESIGN section 1).
_RELEASE: dict[str, Any] = {
    "detection": {"profile": "release"},
    "pseudo": {"widen": 2, "past_end": 1, "foreground_share": 0.6},
    "training": {
        "select": "last",
        "video_loss": "release",
        "pseudo_loss": "release",
        "labels": "first",
        "stop_after": 3,
        "stop_by": "mAP",
    },
}


def resolve(*layers: Mapping[str, Any]) -> Config:
    """One configuration from layers of settings; later ones win.

    A layer may have two keys at its top that stand for settings, and are overridden by what any layer says in detail:
    `profile` ("release": all that the released code does differently) and, over it, `preset` (its name is recorded).

    Raises:
        ConfigError: an unknown key or preset, two presets, or a value out of range; one line for the first of them.
    """
    profile = next((layer["profile"] for layer in reversed(layers) if "profile" in layer), "paper")
    if profile not in ("paper", "release"):
        raise ConfigError(f"profile: expected 'paper' or 'release', got {profile!r}")
    begun = [name for layer in layers if (name := layer.get("preset", "")) != ""]
    if any(name != begun[0] for name in begun):
        raise ConfigError(f"preset: given as {' and as '.join(map(repr, begun))}; settings begin with one")
    merged: dict[str, Any] = {}
    below = [_RELEASE] if profile == "release" else []
    for layer in [*below, *map(settings_of, begun[:1]), *layers]:
        _merge(merged, {key: value for key, value in layer.items() if key != "profile"})
    return _validated(merged)


def recorded(document: Mapping[str, Any]) -> Config:
    """The settings that a run has recorded: all of them, so its preset adds nothing; those added since have defaults.

    Raises:
        ConfigError: not such settings.
    """
    return _validated(document)


def _validated(merged: Mapping[str, Any]) -> Config:
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        if first["type"] == "value_error":  # a check of ours, which says all there is to say
            raise ConfigError(f"{where}.{first['msg'].removeprefix('Value error, ')}") from error
        known = _known_keys(first["loc"]) if first["type"] == "extra_forbidden" else ""
        raise ConfigError(f"{where}: {first['msg']}, got {first['input']!r}{known}") from error


def base_defaults(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """What the base model that these layers choose changes of the settings: a layer to put under them, over a preset.

    Raises:
        ConfigError: there is no such base model, or a layer sets what is RefineLoc's alone: it would change nothing.
    """
    base = "refineloc"
    for layer in layers:
        chosen = layer.get("model")
        base = chosen.get("base", base) if isinstance(chosen, Mapping) else base
    if base == "refineloc":
        return {}
    from refineloc.training.models.base_model import find_base

    found = find_base(base)
    for layer in layers:
        if layer.get("profile") == "release":
            raise ConfigError(f"profile: release is what RefineLoc's released code does, not {base}")
        for section, keys in _REFINELOC_ONLY.items():
            for key in keys:
                if isinstance(layer.get(section), Mapping) and key in layer[section]:
                    raise ConfigError(f"{section}.{key}: a setting of the base model refineloc, not of {base}")
    return copy.deepcopy(dict(found.defaults))


def read_toml(path: Path) -> dict[str, Any]:
    """The settings of a TOML file; of a run's config.toml without what it says of its data.

    Raises:
        ConfigError: missing or not TOML.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; --show-config prints one to begin with") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: not a readable TOML file: {error}") from error
    if isinstance(document.get("data"), dict):
        del document["data"]
    return document


def parse_assignment(text: str) -> dict[str, Any]:
    """`training.epochs=20` as settings; the value is read as TOML, and as plain text where it is none.

    Raises:
        ConfigError: not of the form KEY=VALUE.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text!r}: expected KEY=VALUE, such as training.epochs=20")
    try:
        parsed: Any = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    for part in reversed(key.strip().split(".")):
        parsed = {part: parsed}
    return dict(parsed)


def _merge(into: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


def _known_keys(location: tuple[Any, ...]) -> str:
    model: Any = Config
    for part in location[:-1]:
        model = model.model_fields[part].annotation
    return f"; known: {', '.join(model.model_fields)}"
