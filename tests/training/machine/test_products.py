"""Products by oneDNN, where torch's own are slow: the same network."""

import pytest
import torch
from torch import Tensor

from refineloc.training.machine import products
from refineloc.training.models.base_model import Outputs
from refineloc.training.models.bases.refineloc import RefineLoc

WIDTH = 256  # the narrowest that oneDNN takes

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> RefineLoc:
    monkeypatch.setattr(products, "_mkl_is_slow", lambda: True)
    torch.manual_seed(0)
    return RefineLoc(WIDTH, 3, layers=3)


def gradients(model: RefineLoc, features: Tensor) -> tuple[Outputs, list[Tensor]]:
    outputs = model(features, torch.tensor([len(features)]))
    model.zero_grad()
    (outputs.class_logits.square().sum() + outputs.attention_logits.square().sum()).backward()
    return outputs, [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def test_outputs_and_gradients_are_those_of_torchs_own_products(
    model: RefineLoc, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = torch.randn(50, WIDTH)
    assert products.for_products(features).layout == torch._mkldnn
    outputs, found = gradients(model, features)
    monkeypatch.setattr(products, "_mkl_is_slow", lambda: False)
    assert products.for_products(features) is features
    expected, wanted = gradients(model, features)
    assert len(found) == len(wanted) == 12
    torch.testing.assert_close([*outputs[:2], *found], [*expected[:2], *wanted], atol=1e-4, rtol=1e-4)
    assert outputs.class_logits.layout == torch.strided


def test_runs_without_gradients(model: RefineLoc) -> None:
    features = torch.randn(50, WIDTH)
    with torch.inference_mode():
        outputs = model(features, torch.tensor([50]))
    torch.testing.assert_close(outputs.class_logits, gradients(model, features)[0].class_logits)


def test_other_arithmetic_no_snippets_and_narrow_features_are_left_to_torch(model: RefineLoc) -> None:
    for features in (torch.randn(5, WIDTH).bfloat16(), torch.randn(0, WIDTH), torch.randn(5, WIDTH - 1)):
        assert products.for_products(features) is features
    features = torch.randn(5, WIDTH)
    with torch.autocast("cpu", torch.bfloat16):
        assert products.for_products(features) is features
        assert model(features, torch.tensor([5])).class_logits.dtype == torch.bfloat16
