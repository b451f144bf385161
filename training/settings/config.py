"""The settings of a run, each with its unit and its source, and how layers of settings make one configuration."""

import contextlib
import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BeforeValidator, Field, ValidationError, field_validator

from refineloc.runtime.errors import ConfigError
from refineloc.runtime.features.streams import Stream, StreamOrder
from refineloc.runtime.files import status_of
from refineloc.runtime.segments.rules import OneThreshold, Rules, every_setting, settings_of
from refineloc.runtime.text import read_text
from refineloc.training.settings.bases import base_names
from refineloc.training.settings.detection import Detection, replaced
from refineloc.training.settings.model import ModelConfig, find_base
from refineloc.training.settings.own_files import is_own
from refineloc.training.settings.presets import auto_for, find_preset
from refineloc.training.settings.section import OF_A_KEY, Layer, Section, meant
from refineloc.training.settings.student import STUDENT, StudentConfig, student_rules

__all__ = [
    "GENERATORS",
    "SNIPPET_FRAMES",
    "Arithmetic",
    "Config",
    "described_toml",
    "parse_assignment",
    "read_toml",
    "resolve",
    "sources_of",
    "validated",
]

# The pseudo-label generators (section 3.2), each with what is foreground.
GENERATORS: Mapping[str, str] = {
    "uniform": "half of the snippets, drawn by chance; a reference",
    "distribution-aware": "the true share of the snippets, drawn by chance; a reference, not weakly supervised",
    "class-activation": "snippets whose highest class activation reaches a threshold",
    "attention": "snippets whose attention over time reaches a threshold",
    "segment": "snippets inside segments, which have thresholds of their own; the paper's",
    "fused": "snippets inside the run's own detections of the video's labels; the preset auto's",
    "oracle": "the true times; a reference, not weakly supervised",
}
Arithmetic = Literal["float32", "bf16", "tf32"]
SNIPPET_FRAMES = 16  # of I3D, where nothing states it
Share = Annotated[float, Field(ge=0.0, le=1.0)]
# TOML has no null, so the word "none" stands for it.
OrNone = BeforeValidator(lambda value: None if value == "none" else value)


class FeatureConfig(Section):
    """Which features the model sees."""

    stream: Stream = Field("both", description="temporal or spatial half of the columns, or both (paper, section 4.1)")
    stream_order: StreamOrder = Field(
        "temporal-spatial", description="how the streams lie in the files; RefineLoc's have the temporal first"
    )
    standardise: bool = Field(
        False,
        description="bring each column to mean 0 and standard deviation 1 over the training snippets; the model file "
        "does it itself (our choice; paper: not)",
    )
    snippet_frames: Annotated[int | None, OrNone] = Field(
        None,
        ge=1,
        description='H, frames a snippet: 16 for I3D, 15 for TSN (section 4.1); "none": what the features state, or 16',
    )
    fps: Annotated[float | None, OrNone] = Field(
        None,
        gt=0,
        description="frames a second that the features were made at, where they do not state it and it is not that of "
        'the labels; "none": that of the labels',
    )
    stride_frames: Annotated[int | None, OrNone] = Field(
        None,
        ge=1,
        description='S, frames from one snippet to the next; "none": what the features state, or H (paper: H)',
    )


class PseudoConfig(Section):
    """How an iteration's scores become the next one's pseudo labels (section 3.2)."""

    generator: str = Field(
        "segment", description="of the five of section 3.2; oracle: from the true times; or a file of one's own"
    )
    beta: float = Field(4.0, ge=0, description="β, weight of the pseudo loss (section 3.2; paper: 4)")
    sampled: Share = Field(
        0.8, description="S, share of each video's snippets that keep their pseudo label (section 3.2; paper: 0.8)"
    )
    weighted: bool = Field(True, description="weigh background and foreground by [1-w, w]; w: share of background")
    foreground: Share = Field(
        0.5, description="segment: least foreground of a kept snippet (1 - α_A; the paper has no other for labels)"
    )
    class_activation: Share = Field(
        0.005, description="segment: least class activation C̄_n of a kept snippet (α_C; the paper has no other)"
    )
    normalised: Share = Field(
        0.5, description="segment, where detection is multi-threshold: the one threshold of the normalised activation"
    )
    max_class_activation: Share = Field(0.5, description="class-activation: threshold on max_n C̄ (section 3.2)")
    attention: float = Field(1.0, ge=0, description="attention: threshold on Ā^time, as a multiple of 1/T")
    top_k: int = Field(2, ge=1, description="segment: classes a video, by ŷ")
    widen: int = Field(
        0,
        ge=0,
        description="segment: snippets added at both ends (paper, sections 3.1 and 3.2 (5), and released code: 2; none "
        "is our choice: docs/explanation/method.md)",
    )
    fused_threshold: Share = Field(
        0.5, description="fused: least score of a covering detection, as a share of the best of its video (our choice)"
    )
    class_weight: float = Field(
        0.0,
        ge=0,
        description="γ, fused: weight of the loss of C̄ of covered snippets against their detections' classes (ours)",
    )
    class_smoothing: Share = Field(
        0.0, description="fused: share of 1/N in the classes that C̄ is taught, as label_smoothing in a video's (ours)"
    )
    softness: Share = Field(
        0.0,
        description="fused: share of the teacher's own foreground Ā^bf in what it is taught; 0: labels alone (ours)",
    )
    past_end: int = Field(0, ge=0, description="segment: further snippets at the end (released code: 1)")
    foreground_share: Annotated[Share | None, OrNone] = Field(
        None,
        description='distribution-aware: share of foreground, a reference only; "none": the true one, which needs '
        "times in the training labels",
    )

    @field_validator("generator")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in GENERATORS and not is_own(name):
            raise ValueError(f"expected one of {', '.join(GENERATORS)}, got {name!r}")
        return name


class TrainingConfig(Section):
    """The optimisation of one iteration, and of the loop (section 4.1)."""

    iterations: int = Field(4, ge=1, description="models to train, M_0 .. M_(iterations-1)")
    epochs: int = Field(50, ge=1, description="epochs an iteration (paper: 50)")
    min_steps: int = Field(
        0, ge=0, description="least optimiser steps of a network: epochs are raised to reach it (our choice; paper: 0)"
    )
    models: int = Field(
        1,
        ge=1,
        le=64,
        description="networks an iteration, each with its own seed; their mean is its model (our choice; paper: 1)",
    )
    restarts: int = Field(
        0,
        ge=0,
        le=20,
        description="how often a network whose attention has no order (least_order) is trained anew, with another seed "
        "(our choice; paper: 0)",
    )
    least_order: float = Field(
        0.2,
        description="least attention_order of an attention that is in order, for warnings and restarts "
        "(docs/explanation/training.md)",
    )
    batch_videos: int = Field(32, ge=1, description="videos a batch (open in the paper)")
    learning_rate: float = Field(
        1e-4, gt=0, description="Adam's, at the start of each iteration (paper: 1e-4 on ActivityNet, 1e-3 on THUMOS14)"
    )
    weight_decay: float = Field(
        0.0, ge=0, description="Adam's, of all weights (W-TALC and BaS-Net, released code: 5e-4)"
    )
    decay: float = Field(0.9, gt=0, lt=1, description="of the learning rate, when the validation loss stops falling")
    patience: int = Field(
        1,
        ge=0,
        description="epochs without a lower validation loss (by 1e-4 of it) before a decay (released code)",
    )
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="ε: the video loss has the targets (1 - ε) y + ε / N, so that background is not pushed to a class "
        "(our choice; paper: 0)",
    )
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="decay a step of a moving average of the weights, which is what is validated and kept; 0: none "
        "(paper; FuSTAL: 0.999)",
    )
    select: Literal["best", "last"] = Field(
        "best",
        description="an iteration's weights: of the lowest validation loss, or of the last epoch (released code)",
    )
    pseudo_loss: Literal["paper", "release"] = Field(
        "paper",
        description="one-value attention, weighted: paper: by [1-w, w], over their sum; release: foreground by the "
        "square root of w, over the number of labels",
    )
    labels: Literal["all", "first"] = Field("all", description="a video's labels: all, or the first in sorted order")
    precision: Arithmetic = Field(
        "float32",
        description="of the matrix products: bf16 halves their time on some CPUs, tf32 is for CUDA GPUs "
        "(docs/how-to/training.md)",
    )
    evaluate_every: int = Field(
        1, ge=0, description="epochs between scores (mAP) on the validation videos; 0: once an iteration"
    )
    checkpoint_s: float = Field(
        30.0, ge=0, description="least time between checkpoints of an unfinished iteration, seconds; 0: every epoch"
    )
    stop_after: int = Field(
        0, ge=0, description="iterations without a better one that end the loop; 0: never ends it (released code: 3)"
    )
    stop_by: Literal["loss", "mAP"] = Field(
        "loss",
        description="what is better, for stop_after: a lower validation loss (of those after iteration 0), or a higher "
        "average mAP, which needs times in the validation labels (released code)",
    )
    seed: int = Field(0, ge=0, description="of the initial weights, the order of videos, sampling and random labels")


class Config(Section):
    """All settings of a run."""

    preset: str = Field("", description="the preset that these settings began with")
    features: FeatureConfig = FeatureConfig()
    model: ModelConfig = ModelConfig()
    detection: Detection = OneThreshold()
    pseudo: PseudoConfig = PseudoConfig()
    training: TrainingConfig = TrainingConfig()
    student: StudentConfig = StudentConfig()

    def is_student(self, iteration: int) -> bool:
        """Whether the model of an iteration is a student."""
        return self.student.first is not None and iteration >= self.student.first

    def of_iteration(self, iteration: int) -> "Config":
        """The settings that an iteration is trained and detects with: those of the run, or of its student.

        A student needs no restarts, which are for an attention without order.
        """
        if not self.is_student(iteration):
            return self
        epochs = self.training.epochs * self.student.epochs_factor
        own: dict[str, float] = {"epochs": epochs, "restarts": 0, "label_smoothing": 0.0}
        own |= {name: getattr(self.student, name) for name in ("learning_rate", "weight_decay", "ema")}
        return self.model_copy(
            update={
                "model": ModelConfig.model_construct(base=STUDENT, options=self.student),
                "detection": student_rules(self.detection, self.student.suppression, self.student.tiou),
                "training": self.training.model_copy(update=own),
            }
        )

    def epochs_before(self, iteration: int) -> int:
        """How many epochs the iterations before one have, of all their networks, none of which is trained anew."""
        return sum(self.of_iteration(each).training.epochs for each in range(iteration)) * self.training.models

    def document(self) -> dict[str, Any]:
        """Every setting by section, as TOML can hold it: "none" for None."""
        return {name: _plain(value) for name, value in self.model_dump().items()}

    def to_toml(self) -> str:
        """The settings as TOML; `read_toml` and `resolve` make the same configuration of it."""
        return tomli_w.dumps(self.document())


def _plain(value: Any) -> Any:
    """A value as TOML can hold it."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return "none" if value is None else value


# What the released code does differently, beside post-processing (docs/explanation/method.md).
_RELEASE = Layer(
    "as in the released code (profile release)",
    {
        "model": {"base": "refineloc", "options": {"video_loss": "release"}},
        "detection": {"profile": "release"},
        "pseudo": {"widen": 2, "past_end": 1, "foreground_share": 0.6},
        "training": {"select": "last", "pseudo_loss": "release", "labels": "first", "stop_after": 3, "stop_by": "mAP"},
    },
)


def resolve(*layers: Mapping[str, Any]) -> Config:
    """One configuration from layers of settings; later layers win.

    Two keys at the top of a layer stand for other settings: `preset`, whose name is recorded, and `profile` ("release":
    all that the released code does differently), which a preset may imply. Their settings lie under all layers. The
    order, from the lowest: the defaults, the profile, the preset, what the base model changes, the layers.

    >>> config = resolve({"preset": "thumos14-i3d"}, {"pseudo": {"beta": 2.0}})
    >>> config.detection.alpha_c, config.pseudo.beta
    (0.35, 2.0)

    Args:
        layers: settings by section and key, as TOML has them.

    Raises:
        ConfigError: an unknown key, preset or base model, two presets, or a value out of range. The message is one line
            and names the first of them.
    """
    return validated(_merged([Layer("", layer) for layer in layers])[0])


def described_toml(*layers: Layer) -> str:
    """The configuration that `resolve` makes of these layers, as TOML with comments.

    Above each setting is its meaning, with the source of its default. Where a layer set the value, the source of that
    layer follows.

    Raises:
        ConfigError: as for `resolve`.
    """
    merged, sources = _merged(layers)
    return "\n".join(_described(validated(merged), (), sources)) + "\n"


def sources_of(*layers: Layer) -> dict[tuple[str, ...], str]:
    """Where the values that `resolve` makes of these layers are from, by path of keys; defaults are not in it.

    Raises:
        ConfigError: as for `resolve`.
    """
    return _merged(layers)[1]


def _merged(layers: Sequence[Layer]) -> tuple[dict[str, Any], dict[tuple[str, ...], str]]:
    """The settings of all layers and of what lies under them; the source of each value, by its path of keys."""
    names = [name for layer in layers if (name := layer.settings.get("preset", "")) not in ("", "none")]
    if any(name != names[0] for name in names):
        raise ConfigError(f"preset: given as {' and as '.join(map(repr, names))}; settings begin with one")
    merged: dict[str, Any] = {"preset": names[0] if names else ""}
    sources: dict[tuple[str, ...], str] = {}
    for source, settings in [*_under(layers, names[0] if names else ""), *layers]:
        for name in replaced(merged.get("detection"), settings.get("detection")):
            del merged["detection"][name]
            sources.pop(("detection", name), None)  # a table, which is no setting, has none
        _merge(merged, sources, {key: settings[key] for key in settings if key not in ("preset", "profile")}, source)
    return merged, sources


def _under(layers: Sequence[Layer], name: str) -> list[Layer]:
    """What lies under the layers, the lowest first: the profile, the preset, what the base model changes."""
    preset = find_preset(name) if name else []
    base = find_base(_base_of([*preset, *layers]))
    if _base_of(preset) != base.name:  # then its options and its profile are those of another base model
        preset = [Layer(source, {**settings, "model": {}, "profile": "paper"}) for source, settings in preset]
    stated = [layer.settings["profile"] for layer in [*preset, *layers] if "profile" in layer.settings]
    profile = stated[-1] if stated else "paper"
    if profile not in ("paper", "release"):
        raise ConfigError(f"profile: expected 'paper' or 'release', got {profile!r}")
    if profile == "release" and base.name != _base_of([_RELEASE]):
        raise ConfigError(f"profile: release is what RefineLoc's released code does, not {base.name}")
    if name == "auto" and profile == "release":
        raise ConfigError("preset auto: has rules of its own, which do not fit profile release; name another preset")
    if name == "auto" and base.name != _base_of([]):
        return auto_for(base)
    return [
        *([_RELEASE] if profile == "release" else []),
        *preset,
        Layer(f"default of the base model {base.name}", base.defaults),
    ]


def _merge(
    merged: dict[str, Any],
    sources: dict[tuple[str, ...], str],
    settings: Mapping[str, Any],
    source: str,
    table: tuple[str, ...] = (),
) -> None:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            if not isinstance(merged.get(key), dict):
                merged[key] = {}
            _merge(merged[key], sources, value, source, (*table, key))
        else:
            merged[key] = value
            sources[*table, key] = source


def _base_of(layers: Sequence[Layer]) -> Any:
    """The base model that the last of the layers names; not validated, so it may be any value that TOML has."""
    base = ModelConfig().base
    for layer in layers:
        model = layer.settings.get("model")
        base = model.get("base", base) if isinstance(model, Mapping) else base
    return base


def _described(
    section: Section | Rules, table: tuple[str, ...], sources: Mapping[tuple[str, ...], str]
) -> Iterator[str]:
    tables = []
    for key, description in _descriptions(section):
        value = getattr(section, key)
        if isinstance(value, (Section, Rules)):
            tables.append((key, value))
            continue
        yield f"# {description}"
        if (*table, key) in sources:
            yield f"# value: {sources[*table, key]}"
        if isinstance(value, tuple):  # of numbers, which JSON and TOML write alike; tomli_w takes a line for each
            yield f"{key} = {json.dumps(value)}"
        else:
            yield tomli_w.dumps({key: _plain(value)}).strip()
    for key, value in tables:
        yield from ("", f"[{'.'.join((*table, key))}]")
        yield from _described(value, (*table, key), sources)


def _descriptions(section: Section | Rules) -> list[tuple[str, str]]:
    if isinstance(section, Rules):
        return [(setting.name, setting.description) for setting in settings_of(type(section))]
    return [(name, field.description or "") for name, field in type(section).model_fields.items()]


def validated(settings: Mapping[str, Any]) -> Config:
    """The configuration of these settings alone; what lies under them in `resolve` is not applied.

    Raises:
        ConfigError: an unknown key, or a value out of range.
    """
    try:
        return Config.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        context = first.get("ctx", {})
        key = [context["key"]] if first["type"] == OF_A_KEY else []
        where = ".".join(map(str, [*first["loc"], *key]))
        if first["type"] in (OF_A_KEY, "value_error"):  # our own checks, whose messages are complete
            what, listed, known = first["msg"].removeprefix("Value error, ").partition("; known: ")
            near = _meant(where, settings) if listed else ""
            raise ConfigError(f"{where}: {what}{near}{listed}{known}") from error
        expected = first["msg"].replace("Input should be", "expected")  # the library's words
        raise ConfigError(f"{where}: {expected}, got {first['input']!r}") from error


def _meant(where: str, settings: Mapping[str, Any]) -> str:
    """Which setting an unknown one may stand for: one of its name in another section, or one of nearly its name."""
    sections: dict[str, Iterable[str]] = {
        name: field.annotation.model_fields
        for name, field in Config.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
    }
    sections["detection"] = [setting.name for setting in every_setting()]
    if isinstance(base := _base_of([Layer("", settings)]), str) and base in base_names():
        sections["model.options"] = find_base(base).options.model_fields
    paths = [f"{section}.{key}" for section, keys in sections.items() for key in keys]
    section, _, key = where.rpartition(".")
    if same := [path for path in paths if path.rpartition(".")[2] == key]:
        return f"; did you mean {' or '.join(same)}?"
    # A section that is known is meant; its name alone would make all of its settings look alike.
    return meant(key, sections[section]) if section in sections else meant(where, [*sections, *paths])


def read_toml(path: Path) -> dict[str, Any]:
    """The settings of a TOML file. The table [data] of a run's config.toml describes its data, and is left out.

    Raises:
        ConfigError: the file is missing or not TOML.
    """
    if status_of(path, ConfigError) is None:
        raise ConfigError(f"{path}: no such file", parameter="settings")
    try:
        document = tomllib.loads(read_text(path, ConfigError, "give a TOML file of settings"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not a readable TOML file: {error}") from error
    if isinstance(document.get("data"), dict):
        del document["data"]
    return document


def parse_assignment(text: str) -> dict[str, Any]:
    """`training.epochs=20` as settings. The value is read as TOML, or else as a number or as plain text.

    >>> parse_assignment("training.epochs=20")
    {'training': {'epochs': 20}}

    Raises:
        ConfigError: the text has not the form KEY=VALUE.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"setting {text!r}: expected KEY=VALUE, such as training.epochs=20")
    try:
        parsed: Any = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
        with contextlib.suppress(ValueError):
            parsed = float(parsed)  # TOML knows no .6 and no 5.
    for part in reversed(key.strip().split(".")):
        parsed = {part: parsed}
    return dict(parsed)
