"""Settings of the paper and of its released code, by data set and features (DESIGN section 1)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from refineloc.runtime.errors import ConfigError

__all__ = ["PRESETS", "Preset", "preset"]


@dataclass(frozen=True, slots=True)
class Preset:
    """Settings to begin with, each with its source.

    Attributes:
        source: where the values are from.
        settings: by section and key, as a layer for `resolve`.
        others: the source of single values (SECTION.KEY) that are from elsewhere.
    """

    source: str
    settings: Mapping[str, Mapping[str, Any]]
    others: Mapping[str, str] = field(default_factory=dict)

    def source_of(self, section: str, key: str) -> str:
        """Where a value of this preset is from; "" where the preset does not set it."""
        if key not in self.settings.get(section, {}):
            return ""
        return self.others.get(f"{section}.{key}", self.source)

    def layer(self) -> dict[str, dict[str, Any]]:
        """Its settings, for the caller to keep."""
        return {section: dict(values) for section, values in self.settings.items()}


_PAPER = "paper, section 4.1, and"

PRESETS: dict[str, Preset] = {
    "activitynet-i3d": Preset(
        f"{_PAPER} released code, config best_activitynet_v1-2",
        {
            "features": {"stream": "both", "snippet_frames": 16},
            "model": {"layers": 2, "attention_values": 2},
            "detection": {"alpha_a": 0.5, "alpha_c": 0.005, "top_k": 2},
            "pseudo": {"beta": 4.0, "top_k": 3, "foreground": 0.5, "class_activation": 0.05, "weighted": False},
            "training": {"batch_videos": 256, "learning_rate": 1e-4, "epochs": 50},
        },
    ),
    "thumos14-i3d": Preset(
        f"{_PAPER} released code, config best_thumos14",
        {
            "features": {"stream": "spatial", "snippet_frames": 16},
            "model": {"layers": 2, "attention_values": 1},
            "detection": {"alpha_a": 0.5, "alpha_c": 0.35, "top_k": 2},
            "pseudo": {
                "beta": 2.0,
                "top_k": 2,
                "foreground": 0.92,
                "class_activation": 0.1,
                "weighted": True,
                "sampled": 0.7,
            },
            "training": {"batch_videos": 32, "learning_rate": 1e-3, "epochs": 100},
        },
        {
            "model.attention_values": "released code, config best_thumos14; the paper has 2",
            "pseudo.sampled": "released code, config best_thumos14: drops 0.3; the paper keeps 0.8",
        },
    ),
    "thumos14-tsn": Preset(
        f"{_PAPER} the released THUMOS14 checkpoint, which states its config",
        {
            "features": {"stream": "temporal", "snippet_frames": 15},
            "model": {"layers": 1, "attention_values": 1},
            "detection": {"alpha_a": 0.5, "alpha_c": 0.02, "top_k": 2},
            "pseudo": {"beta": 4.0, "top_k": 2, "foreground": 0.98, "class_activation": 0.34, "weighted": True},
            "training": {"batch_videos": 32, "learning_rate": 1e-3, "epochs": 100},
        },
        {"model.attention_values": "the released THUMOS14 checkpoint; the paper has 2"},
    ),
    "sample": Preset(
        "chosen for the data of refineloc-synth, docs/sample-data.md has the reason",
        {
            "features": {"stream": "both", "snippet_frames": 16},
            "model": {"layers": 2, "attention_values": 2},
            "detection": {"alpha_a": 0.5, "alpha_c": 0.05, "top_k": 2, "widen": 1},
            "pseudo": {"beta": 4.0, "top_k": 2, "foreground": 0.9, "class_activation": 0.05, "weighted": True},
            "training": {"batch_videos": 8, "learning_rate": 1e-3, "epochs": 50},
        },
    ),
}


def preset(name: str) -> dict[str, Any]:
    """The settings of one preset, as a layer for `resolve`.

    Raises:
        ConfigError: no such preset; the message lists them.
    """
    if name not in list(PRESETS):  # a TOML file may say anything, also what has no hash
        raise ConfigError(f"preset {name!r}: not known; there are {', '.join(PRESETS)}")
    return {"preset": name, **PRESETS[name].layer()}
