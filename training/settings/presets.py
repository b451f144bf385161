"""Settings of the paper and of its released code, by data set and features (docs/method.md)."""

from collections.abc import Mapping, Sequence

from refineloc.runtime.errors import ConfigError
from refineloc.training.settings.section import Layer

__all__ = ["PRESETS", "find_preset"]

_PAPER = "paper, section 4.1, and"

# The layers of each preset; each layer has one source, and later layers win.
PRESETS: Mapping[str, Sequence[Layer]] = {
    "activitynet-i3d": [
        Layer(
            f"{_PAPER} released code, config best_activitynet_v1-2",
            {
                "features": {"stream": "both", "snippet_frames": 16},
                "model": {"base": "refineloc", "options": {"layers": 2, "attention_values": 2}},
                "detection": {"alpha_a": 0.5, "alpha_c": 0.005, "top_k": 2},
                "pseudo": {"beta": 4.0, "top_k": 3, "foreground": 0.5, "class_activation": 0.05, "weighted": False},
                "training": {"batch_videos": 256, "learning_rate": 1e-4, "epochs": 50},
            },
        )
    ],
    "thumos14-i3d": [
        Layer(
            f"{_PAPER} released code, config best_thumos14",
            {
                "features": {"stream": "spatial", "snippet_frames": 16},
                "model": {"base": "refineloc", "options": {"layers": 2}},
                "detection": {"alpha_a": 0.5, "alpha_c": 0.35, "top_k": 2},
                "pseudo": {"beta": 2.0, "top_k": 2, "foreground": 0.92, "class_activation": 0.1, "weighted": True},
                "training": {"batch_videos": 32, "learning_rate": 1e-3, "epochs": 100},
            },
        ),
        Layer(
            "released code, config best_thumos14; the paper has 2",
            {"model": {"options": {"attention_values": 1}}},
        ),
        Layer(
            "released code, config best_thumos14: drops 0.3; the paper keeps 0.8",
            {"pseudo": {"sampled": 0.7}},
        ),
    ],
    "thumos14-tsn": [
        Layer(
            f"{_PAPER} the released THUMOS14 checkpoint, which states its config",
            {
                "features": {"stream": "temporal", "snippet_frames": 15},
                "model": {"base": "refineloc", "options": {"layers": 1}},
                "detection": {"alpha_a": 0.5, "alpha_c": 0.02, "top_k": 2},
                "pseudo": {"beta": 4.0, "top_k": 2, "foreground": 0.98, "class_activation": 0.34, "weighted": True},
                "training": {"batch_videos": 32, "learning_rate": 1e-3, "epochs": 100},
            },
        ),
        Layer("the released THUMOS14 checkpoint; the paper has 2", {"model": {"options": {"attention_values": 1}}}),
    ],
    "sample": [
        Layer(
            "chosen for the data of refineloc-synth, docs/sample-data.md has the reason",
            {
                "features": {"stream": "both", "snippet_frames": 16},
                "model": {"base": "refineloc", "options": {"layers": 2, "attention_values": 2}},
                "detection": {"alpha_a": 0.5, "alpha_c": 0.05, "top_k": 2, "widen": 1},
                "pseudo": {"beta": 4.0, "top_k": 2, "foreground": 0.9, "class_activation": 0.05, "weighted": True},
                "training": {"batch_videos": 8, "learning_rate": 1e-3, "epochs": 50},
            },
        )
    ],
}


def find_preset(name: str) -> Sequence[Layer]:
    """The layers of one preset, each with its source.

    Raises:
        ConfigError: no such preset. The message lists those that there are.
    """
    if name not in list(PRESETS):  # not `in PRESETS`: TOML may have a value here that has no hash
        raise ConfigError(f"preset {name!r}: not known; there are {', '.join(PRESETS)}")
    return [Layer(f"preset {name}: {source}", settings) for source, settings in PRESETS[name]]
