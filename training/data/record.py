"""What a run records of its data, so that it never goes on with others."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refineloc.runtime.errors import ConfigError

__all__ = ["DataRecord"]


@dataclass(frozen=True, slots=True)
class DataRecord:
    """What a run was trained on: goes into config.toml under [data].

    Attributes:
        train_features, train_labels, val_features, val_labels: paths as given.
        classes: names, in the order of the outputs.
        width: D, after the choice of a stream.
        fps: given for videos that do not state it; 0 where none was.
        train_digest, val_digest: of the videos' names, lengths and labels (`Split.digest`), so that a run never goes on
            with others.
    """

    train_features: str
    train_labels: str
    val_features: str
    val_labels: str
    classes: tuple[str, ...]
    width: int
    fps: float = 0.0
    train_digest: str = ""
    val_digest: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Its form in TOML."""
        return {name: getattr(self, name) for name in self.__slots__} | {"classes": list(self.classes)}

    def refuse_other(self, folder: Path, before: Mapping[str, Any]) -> None:
        """Refuse to go on with a run that was begun with other data, however its files are called.

        Raises:
            ConfigError: other videos, lengths or labels than `before`, a run's [data], states.
        """
        for split in ("train", "val"):
            if before.get(f"{split}_digest") != getattr(self, f"{split}_digest"):
                raise ConfigError(
                    f"{folder}: was begun with other data: {getattr(self, f'{split}_features')} and "
                    f"{getattr(self, f'{split}_labels')} had other videos, lengths or labels then; resume with the "
                    "same, or begin another run",
                    parameter="folder",
                )
