"""The reference in docs/: what is generated has all that the code has, and the examples of docstrings are true."""

import doctest
import importlib.util
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
PACKAGES = ("runtime", "evaluation", "training", "export")


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    pytest.importorskip("pydantic")  # of the train extra
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def page(name: str) -> str:
    return (DOCS / "reference" / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("package", PACKAGES)
def test_a_page_shows_the_public_names_of_its_package(package: str) -> None:
    shown = re.findall(rf"^\.\. auto\w+:: refineloc\.{package}\.(\w+)$", page(package), re.MULTILINE)
    assert sorted(shown) == sorted(import_module(f"refineloc.{package}").__all__)


def test_every_setting_is_shown_with_its_default_and_meaning(generate: ModuleType) -> None:
    from refineloc.training.settings.config import Config
    from refineloc.training.settings.model import base_lines, find_base

    text = generate.insert(page("settings"))
    for name, section in Config():
        if name not in ("preset", "detection"):
            shown = text.split(f"### [{name}]")[1].split("###")[0]
            fields = {key: field for key, field in type(section).model_fields.items() if key != "options"}
            assert re.findall(r"^\| `(\w+)` \| `[^|]+` \| \S", shown, re.MULTILINE) == list(fields)
    for base in base_lines():
        shown = text.split(f"### {base}\n")[1].split("###")[0]
        assert [key for key in find_base(base).options.model_fields if f"| `{key}` |" not in shown] == []


def test_every_setting_of_detection_is_shown_with_its_profiles(generate: ModuleType) -> None:
    from refineloc.runtime.segments.rules import every_setting

    shown = generate.insert(page("settings")).split("### [detection]")[1].split("###")[0]
    assert [setting.name for setting in every_setting() if f"| `{setting.name}` |" not in shown] == []
    assert "| `alpha_c` | `0.005` | a number from 0 to 1 | `paper`, `release` |" in shown
    assert "| `class_threshold` | `0`, `0.1` | a number from 0 to 1 | `multi-threshold`, `boundaries` |" in shown


def test_presets_are_shown_with_their_sources(generate: ModuleType) -> None:
    from refineloc.training.settings.presets import PRESETS

    text = generate.insert(page("settings")).split("## Presets")[1]
    head = "| setting | default | " + " | ".join(f"`{name}`" for name in PRESETS if name != "auto") + " |"
    assert head in text
    beta = text.split(head)[1].split("| `pseudo.beta` |")[1].splitlines()[0]
    assert beta == " `4` | `4` | `4` | `4` | `4` | `4` | `2` | `4` | `4` |"
    assert "| `detection.class_threshold` | `0` | `0.1` |" in text
    of_release = text.split("**release-thumos14-i3d**")[1].split("**")[0]
    assert "- released code, config best\\_thumos14: `model.base`, `features.stream`" in of_release
    assert "- as in the released code (profile release): " in of_release


def test_every_option_of_every_program_is_shown(generate: ModuleType) -> None:
    from refineloc.__main__ import PROGRAMS

    text = generate.insert(page("options"))
    assert re.findall(r"^## refineloc-(\w+)$", text, re.MULTILINE) == list(PROGRAMS)
    for name, (module, _) in PROGRAMS.items():
        shown = text.split(f"## refineloc-{name}\n")[1].split("\n## ")[0]
        command = import_module("typer").main.get_command(import_module(module).app)
        options = [parameter.opts[0] for parameter in command.params if parameter.param_type_name == "option"]
        assert [option for option in options if option not in shown] == []
        assert "-h, --help" in shown


EXAMPLES = [
    path.relative_to(DOCS.parent).with_suffix("").as_posix()
    for package in PACKAGES
    for path in (DOCS.parent / package).rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("path", EXAMPLES)
def test_examples_of_docstrings_are_true(path: str) -> None:
    if path.startswith(("training", "export")):
        pytest.importorskip("pydantic")  # of the train extra
    failed, attempted = doctest.testmod(import_module("refineloc." + path.replace("/", ".")))
    assert failed == 0
    assert attempted > 0
