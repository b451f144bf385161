"""The detectors in C++ and JavaScript give our segments, by every rule, of a network's scores and of random ones.

Labels are equal, and times and scores to 1e-9: both add in float64 and in one order. A network's scores may differ in
the last bit of a float32 between two builds of ONNX Runtime: scores to 1e-5 then.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from small_model import WIDTH, write_model

from refineloc.runtime import Detector
from refineloc.runtime.segments.rules import Suppression
from refineloc.training.settings.presets import PRESETS

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CLASSES = ("a", "b", 'say "c", [d]', "e\\", "é")
LEVELS = 3
FPS = 25.0


class Case(NamedTuple):
    """A model, features, and what a program is told beside them."""

    model: Path
    features: Path
    duration_s: float | None
    snippets: int
    exact: bool

    @property
    def arguments(self) -> list[str]:
        duration = [] if self.duration_s is None else [str(self.duration_s)]
        return [str(self.model), str(self.features), str(FPS), *duration]


def passing_graph() -> onnx.ModelProto:
    """A graph whose outputs are columns of its features: any scores can be given to it, those of points included."""
    n = len(CLASSES)
    sizes = {"class_scores": n, "foreground": 1, "attention": 1, "video_scores": n, "point_scores": n, "distances": 2}
    ends = np.cumsum(list(sizes.values())).tolist()
    numbers = {"zero": [0], "one": [1], "last": [2**62], "rows": [0], "columns": [1]}
    numbers |= {f"at{end}": [end] for end in (0, *ends)} | {f"step{level}": [2**level] for level in range(LEVELS)}
    nodes = []
    for (name, size), end in zip(sizes.items(), ends, strict=True):
        part = f"{name}_part"
        nodes.append(helper.make_node("Slice", ["features", f"at{end - size}", f"at{end}", "columns"], [part]))
        if name in ("foreground", "attention"):
            nodes.append(helper.make_node("Squeeze", [part, "columns"], [name]))
        elif name == "class_scores":
            nodes.append(helper.make_node("Identity", [part], [name]))
        elif name == "video_scores":
            # The rows of the first snippet of each video: of one video.
            nodes.append(helper.make_node("Slice", [part, "zero", "one", "rows"], [name]))
        else:
            levels = [f"{name}{level}" for level in range(LEVELS)]
            for level, output in enumerate(levels):
                nodes.append(helper.make_node("Slice", [part, "zero", "last", "rows", f"step{level}"], [output]))
            nodes.append(helper.make_node("Concat", levels, [name], axis=0))
    shapes: dict[str, list[Any]] = {"class_scores": ["S", n], "foreground": ["S"], "attention": ["S"]}
    shapes |= {"video_scores": ["V", n], "point_scores": ["P", n], "distances": ["P", 2]}
    graph = helper.make_graph(
        nodes,
        "passing",
        [
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["S", ends[-1]]),
            helper.make_tensor_value_info("lengths", TensorProto.INT64, ["V"]),
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [helper.make_tensor(name, TensorProto.INT64, [1], value) for name, value in numbers.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def random_settings(rng: np.random.Generator, profile: str, suppression: str) -> dict[str, Any]:
    """Settings of a rule of detection of this kind."""
    settings: dict[str, Any] = {
        "profile": profile,
        "suppression": suppression,
        "top_k": int(rng.integers(1, 7)),
        "tiou": float(rng.choice([0.0, 0.25, 0.5, 0.7])),
        "soft_sigma": 0.3,
        "fuse_temperature": float(rng.choice([1e-6, 0.1, 2.0])),
        "min_score": None if rng.random() < 0.7 else float(rng.uniform(0, 0.6)),
        "max_detections": int(rng.choice([0, 0, 7])),
    }
    if profile != "boundaries":
        settings |= {"max_gap": int(rng.integers(0, 4)), "widen": int(rng.integers(0, 4))}
    if profile in ("paper", "release"):
        settings |= {"alpha_a": float(rng.choice([0.5, 0.3, 1.0])), "alpha_c": float(rng.choice([0.125, 0.3, 0.0]))}
    else:
        settings["class_threshold"] = float(rng.choice([0.0, 0.1, 0.5]))
    if profile == "boundaries":
        settings["point_score"] = float(rng.choice([1e-6, 0.125, 0.4]))
    if profile == "multi-threshold":
        settings |= {
            "thresholds": rng.choice([0.0, 0.1, 0.25, 0.5, 0.9], rng.integers(1, 6)).tolist(),
            "curve": str(rng.choice(["class", "foreground", "both"])),
            "scoring": str(rng.choice(["contrast", "peak"])),
            "scored_on": str(rng.choice(["class", "product"])),
            "outer": float(rng.choice([0.0, 0.25, 1.0, 1e9])),
            "length_power": float(rng.choice([0.0, 0.25, 1.0])),
            "video_term": str(rng.choice(["add", "multiply"])),
            "video_weight": float(rng.choice([0.0, 0.2])),
            "video_share": float(rng.choice([0.0, 0.1, 0.5])),
        }
    return settings


def random_scores(rng: np.random.Generator, snippets: int) -> npt.NDArray[np.float32]:
    """Features of `passing_graph`. Every other time in eighths, so that scores are equal and lie on thresholds."""
    scores = rng.random((snippets, 2 * len(CLASSES) + 2 + len(CLASSES) + 2))
    scores[:, -2:] *= 8
    if rng.random() < 0.5:
        scores = np.round(scores * 8) / 8
    return scores.astype(np.float32)


def cases(folder: Path) -> Iterator[Case]:
    """The rule of each preset on a network's scores, then any rule on any scores."""
    rng = np.random.default_rng(0)
    for index, (preset, layers) in enumerate(PRESETS.items()):
        settings: dict[str, Any] = {}
        for layer in layers:
            settings |= layer.settings.get("detection", {})
            settings |= {"profile": layer.settings["profile"]} if "profile" in layer.settings else {}
        model = write_model(folder / f"{preset}.onnx", **settings)
        features = folder / f"{preset}.npy"
        np.save(features, rng.standard_normal((40 + index, WIDTH)).astype(np.float32))
        yield Case(model, features, None, 40 + index, exact=False)
    graph = passing_graph()
    profiles = ("paper", "release", "boundaries", *["multi-threshold"] * 4)
    kinds = [(profile, kind) for profile in profiles for kind in get_args(Suppression)] * 2
    for index, (profile, suppression) in enumerate(kinds):
        stride = None if rng.random() < 0.5 else int(rng.choice([4, 7]))
        model = write_model(
            folder / f"{index}.onnx",
            onnx.ModelProto.FromString(graph.SerializeToString()),
            classes=CLASSES,
            width=graph.graph.input[0].type.tensor_type.shape.dim[1].dim_value,
            stride_frames=stride,
            **random_settings(rng, profile, suppression),
        )
        snippets = int(rng.choice([1, 5, 33, 90, 150]))
        np.save(folder / f"{index}.npy", random_scores(rng, snippets))
        # The last part of the video is cut off.
        duration_s = None if rng.random() < 0.5 else (snippets - 0.6) * (stride or 16) / FPS
        yield Case(model, folder / f"{index}.npy", duration_s, snippets, exact=True)


def compare(program: list[str], folder: Path) -> None:
    """Compare the segments of a program with the detector's, by every case."""
    several = 0
    for case in cases(folder):
        detector = Detector(case.model, provider="cpu", threads=1)
        expected = detector.detect(np.load(case.features), fps=FPS, duration_s=case.duration_s)
        done = subprocess.run([*program, *case.arguments], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), case.arguments
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        said = f"{case.arguments} {detector.settings}"
        tolerance = 1e-9 if case.exact else 1e-5
        if not case.exact:  # of scores that are equal but for the last bit any may come first
            rows.sort(key=lambda row: (row["label"], row["segment"]))
            order = np.lexsort((expected.end, expected.start, expected.label))
            expected = expected[order]
        assert [row["label"] for row in rows] == expected.label.tolist(), said
        times = np.array([row["segment"] for row in rows]).reshape(-1, 2)
        np.testing.assert_allclose(times, np.stack([expected.start, expected.end], axis=1), atol=1e-9, err_msg=said)
        np.testing.assert_allclose([row["score"] for row in rows], expected.score, rtol=0, atol=tolerance, err_msg=said)
        several += len(rows) > 1
    assert several > 60, "the cases must have segments to compare"


REFUSALS = [
    "error: /narrow.npy: expected T x 24 features, got 3 x 23",
    "error: /half.npy: expected float32 [T, D] in C order: numpy.save(PATH, features.astype('<f4'))",
    "error: /cut.npy: is cut short",
    "error: FPS: expected a number above 0, got 0",
    "error: DURATION: expected a number above 0, got long",
]


def refusals(program: list[str], folder: Path) -> list[str]:
    """What a program says of arguments that cannot be used: its usage, `REFUSALS`, then of files that do not exist."""
    model = write_model(folder / "model.onnx")
    good, narrow, half, cut = (folder / f"{name}.npy" for name in ("good", "narrow", "half", "cut"))
    np.save(good, np.zeros((3, WIDTH), np.float32))
    np.save(narrow, np.zeros((3, WIDTH - 1), np.float32))
    np.save(half, np.zeros((3, WIDTH), np.float16))
    cut.write_bytes(good.read_bytes()[:-1])
    said = []
    for arguments in (
        [],
        [model, narrow, "25"],
        [model, half, "25"],
        [model, cut, "25"],
        [model, good, "0"],
        [model, good, "25", "long"],
        [model, folder / "none.npy", "25"],
        [folder / "none.onnx", good, "25"],
    ):
        done = subprocess.run([*program, *map(str, arguments)], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        (line,) = done.stderr.splitlines()
        said.append(line.replace(str(folder), ""))
    return said


# --- C++ -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compiler() -> None:
    """Skips where there is none."""
    for tool in ("cmake", "c++"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not here")


@pytest.fixture(scope="module")
def onnxruntime_root(compiler: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a release of ONNX Runtime: of the variable ONNXRUNTIME_ROOT, or put together from packages.

    The library is that of the Python package, which has no headers. They come from Debian 13's libonnxruntime-dev,
    by the mirror of this Debian: the library serves programs that were built with the headers of an earlier version.
    """
    if "ONNXRUNTIME_ROOT" in os.environ:
        return Path(os.environ["ONNXRUNTIME_ROOT"])
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            pytest.skip(f"no headers of ONNX Runtime: {tool} is not here; set ONNXRUNTIME_ROOT")
    libraries = list((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    if not libraries:
        pytest.skip("the onnxruntime of this Python has no library of its own; set ONNXRUNTIME_ROOT")
    sources = subprocess.run(["apt-get", "update", "--print-uris"], capture_output=True, text=True).stdout
    mirror = re.search(r"'(\S+/debian/)dists/", sources)
    if mirror is None:
        pytest.skip("no headers of ONNX Runtime: this system's packages are not Debian's; set ONNXRUNTIME_ROOT")
    root = tmp_path_factory.mktemp("onnxruntime")
    (root / "lib").mkdir()
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (root / "lib" / name).symlink_to(libraries[0])
    for folder in ("apt/lists/partial", "apt/cache/archives/partial"):
        (root / folder).mkdir(parents=True)
    (root / "apt/sources.list").write_text(f"deb {mirror[1]} trixie main\n")
    apart = {
        "Dir::Etc::sourcelist": root / "apt/sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": root / "apt/lists",
        "Dir::Cache": root / "apt/cache",
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "-q", *(f"-o{name}={value}" for name, value in apart.items())]
    for command in (["update"], ["download", "libonnxruntime-dev"]):
        done = subprocess.run([*apt, *command], cwd=root, capture_output=True, text=True)
        if done.returncode or "W: Failed" in done.stderr:
            pytest.skip(f"no headers of ONNX Runtime: {(done.stderr.strip() or 'apt-get fails').splitlines()[0]}")
    (package,) = root.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", package, root / "unpacked"], check=True)
    (root / "include").symlink_to(root / "unpacked/usr/include/onnxruntime")
    return root


@pytest.fixture(scope="module")
def cpp(onnxruntime_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built program."""
    build = tmp_path_factory.mktemp("cpp")
    flags = [f"-DONNXRUNTIME_ROOT={onnxruntime_root}", "-DCMAKE_CXX_FLAGS=-Werror"]
    for command in (["-S", EXAMPLES / "cpp", "-B", build, *flags], ["--build", build]):
        done = subprocess.run(["cmake", *map(str, command)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return build / "refineloc_detect"


@pytest.mark.long
def test_cpp_gives_the_same_segments(cpp: Path, tmp_path: Path) -> None:
    compare([str(cpp)], tmp_path)


@pytest.mark.long
def test_cpp_refuses_in_one_line(cpp: Path, tmp_path: Path) -> None:
    assert refusals([str(cpp)], tmp_path) == [
        "usage: refineloc_detect MODEL.onnx FEATURES.npy FPS [DURATION]",
        *REFUSALS,
        "error: /none.npy: not a readable .npy file",
        "error: Load model from /none.onnx failed:Load model /none.onnx failed. File doesn't exist",
    ]


# --- JavaScript ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def javascript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, with the packages it needs."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not here")
    folder = tmp_path_factory.mktemp("javascript") / "js"
    shutil.copytree(EXAMPLES / "javascript", folder, ignore=shutil.ignore_patterns("node_modules"))
    got = subprocess.run(["npm", "install", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, text=True)
    if re.search("ENOTFOUND|ECONNREFUSED|ETIMEDOUT|EAI_AGAIN|E40[0-9]", got.stderr):
        pytest.skip(f"npm reaches no registry: {got.stderr.strip().splitlines()[0]}")
    assert got.returncode == 0, got.stderr
    return folder / "detect.mjs"


@pytest.mark.long
def test_javascript_gives_the_same_segments(javascript: Path, tmp_path: Path) -> None:
    compare(["node", str(javascript)], tmp_path)


@pytest.mark.long
def test_javascript_refuses_in_one_line(javascript: Path, tmp_path: Path) -> None:
    assert refusals(["node", str(javascript)], tmp_path) == [
        "usage: node detect.mjs MODEL.onnx FEATURES.npy FPS [DURATION]",
        *REFUSALS,
        "error: ENOENT: no such file or directory, open '/none.npy'",
        "error: ENOENT: no such file or directory, open '/none.onnx'",
    ]
