"""The names of a run's files, for all who read or write them. Imports no torch.

runs/NAME/
    config.toml              the resolved settings, and under [data] the files, classes and width
    metrics.jsonl            a line an epoch, appended
    iterations.json          a record an iteration
    iter_K/model.safetensors
    iter_K/detections.json   of the validation videos, where their fps is known
    checkpoint.safetensors   of the iteration that is under way, now and then
    timeline.png             of one validation video, over the iterations, where times are known
    tensorboard/             scalars
    lock                     while a process trains
"""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["RunFolder", "runs_in"]


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where a run has its files.

    Attributes:
        path: of the folder; it need not exist.
    """

    path: Path

    @property
    def is_run(self) -> bool:
        """Whether a run has begun here."""
        return self.settings.is_file()

    @property
    def settings(self) -> Path:
        """The file that makes a folder a run."""
        return self.path / "config.toml"

    @property
    def metrics(self) -> Path:
        """Of the epochs."""
        return self.path / "metrics.jsonl"

    @property
    def records(self) -> Path:
        """Of the finished iterations."""
        return self.path / "iterations.json"

    @property
    def checkpoint(self) -> Path:
        """Of the iteration that is under way."""
        return self.path / "checkpoint.safetensors"

    @property
    def picture(self) -> Path:
        """The time lines of a validation video."""
        return self.path / "timeline.png"

    @property
    def tensorboard(self) -> Path:
        """A folder."""
        return self.path / "tensorboard"

    @property
    def lock(self) -> Path:
        """Of the process that trains."""
        return self.path / "lock"

    def iteration(self, number: int) -> Path:
        """The folder of an iteration."""
        return self.path / f"iter_{number}"

    def weights(self, iteration: int) -> Path:
        """Of an iteration's model."""
        return self.iteration(iteration) / "model.safetensors"

    def detections(self, iteration: int) -> Path:
        """Of an iteration's model, in the validation videos."""
        return self.iteration(iteration) / "detections.json"


def runs_in(parent: Path, name: str = "*") -> list[Path]:
    """The folders of runs in a folder, sorted; `name` is a pattern of theirs."""
    return sorted(path.parent for path in parent.glob(str(RunFolder(Path(name)).settings))) if parent.is_dir() else []
