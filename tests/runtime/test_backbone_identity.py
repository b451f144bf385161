"""What features were extracted with: stated by their file, kept by the model, and refused where the two differ."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from small_model import WIDTH, metadata_with, write_features, write_model

from refineloc.runtime.detector import Detector
from refineloc.runtime.errors import FeatureError, ModelError
from refineloc.runtime.features.opening import open_features
from refineloc.runtime.model.metadata import ModelMetadata

FEATURES = np.random.default_rng(0).standard_normal((9, WIDTH)).astype(np.float32)


def write(path: Path, **backbones: object) -> Path:
    write_features(path, dict.fromkeys(backbones, FEATURES), fps=25.0)
    with h5py.File(path, "a") as file:
        for name, backbone in backbones.items():
            if backbone is not None:
                file[name].attrs["backbone"] = backbone
    return path


def test_the_attribute_is_any_text(tmp_path: Path) -> None:
    path = write(tmp_path / "f.h5", a="I3D, Kinetics", b=np.bytes_(b"ab12"), c=None, d="")
    for untrusted in (False, True):
        with open_features(path, untrusted=untrusted) as store:
            assert [store.info(name).backbone for name in store.names] == ["I3D, Kinetics", "ab12", "", ""]


@pytest.mark.parametrize("value", [5, [1.0, 2.0], "x" * 201, "a\nb", np.bytes_(b"\xff\n"), h5py.Empty("S1")])
def test_what_is_no_text_is_refused(tmp_path: Path, value: object) -> None:
    with (
        open_features(write(tmp_path / "f.h5", v=value)) as store,
        pytest.raises(FeatureError, match=r"f\.h5: video 'v': attribute 'backbone' is no text of at most 200"),
    ):
        store.info("v")


def test_the_metadata_have_it_where_it_is_known() -> None:
    assert not [key for key in metadata_with().to_props() if key.endswith("backbone")]
    known = metadata_with(backbone="ab12")
    assert known.to_props()["refineloc.backbone"] == "ab12"
    assert ModelMetadata.from_props(known.to_props()) == known
    assert replace(known, backbone="") == metadata_with()


def test_a_detector_refuses_features_of_another(tmp_path: Path) -> None:
    path = write(tmp_path / "f.h5", mine="ab12", other="cd34", unknown=None)
    detector = Detector(write_model(tmp_path / "m.onnx", backbone="ab12"), provider="cpu")
    with open_features(path) as store:
        assert len(list(detector.detect_many(store, names=["mine", "unknown"]))) == 2
        message = r"f\.h5: video 'other': features of the backbone cd34, the model is of ab12; extract them again"
        with pytest.raises(FeatureError, match=message):
            list(detector.detect_many(store))
        any_model = Detector(write_model(tmp_path / "m.onnx"), provider="cpu")
        assert len(list(any_model.detect_many(store))) == 3


def test_several_models_are_of_one(tmp_path: Path) -> None:
    models = [
        write_model(tmp_path / f"{index}.onnx", **({"backbone": backbone} if backbone else {}))
        for index, backbone in enumerate(("", "ab12", "cd34"))
    ]
    assert Detector(models[:2], provider="cpu").metadata.backbone == "ab12"
    with pytest.raises(ModelError, match=r"2\.onnx: learnt from features of the backbone cd34, .*1\.onnx of ab12"):
        Detector(models, provider="cpu")
