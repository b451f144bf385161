"""The settings of base models, one a file, named as `--base` names it; nothing here imports torch.

A file has `Options`, the settings under [model.options], and `DEFAULTS`, what the base model changes of the other
settings. The network is the file of the same name in training/models/bases/ (docs/base-models.md).
"""
