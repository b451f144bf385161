"""The data set that the training tests share: a few small videos whose classes are easy to see, and runs on it."""

from pathlib import Path

import h5py
import numpy as np

from refineloc.training.data.inputs import Files, read_inputs
from refineloc.training.data.truth import Truth, settled
from refineloc.training.fit import with_least_steps
from refineloc.training.run.display import Silent
from refineloc.training.run.files import Run
from refineloc.training.settings.config import Config
from refineloc.training.train_run import train_into

CLASSES = ("dive", "jump", "run")
WIDTH = 16


def write_data(folder: Path, rng: np.random.Generator) -> Path:
    """Write train.h5, train.csv, val.h5 and val.csv: one class in the middle of each video, visible in the features."""
    for split, videos in (("train", 12), ("val", 6)):
        rows = ["video-name,t-start,t-end,label,video-duration,fps,video-num-frames"]
        with h5py.File(folder / f"{split}.h5", "w") as file:
            for index in range(videos):
                name, label = f"{split}{index:02}", index % len(CLASSES)
                snippets = int(rng.integers(12, 40))
                features = rng.normal(0, 0.3, (snippets, WIDTH)).astype(np.float32)
                begin, end = snippets // 3, 2 * snippets // 3
                features[begin:end, label] += 2.0
                features[begin:end, 5] += 2.0
                file[name] = features
                # 16 frames at 16 fps: a snippet a second.
                rows.append(f"{name},{begin},{end},{CLASSES[label]},{snippets},16,{16 * snippets}")
        (folder / f"{split}.csv").write_text("\n".join(rows) + "\n")
    return folder


def drop_times(data: Path, *splits: str, fps: bool = True) -> None:
    """Leave the label files with labels alone, and the frame rate if `fps`."""
    for split in splits or ("train", "val"):
        path = data / f"{split}.csv"
        rows = [line.split(",") for line in path.read_text().splitlines()]
        path.write_text("".join(",".join([row[0], row[3], *([row[5]] if fps else [])]) + "\n" for row in rows))


def files(data: Path) -> Files:
    return Files(data / "train.h5", data / "train.csv", data / "val.h5", data / "val.csv")


def arguments(data: Path = Path()) -> list[str]:
    """The same for refineloc-train."""
    given = files(data)
    return [
        str(given.features), str(given.labels),
        "--val-features", str(given.val_features), "--val-labels", str(given.val_labels),
    ]  # fmt: skip


def train(
    data: Path,
    folder: Path,
    config: Config,
    *,
    truth: bool = True,
    resume: bool = False,
    memory: int = 2**30,
    display: Silent | None = None,
) -> Run:
    """Train into a folder, in this process."""
    inputs = read_inputs(files(data), config, memory)
    times = inputs.truth if truth else Truth()
    config = with_least_steps(settled(config, inputs.train, inputs.val, times), inputs.train)
    run = Run(folder, config, inputs.record, resume=resume)
    run.begin()
    train_into(run, inputs.train, inputs.val, times, display or Silent())
    return run


def assert_same_run(run: Path, other: Path) -> None:
    """The same iterations: records, epochs and weights, byte for byte."""
    names = ["iterations.json", "metrics.jsonl"]
    names += [str(path.relative_to(run)) for path in sorted(run.glob("iter_*/model.safetensors"))]
    for name in names:
        assert (run / name).read_bytes() == (other / name).read_bytes(), name
