"""How fast films become features, and what each step takes alone: `python -m benchmarks.films BACKBONE.onnx FILM...`.

Decoding, scaling and the backbone run at the same time, so end to end should take little more than the slowest of them.
Alone, each may use all cores, which they share end to end. So all are measured with the same number of threads: where
that is all cores, the sum of what they compute counts too.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from benchmarks.__main__ import machine
from refineloc.runtime.video import decode
from refineloc.runtime.video.backbone import Backbone
from refineloc.runtime.video.decode import Film
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


def steps(path: str, backbone: Backbone, threads: int, repeat: int) -> Iterator[tuple[str, float, Taken]]:
    """Each step alone, then all together: its name, how many frames or snippets, and what it took."""
    metadata = backbone.metadata
    size: dict[str, Any] = {"short_side": metadata.size[0]} if len(metadata.size) == 1 else {"size": metadata.size}
    features = film_features(path, backbone, threads=threads)
    snippets, duration_s = len(features.features), features.grid.duration_s or 0.0

    def decode_all() -> None:
        with Film(path, threads=threads) as film:
            frames.append(sum(1 for _ in film.stretch(0.0, 1e9)))

    frames: list[int] = []
    yield "decode", duration_s, taken(decode_all, repeat)

    with Film(path, threads=threads) as film:
        held = [frame for _, frame in islice(film.stretch(0.0, 1e9), 100)]
        scale = decode._Scaler(film._av, film._video(), size.get("short_side"), size.get("size"))
        took = taken(lambda: [scale(frame) for frame in held], repeat)
        wanted = min(int(duration_s * (metadata.fps or film.info().fps)), frames[0])
    yield "scale", duration_s, Taken(*(value * wanted / len(held) for value in took))

    window = scale(held[0])
    batch = np.broadcast_to(window, (_BATCH, metadata.snippet_frames, *window.shape)).copy()
    took = taken(lambda: backbone.features(batch), repeat)
    yield "backbone", duration_s, Taken(*(value * snippets / _BATCH for value in took))

    yield "end to end", duration_s, taken(lambda: film_features(path, backbone, threads=threads), repeat)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbone")
    parser.add_argument("films", nargs="+")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 0], help="of decoding, and of the backbone")
    parser.add_argument("--repeat", type=int, default=2)
    given = parser.parse_args()
    print(f"{machine()}\n")
    for threads in given.threads:
        backbone = Backbone(given.backbone, "cpu", threads)
        for path in given.films:
            with Film(path) as film:
                info = film.info()
            print(f"{path}: {info.width} x {info.height}, {info.fps:.0f} a second; threads {threads or 'all'}")
            alone = []
            for name, film_s, took in steps(path, backbone, threads, given.repeat):
                alone.append(took.wall)
                rate = f"{film_s / took.wall:7.1f} s of film a second"
                print(f"  {name:11} {rate}   {took.wall:7.2f} s, of all cores {took.cores:7.2f} s", flush=True)
            print(f"  end to end / the slowest alone: {alone[-1] / max(alone[:-1]):.2f}")


if __name__ == "__main__":
    main()
