"""The settings of the base models, one base model a file. Nothing here imports torch.

A file has `Options`, the settings under [model.options], and `DEFAULTS`, the other settings that the base model
changes. The network is in the file of the same name in training/models/bases/ (docs/explanation/base-models.md).
"""

import pkgutil

__all__ = ["base_names"]


def base_names() -> tuple[str, ...]:
    """The names of all base models."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))
