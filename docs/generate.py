"""The parts of the reference that are made of the code itself, so that they cannot be out of date.

A page has `<!-- generated: NAME -->` where the text of `PARTS[NAME]` comes; `conf.py` puts it there.
"""

import importlib
import inspect
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, get_args

import typer

from refineloc.__main__ import PROGRAMS
from refineloc.runtime.cli.help import grouped
from refineloc.runtime.segments.rules import Rules, every_setting, profiles_with, settings_of
from refineloc.training.settings.config import GENERATORS, Config, resolve, sources_of
from refineloc.training.settings.model import base_lines, find_base
from refineloc.training.settings.presets import PRESETS
from refineloc.training.settings.section import Layer, Section

__all__ = ["PARTS", "insert"]

MARK = re.compile(r"^<!-- generated: (\S+) -->$", re.MULTILINE)


def insert(text: str) -> str:
    """A page with its generated parts."""
    return MARK.sub(lambda mark: "\n\n".join(PARTS[mark[1]]()), text)


# Markdown.


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    columns = list(head)
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(
        "| " + " | ".join(" ".join(each.replace("|", r"\|").split()) for each in line) + " |" for line in lines
    )


def code(text: str) -> str:
    return f"`{text}`"


def prose(text: str) -> str:
    """A description as Markdown: the pages that it names are links, and nothing else in it is markup but code."""

    def plain(words: str) -> str:
        escaped = re.sub(r"([<*_\[\]])", r"\\\1", words)
        return re.sub(r"docs/([\w-]+)/([\w-]+)\.md", r"[\2](../\1/\2.md)", escaped)

    parts = " ".join(text.split()).split("`")  # every second one is code
    return "`".join(plain(part) if number % 2 == 0 else part for number, part in enumerate(parts))


def shown(value: Any) -> str:
    """A value as TOML has it, numbers in short."""
    if isinstance(value, (tuple, list)):
        return code("[" + ", ".join(f"{each:g}" for each in value) + "]")
    if value is None or value == "":
        return code("none" if value is None else '""')
    return code(str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else value)


# Settings.


def settings() -> Iterator[str]:
    """Every setting but those of base models, by section."""
    for name, default in Config():
        if name == "detection":
            yield from ("### [detection]", "How scores become segments, in files of models as well.", rules())
        elif isinstance(default, Section):
            yield from (f"### [{name}]", prose(inspect.getdoc(type(default)) or ""), fields(type(default)))


def fields(section: type[Section]) -> str:
    """The settings of a section."""
    return table(
        ("setting", "default", "meaning, with the source of the default"),
        [
            (code(name), shown(field.default), prose(field.description or ""))
            for name, field in section.model_fields.items()
            if not isinstance(field.default, Section)
        ],
    )


def rules() -> str:
    """The settings of detection, with the profiles that have them."""
    defaults = {kind: {each.name: each for each in settings_of(kind)} for kind in get_args(Rules)}
    rows = []
    for setting in every_setting():
        profiles = profiles_with(setting.name)
        of = "all" if len(profiles) == len(profiles_with("profile")) else ", ".join(map(code, profiles))
        values = dict.fromkeys(shown(kind[setting.name].default) for kind in defaults.values() if setting.name in kind)
        default = shown(setting.default) if setting.name == "profile" else ", ".join(values)
        rows.append((code(setting.name), default, prose(setting.expected), of, prose(setting.description)))
    return table(("setting", "default", "values", "of profiles", "meaning, with the source of the default"), rows)


def bases() -> Iterator[str]:
    """The settings of each base model: its own, and what it changes of the others."""
    for name, line in base_lines().items():
        base = find_base(name)
        yield from (f"### {name}", prose(line), "Its `[model.options]`:", fields(base.options))
        if base.defaults:
            changes = [(code(key), shown(value)) for key, value in flat(base.defaults)]
            yield from ("What it changes:", table(("setting", "value"), changes))
        if base.of_auto:
            changes = [(code(key), shown(value)) for key, value in flat(base.of_auto)]
            yield from ("What it changes of the preset `auto`:", table(("setting", "value"), changes))


def flat(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{above}{key}.")
        else:
            yield above + key, value


def presets() -> Iterator[str]:
    """The values that each preset sets, side by side, and where they are from."""
    sources = {name: sources_of(Layer("", {"preset": name})) for name in PRESETS}
    values = {name: dict(flat(resolve({"preset": name}).document())) for name in PRESETS}
    # The kinds of rule that presets have come last, so that their defaults are taken.
    kinds = [settings_of(kind) for kind in reversed(get_args(Rules))]
    default = {f"detection.{each.name}": each.default for each in itertools.chain.from_iterable(kinds)}
    default |= dict(flat(resolve({}).document()))
    yield from ("### Values", "An empty cell is the default.")
    for names in (["auto"], [name for name in PRESETS if name != "auto"]):
        paths = dict.fromkeys(itertools.chain.from_iterable(sources[name] for name in names))
        rows = []
        for path in sorted(paths, key=lambda path: list(Config.model_fields).index(path[0])):
            key = ".".join(path)
            cells = [shown(values[name][key]) if path in sources[name] else "" for name in names]
            rows.append((code(key), shown(default[key]), *cells))
        yield table(("setting", "default", *map(code, names)), rows)
    yield "### Sources"
    for name in PRESETS:
        by_source: dict[str, list[str]] = {}
        for path, source in sources[name].items():
            by_source.setdefault(source.removeprefix(f"preset {name}: "), []).append(code(".".join(path)))
        yield f"**{name}**\n\n" + "\n".join(
            f"- {prose(source)}: {', '.join(keys)}" for source, keys in by_source.items()
        )


def generators() -> Iterator[str]:
    yield table(("generator", "what is foreground"), [(code(name), prose(line)) for name, line in GENERATORS.items()])


# Programs.


def programs() -> Iterator[str]:
    """Each program's own help."""
    for name in PROGRAMS:
        yield from program(name)


def program(name: str) -> Iterator[str]:
    module = importlib.import_module(PROGRAMS[name][0])
    (declared,) = module.app.registered_commands
    declared.cls = grouped(getattr(module, "GROUPS", {}))
    declared.context_settings = {"help_option_names": ["-h", "--help"]}
    command: Any = typer.main.get_command(module.app)
    context = command.context_class(
        command, info_name=f"refineloc-{name}", terminal_width=1000, **command.context_settings
    )
    yield f"## refineloc-{name}"
    yield f"```\n{' '.join((f'refineloc-{name}', *command.collect_usage_pieces(context)))}\n```"
    yield from map(prose, inspect.cleandoc(command.help or "").split("\n\n"))
    sections = _Sections()
    command.format_options(context, sections)
    for title, records in sections.records.items():
        yield f"**{title}**"
        yield table(("", ""), [(code(option), prose(text)) for option, text in records])


class _Sections:
    """Takes what a command writes of its options, in the place of the formatter of a terminal."""

    def __init__(self) -> None:
        self.records: dict[str, list[tuple[str, str]]] = {}

    @contextmanager
    def section(self, title: str) -> Iterator[None]:
        self.records[title] = []
        yield

    def write_dl(self, records: Iterable[tuple[str, str]]) -> None:
        self.records[list(self.records)[-1]] += records


PARTS: Mapping[str, Callable[[], Iterator[str]]] = {
    "settings": settings,
    "base-models": bases,
    "presets": presets,
    "generators": generators,
    "programs": programs,
}
