"""Whether the times that are stated of videos agree with their number of snippets: T x stride / fps is the duration.

Features of another stride or frame rate than is stated give detections at wrong times, and nothing else shows it.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from refineloc.runtime.errors import InputError, InputWarning, counted, counted_of
from refineloc.runtime.features.store import FeatureInfo
from refineloc.runtime.segments.grid import SnippetGrid
from refineloc.runtime.segments.times import StatesTimes

__all__ = ["TimedVideo", "check_times", "contradiction", "same_length"]

# The most videos that are taken for single odd ones: 1.2 % of ActivityNet's published annotations state an fps or a
# duration that their number of frames contradicts. More have one cause.
_ODD_SHARE = 0.02

_USUAL_STRIDES = (16, 8, 4, 32, 64, 15, 1, 2, 5, 6, 10, 12, 20, 24, 25, 30, 48)
_USUAL_FPS = (25, 30, 24, 30000 / 1001, 24000 / 1001, 10, 15, 50, 60, 5, 8, 12, 12.5, 20, 4, 3, 2, 1)


class TimedVideo(NamedTuple):
    """Features and times of a video.

    Attributes:
        features: what their file says.
        labels: what states times beside it, None where nothing does.
        grid: its snippets in seconds.
    """

    features: FeatureInfo
    labels: StatesTimes | None
    grid: SnippetGrid


def check_times(
    videos: Sequence[TimedVideo], path: Path | None = None, labels: str | Path = "the labels", *, settings: str = ""
) -> None:
    """Refuse videos whose times contradict themselves.

    A few odd ones among many, as published data have them, are a warning (`InputWarning`).

    Args:
        videos: all that are used of a file: their numbers of snippets together say what is wrong.
        path: their file, None for arrays.
        labels: what else states times, for the message.
        settings: stands before the names of parameters in the message: "features." in training.

    Raises:
        InputError: it names the file, the video, the arithmetic and what would cure it.
    """
    contradicting = [video for video in videos if contradiction(video, labels)]
    if not contradicting:
        return
    # Those of the number of snippets first: they say more of the cause than two durations.
    first = min(contradicting, key=lambda video: not video.grid.contradicts(video.features.snippets))
    name = first.features.name
    where = ": ".join([*([] if path is None else [str(path)]), f"video {name!r}" if name else "features"])
    more = f" (and in {len(contradicting) - 1} more of {len(videos)} videos)" if len(contradicting) > 1 else ""
    cure, parameter = _cure(first, contradicting, videos, labels, settings)
    text = f"{where}: {contradiction(first, labels)}{more}: {cure}"
    if len(contradicting) <= _ODD_SHARE * len(videos):
        warnings.warn(
            f"{text}; {counted_of(len(contradicting), len(videos), 'video', 'is', 'are')} so",
            InputWarning,
            stacklevel=3,
        )
        return
    raise InputError(text, parameter="setting" if settings and parameter else parameter)


def contradiction(video: TimedVideo, labels: str | Path = "the labels") -> str:
    """What the times of a video contradict, "" where they agree or are not known."""
    info, grid = video.features, video.grid
    if grid.duration_s is None:
        return ""
    who = f"{labels} says" if info.duration_s is None else "the file says"
    snippets = (
        f"{counted(info.snippets, 'snippet')} x {counted(grid.stride, 'frame')} at {grid.fps:.6g} fps = "
        f"{_seconds(info.snippets * grid.stride / grid.fps)}"
    )
    if grid.contradicts(info.snippets):
        return f"{snippets}, {who} {_seconds(grid.duration_s)}"
    other = None if video.labels is None or info.duration_s is None else video.labels.duration_s
    if other is not None and abs(grid.duration_s - other) > grid.tolerance_s(info.snippets):
        return f"{who} {_seconds(grid.duration_s)}, {labels} says {_seconds(other)}, and {snippets}"
    return ""


def same_length(infos: Sequence[FeatureInfo]) -> int:
    """The number of snippets that all of several videos have, 0 where they differ."""
    lengths = {info.snippets for info in infos}
    return lengths.pop() if len(lengths) == 1 and len(infos) > 1 else 0


def _cure(
    first: TimedVideo,
    contradicting: Sequence[TimedVideo],
    videos: Sequence[TimedVideo],
    labels: str | Path,
    settings: str,
) -> tuple[str, str]:
    """The likely cause of the contradictions with what cures it, and the name of the parameter for that."""
    info, grid = first.features, first.grid
    duration_s = grid.duration_s
    if duration_s is None or not grid.contradicts(info.snippets):
        return f"correct the duration in {labels}", ""

    def fits(**change: Any) -> bool:
        """Whether nearly all would agree with another stride or fps."""
        fitting = [_fits(replace(video.grid, **change), video.features.snippets) for video in contradicting]
        return sum(fitting) >= 0.9 * len(fitting)

    who = f"in {labels}" if info.duration_s is None else "that the features state"
    for unit, factor in (("milliseconds", 1e-3), ("frames", 1 / grid.fps)):
        if all(_fits(_shorter(video.grid, factor), video.features.snippets) for video in contradicting):
            return f"is the duration in {unit}? Correct those {who}", ""
    length = same_length([video.features for video in videos])
    if length and len({round(video.grid.duration_s or 0) for video in videos}) > 1:
        return (
            f"all {len(videos)} videos have {length} snippets, whatever their duration: they were brought to {length} "
            f"a video (then state {length} x {grid.stride} / duration as the fps of each), or are saved as D x T (then "
            "save them transposed)"
        ), ""
    other = None if first.labels is None else first.labels.fps
    if info.fps is not None and other not in (None, info.fps) and fits(fps=other):
        return f"with the {other:.6g} fps of {labels} it fits: correct the fps that the features state", ""
    near = duration_s * grid.fps / max(info.snippets, 1)
    usual = next((each for each in _USUAL_STRIDES if abs(each - near) < 1 and fits(stride_frames=each)), 0)
    fps = next((each for each in _USUAL_FPS if fits(fps=each)), None)
    if not usual and fps:
        if info.fps is not None:
            return f"were the features made at {fps:.6g} fps? Correct the fps that they state", ""
        return f"were the features made at {fps:.6g} fps? Give {settings}fps={fps:.6g}", "fps"
    stride = usual or max(round(near), 1)
    if fits(stride_frames=stride):
        question = (
            "is the stride "
            f"{counted(stride, 'frame')}{', or are the features cut short' if stride > grid.stride else ''}?"
        )
        if info.stride_frames is not None:
            return f"{question} Correct the stride_frames that they state", ""
        apart = ""  # detection has its model's window
        if settings and info.snippet_frames is None and stride < grid.stride:
            apart = f", or {settings}snippet_frames={stride} where snippets do not overlap"
        return f"{question} Give {settings}stride_frames={stride}{apart}", "stride_frames"
    return "correct its fps or its duration, or leave the video out", ""


def _shorter(grid: SnippetGrid, factor: float) -> SnippetGrid:
    return replace(grid, duration_s=None if grid.duration_s is None else grid.duration_s * factor)


def _fits(grid: SnippetGrid, snippets: int) -> bool:
    """Whether the duration is that of T snippets, to a snippet or 0.5 %: a cure is to be nearer than a doubt."""
    least, most = grid.covered_s(snippets)
    tolerance = max(1.0, 0.005 * snippets) * grid.stride / grid.fps
    return grid.duration_s is not None and least - tolerance <= grid.duration_s <= most + tolerance


def _seconds(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds >= 1000 else f"{seconds:.3g} s"
