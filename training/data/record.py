"""What a run records of its data, so that it never goes on with others."""

from dataclasses import dataclass

__all__ = ["DataRecord"]


@dataclass(frozen=True, slots=True)
class DataRecord:
    """What a run was trained on: goes into config.toml under [data].

    Attributes:
        train_features, train_labels, val_features, val_labels: paths as given; "" of what was in memory.
        classes: names, in the order of the outputs.
        width: D, after the choice of a stream.
        backbone: of the training features, "" if not known.
        fps: given for videos that do not state it; 0 where none was.
        subset, val_subset: of the label files; "" where all of their videos were taken.
        val_share, val_seed: how validation videos were held out of the training files; split.json of the run has which.
        train_digest, val_digest: of the videos' names, lengths and labels (`Split.digest`), so that a run never goes on
            with others.
    """

    train_features: str
    train_labels: str
    val_features: str
    val_labels: str
    classes: tuple[str, ...]
    width: int
    backbone: str = ""
    fps: float = 0.0
    subset: str = ""
    val_subset: str = ""
    val_share: float = 0.0
    val_seed: int = 0
    train_digest: str = ""
    val_digest: str = ""
