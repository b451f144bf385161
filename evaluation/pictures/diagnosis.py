"""The three analyses as pictures, PNG and SVG, as one JSON file, and as elements of an HTML page.

Matplotlib is imported inside, so that nothing else needs it (install `refineloc[plot]`).
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from refineloc.evaluation.diagnosis import ERROR_TYPES, Diagnosis
from refineloc.evaluation.pictures.common import inline_svg, new_figure, pictures, save_picture
from refineloc.runtime.files import atomic_path, atomic_write, claim_folder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "diagnosis_svg",
    "draw_false_negatives",
    "draw_false_positives",
    "draw_sensitivity",
    "is_of_diagnosis",
    "write_diagnosis",
]

# Okabe and Ito's colours, which stay apart for colour-blind readers; background in grey, as it is the rest.
TYPE_COLOURS = dict(zip(ERROR_TYPES, ("#009E73", "#56B4E9", "#CC79A7", "#E69F00", "#D55E00", "#BBBBBB"), strict=True))
GROUP_COLOURS = {"coverage": "#0072B2", "length": "#D55E00", "instances": "#009E73"}
_FORMATS = ("png", "svg")
_NONE = "–"  # instead of a number, where there is nothing to count
_NUMBER = 0.1  # height of a number and its distance from the bar, as a share of the axis
_ON_COLOUR = "#111111"  # numbers on a bar: dark on a dark page too, as its colours are the same there


def is_of_diagnosis(name: str) -> bool:
    """Whether `write_diagnosis` writes a file of this name."""
    return name == "diagnosis.json" or name.rpartition(".")[::2] in [
        (each, kind) for each in _FIGURES for kind in _FORMATS
    ]


def write_diagnosis(folder: str | os.PathLike[str], diagnosis: Diagnosis, *, title: str = "") -> list[Path]:
    """Write diagnosis.json and false_positives, sensitivity and false_negatives as .png and .svg; makes the folder.

    Raises:
        OutputError: the folder holds something else, or it or a file cannot be written.
        MissingExtraError: Matplotlib is not installed.
    """
    target = claim_folder(folder, is_of_diagnosis, "a diagnosis")
    written = [target / "diagnosis.json"]
    with pictures(math=True):
        drawn = {name: draw(diagnosis, title=title) for name, draw in _FIGURES.items()}
        with atomic_write(written[0]) as handle:
            json.dump(diagnosis.to_json(), handle, indent=1, allow_nan=False)
            handle.write("\n")
        for name, figure in drawn.items():
            for kind in _FORMATS:
                path = target / f"{name}.{kind}"
                with atomic_path(path) as aside:
                    save_picture(figure, aside, kind)
                written.append(path)
    return written


def diagnosis_svg(diagnosis: Diagnosis, salt: str) -> dict[str, str]:
    """The figures as <svg> elements, by name: false_positives, sensitivity, false_negatives; salt as in `inline_svg`.

    Raises:
        MissingExtraError: Matplotlib is not installed.
    """
    with pictures(math=True):
        return {name: inline_svg(draw(diagnosis), f"{salt} {name}") for name, draw in _FIGURES.items()}


def draw_false_positives(diagnosis: Diagnosis, *, title: str = "") -> "Figure":
    """The profile, a stacked bar a group, and beside it what removing each type would gain."""
    analysis = diagnosis.false_positives
    figure = _figure(11.5, 4.0, title)
    profile, impact = figure.subplots(1, 2, width_ratios=(2, 1))

    share = 100 * np.nan_to_num(analysis.share)
    top = np.zeros(len(share))
    names = [f"{index + 1}G" for index in range(len(share))]
    for index, kind in enumerate(ERROR_TYPES):
        look: dict[str, Any] = {"width": 0.86, "color": TYPE_COLOURS[kind], "edgecolor": "white"}
        bars = profile.bar(names, share[:, index], bottom=top, label=kind, **look)
        # A number has room in its part of the bar from 6 % on.
        numbers = [f"{value:.0f}" if value >= 6 else "" for value in share[:, index]]
        profile.bar_label(bars, numbers, label_type="center", fontsize=8, color=_ON_COLOUR)
        top += share[:, index]
    for group in np.flatnonzero(analysis.predictions == 0).tolist():
        profile.text(group, 1, _NONE, ha="center", fontsize=8, color="0.4")
    profile.set_ylim(0, 100)
    profile.set_ylabel("detections (%)")
    profile.set_xlabel("each class's detections by score, G at a time (G: its number of annotations)")
    profile.set_title("what the detections are", loc="left", fontsize=10)
    # From top to bottom as the bars are stacked.
    profile.legend(reverse=True, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)

    gain = 100 * analysis.gain
    bars = impact.barh(ERROR_TYPES[1:], gain, height=0.7, color=[TYPE_COLOURS[kind] for kind in ERROR_TYPES[1:]])
    impact.bar_label(bars, fmt="%.1f", padding=3, fontsize=9)
    impact.set_xlabel("gain in average mAP$_N$ (points)")
    impact.set_title(f"removing a type gains (now {100 * analysis.average_mAP_N:.1f})", loc="left", fontsize=10)
    impact.set_xlim(0, max(float(gain.max()) * 1.18, 0.1))
    _plain(profile, "y")
    _plain(impact, "x")
    return figure


def draw_sensitivity(diagnosis: Diagnosis, *, title: str = "") -> "Figure":
    """Average mAP_N of each group of annotations, against that of all, and how far the groups lie from it."""
    analysis = diagnosis.sensitivity
    return _draw_groups(
        diagnosis,
        analysis.by_group,
        analysis.average_mAP_N,
        "average mAP$_N$ (%)",
        title,
        "how well annotations are found",
        changes=analysis.relative_change(),
    )


def draw_false_negatives(diagnosis: Diagnosis, *, title: str = "") -> "Figure":
    """The share of annotations of each group that no detection finds, against that of all."""
    analysis = diagnosis.false_negatives
    return _draw_groups(
        diagnosis, analysis.by_group, analysis.rate, "annotations missed (%)", title, "how many annotations are missed"
    )


# The figures, by the names of their files.
_FIGURES = {
    "false_positives": draw_false_positives,
    "sensitivity": draw_sensitivity,
    "false_negatives": draw_false_negatives,
}


def _draw_groups(
    diagnosis: Diagnosis,
    by_group: Mapping[str, npt.NDArray[np.float64]],
    overall: float,
    label: str,
    title: str,
    what: str,
    changes: Mapping[str, tuple[float, float]] | None = None,
) -> "Figure":
    kinds = diagnosis.characteristics
    widths = [len(kind.sizes) + 1.0 for kind in kinds] + ([len(kinds) + 0.8] if changes else [])
    figure = _figure(1.5 + 0.6 * sum(widths), 3.4, title)
    panels = figure.subplots(1, len(widths), squeeze=False, width_ratios=widths)[0]
    highest = 100 * max(overall, *(float(np.nanmax(by_group[kind.name])) for kind in kinds))
    limit = min(max(highest * 1.15, 1.0), 112)
    for axes, kind in zip(panels, kinds, strict=False):
        values = 100 * by_group[kind.name]
        axes.set_ylim(0, limit)
        _bars(axes, values, GROUP_COLOURS[kind.name], 100 * overall)
        axes.tick_params(axis="y", labelleft=axes is panels[0])  # one scale, told once
        axes.axhline(100 * overall, color="black", linewidth=1, linestyle=(0, (4, 3)))
        # The share of all annotations tells how much a group weighs.
        parts = 100 * kind.counts / max(kind.counts.sum(), 1)
        ticks = [
            "\n".join(dict.fromkeys((size, text, f"({part:.0f} %)")))  # a group of all has one name
            for size, text, part in zip(kind.sizes, kind.ranges, parts, strict=True)
        ]
        axes.set_xticks(range(len(ticks)), ticks, fontsize=8)
        axes.set_title(kind.title, loc="left", fontsize=10)
        _plain(axes, "y")
    panels[0].set_ylabel(label)
    if changes:
        _draw_changes(panels[-1], changes)
    legend = f"{what}, by group (its share of annotations); dashed: all, {100 * overall:.1f}"
    figure.supxlabel(legend + ("; right: groups against all" if changes else ""), fontsize=9, color="0.3")
    return figure


def _figure(width: float, height: float, title: str) -> "Figure":
    figure = new_figure(width, height)
    if title:
        figure.suptitle(title, parse_math=False, x=0.01, ha="left", fontsize=11)
    return figure


def _draw_changes(axes: "Axes", changes: Mapping[str, tuple[float, float]]) -> None:
    """From the worst to the best group of each characteristic, relative to all: what the detector is sensitive to."""
    offset: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "fontsize": 8}
    for position, (name, change) in enumerate(changes.items()):
        low, high = (100 * value for value in change)
        if np.isnan(low):
            axes.annotate(_NONE, (position, 0), xytext=(0, 3), **offset)
            continue
        axes.bar(position, high - low, bottom=low, width=0.6, color=GROUP_COLOURS[name])
        axes.annotate(f"{low:+.0f}", (position, low), xytext=(0, -3), va="top", **offset)
        axes.annotate(f"{high:+.0f}", (position, high), xytext=(0, 3), va="bottom", **offset)
    axes.axhline(0, color="black", linewidth=1, linestyle=(0, (4, 3)))
    axes.set_xticks(range(len(changes)), changes, fontsize=8)
    axes.set_xlim(-0.6, len(changes) - 0.4)
    known = [100 * value for change in changes.values() for value in change if not np.isnan(value)]
    low, high = min([-10.0, *known]), max([10.0, *known])
    axes.set_ylim(low - 0.12 * (high - low), high + 0.12 * (high - low))  # with room for the numbers
    axes.set_title("least and greatest (%)", loc="left", fontsize=10)
    _plain(axes, "y")


def _bars(axes: "Axes", values: npt.NDArray[np.float64], colour: str, line: float) -> None:
    """A bar for each group and its number, clear of a line across at a value.

    A group without annotations (NaN) has a dash and no bar: 0.0 missed would read as perfect.
    """
    axes.bar(np.arange(len(values)), np.nan_to_num(values), width=0.8, color=colour)
    for position, value in enumerate(values.tolist()):
        text, height = (_NONE, 0.0) if np.isnan(value) else (f"{value:.1f}", value)
        # A number that the line would strike through stands above the line.
        height = max(height, line) if height <= line < height + _NUMBER * axes.get_ylim()[1] else height
        offset: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "bottom", "fontsize": 8}
        axes.annotate(text, (position, height), xytext=(0, 3), **offset)


def _plain(axes: "Axes", values: Literal["x", "y"]) -> None:
    """Thin lines at the values only."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="x" if values == "y" else "y", length=0)
    axes.set_axisbelow(True)
    axes.grid(axis=values, color="0.9", linewidth=0.6)
