"""Settings: layers of them, presets, and one line for each that is wrong."""

import tomllib
from pathlib import Path

import pytest

from refineloc.runtime.errors import ConfigError
from refineloc.training.settings.config import base_defaults, parse_assignment, read_toml, resolve
from refineloc.training.settings.presets import PRESETS, preset


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_resolves_and_survives_toml(name: str) -> None:
    config = resolve(preset(name))
    assert config.preset == name
    assert resolve(tomllib.loads(config.to_toml())) == config
    assert resolve(tomllib.loads(config.described_toml())) == config


def test_presets_say_what_the_paper_and_the_release_say() -> None:
    activitynet, i3d, tsn = (resolve(preset(name)) for name in ("activitynet-i3d", "thumos14-i3d", "thumos14-tsn"))
    assert (activitynet.detection.alpha_a, activitynet.detection.alpha_c, activitynet.detection.top_k) == (
        0.5,
        0.005,
        2,
    )
    assert (activitynet.pseudo.beta, activitynet.pseudo.top_k, activitynet.pseudo.class_activation) == (4, 3, 0.05)
    assert (activitynet.training.learning_rate, activitynet.training.batch_videos) == (1e-4, 256)
    assert (i3d.features.stream, i3d.model.attention_values, i3d.detection.alpha_c) == ("spatial", 1, 0.35)
    assert (i3d.pseudo.foreground, i3d.pseudo.class_activation, i3d.pseudo.sampled) == (0.92, 0.1, 0.7)
    assert (tsn.features.snippet_frames, tsn.features.stream, tsn.model.layers) == (15, "temporal", 1)
    assert (tsn.detection.alpha_c, tsn.pseudo.foreground, tsn.pseudo.class_activation) == (0.02, 0.98, 0.34)


def test_later_layers_win_and_profiles_are_overridden() -> None:
    release = {"profile": "release"}
    config = resolve(preset("thumos14-i3d"), release)
    assert config.detection.profile == "release"
    assert (config.training.select, config.training.labels, config.training.video_loss) == ("last", "first", "release")
    assert config.training.pseudo_loss == "release"
    assert (config.pseudo.widen, config.pseudo.past_end, config.pseudo.foreground_share) == (2, 1, 0.6)
    config = resolve(release, parse_assignment("training.select=best"), {"training": {"epochs": 3}})
    assert (config.training.select, config.training.epochs, config.training.labels) == ("best", 3, "first")
    assert config.training.batch_videos == 32


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("training.epochs=20", 20),
        ("training.learning_rate=1e-3", 1e-3),
        ("pseudo.weighted=false", False),
        ("pseudo.generator=attention", "attention"),
        ('pseudo.generator="uniform"', "uniform"),
    ],
)
def test_assignments_are_typed(text: str, value: object) -> None:
    section, _, key = text.partition("=")[0].partition(".")
    assert parse_assignment(text) == {section: {key: value}}
    assert getattr(getattr(resolve(parse_assignment(text)), section), key) == value


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("training.epoch=3", r"training\.epoch: .*known: iterations, epochs"),
        ("trainings.epochs=3", "trainings: "),
        ("training.epochs=many", r"training\.epochs: "),
        ("training.epochs=0", r"training\.epochs: "),
        ("model.layers=5", r"model\.layers: "),
        ("pseudo.generator=magic", r"pseudo\.generator: "),
        ("pseudo.sampled=1.5", r"pseudo\.sampled: "),
        ("profile=other", "profile: expected 'paper' or 'release'"),
        ("training.epochs", "expected KEY=VALUE"),
        ("training.epochs=true", r"training\.epochs: .*valid integer"),
        ("training.epochs='3'", r"training\.epochs: .*valid integer"),
        ("pseudo.weighted=1", r"pseudo\.weighted: .*valid boolean"),
        ("pseudo.beta='3'", r"pseudo\.beta: .*valid number"),
        ("pseudo.beta=nan", r"pseudo\.beta: .*finite"),
        ("preset=[1]", r"preset \[1\]: not known"),
    ],
)
def test_wrong_settings_are_one_line(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        resolve(parse_assignment(assignment))
    assert "\n" not in str(caught.value)


def test_unknown_presets_and_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there are activitynet-i3d"):
        preset("activitynet")
    with pytest.raises(ConfigError, match="no such file"):
        read_toml(tmp_path / "absent.toml")
    (tmp_path / "bad.toml").write_text("a = = b")
    with pytest.raises(ConfigError, match="not a readable TOML"):
        read_toml(tmp_path / "bad.toml")


@pytest.mark.parametrize("name", PRESETS)
def test_every_value_of_a_preset_has_its_source(name: str) -> None:
    begun = PRESETS[name]
    for section, values in begun.settings.items():
        assert all(begun.source_of(section, key) for key in values)
    assert set(begun.others) <= {f"{s}.{key}" for s, values in begun.settings.items() for key in values}
    assert begun.source_of("training", "patience") == ""


@pytest.mark.parametrize("name", ["", *PRESETS])
@pytest.mark.parametrize("layer", ["training.epochs=7", "profile=release", "detection.nms=none", "model.base=basnet"])
def test_what_is_printed_is_read_as_the_same(name: str, layer: str) -> None:
    own = parse_assignment(layer)
    config = resolve({"preset": name}, base_defaults(own), own)
    for text in (config.described_toml(), config.to_toml()):
        document = tomllib.loads(text)
        assert resolve(base_defaults(document), document) == config
    assert resolve(tomllib.loads(config.described_toml())).described_toml() == config.described_toml()


def test_values_are_printed_with_their_source() -> None:
    text = resolve(preset("thumos14-i3d"), parse_assignment("training.epochs=7")).described_toml()
    lines = text.splitlines()
    above = {line: lines[index - 1] for index, line in enumerate(lines)}
    assert above["sampled = 0.7"].startswith("# value: preset thumos14-i3d: released code, config best_thumos14")
    assert above["epochs = 7"] == "# value: your own"
    assert above["patience = 1"].startswith("# epochs without")


def test_none_unsets_what_a_base_model_sets() -> None:
    own = {"model": {"base": "basnet"}}
    assert resolve(base_defaults(own), own).detection.nms == 0.7
    assert resolve(base_defaults(own), own, parse_assignment("detection.nms=none")).detection.nms is None
