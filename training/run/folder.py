"""The names of a run's files, for all who read or write them. Imports no torch.

runs/NAME/
    config.toml              the resolved settings, and under [data] the files, classes and width
    split.json               the labels, where a share of the videos was held out for validation
    metrics.jsonl            a line an epoch, appended
    iterations.json          a record an iteration
    iter_K/model.safetensors
    iter_K/detections.json   of the validation videos, where their fps is known
    iter_K/network_*.safetensors  of an iteration of several networks, those that are finished; gone when it is
    checkpoint.safetensors   of the network that is under way, now and then
    timeline.png             of one validation video, over the iterations, where times are known
    tensorboard/             scalars
    lock                     while a process trains
    log.txt                  what a run of a study printed
"""

import re
from pathlib import Path

__all__ = ["RunFolder", "runs_in"]


LOG = "log.txt"


class RunFolder:
    """Where a run has its files; the folder need not exist."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings = path / "config.toml"
        self.split = path / "split.json"
        self.metrics = path / "metrics.jsonl"
        self.records = path / "iterations.json"
        self.checkpoint = path / "checkpoint.safetensors"
        self.picture = path / "timeline.png"
        self.tensorboard = path / "tensorboard"
        self.lock = path / "lock"

    def has(self, name: str) -> bool:
        """Whether a file or folder of this name belongs to a run."""
        files = {path.name for key, path in vars(self).items() if key != "path"}
        return name in files or name == LOG or re.fullmatch(r"iter_\d+", name) is not None

    @property
    def is_run(self) -> bool:
        """Whether a run has begun here."""
        return self.settings.is_file()

    def iteration(self, number: int) -> Path:
        """The folder of an iteration."""
        return self.path / f"iter_{number}"

    def weights(self, iteration: int) -> Path:
        """Of an iteration's model."""
        return self.iteration(iteration) / "model.safetensors"

    def network(self, iteration: int, member: int, attempt: int) -> Path:
        """Of a network of an unfinished iteration."""
        return self.iteration(iteration) / f"network_{member}_{attempt}.safetensors"

    def networks(self, iteration: int) -> dict[tuple[int, int], Path]:
        """The files of the finished networks of an unfinished iteration, by member and attempt."""
        files = {}
        for path in sorted(self.iteration(iteration).glob("network_*.safetensors")):
            if match := re.fullmatch(r"network_(\d+)_(\d+)", path.stem):
                files[int(match[1]), int(match[2])] = path
        return files

    def detections(self, iteration: int) -> Path:
        """Of an iteration's model, in the validation videos."""
        return self.iteration(iteration) / "detections.json"


def runs_in(parent: Path, name: str = "*") -> list[Path]:
    """The folders of runs in a folder, sorted; `name` is a pattern of theirs."""
    return sorted(path.parent for path in parent.glob(str(RunFolder(Path(name)).settings))) if parent.is_dir() else []
