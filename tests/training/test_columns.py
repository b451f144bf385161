"""Which columns of the features are used is said, and warned of where they may not be a stream."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from small_data import files

from refineloc.runtime.features.streams import described_columns
from refineloc.training.data.inputs import read_inputs
from refineloc.training.run.files import Run
from refineloc.training.settings.config import resolve
from refineloc.training.train_run import _tell


def test_columns_in_words() -> None:
    assert described_columns(2048, slice(1024, 2048), "spatial") == "spatial half, columns 1024 to 2047 of 2048"
    assert described_columns(1024, slice(0, 1024), "temporal") == "temporal stream, all 1,024 columns"
    assert described_columns(2048, slice(0, 2048), "both") == ""


@pytest.mark.parametrize(
    ("settings", "width", "line", "warned"),
    [
        ({"preset": "release-thumos14-i3d"}, 16, "x 8 (spatial half, columns 8 to 15 of 16), 3 classes", True),
        ({"preset": "release-thumos14-tsn"}, 16, "x 8 (temporal half, columns 0 to 7 of 16), 3 classes", True),
        ({"preset": "release-thumos14-i3d"}, 2048, "x 1024 (spatial half, columns 1024 to 2047 of 2048)", False),
        ({"features": {"stream": "spatial"}}, 16, "x 8 (spatial half, columns 8 to 15 of 16), 3 classes", False),
        ({"preset": "auto"}, 16, "x 16, 3 classes", False),
    ],
)
def test_training_begins_with_the_columns(
    data: Path, settings: dict[str, object], width: int, line: str, warned: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "val") if width != 16 else ():
        with h5py.File(data / f"{split}.h5", "a") as file:
            for name in list(file):
                wide = np.tile(file[name][:], width // 16)
                del file[name]
                file[name] = wide
    config = resolve(settings)
    inputs = read_inputs(files(data), config, 2**30)
    _tell(Run(data / "run", config, inputs.record), inputs, torch.device("cpu"))
    said = capsys.readouterr().err
    assert line in said
    assert ("warning" in said) == warned
    if warned:
        assert f"width {width} are not known to hold two streams, of which the preset {settings['preset']}" in said
        assert "features.stream=both" in said


def test_a_folder_of_two_streams_is_known_to_hold_them(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = files(data)
    for split in ("train", "val"):
        with h5py.File(data / f"{split}.h5") as file:
            for stream, columns in (("flow", slice(0, 8)), ("rgb", slice(8, 16))):
                (data / split / stream).mkdir(parents=True)
                for name in file:
                    np.save(data / split / stream / f"{name}.npy", file[name][:, columns])
    config = resolve({"preset": "release-thumos14-i3d"})
    folders = type(given)(data / "train", given.labels, data / "val", given.val_labels)
    inputs = read_inputs(folders, config, 2**30)
    _tell(Run(data / "run", config, inputs.record), inputs, torch.device("cpu"))
    said = capsys.readouterr().err
    assert "spatial half, columns 8 to 15 of 16" in said
    assert "warning" not in said
