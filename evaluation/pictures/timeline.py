"""A picture of one video's time line: the ground truth, if there is any, and the detections of one model a row.

    ground truth   ██    ███        █        one lane and colour a class
    iteration 0    ▃██▃▃▃███▃▃▃   ▅▅█▅▅      taller and darker: surer; the best 60 of a row
    iteration 1    ▂█▃   ███▂      ▆█▄
    curves         ╱╲__╱▔╲___╱╲           attention and class scores by snippet, where they are given
                   0       60      120  s

Matplotlib is imported inside, so that nothing else needs it (install `refineloc[plot]`).
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from refineloc.evaluation.pictures.common import new_figure, pictures, save_picture
from refineloc.runtime.annotations import Annotations, VideoAnnotation
from refineloc.runtime.detections import Detections
from refineloc.runtime.errors import InputError
from refineloc.runtime.files import atomic_path, check_writable, output_ending
from refineloc.runtime.segments.grid import SnippetGrid
from refineloc.runtime.segments.values import Scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "DRAWN",
    "FORMATS",
    "Curves",
    "best_detections",
    "draw_timeline",
    "mean_curve",
    "score_curves",
    "videos_of_detections",
]

DRAWN = 60  # detections of a row, the best ones: more of them hide each other

Array = npt.NDArray[np.float64]
Curves = Mapping[str, tuple[Array, Array]]  # by name: seconds, values

# Okabe and Ito's colours, which stay apart for colour-blind readers; the darker ones first, as bars fade with score.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_HATCHES = ("", "////", "....", "xxxx")  # for the seventh class on
_OTHER = "#777777"
FORMATS = (".png", ".svg", ".pdf")

# Inches; a row has a lane for each annotated class and a thinner one for all others.
_WIDTH, _LANE, _OTHER_LANE, _ROW_GAP, _MARGIN = 11.0, 0.34, 0.17, 0.14, 1.1
_CURVE = 0.62
_OUTLINE = 0.7  # points
_CURVE_POINTS = 500  # about two dots each
_LANE_NAME = 28  # letters, as of the names of rows
_TITLE = 110
_LEADING, _MOST_LANES = 10, 6  # without a ground truth, the classes of the best ten detections have lanes, at most six

# Steps of a time axis that counts minutes, seconds.
_MINUTES = (60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 36000)


def draw_timeline(
    path: str | os.PathLike[str],
    video: VideoAnnotation,
    rows: Mapping[str, Detections],
    *,
    title: str | None = None,
    curves: Curves | None = None,
) -> None:
    """Draw the ground truth of a video and rows of its detections; scores show as height and darkness.

    Scores are scaled within a row, from the lowest to the highest: between rows they need not compare, as they come
    from different models. Where all are equal, as a lone one is, they are taken as they are, if they lie between 0 and
    1. Bands behind the rows continue the annotated segments downwards. Where segments end after the video, the axis
    goes on to their end, and a dashed line marks the video's.

    Args:
        path: the picture; .png, .svg or .pdf. A stream without such an ending, as "-" is, gets PNG.
        video: annotated segments in seconds; a video without any has no row of them.
        rows: detections (seconds) by row title, from top to bottom; the best `DRAWN` of each are drawn.
        title: above the picture; the video's name if left out.
        curves: values in [0, 1] over time by name: (seconds, value), drawn below the rows; one with the name of a class
            of the video takes its colour.

    Raises:
        InputError: another ending, or no rows.
        OutputError: the picture cannot be written; nothing half-written remains.
        MissingExtraError: Matplotlib is not installed.
    """
    check_writable(path, FORMATS)
    if not rows:
        raise InputError(f"timeline of {video.name!r}: expected at least one row of detections, got none")
    with pictures(), atomic_path(path) as aside:
        save_picture(_draw(video, rows, title, curves or {}), aside, output_ending(path, FORMATS)[1:])


def best_detections(detections: Detections) -> Detections:
    """The best `DRAWN` of a row, by falling score."""
    best = np.argsort(-detections.score, kind="stable")[:DRAWN]
    return replace(
        detections,
        start=detections.start[best],
        end=detections.end[best],
        score=detections.score[best],
        label_index=detections.label_index[best],
    )


def videos_of_detections(sets: Sequence[Mapping[str, Detections]]) -> Annotations:
    """Videos of which nothing is known but their detections, as annotations without segments.

    Args:
        sets: detections by video, from different models.

    Returns:
        All videos, in the order of their names. Their labels are the classes of the best ten detections of the last set
        that has any of the video, six at most.
    """
    videos = {}
    for name in sorted({name for by_video in sets for name in by_video}, key=_natural):
        best = next((by_video[name] for by_video in reversed(sets) if len(by_video.get(name, ()))), None)
        leading = best_detections(best).label[:_LEADING].tolist() if best is not None else []
        videos[name] = VideoAnnotation(name, tuple(sorted(list(dict.fromkeys(leading))[:_MOST_LANES])))
    return Annotations(videos)


def score_curves(scores: Scores, grid: SnippetGrid, video: VideoAnnotation, classes: Sequence[str]) -> Curves:
    """The foreground, and the class scores of the video's own classes, at the middle of each snippet.

    Args:
        scores: of this video alone, T snippets and N classes.
        grid: the video's snippets in seconds.
        video: its labels say which classes; those that the model does not know are left out.
        classes: the model's, N.

    Returns:
        For `draw_timeline`: seconds and values, float64 [T], by name.
    """
    snippets = np.arange(len(scores.foreground))
    start, end = grid.seconds(snippets, snippets)
    columns = {
        label: scores.class_scores[:, classes.index(label)]
        for label in sorted(video.labels, key=_natural)
        if label in classes
    }
    named = {"foreground": scores.foreground, **columns}
    return {name: ((start + end) / 2, values.astype(np.float64)) for name, values in named.items()}


def _natural(name: str) -> list[tuple[int, int | str]]:
    """The order in which people sort names: class 2 before class 10."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name) if part]


def _draw(video: VideoAnnotation, rows: Mapping[str, Detections], title: str | None, strips: Curves) -> "Figure":
    labels = sorted(video.labels, key=_natural)
    lanes = {label: _COLOURS[index % len(_COLOURS)] for index, label in enumerate(labels)}
    hatches = {label: _HATCHES[index // len(_COLOURS) % len(_HATCHES)] for index, label in enumerate(labels)}
    truth = Detections(
        video.start,
        video.end,
        np.ones(len(video.start)),
        np.array([labels.index(label) for label in video.segment_labels], dtype=np.int64),
        tuple(labels),
    )
    # Name, number of segments, and those that are drawn, of each row.
    shown = [("ground truth", len(truth), truth)] if len(truth) else []
    truths = len(shown)
    shown += [(name, len(detections), best_detections(detections)) for name, detections in rows.items()]
    has_others = any(label not in lanes for _, _, detections in shown for label in set(detections.label.tolist()))
    lanes_height = _LANE * max(len(lanes), 1)
    row_height = lanes_height + _ROW_GAP + (_OTHER_LANE if has_others else 0)
    body = (lanes_height + _ROW_GAP) * truths + row_height * len(rows)

    total = body + _MARGIN + _CURVE * len(strips)
    figure = new_figure(_WIDTH, total)
    panels = figure.subplots(
        1 + len(strips), sharex=True, squeeze=False, height_ratios=[body] + [_CURVE] * len(strips)
    )[:, 0]
    axes, lowest = panels[0], panels[-1]
    for strip, (name, (seconds, values)) in zip(panels[1:], strips.items(), strict=True):
        _curve(strip, name, seconds, values, lanes.get(name, "#444444"))
    for start, end, label in zip(video.start, video.end, video.segment_labels, strict=True):
        axes.axvspan(start, end, color=lanes[label], alpha=0.10, linewidth=0)

    ticks, names, top = [], [], 0.0
    for row, (name, count, detections) in enumerate(shown):
        ticks.append(top + lanes_height / 2)
        names.append(f"{_clipped(name, _LANE_NAME)} ({count})")
        row_label, strength = detections.label, _scaled(detections.score)
        for lane, (label, colour) in enumerate(lanes.items()):
            bars = _selected(detections, strength, row_label == label)
            _lane(axes, label, *bars, top + (lane + 1) * _LANE, _LANE, colour, hatches[label])
        top += lanes_height
        if has_others and row >= truths:
            bars = _selected(detections, strength, ~np.isin(row_label, labels))
            _lane(axes, "other classes", *bars, top + _OTHER_LANE, _OTHER_LANE, _OTHER, "")
            top += _OTHER_LANE
        colour, width = ("0.85", 0.6) if row >= truths else ("black", 0.8)
        axes.axhline(top + _ROW_GAP / 2, color=colour, linewidth=width)
        top += _ROW_GAP

    axes.set_ylim(top, -_ROW_GAP / 2)  # downwards
    latest_s = max(detections.end.max(initial=0.0) for _, _, detections in shown)
    length_s = max(video.duration_s or 0.0, float(latest_s)) or 1.0  # segments can lie beyond the stated end
    axes.set_xlim(0, length_s)
    beyond = video.duration_s is not None and length_s > 1.005 * video.duration_s  # less cannot be seen
    if beyond:
        for panel in panels:
            panel.axvline(video.duration_s, color="black", linewidth=1, linestyle=(0, (4, 3)), zorder=3)
    axes.set_yticks(ticks, names)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_title(_clipped(video.name if title is None else title, _TITLE), loc="left", fontsize=11)
    capped = any(count > len(detections) for _, count, detections in shown)
    lowest.set_xlabel(_time_axis(lowest, length_s) + ("; dashed: the video's end" if beyond else ""))
    # Below all: a long name has the line above to itself.
    note = "taller and darker: a higher score within its row" + (f"; the best {DRAWN} of a row" if capped else "")
    figure.supxlabel(note, fontsize=9, color="0.35")
    return figure


def _clipped(text: str, letters: int) -> str:
    """The beginning and the end of a text that is longer: names of videos often differ at the end."""
    half = (letters - 1) // 2
    return text if len(text) <= letters else f"{text[: letters - 1 - half]}…{text[-half:]}"


def _selected(detections: Detections, strength: Array, chosen: npt.NDArray[np.bool_]) -> tuple[Array, Array, Array]:
    """Start, end and strength of some detections of a row."""
    return detections.start[chosen], detections.end[chosen], strength[chosen]


def _lane(
    axes: "Axes",
    name: str,
    start: Array,
    end: Array,
    strength: Array,
    base: float,
    room: float,
    colour: str,
    hatch: str,
) -> None:
    """One class's bars, which stand on `base` (y grows downwards) and fill `room` at strength 1, and its name."""
    from matplotlib.colors import to_rgb

    # The tallest first, so that it hides none of the bars that it overlaps.
    order = np.argsort(-strength, kind="stable")
    start, end, strength = start[order], end[order], strength[order]
    tone = np.array(to_rgb(colour))
    # Faded towards white rather than transparent: bars then look the same over a band as beside one.
    shades = 1 - (0.35 + 0.65 * strength[:, None]) * (1 - tone)
    height = room * 0.92 * (0.3 + 0.7 * strength)
    # A dark outline keeps touching bars apart and the shortest visible.
    outline: dict[str, Any] = {"edgecolor": 0.6 * tone, "linewidth": _OUTLINE}
    if hatch:
        outline["hatch"] = hatch
    axes.bar(start, height, width=end - start, bottom=base - height, align="edge", color=shades, zorder=2, **outline)
    place = axes.get_yaxis_transform()
    text = _clipped(name, _LANE_NAME)
    axes.text(1.005, base - room / 2, text, transform=place, va="center", fontsize=7.5, color=0.75 * tone)


def _curve(axes: "Axes", name: str, seconds: Array, values: Array, colour: str) -> None:
    """One curve from 0 to 1, in a strip of its own: several in one would hide each other.

    A curve of more snippets than can be told apart is drawn as its mean, with its highest values as the area.
    """
    seconds, values, highest = mean_curve(seconds, values, _CURVE_POINTS)
    axes.fill_between(seconds, highest, color=colour, alpha=0.25, linewidth=0)
    axes.plot(seconds, values, color=colour, linewidth=0.9)
    axes.set_ylim(0, 1.02)
    axes.set_yticks((0, 1))
    axes.tick_params(axis="y", labelsize=7)
    axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def mean_curve(seconds: Array, values: Array, points: int) -> tuple[Array, Array, Array]:
    """A curve of more than twice so many points as means of its parts; seconds, means, and highest values."""
    if len(values) <= 2 * points:
        return seconds, values, values
    first = np.linspace(0, len(values), points, endpoint=False).astype(np.int64)
    count = np.diff(first, append=len(values))
    means = [np.add.reduceat(column, first) / count for column in (seconds, values)]
    return means[0], means[1], np.maximum.reduceat(values, first)


def _time_axis(axes: "Axes", length_s: float) -> str:
    """Seconds, or for minutes and hours ticks such as 2:00 and 1:30:00; gives the axis's name."""
    if length_s < 5 * _MINUTES[0]:
        return "time (s)"
    from matplotlib.ticker import MultipleLocator

    step = next((step for step in _MINUTES if length_s / step <= 10), length_s / 10)
    axes.xaxis.set_major_locator(MultipleLocator(step))
    hours = length_s >= 3600

    def clock(second: float, _: float) -> str:
        minutes, rest = divmod(round(second), 60)
        return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

    axes.xaxis.set_major_formatter(clock)
    return "time (h:min:s)" if hours else "time (min:s)"


def _scaled(score: Array) -> Array:
    """A row's scores from 0 (the lowest) to 1 (the highest); equal ones as they are, or 1 where they are no shares."""
    if not len(score) or np.ptp(score) == 0:
        return score if len(score) and 0 <= score[0] <= 1 else np.ones(len(score))
    scaled: Array = (score - score.min()) / np.ptp(score)
    return scaled
