"""The true times, where they are known: for the scores that are shown and for references, never trained on."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from refineloc.runtime.annotations import Annotations
from refineloc.runtime.errors import ConfigError
from refineloc.training.data.split import Split
from refineloc.training.settings.config import Config
from refineloc.training.settings.own_files import is_own, own_file

__all__ = ["Truth", "settled", "true_foreground", "true_share", "with_snippet_frames"]


@dataclass(frozen=True, slots=True)
class Truth:
    """Annotations with times: for evaluation and the oracle only, nothing is trained with them.

    Attributes:
        train, val: of the splits, None where no times are known.
    """

    train: Annotations | None = None
    val: Annotations | None = None


def true_foreground(split: Split, annotations: Annotations | None) -> npt.NDArray[np.bool_] | None:
    """Which snippets of a split lie in an action.

    Args:
        split: of S snippets.
        annotations: of its videos, with times; None where there are none.

    Returns:
        bool [S]; None where the times or the fps of a video are not known.
    """
    if annotations is None:
        return None
    masks = []
    for name, grid, length in zip(split.names, split.grids, split.lengths.tolist(), strict=True):
        video = annotations[name]
        if grid is None or (video.labels and not len(video.start)):
            return None
        masks.append(grid.foreground(video.start, video.end, length))
    return np.concatenate(masks)


def true_share(split: Split, annotations: Annotations | None) -> float | None:
    """The true share of foreground; None where the times or the fps of a video are not known."""
    foreground = true_foreground(split, annotations)
    return None if foreground is None else float(foreground.mean())


def with_snippet_frames(config: Config, train: Split) -> Config:
    """The settings with the snippet length of the training features, and with their stride where it is another."""
    frames, stride = train.snippet_frames, train.stride_frames
    update = {"snippet_frames": frames, "stride_frames": None if stride == frames else stride}
    features = config.features.model_copy(update=update)
    return config.model_copy(update={"features": features})


def settled(config: Config, train: Split, val: Split, truth: Truth) -> Config:
    """The settings with what only the data can tell: frames a snippet, and the share of foreground where it is used.

    Args:
        config: as the user gave it.
        train, val: the splits.
        truth: their times.

    Raises:
        ConfigError: a generator or a rule needs times that are not known. Call this before training, not hours later.
    """
    config = with_snippet_frames(config, train)
    pseudo = config.pseudo
    if is_own(pseudo.generator):
        own_file(pseudo.generator, "generator")
    if pseudo.generator == "oracle":
        for split, annotations in ((train, truth.train), (val, truth.val)):
            if true_foreground(split, annotations) is None:
                raise ConfigError(
                    f"pseudo.generator: oracle needs times and fps of every video, and those of {split.source} are not "
                    "all known"
                )
    if config.training.stop_after and config.training.stop_by == "mAP" and (truth.val is None or None in val.grids):
        raise ConfigError(
            "training.stop_by: mAP needs times in the validation labels and every video's fps; set training.stop_by to "
            "loss, or training.stop_after to 0 for all iterations",
            parameter="setting",
        )
    if pseudo.generator != "distribution-aware" or pseudo.foreground_share is not None:
        return config
    share = true_share(train, truth.train)
    if share is None:
        raise ConfigError(
            "pseudo.generator: distribution-aware takes the share of foreground from the times of the training videos, "
            "which are not all known; set pseudo.foreground_share",
            parameter="setting",
        )
    known = pseudo.model_copy(update={"foreground_share": share})
    return config.model_copy(update={"pseudo": known})
