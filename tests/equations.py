"""What several base models share, in float64 NumPy and for one video, for tests that compute losses by hand."""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from refineloc.training.models.base_model import BaseModel, build_model
from refineloc.training.settings.config import resolve

F64 = npt.NDArray[np.float64]


def fresh(
    base: str, width: int, classes: int, options: Mapping[str, object] | None = None
) -> tuple[BaseModel, "Layers"]:
    """A float64 network in training without dropout, with weights far from 0, and its weights as arrays."""
    torch.manual_seed(5)
    model = build_model(resolve({"model": {"base": base, "options": options or {}}}).model, width, classes).double()
    with torch.no_grad():  # torch's initial weights give nearly equal scores for all classes
        for parameter in model.parameters():
            parameter.mul_(3.0)
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.eval()
    return model, Layers({name: tensor.detach().numpy() for name, tensor in model.state_dict().items()})


class Layers:
    """A network's weights, and its layers as functions of one video's snippets [T, D]."""

    def __init__(self, weights: Mapping[str, F64]) -> None:
        self.weights = weights

    def linear(self, name: str, values: F64) -> F64:
        out: F64 = values @ self.weights[f"{name}.weight"].T + self.weights.get(f"{name}.bias", np.zeros(()))
        return out

    def conv(self, name: str, values: F64) -> F64:
        padded = np.pad(values, ((1, 1), (0, 0)))
        return self.linear(f"{name}.product", np.concatenate([padded[:-2], values, padded[2:]], axis=1))


def videos_of(values: F64, lengths: Sequence[int]) -> list[F64]:
    return [values[first:end] for first, end in itertools.pairwise(np.cumsum([0, *lengths]).tolist())]


def relu(values: F64) -> F64:
    return np.maximum(values, 0)


def leaky(values: F64, slope: float) -> F64:
    return np.where(values > 0, values, slope * values)


def sigmoid(values: F64) -> F64:
    return 1 / (1 + np.exp(-values))


def softmax(values: F64, axis: int) -> F64:
    grown = np.exp(values - values.max(axis=axis, keepdims=True))
    return grown / grown.sum(axis=axis, keepdims=True)


def top_mean(logits: F64, one_of: int) -> F64:
    top: F64 = np.sort(logits, axis=0)[::-1][: math.ceil(len(logits) / one_of)].mean(axis=0)
    return top


def cross_entropy(logits: F64, wanted: Sequence[float]) -> float:
    return -float(np.asarray(wanted) @ np.log(softmax(logits, 0)))


def cosine(first: F64, second: F64) -> float:
    return float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))
