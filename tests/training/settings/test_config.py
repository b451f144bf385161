"""Settings: layers of them, presets, and one line for each that is wrong."""

import itertools
import operator
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from refineloc.runtime.errors import ConfigError
from refineloc.runtime.segments.rules import ManyThresholds, OneThreshold
from refineloc.training.settings.bases import base_names
from refineloc.training.settings.config import described_toml, parse_assignment, read_toml, resolve
from refineloc.training.settings.model import Base
from refineloc.training.settings.presets import PRESETS, default_preset, find_preset
from refineloc.training.settings.section import Layer, Section

# What the paper states (sections 3.1, 3.2 and 4), for all data sets and features.
OF_THE_PAPER = {
    "features.stream": "both",
    "model.base": "refineloc",
    "model.options.layers": 2,
    "model.options.attention_values": 2,
    "detection.alpha_a": 0.5,
    "detection.top_k": 2,
    "detection.widen": 2,
    "pseudo.generator": "segment",
    "pseudo.beta": 4,
    "pseudo.sampled": 0.8,
    "pseudo.weighted": True,
    "pseudo.widen": 2,
    "training.epochs": 50,
    "training.decay": 0.9,
}
OF_ACTIVITYNET = {"detection.alpha_c": 0.005, "training.learning_rate": 1e-4}
OF_THUMOS14 = {"detection.alpha_c": 0.35, "training.learning_rate": 1e-3}
OF_I3D, OF_TSN = {"features.snippet_frames": 16}, {"features.snippet_frames": 15}
PAPER = {
    "activitynet-i3d": OF_THE_PAPER | OF_ACTIVITYNET | OF_I3D,
    "activitynet-tsn": OF_THE_PAPER | OF_ACTIVITYNET | OF_TSN,
    "thumos14-i3d": OF_THE_PAPER | OF_THUMOS14 | OF_I3D,
    "thumos14-tsn": OF_THE_PAPER | OF_THUMOS14 | OF_TSN,
}
# What the paper leaves open, and what its presets take.
OPEN = {
    "activitynet": {"pseudo.class_activation": 0.005, "training.batch_videos": 256},
    "thumos14": {"pseudo.class_activation": 0.35, "training.batch_videos": 32},
}
OPEN_FOR_ALL = {"pseudo.foreground": 0.5, "pseudo.top_k": 2}

# What the released configurations state: config.py of the released code, and the config of its THUMOS14 checkpoint.
OF_THE_RELEASE = {
    "model.base": "refineloc",
    "detection.alpha_a": 0.5,
    "detection.top_k": 2,
    "detection.widen": 2,
    "training.decay": 0.9,
    "training.patience": 1,
}
RELEASED = {
    "release-activitynet-i3d": {
        "features.stream": "both",
        "features.snippet_frames": 16,
        "model.options.layers": 2,
        "model.options.attention_values": 2,
        "detection.alpha_c": 0.005,
        "pseudo.beta": 4,
        "pseudo.sampled": 0.8,
        "pseudo.weighted": False,
        "pseudo.foreground": 0.5,
        "pseudo.class_activation": 0.05,
        "pseudo.top_k": 3,
        "training.batch_videos": 256,
        "training.learning_rate": 1e-4,
        "training.epochs": 50,
    },
    "release-thumos14-i3d": {
        "features.stream": "spatial",
        "features.snippet_frames": 16,
        "model.options.layers": 2,
        "model.options.attention_values": 1,
        "detection.alpha_c": 0.35,
        "pseudo.beta": 2,
        "pseudo.sampled": 0.7,
        "pseudo.weighted": True,
        "pseudo.foreground": 0.92,
        "pseudo.class_activation": 0.1,
        "pseudo.top_k": 2,
        "training.batch_videos": 32,
        "training.learning_rate": 1e-3,
        "training.epochs": 100,
    },
    "release-thumos14-tsn": {
        "features.stream": "temporal",
        "features.snippet_frames": 15,
        "model.options.layers": 1,
        "model.options.attention_values": 1,
        "detection.alpha_c": 0.02,
        "pseudo.beta": 4,
        "pseudo.sampled": 0.8,
        "pseudo.weighted": True,
        "pseudo.foreground": 0.98,
        "pseudo.class_activation": 0.34,
        "pseudo.top_k": 2,
        "training.batch_videos": 32,
        "training.learning_rate": 1e-3,
        "training.epochs": 100,
    },
}
# All that the released code does differently (docs/explanation/method.md).
OF_THE_PROFILE = {
    "model.options.video_loss": "release",
    "detection.profile": "release",
    "pseudo.widen": 2,
    "pseudo.past_end": 1,
    "pseudo.foreground_share": 0.6,
    "training.select": "last",
    "training.pseudo_loss": "release",
    "training.labels": "first",
    "training.stop_after": 3,
    "training.stop_by": "mAP",
}


def values_with_sources(preset: str) -> dict[str, tuple[object, str]]:
    """What --show-config prints of each setting that something sets: its value, and where that is from."""
    text = described_toml(Layer("command line", {"preset": preset}))
    values, table = {}, ""
    for above, line in itertools.pairwise(text.splitlines()):
        if line.startswith("["):
            table = line.strip("[]") + "."
        elif above.startswith("# value: "):
            key, value = next(iter(tomllib.loads(line).items()))
            values[table + key] = (value, above.removeprefix(f"# value: preset {preset}: ").removeprefix("# value: "))
    return values


@pytest.mark.parametrize("name", PAPER)
def test_what_a_preset_says_the_paper_states_is_what_it_states(name: str) -> None:
    values = values_with_sources(name)
    stated = {key: value for key, (value, source) in values.items() if source.startswith("paper")}
    assert stated == PAPER[name]
    left_open = {key: value for key, (value, source) in values.items() if source.startswith("open in the paper")}
    assert left_open == OPEN_FOR_ALL | OPEN[name.partition("-")[0]]
    assert values.keys() == stated.keys() | left_open.keys()


@pytest.mark.parametrize("name", RELEASED)
def test_what_a_preset_says_was_released_is_what_was_released(name: str) -> None:
    values = values_with_sources(name)
    released = {key: value for key, (value, source) in values.items() if "released code, config best" in source}
    released |= {key: value for key, (value, source) in values.items() if "the released THUMOS14 checkpoint" in source}
    assert released == OF_THE_RELEASE | RELEASED[name]
    profile = {key: value for key, (value, source) in values.items() if source.endswith("(profile release)")}
    assert profile == OF_THE_PROFILE
    assert values.keys() == released.keys() | profile.keys()


@pytest.mark.parametrize("name", sorted(PRESETS.keys() - PAPER.keys()))
def test_no_other_preset_names_the_paper_as_its_source(name: str) -> None:
    assert not any(
        source.startswith(("paper", "open in the paper")) for _, source in values_with_sources(name).values()
    )


@pytest.mark.parametrize("name", ["", *sorted(PRESETS.keys() - {"auto"})])
def test_no_preset_changes_what_a_profile_sets(name: str) -> None:
    settings = resolve({"preset": name, "profile": "release"})
    for key, value in OF_THE_PROFILE.items():
        assert operator.attrgetter(key)(settings) == value, key


def test_later_layers_win_and_profiles_are_overridden() -> None:
    release = {"profile": "release"}
    config = resolve({"preset": "thumos14-i3d"}, release)
    assert config.detection.profile == "release"
    assert (config.training.select, config.training.labels, config.training.pseudo_loss) == ("last", "first", "release")
    assert config.model.options.video_loss == "release"
    assert (config.pseudo.widen, config.pseudo.past_end, config.pseudo.foreground_share) == (2, 1, 0.6)
    config = resolve(release, parse_assignment("training.select=best"), {"training": {"epochs": 3}})
    assert (config.training.select, config.training.epochs, config.training.labels) == ("best", 3, "first")
    assert config.training.batch_videos == 32
    config = resolve({"preset": "release-thumos14-i3d"}, {"profile": "paper"})
    assert (config.detection.profile, config.training.select, config.pseudo.beta) == ("paper", "best", 2)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("training.epochs=20", 20),
        ("training.learning_rate=1e-3", 1e-3),
        ("training.learning_rate=.001", 1e-3),
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
        ("trainings.epochs=3", "trainings: unknown setting; did you mean training[?]; known: preset, features, model"),
        ("training.epochs=many", r"training\.epochs: "),
        ("training.epochs=0", r"training\.epochs: "),
        ("model.options.layers=5", r"model\.options\.layers: .*less than or equal to 4, got 5"),
        (
            "model.layers=2",
            r"model\.layers: unknown setting; did you mean model\.options\.layers\?; known: base, options",
        ),
        ("pseudo.betta=3", r"pseudo\.betta: unknown setting; did you mean beta\?; known: generator, beta"),
        ("beta=3", r"beta: unknown setting; did you mean pseudo\.beta\?; known: preset, features"),
        ("top_k=3", r"top_k: unknown setting; did you mean (pseudo|detection)\.top_k or (pseudo|detection)\.top_k\?; "),
        ("xyz=3", r"xyz: unknown setting; known: preset"),
        ("pseudo.beta=-1", r"pseudo\.beta: expected greater than or equal to 0, got -1"),
        ("preset=thumos-i3d", r"preset 'thumos-i3d': not known; did you mean thumos14-i3d\?; there are auto"),
        ("model.base=wtalk", r"base model 'wtalk': not known; did you mean wtalc\?; there are basnet, cmcs"),
        ("model.options=2", r"model\.options: .*valid dictionary"),
        ("model.base=2", r"base model 2: not known; there are basnet, .*, refineloc, threecnet, wtalc"),
        ("model.base=conet", r"base model 'conet': not known; did you mean co2net\?"),
        ("model=2", r"model: .*valid dictionary"),
        ("pseudo.generator=magic", r"pseudo\.generator: "),
        ("pseudo.sampled=1.5", r"pseudo\.sampled: "),
        ("profile=other", "profile: expected 'paper' or 'release'"),
        ("training.epochs", "expected KEY=VALUE"),
        ("training.epochs=true", r"training\.epochs: .*valid integer"),
        ("training.epochs='3'", r"training\.epochs: .*valid integer"),
        ("pseudo.weighted=1", r"pseudo\.weighted: .*valid boolean"),
        ("pseudo.beta='3'", r"pseudo\.beta: .*valid number"),
        ("pseudo.beta=nan", r"pseudo\.beta: .*finite"),
        ("training.learning_rate=inf", r"training\.learning_rate: .*finite"),
        ("features.snippet_frames=0", r"features\.snippet_frames: "),
        ("model.options.attention_values=3", r"model\.options\.attention_values: "),
        ("preset=[1]", r"preset \[1\]: not known"),
    ],
)
def test_wrong_settings_are_one_line(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        resolve(parse_assignment(assignment))
    assert "\n" not in str(caught.value)


def test_unknown_presets_and_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there are auto, activitynet-i3d"):
        resolve({"preset": "activitynet"})
    with pytest.raises(ConfigError, match="no such file"):
        read_toml(tmp_path / "absent.toml")
    (tmp_path / "bad.toml").write_text("a = = b")
    with pytest.raises(ConfigError, match="not a readable TOML"):
        read_toml(tmp_path / "bad.toml")


@pytest.mark.parametrize("name", PRESETS)
def test_every_layer_of_a_preset_has_its_source(name: str) -> None:
    for source, settings in find_preset(name):
        assert source.removeprefix(f"preset {name}: ")
        assert settings


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (layer, name)
        for layer in ("training.epochs=7", "profile=release", "detection.min_score=none", "model.base=basnet")
        for name in ("", *PRESETS)
        if name != "auto" or layer in ("training.epochs=7", "detection.min_score=none")
    ],
)
def test_what_is_printed_is_read_as_the_same(name: str, layer: str) -> None:
    layers = [{"preset": name}, parse_assignment(layer)]
    config = resolve(*layers)
    assert config.preset == name
    for text in (described_toml(*(Layer("", layer) for layer in layers)), config.to_toml()):
        assert resolve(tomllib.loads(text)) == config


def lines_above(text: str) -> dict[str, str]:
    lines = text.splitlines()
    return {line: lines[index - 1] for index, line in enumerate(lines)}


def test_values_are_printed_with_the_layer_that_set_them() -> None:
    begun, own = {"preset": "thumos14-i3d"}, parse_assignment("training.epochs=7")
    file = {"training": {"batch_videos": 32, "epochs": 9}}  # 32 is the preset's value and the default as well
    text = described_toml(Layer("settings file a.toml", file), Layer("command line", begun), Layer("command line", own))
    above = lines_above(text)
    preset = "# value: preset thumos14-i3d: "
    assert above["layers = 2"] == f"{preset}paper, sections 3 and 4"
    assert above["foreground = 0.5"].startswith(f"{preset}open in the paper")
    assert above["epochs = 7"] == "# value: command line"
    assert above["batch_videos = 32"] == "# value: settings file a.toml"
    assert above["patience = 1"].startswith("# epochs without")
    assert above["[model.options]"] == ""


def test_values_of_a_base_model_and_of_the_profile_have_their_source() -> None:
    above = lines_above(described_toml(Layer("command line", {"preset": "sample", "model": {"base": "wtalc"}})))
    assert above["beta = 0.3"] == "# value: default of the base model wtalc"
    assert above["margin = 0.5"] == "# δ, of the ranking hinge on cosine distances"
    above = lines_above(described_toml(Layer("command line", {"preset": "sample", "profile": "release"})))
    assert above['video_loss = "release"'] == "# value: as in the released code (profile release)"


def test_none_unsets_what_a_layer_below_sets() -> None:
    basnet = {"model": {"base": "basnet"}}
    assert (resolve(basnet).detection.suppression, resolve(basnet).detection.tiou) == ("hard", 0.7)
    assert resolve(basnet, parse_assignment("detection.suppression=none")).detection.suppression == "none"
    least = parse_assignment("detection.min_score=0.5")
    assert resolve(basnet, least).detection.min_score == 0.5
    assert resolve(basnet, least, parse_assignment("detection.min_score=none")).detection.min_score is None


@pytest.mark.parametrize("base", base_names())
def test_settings_of_a_base_model_are_read_without_torch(base: str) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from refineloc.training.settings.config import resolve\n"
        f"print(resolve({{'model': {{'base': {base!r}}}}}).to_toml())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f'base = "{base}"' in done.stdout


def test_another_kind_of_rule_drops_what_was_said_of_the_kind_before() -> None:
    layers = [{"preset": "thumos14-i3d"}, {"model": {"base": "wtalc"}}]
    config = resolve(*layers)
    assert config.detection == ManyThresholds(
        thresholds=(0.5,), scoring="peak", video_weight=0.7, top_k=2, max_gap=0, widen=0
    )
    assert "alpha_a" not in config.to_toml()
    layers.append({"detection": {"profile": "paper"}})
    assert resolve(*layers).detection == OneThreshold(top_k=2, max_gap=0, widen=0), "what both kinds have stays"
    lines = described_toml(*(Layer("mine", layer) for layer in layers)).splitlines()
    assert not any(line.startswith("thresholds") for line in lines)
    assert lines[lines.index("alpha_c = 0.005") - 1].startswith("# α_C"), "a default again, not the preset's"
    assert lines[lines.index("top_k = 2") - 1].startswith("# value: preset thumos14-i3d")


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("detection.alpha_a=0.3", r"detection\.alpha_a: a setting of the profile 'paper' or 'release', not of 'multi-"),
        (
            "detection.alpha_b=0.3",
            r"detection\.alpha_b: no setting of detection; did you mean alpha_[ac]\?; known: profile, top_k",
        ),
        ("detection.outer=-1", r"detection\.outer: expected a finite number of at least 0, got -1$"),
        ("detection.outer=true", r"detection\.outer: expected"),
        ("detection.profile=best", r"detection\.profile: expected 'paper' or"),
        ("detection.thresholds=[]", r"detection\.thresholds: expected"),
        ("detection=3", r"detection: expected a table of settings"),
    ],
)
def test_wrong_settings_of_detection_are_one_line(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}") as caught:
        resolve({"model": {"base": "wtalc"}}, parse_assignment(assignment))
    assert "\n" not in str(caught.value)


def test_auto_is_refused_where_its_rules_do_not_fit() -> None:
    other = {"profile": "release"}
    with pytest.raises(ConfigError, match=r"preset auto: .* do not fit profile release; name another preset"):
        resolve({"preset": "auto"}, other)
    assert default_preset([Layer("", other)]) == []


def test_auto_trains_any_base_model_with_that_model_s_rules() -> None:
    config, own = resolve({"preset": "auto", "model": {"base": "wtalc"}}), resolve({"model": {"base": "wtalc"}})
    assert (config.detection, config.pseudo) == (own.detection, own.pseudo)
    assert config.features.standardise
    assert (config.training.learning_rate, config.training.min_steps, config.training.models) == (1e-3, 300, 1)
    assert resolve({"preset": "auto", "model": {"base": "co2net"}}).training.learning_rate == 5e-4
    assert own.training.learning_rate == 1e-4


def test_auto_has_rules_for_a_base_model_without_any(monkeypatch: pytest.MonkeyPatch) -> None:
    auto = resolve({"preset": "auto"})
    own = Base("own.py", Section, {"training": {"learning_rate": 0.5}, "pseudo": {"beta": 2.0}}, {})
    monkeypatch.setattr("refineloc.training.settings.config.find_base", lambda name: own)
    config = resolve({"preset": "auto", "model": {"base": "wtalc"}})
    assert config.detection == auto.detection
    assert (config.pseudo.beta, config.pseudo.generator) == (2.0, "segment"), "none of another kind's labels"
    assert (config.training.learning_rate, config.training.batch_videos) == (0.5, 8)


def test_auto_is_the_default_of_training_where_nothing_else_is_named() -> None:
    assert default_preset([Layer("", {"training": {"epochs": 3}, "model": {}})])[0].settings == {"preset": "auto"}
    assert default_preset([Layer("", {"model": {"base": "refineloc"}})])
    assert default_preset([Layer("", {"model": {"base": "wtalc"}})])
    for named in ("", "none", "thumos14-i3d"):
        assert default_preset([Layer("", {"preset": named})]) == []
    assert resolve({"preset": "none"}) == resolve()
