"""The backbone of the training features: one for all videos, recorded, and in the exported model."""

from pathlib import Path

import h5py
import pytest
from small_data import files

from refineloc.runtime.errors import FeatureError
from refineloc.training.data.inputs import read_inputs
from refineloc.training.settings.config import resolve


def state(path: Path, *backbones: str) -> None:
    """State the backbones of the first videos."""
    with h5py.File(path, "a") as file:
        for name, backbone in zip(sorted(file), backbones, strict=False):
            file[name].attrs["backbone"] = backbone


def test_the_record_has_the_backbone(data: Path) -> None:
    assert read_inputs(files(data), resolve({}), 2**30).record.backbone == ""
    state(data / "train.h5", "", "ab12", "ab12")  # the others state none
    inputs = read_inputs(files(data), resolve({}), 2**30)
    assert (inputs.record.backbone, inputs.val.backbone) == ("ab12", "")


def test_all_videos_have_the_same(data: Path) -> None:
    state(data / "train.h5", "", "ab12", "cd34")
    message = r"train\.h5: video 'train02': features of the backbone cd34, those of 'train01' are of ab12"
    with pytest.raises(FeatureError, match=message):
        read_inputs(files(data), resolve({}), 2**30)


def test_validation_features_are_of_the_training_s(data: Path) -> None:
    state(data / "train.h5", "ab12")
    state(data / "val.h5", "cd34")
    message = r"val\.h5: features of the backbone cd34, those of .*train\.h5 are of ab12"
    with pytest.raises(FeatureError, match=message):
        read_inputs(files(data), resolve({}), 2**30)
