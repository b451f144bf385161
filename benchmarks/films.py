"""How fast films become detections: `python -m benchmarks.films --model M.onnx --backbone B.onnx FILM...`.

Decoding (with scaling), the backbone and detection are measured alone, then together. Decoding and the backbone run at
the same time, so end to end should take little more than the slowest. With one thread each, two cores can do that;
with all cores for each, they share these.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from benchmarks.__main__ import machine
from refineloc.runtime.detector import Detector
from refineloc.runtime.video import decode
from refineloc.runtime.video.backbone import Backbone
from refineloc.runtime.video.decode import Film
from refineloc.runtime.video.detection import detect_film
from refineloc.runtime.video.features import _BATCH, film_features


class Taken(NamedTuple):
    """Seconds on the clock, and of all cores."""

    wall: float
    cores: float


def taken(work: Callable[[], Any], repeat: int) -> Taken:
    """The fastest of some runs."""
    runs = []
    for _ in range(repeat):
        wall, cores = time.perf_counter(), time.process_time()
        work()
        runs.append(Taken(time.perf_counter() - wall, time.process_time() - cores))
    return min(runs)


def steps(path: str, backbone: Backbone, detector: Detector, threads: int, repeat: int) -> Iterator[tuple[str, Taken]]:
    """Each step alone, then all together: its name, and what it took."""
    metadata = backbone.metadata
    size: dict[str, Any] = {"short_side": metadata.size[0]} if len(metadata.size) == 1 else {"size": metadata.size}
    film = film_features(path, backbone, threads=threads)
    snippets = len(film.features)

    def decode_frames() -> None:
        with Film(path, threads=threads) as opened:
            for _ in opened.stretch(0.0, 1e9):
                pass

    def decode_and_scale() -> None:
        with Film(path, threads=threads) as opened:
            for _ in opened.frames(metadata.fps or None, **size):
                pass

    yield "decode", taken(decode_frames, repeat)
    with Film(path, threads=threads) as opened:
        held = [frame for _, frame in islice(opened.stretch(0.0, 1e9), 100)]
        scale = decode._Scaler(opened._av, opened._video(), size.get("short_side"), size.get("size"))
        took = taken(lambda: [scale(frame) for frame in held], repeat)
        wanted = (film.grid.duration_s or 0.0) * min(metadata.fps or 1e9, opened.info().fps)
    yield "scale", Taken(*(value * wanted / len(held) for value in took))
    yield "decode and scale", taken(decode_and_scale, repeat)
    window = scale(held[0])
    batch = np.broadcast_to(window, (_BATCH, metadata.snippet_frames, *window.shape)).copy()
    took = taken(lambda: backbone.features(batch), repeat)
    yield "backbone", Taken(*(value * snippets / _BATCH for value in took))
    yield "detection", taken(lambda: detect_film(detector, film), repeat)
    yield "end to end", taken(lambda: detector.detect_video(path, backbone), repeat)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("films", nargs="+")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 0], help="of decoding, and of the backbone")
    parser.add_argument("--repeat", type=int, default=2)
    given = parser.parse_args()
    print(f"{machine()}\n\nseconds of film a second, and a second of one core")
    for threads in given.threads:
        backbone = Backbone(given.backbone, "cpu", threads)
        detector = Detector(given.model, provider="cpu", threads=threads)
        for path in given.films:
            with Film(path) as film:
                info = film.info()
            print(f"{path}: {info.width} x {info.height}, {info.fps:.0f} a second; threads {threads or 'all'}")
            clock = {}
            for name, took in steps(path, backbone, detector, threads, given.repeat):
                clock[name] = took.wall
                rates = "".join(f"{(info.duration_s or 0.0) / value:8.1f}" for value in took)
                print(f"  {name:17}{rates}   ({took.wall:.2f} s, of all cores {took.cores:.2f} s)", flush=True)
            alone = max(clock[name] for name in ("decode and scale", "backbone", "detection"))
            print(f"  end to end / the slowest alone: {clock['end to end'] / alone:.2f}")


if __name__ == "__main__":
    main()
