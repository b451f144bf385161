"""The whole of two iterations against float64 code written from docs/explanation/method.md, a video at a time."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import small_data
import torch
from safetensors.torch import load_file

from refineloc.training.fit import seed_of
from refineloc.training.models.base_model import build_model
from refineloc.training.settings.config import resolve

BETA, SHARE, RATE, EPOCHS, BATCH = 3.0, 0.8, 0.02, 12, 5
FOREGROUND, CLASS = 0.45, 0.4
Features = dict[str, torch.Tensor]
Labels = dict[str, npt.NDArray[np.int64]]


def read(data: Path, split: str) -> tuple[Features, dict[str, int]]:
    with (data / f"{split}.csv").open() as file:
        labels = {row["video-name"]: ("dive", "jump", "run").index(row["label"]) for row in csv.DictReader(file)}
    with h5py.File(data / f"{split}.h5") as file:
        return {name: torch.tensor(file[name][:], dtype=torch.float64) for name in sorted(file)}, labels


def scores(model: Any, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """C̄, Ā^bf_fg and ŷ of one video."""
    class_logits, attention_logits, _ = model(features, torch.tensor([len(features)]))
    classes, foreground = torch.softmax(class_logits, 1), torch.softmax(attention_logits, 1)[:, 1]
    return classes, foreground, torch.softmax(foreground, 0) @ classes


def loss_of(model: Any, features: torch.Tensor, label: int, pseudo: Any, weights: list[float]) -> torch.Tensor:
    _, foreground, video = scores(model, features)
    loss = -torch.log(video[label])
    if pseudo is None:
        return loss
    terms = [
        (weights[kind], -torch.log(foreground[t] if kind else 1 - foreground[t]))
        for t, kind in enumerate(pseudo.tolist())
        if kind >= 0
    ]
    total = sum(weight for weight, _ in terms)
    return loss + BETA * sum(weight * term for weight, term in terms) / total if total else loss


def pseudo_labels(model: Any, videos: Features) -> Labels:
    """Inside a segment: runs of kept snippets, over gaps of one, of the two best classes."""
    out = {}
    for name, features in videos.items():
        with torch.no_grad():
            classes, foreground, video = scores(model, features)
        labels = np.zeros(len(features), np.int64)
        for label in torch.argsort(-video, stable=True)[:2].tolist():
            kept = [t for t in range(len(labels)) if foreground[t] >= FOREGROUND and classes[t, label] >= CLASS]
            for first, second in zip(kept, [*kept[1:], math.inf], strict=False):
                labels[first : (int(second) if second - first <= 2 else first) + 1] = 1
        out[name] = labels
    return out


def sampled(labels: Labels, seed: int) -> Labels:
    rng = np.random.default_rng(seed)
    draws = np.split(rng.random(sum(map(len, labels.values()))), np.cumsum([len(one) for one in labels.values()])[:-1])
    out = {}
    for (name, own), drawn in zip(labels.items(), draws, strict=True):
        out[name] = np.full(len(own), -1)
        kept = np.argsort(drawn, kind="stable")[: round(SHARE * len(own))]
        out[name][kept] = own[kept]
    return out


@pytest.mark.parametrize("weighted", [True, False])
def test_training_is_what_the_equations_say(weighted: bool, data: Path, tmp_path: Path) -> None:
    layer: dict[str, Any] = {
        "pseudo": {
            "beta": BETA, "sampled": SHARE, "weighted": weighted, "foreground": FOREGROUND, "class_activation": CLASS,
        },
        "training": {"iterations": 2, "epochs": EPOCHS, "batch_videos": BATCH, "learning_rate": RATE},
    }  # fmt: skip
    config = resolve(layer)
    run = small_data.train(data, tmp_path / "run", config, truth=False)
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    (train, labels), (val, val_labels) = read(data, "train"), read(data, "val")
    taught: list[Any] = [None, None]
    for iteration in range(2):
        torch.manual_seed(seed_of(config, iteration, 2))
        model: Any = build_model(config.model, 16, 3).double()
        shuffle = torch.Generator().manual_seed(seed_of(config, iteration, 3))
        optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
        seen: list[Any] = [
            own and sampled(own, seed_of(config, iteration, 6 + which)) for which, own in enumerate(taught)
        ]
        weights = []
        for own in taught:
            share = float((np.concatenate(list(own.values())) == 0).mean()) if own else 0.5
            weights.append([1 - share, share] if weighted else [1.0, 1.0])
        names, best, plateau, bad, rate = list(train), math.inf, math.inf, 0, RATE
        for epoch in range(EPOCHS):
            line = lines[iteration * EPOCHS + epoch]
            assert line["learning_rate"] == pytest.approx(rate, rel=1e-9)
            for batch in torch.split(torch.randperm(len(names), generator=shuffle), BATCH):
                optimizer.zero_grad()
                own_names = [names[index] for index in batch.tolist()]
                losses = [
                    loss_of(model, train[name], labels[name], seen[0] and seen[0][name], weights[0])
                    for name in own_names
                ]
                torch.stack(losses).mean().backward()
                optimizer.step()
            with torch.no_grad():
                loss = float(
                    sum(loss_of(model, val[n], val_labels[n], seen[1] and seen[1][n], weights[1]) for n in val)
                ) / len(val)
            assert line["validation_loss"] == pytest.approx(loss, abs=2e-4)
            if loss < best:
                best, kept = loss, {name: one.clone() for name, one in model.state_dict().items()}
            if loss < plateau * (1 - 1e-4):
                plateau, bad = loss, 0
            elif (bad := bad + 1) > 1:
                rate, bad = 0.9 * rate, 0
                optimizer.param_groups[0]["lr"] = rate
        ours = load_file(run.files.weights(iteration))
        for name, tensor in kept.items():
            torch.testing.assert_close(ours[name].double(), tensor, atol=2e-3, rtol=0)
        # The next is taught by the weights that were kept, in float32: a score at a threshold may fall on either side.
        model.load_state_dict({name: tensor.double() for name, tensor in ours.items()})
        if not iteration:
            taught = [pseudo_labels(model, train), pseudo_labels(model, val)]
    share = float(np.concatenate(list(taught[0].values())).mean())
    assert run.records[1]["pseudo_labels"]["train"]["foreground"] == pytest.approx(share, abs=1e-9)
    assert 0.1 < share < 0.9, "labels of one kind show nothing"
