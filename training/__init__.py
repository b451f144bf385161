"""Training: the paper's method, from features and video-level labels to a run with one model for each iteration.

    from refineloc.training import train

    run = train(features, labels, val_features, val_labels)

The way of the data: config, presets -> data -> bases -> losses -> refine (the loop) -> pseudo_labels -> run.
Names load on first use, so that `refineloc-synth` works without torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refineloc.training.library import train
    from refineloc.training.run.trained import TrainedIteration, TrainedRun

__all__ = ["TrainedIteration", "TrainedRun", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from refineloc.training import library
        from refineloc.training.run import trained
    except ImportError as error:
        from refineloc.runtime.errors import MissingExtraError

        raise MissingExtraError(f"training needs the train extra: pip install 'refineloc[train]' ({error})") from error
    return getattr(library if name == "train" else trained, name)


def __dir__() -> list[str]:
    return __all__
