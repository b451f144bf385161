"""The authors' released checkpoint is read right, and a hostile or damaged one is refused before it does anything."""

import _codecs
import io
import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from twins.forward import Forward, forward

from refineloc.export.checkpoints import read_checkpoint, read_class_names
from refineloc.export.graph import build_graph
from refineloc.runtime.errors import ModelError

NAME = "thumos14_tsn_best_refinement_state.ckpt"


@pytest.fixture
def released(shared_data: Path) -> Path:
    path = shared_data / "refineloc-release" / NAME
    if not path.exists():
        pytest.skip(f"not here: {path}")
    return path


def synthetic(**changes: Any) -> dict[str, Any]:
    """A small checkpoint of their form: 2 layers, width 8, 3 classes, two-value attention."""
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    model = {}
    for branch, outputs in (("fc_cas", 3), ("fc_attention", 2)):
        for layer, (wide, out) in enumerate(((8, 4), (4, outputs))):
            model[f"{branch}.linear_{layer}.weight"] = numbers(out, wide)
            model[f"{branch}.linear_{layer}.bias"] = numbers(out)
    config = {
        "snippet_size": 16,
        "stream": 2,
        "num_layers": 2,
        "pseudo_gt_loss_dim": 2,
        "num_classes": np.int64(3),
        "input_size": 8,
        "top_k_labels": 2,
        "padding": 2,
        "min_cas_score": np.float64(0.1),
        "min_attention_score": 0.75,
    }
    return {
        "model": {**model, **changes.pop("model", {})},
        "config": {**config, **changes.pop("config", {})},
        **changes,
    }


def write(path: Path, document: Any, legacy: bool = False) -> Path:
    # NumPy 1 pickled its scalars under this name; the released file has it.
    buffer = io.BytesIO()
    torch.save(document, buffer, _use_new_zipfile_serialization=not legacy)
    content = buffer.getvalue()
    if legacy:
        content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    path.write_bytes(content)
    return path


def test_the_released_checkpoint(released: Path) -> None:
    checkpoint = read_checkpoint(released)
    assert (checkpoint.width, checkpoint.classes) == (1024, 20)
    assert (checkpoint.model.layers, checkpoint.model.attention_values) == (1, 1)
    assert checkpoint.iteration == 4  # the paper's best of THUMOS14 TSN
    assert checkpoint.config == {
        "snippet_frames": 15,
        "stream": "temporal",
        "top_k": 2,
        "widen": 2,
        "alpha_a": 0.5,
        "alpha_c": 0.02,
    }


def test_the_released_checkpoint_in_onnx_equals_float64(released: Path) -> None:
    checkpoint = read_checkpoint(released)
    scalar = (np.float64().__reduce__()[0], "numpy.core.multiarray.scalar")
    allowed = [scalar, np.dtype, np.dtypes.Float64DType, np.dtypes.Int64DType, _codecs.encode]
    with torch.serialization.safe_globals(allowed):
        state = torch.load(released, map_location="cpu", weights_only=True)["model"]
    layers = [
        [(state[f"{branch}.linear_0.weight"].numpy(), state[f"{branch}.linear_0.bias"].numpy())]
        for branch in ("fc_cas", "fc_attention")
    ]
    session = onnxruntime.InferenceSession(build_graph(checkpoint.model, 1024).SerializeToString())
    for lengths in ([1], [2, 0, 3], [300, 1, 41], [5000]):
        features = np.random.default_rng(0).exponential(0.5, (sum(lengths), 1024)).astype(np.float32)
        got = session.run(list(Forward._fields), {"features": features, "lengths": np.array(lengths)})
        expected = forward(*layers, features, lengths)
        assert np.ptp(expected.foreground) > 0.05 or sum(lengths) < 10
        for name, scores, hand_scores in zip(Forward._fields, got, expected, strict=True):
            np.testing.assert_allclose(scores, hand_scores, atol=1e-5, rtol=0, err_msg=f"{name} {lengths}")


@pytest.mark.parametrize("legacy", [True, False], ids=["torch-2019", "torch-today"])
def test_a_two_value_checkpoint_of_two_layers(tmp_path: Path, legacy: bool) -> None:
    # With NumPy 2 in today's form the scalars have another name, which the released files do not.
    document = synthetic() if legacy else synthetic(config={"num_classes": 3, "min_cas_score": 0.1})
    checkpoint = read_checkpoint(write(tmp_path / "a.ckpt", document, legacy))
    assert (checkpoint.width, checkpoint.classes) == (8, 3)
    assert (checkpoint.model.layers, checkpoint.model.attention_values) == (2, 2)
    assert checkpoint.config["stream"] == "both"
    assert checkpoint.config["alpha_a"] == 0.25
    assert checkpoint.iteration == 0
    assert torch.equal(checkpoint.model.classifier[2].weight, document["model"]["fc_cas.linear_1.weight"])
    assert torch.equal(checkpoint.model.attention[0].bias, document["model"]["fc_attention.linear_0.bias"])


class Call:
    """A pickle that calls a function when it is read."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("form", ["zip", "legacy", "bare"])
@pytest.mark.parametrize(
    "call", [Call(os.system, "touch called"), Call(subprocess.Popen, ["touch", "called"])], ids=["system", "popen"]
)
def test_a_hostile_pickle_is_refused_and_calls_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, call: Call
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.ckpt"
    document = {**synthetic(), "config": call}
    if form == "bare":
        path.write_bytes(pickle.dumps(document, protocol=2))
    else:
        write(path, document, legacy=form == "legacy")
    with pytest.raises(ModelError) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    if form != "bare":  # there the tensors' own constructor may be met first
        assert "refused" in str(caught.value)
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize("size", [0, 30, 2000, -1])
def test_a_truncated_checkpoint(released: Path, tmp_path: Path, size: int) -> None:
    path = tmp_path / "cut.ckpt"
    path.write_bytes(released.read_bytes()[:size])
    with pytest.raises(ModelError, match="not a PyTorch checkpoint, or cut short"):
        read_checkpoint(path)


def test_changed_bytes_never_end_in_another_error(tmp_path: Path) -> None:
    content = write(tmp_path / "a.ckpt", synthetic(), legacy=True).read_bytes()
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        changed = bytearray(content)
        for place in generator.integers(0, len(content), 4):
            changed[place] = generator.integers(256)
        (tmp_path / "b.ckpt").write_bytes(changed)
        try:
            read_checkpoint(tmp_path / "b.ckpt")
        except ModelError as error:
            assert "\n" not in str(error)  # noqa: PT017 - the type is the point, and most do raise
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([1, 2], "expected a dict"),
        ({"epoch": 3}, "unexpected entry 'epoch'"),
        ({"model": 3}, "no state dict"),
        ({"model": {}}, "layers of fc_cas are not complete"),
        (synthetic(model={"fc_cas.linear_2.weight": torch.zeros(3, 3)}), "layers of fc_cas are not complete"),
        (synthetic(model={"head.weight": torch.zeros(3, 3)}), "unexpected entry 'head.weight'"),
        (synthetic(model={"fc_cas.linear_0.weight": torch.zeros(5, 8)}), "expected shape"),
        (synthetic(model={"fc_cas.linear_0.weight": torch.zeros(4)}), r"expected weights \[out, in\]"),
        (synthetic(model={"fc_cas.linear_0.weight": torch.full((4, 8), torch.nan)}), "finite"),
        (synthetic(model={"fc_attention.linear_1.weight": torch.zeros(3, 4)}), "1 or 2 values"),
        (synthetic(config={"num_layers": 1}), "num_layers = 1"),
        (synthetic(config={"input_size": 9}), "input_size = 9"),
        (synthetic(config={"stream": 7}), "stream"),
        (synthetic(config={"top_k_labels": "two"}), "top_k_labels"),
        (synthetic(config={"num_classes": torch.zeros(2)}), "num_classes"),
        ({**synthetic(), "config": [1]}, "'config' is no dict"),
    ],
)
def test_what_is_no_such_checkpoint_is_said(tmp_path: Path, document: Any, message: str) -> None:
    path = write(tmp_path / "odd.ckpt", document, legacy=True)
    with pytest.raises(ModelError, match=message) as caught:
        read_checkpoint(path)
    assert str(caught.value).startswith(str(path))


def test_a_lie_about_the_width_allocates_nothing(tmp_path: Path) -> None:
    # Two layers of width 2^22 would take 35 TB; the file has 16 MiB.
    lie = {"fc_cas.linear_0.weight": torch.zeros(1, 2**22), "fc_cas.linear_0.bias": torch.zeros(1)}
    with pytest.raises(ModelError, match="expected shape"):
        read_checkpoint(write(tmp_path / "lie.ckpt", synthetic(model=lie, config={"input_size": 2**22}), legacy=True))


def test_a_missing_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        read_checkpoint(tmp_path / "none.ckpt")
    with pytest.raises(ModelError, match="cannot be read"):
        read_checkpoint(tmp_path)


def test_class_names_of_the_released_files(shared_data: Path) -> None:
    names = read_class_names(shared_data / "refineloc-release" / "thumos14_test_groundtruth.csv", 20)
    assert names == tuple(str(number) for number in range(20))  # by number: as text, "10" would be before "2"


def test_class_names(tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_text("run\n\n  jump \n", encoding="utf-8")
    assert read_class_names(file, 2) == ("run", "jump")  # the file's order
    with pytest.raises(ModelError, match="expected 20 classes, as many as the checkpoint has, got 2"):
        read_class_names(file, 20)
    file.write_text("run\nrun\n", encoding="utf-8")
    with pytest.raises(ModelError, match=r"classes\.txt: line 2: 'run' is in line 1 too; each name once"):
        read_class_names(file, 2)
    with pytest.raises(ModelError, match="no such file"):
        read_class_names(tmp_path / "none.txt", 2)
    table = tmp_path / "labels.csv"
    table.write_text("video-name,label\nv1,run\nv2,jump\nv3,10\n", encoding="utf-8")
    assert read_class_names(table, 3) == ("10", "jump", "run")
