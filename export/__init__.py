"""Export: a trained iteration as one ONNX file, compared with the trained model. Needs the train extra.

    from refineloc.export import export

    export(run, "model.onnx")  # what refineloc.training.train gave
    write_card("model.onnx")  # README.md beside it

Names load on first use, so that naming this package does not load torch. A card needs the runtime alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refineloc.export.card import model_card, write_card
    from refineloc.export.hub import push_to_hub
    from refineloc.export.library import export

__all__ = ["export", "model_card", "push_to_hub", "write_card"]

_HOME_OF = {"export": "library", "model_card": "card", "write_card": "card", "push_to_hub": "hub"}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        home = import_module(f"{__name__}.{_HOME_OF[name]}")
    except ImportError as error:
        from refineloc.runtime.errors import MissingExtraError

        raise MissingExtraError(
            f"export needs the train extra: pip install 'refineloc[train,cpu]' ({error})"
        ) from error
    return getattr(home, name)


def __dir__() -> list[str]:
    return __all__
