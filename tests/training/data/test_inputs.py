"""The data of a run as the files or pipes give it."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from small_data import files

from refineloc.training.data.inputs import read_inputs
from refineloc.training.settings.config import resolve


def test_labels_may_come_from_a_pipe(data: Path) -> None:
    """Which has them once: for training and, with their times, for the scores."""
    os.mkfifo(data / "pipe")
    with ThreadPoolExecutor() as pool:
        pool.submit((data / "pipe").write_bytes, (data / "train.csv").read_bytes())
        inputs = read_inputs(replace(files(data), labels=data / "pipe"), resolve({}), 2**30)
    assert inputs.train.classes == ("dive", "jump", "run")
    assert inputs.truth.train is not None
    assert len(inputs.truth.train) == 12
