"""One epoch of training on THUMOS14's real time lines: against the released code's manner, and against its products.

    .venv/bin/python -m benchmarks.training [--threads N] [--width 1024] [--only rates|epoch]

An epoch is what each does between two lines of its log: all training videos (200) in batches of 32, the loss of all
validation videos (212), their detections and their mAP at ten thresholds. Lengths and instances are those of the data
set (16 frames a snippet); features are noise, with a direction of its own for each class where its actions are. Two
layers, float32; the network has five epochs behind it, so that it finds what a network finds.

Times are the best of several runs that alternate. On one thread they are CPU times of the process: what an otherwise
idle machine takes, and what other programs disturb least. On more threads they are those of the clock on the wall.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from scipy import ndimage
from torch import Tensor, nn

from benchmarks.evaluators import by_pandas
from refineloc.runtime.annotations import Annotations, read_annotations
from refineloc.runtime.evaluation import DEFAULT_TIOUS
from refineloc.runtime.grid import SnippetGrid
from refineloc.training.checkpoint import Checkpoint
from refineloc.training.config import Config, resolve
from refineloc.training.data import Split
from refineloc.training.fit import Labelled, fit
from refineloc.training.layers.linear import Linear
from refineloc.training.memory import keep_freed_memory
from refineloc.training.run import build_model

RELEASE = Path(__file__).resolve().parents[2] / "shared" / "data" / "refineloc-release"
SETTINGS: dict[str, Any] = {
    "detection": {"alpha_c": 0.02, "profile": "release"},
    "training": {"batch_videos": 32, "learning_rate": 1e-3, "iterations": 1},
}
BATCH_SNIPPETS = 12_288


def seconds_of(job: Callable[[], object]) -> float:
    """Seconds that one run takes: of CPU on one thread, of the wall's clock on more."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    begin = clock()
    job()
    return clock() - begin


def best(jobs: dict[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """The least time of each job; runs alternate."""
    for job in jobs.values():
        job()
    times = [{name: seconds_of(job) for name, job in jobs.items()} for _ in range(runs)]
    return {name: min(one[name] for one in times) for name in jobs}


def rates(width: int, runs: int) -> dict[str, float]:
    """GFLOP/s of the products of the first layer (both branches at once), by library."""
    features, weight = torch.randn(BATCH_SNIPPETS, width), torch.randn(width, width)
    gradient = torch.randn(BATCH_SNIPPETS, width)
    layer = Linear(width, width)
    half = [tensor.bfloat16() for tensor in (features, weight, gradient)]
    with torch.no_grad():
        jobs: dict[str, Callable[[], object]] = {
            "torch (MKL), forward": lambda: F.linear(features, weight),
            "torch (MKL), gradient of the weights": lambda: gradient.T @ features,
            "oneDNN, forward": lambda: torch.ops.mkldnn._linear_pointwise(features, weight, None, "none", [], ""),
            "oneDNN, gradient of the weights": lambda: torch.ops.mkldnn._linear_pointwise(
                gradient.t(), features.t(), None, "none", [], ""
            ),
            "our layer, forward with bias": torch.no_grad()(lambda: layer(features)),
            "NumPy (OpenBLAS)": lambda: features.numpy() @ weight.numpy(),
            "ONNX Runtime": _onnx_product(features.numpy(), weight.numpy()),
            "bf16, forward": lambda: F.linear(half[0], half[1]),
            "bf16, gradient of the weights": lambda: half[2].T @ half[0],
        }
        work = 2 * BATCH_SNIPPETS * width * width
        return {name: work / seconds / 1e9 for name, seconds in best(jobs, runs).items()}


def _onnx_product(features: Any, weight: Any) -> Callable[[], object]:
    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None]) for name in ("x", "y")]
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "product", shapes[:1], shapes[1:], [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": features})


def time_lines(name: str, width: int, classes: tuple[str, ...] = ()) -> tuple[Split, Annotations]:
    """A split of THUMOS14 with random features."""
    annotations = read_annotations(RELEASE / name)
    names = tuple(sorted(annotations))
    known = classes or annotations.classes
    lengths = torch.tensor([max(1, (annotations[video].frames or 0) // 16) for video in names])
    targets = torch.zeros(len(names), len(known))
    for row, video in enumerate(names):
        for label in annotations[video].labels:
            targets[row, known.index(label)] = 1 / len(annotations[video].labels)
    grids = tuple(SnippetGrid(annotations[v].fps or 30.0, 16, annotations[v].duration_s) for v in names)
    features = torch.randn(int(lengths.sum()), width)
    directions = torch.randn(len(known), width, generator=torch.Generator().manual_seed(1))
    begins = torch.cumsum(lengths, 0) - lengths
    for video, grid, begin, length in zip(names, grids, begins.tolist(), lengths.tolist(), strict=True):
        own = annotations[video]
        for start, end, label in zip(own.start, own.end, own.segment_labels, strict=True):
            inside = torch.from_numpy(grid.foreground(np.array([start]), np.array([end]), length))
            features[begin : begin + length][inside] += 0.3 * directions[known.index(label)]
    features.relu_()
    return Split(names, features, lengths, targets, known, grids, width, width, RELEASE / name), annotations


def true_labels(split: Split, annotations: Annotations) -> Tensor:
    """Pseudo labels for the benchmark: the true foreground."""
    own = [annotations[name] for name in split.names]
    parts = [
        grid.foreground(video.start, video.end, length)
        for video, grid, length in zip(own, split.grids, split.lengths.tolist(), strict=True)
        if grid is not None
    ]
    return torch.from_numpy(np.concatenate(parts)).long()


class Memory:
    """A run that keeps its last checkpoint, and a reporter that says nothing."""

    folder = Path()

    def __init__(self, checkpoint: Checkpoint | None = None) -> None:
        self.checkpoint = checkpoint

    def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint

    def add_epoch(self, record: Any) -> None: ...

    def epoch(self, record: Any) -> None: ...


def ours(config: Config, train: Labelled, val: Labelled, times: Annotations, checkpoint: Checkpoint | None) -> Memory:
    """The epochs that a checkpoint has not behind it, as `refineloc-train` does them."""
    memory: Any = Memory(checkpoint)
    fit(config, train, val, 1, memory, memory, times)
    return memory  # type: ignore[no-any-return]


class Theirs:
    """One epoch in the manner of the released code: a Python loop over videos, pandas at the end of it.

    Each video is a forward pass of its own, the batch's loss their mean; detections come from one labelling of
    connected components for each video and class, become rows of a table, and the table is evaluated as ActivityNet's
    kit does.
    """

    def __init__(
        self, config: Config, train: Labelled, val: Labelled, times: Annotations, weights: dict[str, Tensor]
    ) -> None:
        self.config, self.train, self.val, self.tious = config, train, val, np.array(DEFAULT_TIOUS)
        self.model = build_model(config, train.split.width, len(train.split.classes))
        self.model.load_state_dict(weights)
        self.found = 0
        for module in self.model.modules():
            if isinstance(module, Linear):
                module.forward = lambda values, own=module: F.linear(values, own.weight, own.bias)  # type: ignore
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        rows = [
            (video.name, start, end, label)
            for video in times.values()
            for start, end, label in zip(video.start, video.end, video.segment_labels, strict=True)
            if end > start
        ]
        self.truth = pd.DataFrame(rows, columns=["video", "start", "end", "label"])

    def epoch(self) -> None:
        for videos in torch.split(torch.randperm(len(self.train.split)), self.config.training.batch_videos):
            losses = [self.loss(self.train, index)[0] for index in videos.tolist()]
            self.optimizer.zero_grad()
            torch.stack(losses).mean().backward()
            self.optimizer.step()
        found: list[tuple[Any, ...]] = []
        with torch.no_grad():
            for index in range(len(self.val.split)):
                _, scores, foreground, video_scores = self.loss(self.val, index)
                found += self.detections(index, scores.numpy(), foreground.numpy(), video_scores.numpy())
        self.found = len(found)
        table = pd.DataFrame(found, columns=["video", "start", "end", "label", "score"])
        by_pandas(table, self.truth, self.tious)

    def loss(self, data: Labelled, index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        split = data.split
        assert isinstance(split.features, Tensor)
        assert data.pseudo is not None
        begin = int(split.lengths[:index].sum())
        part = slice(begin, begin + int(split.lengths[index]))
        class_logits, attention_logits, _ = self.model(split.features[part], split.lengths[index : index + 1])
        scores, foreground = class_logits.softmax(1), attention_logits.softmax(1)[:, 1]
        video_scores = foreground.softmax(0) @ scores
        loss = -(split.targets[index] * video_scores.log()).sum()
        pseudo = F.cross_entropy(attention_logits, data.pseudo[part], ignore_index=-1)
        return loss + self.config.pseudo.beta * pseudo, scores, foreground, video_scores

    def detections(self, index: int, scores: Any, foreground: Any, video_scores: Any) -> list[tuple[Any, ...]]:
        split, settings = self.val.split, self.config.detection
        grid = split.grids[index]
        assert grid is not None
        found = []
        for label in np.argsort(-video_scores)[: settings.top_k]:
            kept = (foreground > 1 - settings.alpha_a) & (scores[:, label] > settings.alpha_c)
            runs, count = ndimage.label(ndimage.binary_dilation(kept))
            for run in range(1, count + 1):
                places = np.flatnonzero(runs == run)
                score = scores[places, label].mean() + foreground[places].mean() + video_scores[label]
                first, last = max(places[0] - 2, 0), min(places[-1] + 2, len(scores) - 1)
                start, end = grid.seconds(np.array([first]), np.array([last]))
                found.append((split.names[index], start[0], end[0], split.classes[label], score))
        return found


def products(train: Split, val: Split, model: nn.Module) -> float:
    """FLOP of an epoch's matrix products: forward, the gradients of weights, and of values but for the features."""
    total = 0.0
    for branch in model.children():
        assert isinstance(branch, nn.Sequential)
        for index, layer in enumerate(part for part in branch if isinstance(part, nn.Linear)):
            passes = train.snippets * (3 if index else 2) + val.snippets
            total += 2.0 * layer.in_features * layer.out_features * passes
    return total


def main() -> None:
    """Print rates, times and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--only", choices=("rates", "epoch"))
    options = parser.parse_args()
    keep_freed_memory()  # as refineloc-train does
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    measured = rates(options.width, options.runs)
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {options.threads} threads")
    for name, rate in measured.items():
        print(f"{name:40} {rate:8.1f} GFLOP/s")
    if options.only == "rates":
        return
    train, times_of_train = time_lines("thumos14_valid_groundtruth.csv", options.width)
    val, times = time_lines("thumos14_test_groundtruth.csv", options.width, train.classes)
    labels = [true_labels(split, own) for split, own in ((train, times_of_train), (val, times))]
    data = [Labelled(split, own, torch.ones(2)) for split, own in zip((train, val), labels, strict=True)]
    warm = {"training": {"epochs": 6, "checkpoint_s": 0.0}}
    config, fast = resolve(SETTINGS, warm), resolve(SETTINGS, warm, {"training": {"precision": "bf16"}})
    checkpoint = ours(config, data[0], data[1], times, None).checkpoint
    assert checkpoint is not None
    assert checkpoint.epochs == 5
    state = {key.removeprefix("model."): one for key, one in checkpoint.tensors.items() if key.startswith("model.")}
    theirs = Theirs(config, data[0], data[1], times, state)
    jobs: dict[str, Callable[[], object]] = {
        "ours": lambda: ours(config, data[0], data[1], times, checkpoint),
        "ours, bf16": lambda: ours(fast, data[0], data[1], times, checkpoint),
        "theirs": theirs.epoch,
    }
    seconds = best(jobs, max(2, options.runs // 2))
    float32 = max(rate for name, rate in measured.items() if "bf16" not in name)
    work = products(train, val, theirs.model)
    limit = work / float32 / 1e9
    print(f"\nepoch: {train.snippets} + {val.snippets} snippets x {options.width}; {theirs.found} detections")
    print(f"products: {work / 1e9:.0f} GFLOP, at {float32:.1f} GFLOP/s")
    for name, value in {**seconds, "limit": limit}.items():
        print(f"{name:12} {value:7.2f} s   : ours {value / seconds['ours']:5.2f}   : limit {value / limit:5.2f}")


if __name__ == "__main__":
    main()
