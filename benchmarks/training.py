"""One epoch of training on THUMOS14's real time lines: against the released code's manner, and against its products.

    .venv/bin/python -m benchmarks.training [--threads N] [--width 1024] [--only rates|epoch|student]

An epoch is the work between two lines of the log: all training videos (200) in batches of 32, the loss of all
validation videos (212), their detections and their mAP at ten thresholds. Lengths and instances are those of the data
set, with 16 frames in a snippet. Features are noise, plus a direction of the class inside its actions. The network has
two float32 layers and was trained for five epochs, so that it detects a realistic number of segments. "theirs" does the
same in the manner of the released code. "theirs, all" also detects in the training videos and computes their mAP, as
that code does.

"student" is an epoch of a student of `--hidden` values a layer, which learns the true segments, without detections.

Times are the best of several runs that alternate. On one thread they are CPU times, which other programs disturb least.
On more threads they are wall-clock times.
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
from scipy.special import softmax
from torch import Tensor, nn

from benchmarks.evaluators import by_pandas, truth_table
from refineloc.evaluation.matching import DEFAULT_TIOUS
from refineloc.runtime.annotations import Annotations, read_annotations
from refineloc.runtime.segments.grid import SnippetGrid
from refineloc.runtime.segments.values import Segments
from refineloc.training.data.split import Split
from refineloc.training.data.truth import true_foreground
from refineloc.training.fit import Labelled, fit
from refineloc.training.machine.malloc import keep_freed_memory
from refineloc.training.models.base_model import build_model
from refineloc.training.run.checkpoint import Checkpoint
from refineloc.training.scoring import detect, quality
from refineloc.training.settings.config import Config, resolve
from refineloc.training.targets import SegmentTargets

RELEASE = Path(__file__).resolve().parents[2] / "shared" / "data" / "refineloc-release"
SETTINGS: dict[str, Any] = {
    "detection": {"alpha_c": 0.02, "profile": "release"},
    "training": {"batch_videos": 32, "learning_rate": 1e-3, "iterations": 1},
}
BATCH_SNIPPETS = 12_288


def seconds_of(job: Callable[[], object]) -> float:
    """Seconds of one run: CPU time on one thread, wall-clock time on more."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    begin = clock()
    job()
    return clock() - begin


def best(jobs: dict[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """The least time of each job; runs alternate."""
    for job in jobs.values():
        job()
    times = [{name: seconds_of(job) for name, job in jobs.items()} for _ in range(runs)]
    return {name: min(run[name] for run in times) for name in jobs}


def rates(width: int, runs: int) -> dict[str, float]:
    """GFLOP/s of the products of the first layer (both branches at once), by library."""
    features, weight = torch.randn(BATCH_SNIPPETS, width), torch.randn(width, width)
    gradient = torch.randn(BATCH_SNIPPETS, width)
    half = [tensor.bfloat16() for tensor in (features, weight, gradient)]
    with torch.no_grad():
        jobs: dict[str, Callable[[], object]] = {
            "torch (MKL), forward": lambda: F.linear(features, weight),
            "torch (MKL), gradient of the weights": lambda: gradient.T @ features,
            "oneDNN, forward": lambda: torch.ops.mkldnn._linear_pointwise(features, weight, None, "none", [], ""),
            "oneDNN, gradient of the weights": lambda: torch.ops.mkldnn._linear_pointwise(
                gradient.t(), features.t(), None, "none", [], ""
            ),
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
    classes = classes or annotations.classes
    lengths = torch.tensor([max(1, (annotations[video].frames or 0) // 16) for video in names])
    targets = torch.zeros(len(names), len(classes))
    for row, video in enumerate(names):
        for label in annotations[video].labels:
            targets[row, classes.index(label)] = 1 / len(annotations[video].labels)
    grids = tuple(SnippetGrid(annotations[v].fps or 30.0, 16, annotations[v].duration_s) for v in names)
    features = torch.randn(int(lengths.sum()), width)
    directions = torch.randn(len(classes), width, generator=torch.Generator().manual_seed(1))
    begins = torch.cumsum(lengths, 0) - lengths
    for video_name, grid, begin, length in zip(names, grids, begins.tolist(), lengths.tolist(), strict=True):
        video = annotations[video_name]
        for start, end, label in zip(video.start, video.end, video.segment_labels, strict=True):
            inside = torch.from_numpy(grid.foreground(np.array([start]), np.array([end]), length))
            features[begin : begin + length][inside] += 0.3 * directions[classes.index(label)]
    features.relu_()
    return Split(names, features, lengths, targets, classes, grids, width, width, RELEASE / name), annotations


def ours(
    config: Config, train: Labelled, val: Labelled, times: Annotations, checkpoint: Checkpoint | None
) -> list[Checkpoint]:
    """Train the epochs after a checkpoint, as `refineloc-train` does; gives the states after each."""
    states = []
    for epoch in fit(config, train, val, 1, checkpoint, scored=True):
        if epoch.scores is not None:
            quality(detect(config, val.split, epoch.scores), times)
        states.append(epoch.pack())
    return states


class Theirs:
    """One epoch in the manner of the released code: Python loops over videos, and evaluation by pandas.

    The videos of a batch are concatenated and go through the network once. The loss loops over the videos. Then the
    accuracies of videos and snippets are computed from lists. Each video's detections, by connected components for each
    class, become a table, and all tables are evaluated together as by ActivityNet's kit.

    Args:
        both: detect in the training videos too, as the released code does; otherwise in the validation videos alone, as
            ours does.
    """

    def __init__(
        self,
        config: Config,
        data: tuple[Labelled, Labelled],
        times: tuple[Annotations, Annotations],
        weights: dict[str, Tensor],
        both: bool,
    ) -> None:
        self.config, self.tious = config, np.array(DEFAULT_TIOUS)
        self.model = build_model(config.model, data[0].split.width, len(data[0].split.classes))
        self.model.load_state_dict(weights)
        self.detected = 0
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.train, self.val = (
            TheirSplit(labelled, annotations, scored)
            for labelled, annotations, scored in zip(data, times, (both, True), strict=True)
        )

    def epoch(self) -> None:
        self.model.train()
        self.pass_over(self.train, learn=True)
        self.model.eval()
        self.pass_over(self.val, learn=False)

    def pass_over(self, split: "TheirSplit", learn: bool) -> None:
        kept: dict[int, tuple[Any, Any]] = {}
        for videos in torch.split(torch.randperm(len(split.features)), self.config.training.batch_videos):
            features = torch.cat([torch.tensor(split.features[video]) for video in videos.tolist()])
            losses, begin = [], 0
            with torch.set_grad_enabled(learn):
                class_logits, attention_logits, _ = self.model(features, split.packed.lengths[videos])
                for video in videos.tolist():
                    part = slice(begin, begin + len(split.features[video]))
                    losses.append(self.loss(class_logits[part], attention_logits[part], split, video))
                    kept[video] = class_logits[part].detach().numpy(), attention_logits[part].detach().numpy()
                    begin = part.stop
                loss = torch.stack(losses).mean()
            if learn:
                self.optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                self.optimizer.step()
        if not split.scored:
            return
        self.accuracies(split, kept)
        table = pd.concat([self.detections(split, video, *kept[video]) for video in range(len(split.features))])
        self.detected = len(table)
        by_pandas(table.reset_index(drop=True), split.truth, self.tious)

    def loss(self, class_logits: Tensor, attention_logits: Tensor, split: "TheirSplit", video: int) -> Tensor:
        attention = attention_logits.softmax(1)[:, 1].softmax(0)
        video_loss = -(split.packed.targets[video] * (attention @ class_logits.log_softmax(1))).sum()
        pseudo = F.cross_entropy(attention_logits, split.pseudo[video], ignore_index=-1)
        return video_loss + self.config.pseudo.beta * pseudo

    def accuracies(self, split: "TheirSplit", kept: dict[int, tuple[Any, Any]]) -> tuple[float, float]:
        """Of the videos' classes, and of the snippets' foreground."""
        classes, labels, foreground, pseudo = [], [], [], []
        for video, (class_logits, attention_logits) in kept.items():
            attention = softmax(softmax(attention_logits, axis=1)[:, 1], axis=0)
            classes.append((attention[:, None] * softmax(class_logits, axis=1)).sum(axis=0).argmax())
            labels.append(int(split.packed.targets[video].argmax()))
            foreground.extend(attention_logits.argmax(axis=1).tolist())
            pseudo.extend(split.pseudo[video].tolist())
        return float((np.array(classes) == labels).mean()), float((np.array(foreground) == pseudo).mean())

    def detections(self, split: "TheirSplit", video: int, class_logits: Any, attention_logits: Any) -> pd.DataFrame:
        settings, grid = self.config.detection, split.packed.grids[video]
        assert grid is not None
        scores, foreground = softmax(class_logits, axis=1), softmax(attention_logits, axis=1)[:, 1]
        video_scores = (softmax(foreground, axis=0)[:, None] * scores).sum(axis=0)
        columns: dict[str, list[Any]] = {name: [] for name in ("video", "start", "end", "label", "score")}
        for label in np.argsort(-video_scores)[: settings.top_k]:
            kept = (foreground > 1 - settings.alpha_a) & (scores[:, label] > settings.alpha_c)
            runs, count = ndimage.label(ndimage.binary_dilation(kept))
            for run in range(1, count + 1):
                snippets = np.flatnonzero(runs == run)
                first, last = max(snippets[0] - 2, 0), min(snippets[-1] + 2, len(scores) - 1)
                start, end = grid.seconds(np.array([first]), np.array([last]))
                score = scores[snippets, label].mean() + foreground[snippets].mean() + video_scores[label]
                row = split.packed.names[video], start[0], end[0], split.packed.classes[label], score
                for column, value in zip(columns.values(), row, strict=True):
                    column.append(value)
        return pd.DataFrame(columns)


class TheirSplit:
    """A split in the form of the released code: arrays by video, and the ground truth as a table."""

    def __init__(self, labelled: Labelled, annotations: Annotations, scored: bool) -> None:
        self.packed, self.scored = labelled.split, scored
        assert isinstance(self.packed.features, Tensor)
        assert labelled.pseudo is not None
        lengths = self.packed.lengths.tolist()
        self.features = [part.numpy() for part in torch.split(self.packed.features, lengths)]
        self.pseudo = torch.split(labelled.pseudo, lengths)
        self.truth = truth_table(annotations)


def products(train: Split, val: Split, model: nn.Module) -> float:
    """FLOP of the matrix products of an epoch: forward, gradients of weights, and of all inputs but the features."""
    total = 0.0
    for branch in model.children():
        assert isinstance(branch, nn.Sequential)
        for index, layer in enumerate(part for part in branch if isinstance(part, nn.Linear)):
            passes = train.snippets * (3 if index else 2) + val.snippets
            total += 2.0 * layer.in_features * layer.out_features * passes
    return total


def taught(split: Split, annotations: Annotations, levels: int) -> Labelled:
    """A split with what a student learns: the true segments, in snippets of 16 frames."""
    rows: list[tuple[float, ...]] = []
    for index, name in enumerate(split.names):
        video = annotations[name]
        rate = (video.fps or 30.0) / 16
        for start, end, label in zip(video.start, video.end, video.segment_labels, strict=True):
            rows.append((index, split.classes.index(label), start * rate, end * rate - 1))
    video, label, first, last = map(np.array, zip(*rows, strict=True))
    segments = Segments(video.astype(np.int64), label.astype(np.int64), first, last, np.ones(len(rows)))
    targets = SegmentTargets(segments, split.lengths.numpy(), levels)
    return Labelled(split, None, torch.ones(2), segments=targets)


def student_products(train: Split, val: Split, hidden: int, levels: int) -> float:
    """FLOP of the matrix products of a student's epoch, as of `products`."""
    first, second = 3 * train.width * hidden, 3 * hidden * hidden
    heads = 2 * 3 * hidden * hidden + 3 * hidden * (len(train.classes) + 2)
    rest = second + heads * sum(2.0**-level for level in range(levels))
    return 2.0 * (train.snippets * (2 * first + 3 * rest) + val.snippets * (first + rest))


def student(
    train: Split, val: Split, times: tuple[Annotations, Annotations], hidden: int, rate: float, runs: int
) -> None:
    """Print an epoch of a student, and its limit at a rate in GFLOP/s."""
    own = {"student": {"first": 1, "hidden": hidden}, "training": {"iterations": 2, "epochs": 3 + runs}}
    config = resolve({"preset": "auto"}, own).of_iteration(1)
    data = [taught(split, each, config.student.levels) for split, each in zip((train, val), times, strict=True)]
    epochs = fit(config, data[0], data[1], 1)
    seconds = min([seconds_of(lambda: next(epochs)) for _ in range(3 + runs)][3:])  # oneDNN has then prepared itself
    limit = student_products(train, val, hidden, config.student.levels) / rate / 1e9
    print(f"\nstudent of {hidden}: {seconds:.2f} s, limit {limit:.2f} s, {seconds / limit:.2f} times")


def main() -> None:
    """Print rates, times and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--only", choices=("rates", "epoch", "student"))
    parser.add_argument("--hidden", type=int, default=64, help="of the student")
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
    float32 = max(rate for name, rate in measured.items() if "bf16" not in name)
    if options.only != "epoch":
        student(train, val, (times_of_train, times), options.hidden, float32, options.runs)
    if options.only == "student":
        return
    labels = []
    for split, annotations in ((train, times_of_train), (val, times)):
        foreground = true_foreground(split, annotations)
        assert foreground is not None
        labels.append(torch.from_numpy(foreground).long())
    data = [Labelled(split, pseudo, torch.ones(2)) for split, pseudo in zip((train, val), labels, strict=True)]
    warm = {"training": {"epochs": 6}}
    config, fast = resolve(SETTINGS, warm), resolve(SETTINGS, warm, {"training": {"precision": "bf16"}})
    # The last but one, so that one epoch remains to be measured.
    checkpoint = ours(config, data[0], data[1], times, None)[-2]
    assert checkpoint.epochs == 5
    weights = {
        key.removeprefix("model."): tensor for key, tensor in checkpoint.tensors.items() if key.startswith("model.")
    }
    annotations_of_both = times_of_train, times
    theirs, all_theirs = (
        Theirs(config, (data[0], data[1]), annotations_of_both, weights, both) for both in (False, True)
    )
    jobs: dict[str, Callable[[], object]] = {
        "ours": lambda: ours(config, data[0], data[1], times, checkpoint),
        "ours, bf16": lambda: ours(fast, data[0], data[1], times, checkpoint),
        "theirs": theirs.epoch,
        "theirs, all": all_theirs.epoch,
    }
    seconds = best(jobs, max(2, options.runs // 2))
    work = products(train, val, theirs.model)
    limit = work / float32 / 1e9
    print(f"\nepoch: {train.snippets} + {val.snippets} snippets x {options.width}; {theirs.detected} detections")
    print(f"products: {work / 1e9:.0f} GFLOP, at {float32:.1f} GFLOP/s")
    for name, value in {**seconds, "limit": limit}.items():
        print(f"{name:12} {value:7.2f} s   : ours {value / seconds['ours']:5.2f}   : limit {value / limit:5.2f}")


if __name__ == "__main__":
    main()
