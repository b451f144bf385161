"""Export: a trained iteration as one ONNX file, compared with the trained model. Needs the train extra.

    from refineloc.export import export

    export(run, "model.onnx")  # what refineloc.training.train gave

`export` loads on first use, so that naming this package does not load torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refineloc.export.library import export

__all__ = ["export"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from refineloc.export import library
    except ImportError as error:
        from refineloc.runtime.errors import MissingExtraError

        raise MissingExtraError(
            f"export needs the train extra: pip install 'refineloc[train,cpu]' ({error})"
        ) from error
    return getattr(library, name)


def __dir__() -> list[str]:
    return __all__
