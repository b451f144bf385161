"""A run with fresh weights, for what reads the folder of one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np
import torch

from refineloc.training.data.record import DataRecord
from refineloc.training.models.ensemble import build_models
from refineloc.training.run.files import Run
from refineloc.training.settings.config import resolve

CLASSES = ("jump", "run", "swim")
ROWS = "video-name,t-start,t-end,label,video-duration,fps,video-num-frames\n"


def make_run(
    folder: Path,
    iterations: int = 2,
    models: int = 1,
    orders: Sequence[float] = (),
    settings: Mapping[str, Any] = MappingProxyType({}),
    **further: Any,
) -> None:
    """A run with fresh weights, and its validation files beside it; of several models the second has the least loss."""
    parent = folder.parent
    parent.mkdir(exist_ok=True)
    generator = np.random.default_rng(0)
    with h5py.File(parent / "val.h5", "w") as file:
        for index in range(4):
            file[f"v{index}"] = generator.exponential(2.0, (60, 16)).astype(np.float32)
            file[f"v{index}"].attrs["fps"] = 16.0
    rows = "".join(f"v{index},{index},{10 + index},{CLASSES[index % 3]},60,16,960\n" for index in range(4))
    (parent / "val.csv").write_text(ROWS + rows)
    training = {"training": {"iterations": iterations, "models": models}}
    config = resolve({"detection": {"alpha_c": 0.3}, **settings}, training)
    data = DataRecord("train.h5", "train.csv", str(parent / "val.h5"), str(parent / "val.csv"), CLASSES, 16, "ab12")
    run = Run(folder, config, data)
    run.begin()
    for iteration in range(iterations):
        torch.manual_seed(iteration)
        members = [{"member": k, "validation_loss": (k - 1.0) ** 2, "best_epoch": 0} for k in range(models)]
        record = {"iteration": iteration, "validation_loss": 1.0, "best_epoch": 0, "members": members, **further}
        if orders:
            record["attention_order"] = orders[iteration]
        run.add_iteration(record, build_models(config, 16, 3), None)
