"""Settings of the paper and of its released code, by data set and features (DESIGN section 1)."""

from typing import Any

from refineloc.runtime.errors import ConfigError

__all__ = ["PRESETS", "preset"]

_THUMOS14: dict[str, Any] = {
    "model": {"attention_values": 1},
    "training": {"batch_videos": 32, "learning_rate": 1e-3, "epochs": 100},
}

PRESETS: dict[str, dict[str, Any]] = {
    "activitynet-i3d": {
        "features": {"stream": "both", "snippet_frames": 16},
        "model": {"layers": 2, "attention_values": 2},
        "detection": {"alpha_a": 0.5, "alpha_c": 0.005, "top_k": 2},
        "pseudo": {"beta": 4.0, "top_k": 3, "foreground": 0.5, "class_activation": 0.05, "weighted": False},
        "training": {"batch_videos": 256, "learning_rate": 1e-4, "epochs": 50},
    },
    "thumos14-i3d": {
        "features": {"stream": "spatial", "snippet_frames": 16},
        "model": {"layers": 2, **_THUMOS14["model"]},
        "detection": {"alpha_a": 0.5, "alpha_c": 0.35, "top_k": 2},
        "pseudo": {
            "beta": 2.0,
            "top_k": 2,
            "foreground": 0.92,
            "class_activation": 0.1,
            "weighted": True,
            "sampled": 0.7,
        },
        "training": _THUMOS14["training"],
    },
    "thumos14-tsn": {
        "features": {"stream": "temporal", "snippet_frames": 15},
        "model": {"layers": 1, **_THUMOS14["model"]},
        "detection": {"alpha_a": 0.5, "alpha_c": 0.02, "top_k": 2},
        "pseudo": {"beta": 4.0, "top_k": 2, "foreground": 0.98, "class_activation": 0.34, "weighted": True},
        "training": _THUMOS14["training"],
    },
    # For the data of refineloc-synth; each value's reason is in docs/sample-data.md.
    "sample": {
        "features": {"stream": "both", "snippet_frames": 16},
        "model": {"layers": 2, "attention_values": 2},
        "detection": {"alpha_a": 0.5, "alpha_c": 0.05, "top_k": 2, "widen": 1},
        "pseudo": {"beta": 4.0, "top_k": 2, "foreground": 0.9, "class_activation": 0.05, "weighted": True},
        "training": {"batch_videos": 8, "learning_rate": 1e-3, "epochs": 50},
    },
}


def preset(name: str) -> dict[str, Any]:
    """The settings of one preset.

    Raises:
        ConfigError: no such preset; the message lists them.
    """
    if name not in PRESETS:
        raise ConfigError(f"preset {name!r}: not known; there are {', '.join(PRESETS)}")
    return {"preset": name, **PRESETS[name]}
