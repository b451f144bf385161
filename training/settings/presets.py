"""Settings of the paper and of the configurations that its authors released (docs/explanation/method.md).

A source that begins with "paper" is a value that the paper states. "open in the paper" is one that it leaves open.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from refineloc.runtime.errors import ConfigError
from refineloc.training.settings.model import Base
from refineloc.training.settings.own_files import is_own
from refineloc.training.settings.section import Layer, meant

__all__ = ["AUTO_DETECTION", "AUTO_PSEUDO", "PRESETS", "auto_for", "default_preset", "find_preset", "sets_stream"]


def _paper(snippet_frames: int, alpha_c: float, learning_rate: float, batch_videos: int) -> list[Layer]:
    """What the paper says of one data set and one kind of features."""
    return [
        Layer(
            "paper, sections 3 and 4",
            {
                "features": {"stream": "both", "snippet_frames": snippet_frames},
                "model": {"base": "refineloc", "options": {"layers": 2, "attention_values": 2}},
                "detection": {"alpha_a": 0.5, "alpha_c": alpha_c, "top_k": 2, "widen": 2},
                "pseudo": {"generator": "segment", "beta": 4.0, "sampled": 0.8, "weighted": True},
                "training": {"learning_rate": learning_rate, "decay": 0.9, "epochs": 50},
            },
        ),
        Layer(
            "paper: P ends with the widening (section 3.1), and labels are what P covers (section 3.2 (5))",
            {"pseudo": {"widen": 2}},
        ),
        Layer(
            "open in the paper, which names no thresholds of labels: those of detection",
            {"pseudo": {"foreground": 0.5, "class_activation": alpha_c, "top_k": 2}},
        ),
        Layer("open in the paper: that of the released code", {"training": {"batch_videos": batch_videos}}),
    ]


# Of the preset auto, and of base models whose own rules are no better (docs/explanation/published-and-ours.md).
AUTO_DETECTION: Mapping[str, Any] = {
    "profile": "multi-threshold",
    "thresholds": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
    "curve": "foreground",
    "scored_on": "product",
    "length_power": 0.25,
    "video_term": "multiply",
    "video_share": 0.1,
    "top_k": 10,
    "class_threshold": 0.1,
    "widen": 0,
    "suppression": "soft-vote",
    "tiou": 0.5,
    "fuse_temperature": 0.1,
}
AUTO_PSEUDO: Mapping[str, Any] = {
    "generator": "fused",
    "fused_threshold": 0.6,
    "softness": 0.5,
    "beta": 0.3,
    "class_weight": 1.0,
    "class_smoothing": 0.1,
}

# Of the preset auto, for any base model.
_AUTO_FEATURES: Mapping[str, Any] = {"stream": "both", "standardise": True}
_AUTO_TRAINING: Mapping[str, Any] = {
    "epochs": 20,
    "min_steps": 300,
    "batch_videos": 8,
    "learning_rate": 1e-3,
    "weight_decay": 3e-3,
    "evaluate_every": 0,
}

# The layers of each preset; each layer has one source, and later layers win. The key `profile` implies a profile.
PRESETS: Mapping[str, Sequence[Layer]] = {
    "auto": [
        Layer(
            "ours, for data that nobody tuned for; docs/explanation/method.md has the measured effect",
            {
                "features": _AUTO_FEATURES,
                "model": {
                    "base": "refineloc",
                    "options": {"layers": 2, "attention_values": 2, "exchanged_means": 0.5},
                },
                "detection": AUTO_DETECTION,
                "pseudo": AUTO_PSEUDO,
                "training": {**_AUTO_TRAINING, "models": 4, "label_smoothing": 0.5, "restarts": 3},
            },
        )
    ],
    "activitynet-i3d": _paper(snippet_frames=16, alpha_c=0.005, learning_rate=1e-4, batch_videos=256),
    "activitynet-tsn": _paper(snippet_frames=15, alpha_c=0.005, learning_rate=1e-4, batch_videos=256),
    "thumos14-i3d": _paper(snippet_frames=16, alpha_c=0.35, learning_rate=1e-3, batch_videos=32),
    "thumos14-tsn": _paper(snippet_frames=15, alpha_c=0.35, learning_rate=1e-3, batch_videos=32),
    "release-activitynet-i3d": [
        Layer(
            "released code, config best_activitynet_v1-2",
            {
                "profile": "release",
                "features": {"stream": "both", "snippet_frames": 16},
                "model": {"base": "refineloc", "options": {"layers": 2, "attention_values": 2}},
                "detection": {"alpha_a": 0.5, "alpha_c": 0.005, "top_k": 2, "widen": 2},
                "pseudo": {
                    "beta": 4.0,
                    "sampled": 0.8,
                    "weighted": False,
                    "foreground": 0.5,
                    "class_activation": 0.05,
                    "top_k": 3,
                },
                "training": {"batch_videos": 256, "learning_rate": 1e-4, "decay": 0.9, "patience": 1, "epochs": 50},
            },
        )
    ],
    "release-thumos14-i3d": [
        Layer(
            "released code, config best_thumos14",
            {
                "profile": "release",
                "features": {"stream": "spatial", "snippet_frames": 16},
                "model": {"base": "refineloc", "options": {"layers": 2, "attention_values": 1}},
                "detection": {"alpha_a": 0.5, "alpha_c": 0.35, "top_k": 2, "widen": 2},
                "pseudo": {
                    "beta": 2.0,
                    "sampled": 0.7,
                    "weighted": True,
                    "foreground": 0.92,
                    "class_activation": 0.1,
                    "top_k": 2,
                },
                "training": {"batch_videos": 32, "learning_rate": 1e-3, "decay": 0.9, "patience": 1, "epochs": 100},
            },
        )
    ],
    "release-thumos14-tsn": [
        Layer(
            "the released THUMOS14 checkpoint, which states its config",
            {
                "profile": "release",
                "features": {"stream": "temporal", "snippet_frames": 15},
                "model": {"base": "refineloc", "options": {"layers": 1, "attention_values": 1}},
                "detection": {"alpha_a": 0.5, "alpha_c": 0.02, "top_k": 2, "widen": 2},
                "pseudo": {
                    "beta": 4.0,
                    "sampled": 0.8,
                    "weighted": True,
                    "foreground": 0.98,
                    "class_activation": 0.34,
                    "top_k": 2,
                },
                "training": {"batch_videos": 32, "learning_rate": 1e-3, "decay": 0.9, "patience": 1, "epochs": 100},
            },
        )
    ],
    "sample": [
        Layer(
            "chosen for the data of refineloc-synth, docs/explanation/sample-data.md has the reason",
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


def auto_for(base: Base) -> list[Layer]:
    """What lies under the user's settings where the preset auto is that of another base model than refineloc.

    It has auto's features and optimisation, not that of the base model's paper, which is for other data; and one
    network. Rules of detection and pseudo labels are the base model's own; auto's where it states none.
    """
    rules = {"detection": AUTO_DETECTION, "pseudo": AUTO_PSEUDO}
    missing = {section: settings for section, settings in rules.items() if section not in base.defaults}
    published = () if is_own(base.name) else ("training",)
    own = {section: settings for section, settings in base.defaults.items() if section not in published}
    return [
        Layer("preset auto", {"features": _AUTO_FEATURES, "training": _AUTO_TRAINING, **missing}),
        Layer(f"default of the base model {base.name}", own),
        Layer(f"of the base model {base.name} with the preset auto", base.of_auto),
    ]


def default_preset(layers: Sequence[Layer]) -> list[Layer]:
    """The preset `auto` as one more layer, where these layers name neither a preset nor the released code's profile."""
    if any("preset" in settings or settings.get("profile") == "release" for _, settings in layers):
        return []
    return [Layer("default", {"preset": "auto"})]


def find_preset(name: str) -> Sequence[Layer]:
    """The layers of one preset, each with its source.

    Raises:
        ConfigError: no such preset. The message lists those that there are.
    """
    if name not in list(PRESETS):  # not `in PRESETS`: TOML may have a value here that has no hash
        known = ", ".join([*PRESETS, "none"])
        raise ConfigError(f"preset {name!r}: not known{meant(str(name), PRESETS)}; there are {known}")
    return [Layer(f"preset {name}: {source}", settings) for source, settings in PRESETS[name]]


def sets_stream(name: str) -> bool:
    """Whether it is a preset that takes one stream of features."""
    streams = [settings.get("features", {}).get("stream", "both") for _, settings in PRESETS.get(name, [])]
    return any(stream != "both" for stream in streams)
