"""The refinement loop (RefineLoc, section 3.2): train M_η, label with it, train M_(η+1) from scratch, and so on."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from refineloc.evaluation import evaluate, match_detections
from refineloc.runtime.annotations import Annotations
from refineloc.runtime.errors import ConfigError
from refineloc.training.data.split import Split
from refineloc.training.data.truth import Truth, foreground_of, true_share
from refineloc.training.fit import Labelled, Reporter, TrainingError, fit, scores_of, seed_of
from refineloc.training.losses import class_weights
from refineloc.training.machine.parallel import ALONE, Group
from refineloc.training.models.base_model import BaseModel, build_model
from refineloc.training.pseudo_labels import generate, precision_and_recall, sample
from refineloc.training.run.files import Run, best_iteration, load_weights
from refineloc.training.scoring import detect, predict
from refineloc.training.settings.config import Config

__all__ = ["Reporter", "TrainingError", "refine", "settled"]

Labels = npt.NDArray[np.int64]
_UNKNOWN = Truth()


def refine(
    config: Config,
    train: Split,
    val: Split,
    run: Run,
    reporter: Reporter,
    truth: Truth = _UNKNOWN,
    group: Group = ALONE,
) -> None:
    """Train M_0 .. M_(iterations-1) and write them to `run`; finished iterations of a resumed run are read instead.

    Raises:
        ConfigError: settings that need times which are not known (`settled`).
        TrainingError: a loss that is not finite; the iterations before are kept.
        OutputError: a file of the run cannot be written.
        SharedError: one of these, in one of several processes.
    """
    config = settled(config, train, val, truth)
    precision = config.training.precision
    # 1. M_0 has video labels only.
    train_pseudo: Labels | None = None
    val_pseudo: Labels | None = None
    for iteration in range(config.training.iterations):
        if iteration < len(run.records):
            record = run.records[iteration]
            model = build_model(config.model, train.width, len(train.classes)).to(train.device)
            group.agree(partial(load_weights, run.iteration_folder(iteration) / "model.safetensors", model))
        else:
            # 2. A fresh network learns the video labels, and the pseudo labels that its predecessor gave.
            labels = {"train": train_pseudo, "val": val_pseudo}
            model, record = fit(
                config,
                _sampled(config, train, train_pseudo, iteration, 0),
                _sampled(config, val, val_pseudo, iteration, 1),
                iteration,
                run,
                reporter,
                truth.val,
                group,
            )
            record["pseudo_labels"] = _describe(labels, {"train": train, "val": val}, truth)
            # 3. Its detections are what the run is for; they need seconds, so every video's fps.
            detections = detect(config, val, predict(model, val, precision, group))
            if detections is not None and truth.val is not None:
                record |= scores_of(evaluate(match_detections(detections, truth.val)))
            group.agree(partial(run.add_iteration, record, model, detections))
        group.agree(partial(reporter.iteration, record))
        if iteration + 1 == config.training.iterations or _stops(config, run.records[: iteration + 1]):
            break
        # 4. Its scores become the pseudo labels of the next.
        train_pseudo = _label(config, model, train, iteration, 0, reporter, truth.train, group)
        val_pseudo = _label(config, model, val, iteration, 1, reporter, truth.val, group)


def _label(
    config: Config,
    model: BaseModel,
    split: Split,
    iteration: int,
    which: int,
    reporter: Reporter,
    annotations: Annotations | None,
    group: Group,
) -> Labels:
    lengths = split.lengths.numpy()
    true = foreground_of(split, annotations) if config.pseudo.generator == "oracle" else None
    rng = np.random.default_rng(seed_of(config, iteration, 4 + which))
    scores = predict(model, split, config.training.precision, group)
    made = generate(config.pseudo, config.detection, scores, lengths, rng, true)
    if made.warning:
        reporter.warning(f"iteration {iteration}, {('training', 'validation')[which]} videos: {made.warning}")
    return made.labels


def _sampled(config: Config, split: Split, labels: Labels | None, iteration: int, which: int) -> Labelled:
    """The pseudo labels that an iteration sees: a share of each video's snippets, drawn anew (S of section 3.2)."""
    if labels is None:
        return Labelled(split, None, torch.ones(2, device=split.device))
    weights = class_weights(torch.from_numpy(labels), config.pseudo.weighted).to(split.device)
    rng = np.random.default_rng(seed_of(config, iteration, 6 + which))
    kept = sample(labels, split.lengths.numpy(), config.pseudo.sampled, rng)
    return Labelled(split, torch.from_numpy(kept), weights)


def _describe(labels: Mapping[str, Labels | None], splits: Mapping[str, Split], truth: Truth) -> dict[str, Any] | None:
    """Of the pseudo labels an iteration was trained with: share of foreground, precision and recall where known."""
    out: dict[str, Any] = {}
    for name, annotations in (("train", truth.train), ("val", truth.val)):
        pseudo, split = labels[name], splits[name]
        if pseudo is None:
            return None
        out[name] = {"foreground": float((pseudo == 1).mean())}
        true = foreground_of(split, annotations)
        if true is not None:
            out[name]["precision"], out[name]["recall"] = precision_and_recall(pseudo, true)
    return out


def settled(config: Config, train: Split, val: Split, truth: Truth) -> Config:
    """The settings with what the data alone can tell: the true share of foreground, for the generator that has it.

    Raises:
        ConfigError: a generator or a rule that needs times which are not known; better before hours than after.
    """
    pseudo = config.pseudo
    if pseudo.generator == "oracle":
        for split, times in ((train, truth.train), (val, truth.val)):
            if foreground_of(split, times) is None:
                raise ConfigError(
                    f"pseudo.generator: oracle needs times and fps of every video, and those of {split.source} are not "
                    "all known"
                )
    if config.training.stop_after and config.training.stop_by == "mAP" and (truth.val is None or None in val.grids):
        raise ConfigError(
            "training.stop_by: mAP needs times in the validation labels and every video's fps; "
            "--set training.stop_by=loss, or --set training.stop_after=0 for all iterations"
        )
    if pseudo.generator != "distribution-aware" or pseudo.foreground_share is not None:
        return config
    share = true_share(train, truth.train)
    if share is None:
        raise ConfigError(
            "pseudo.generator: distribution-aware takes the share of foreground from the times of the training videos, "
            "which are not all known; give --set pseudo.foreground_share=SHARE"
        )
    known = pseudo.model_copy(update={"foreground_share": share})
    return config.model_copy(update={"pseudo": known})


def _stops(config: Config, records: list[dict[str, Any]]) -> bool:
    """Early stop of refinement: after so many iterations without a better one."""
    settings = config.training
    return 0 < settings.stop_after <= len(records) - 1 - best_iteration(records, settings.stop_by)
