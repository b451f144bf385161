"""One iteration: a fresh network, trained epoch by epoch (RefineLoc, section 4.1)."""

import copy
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import ReduceLROnPlateau

from refineloc.runtime.annotations import Annotations
from refineloc.runtime.errors import RefineLocError
from refineloc.runtime.evaluation import Evaluation, evaluate
from refineloc.runtime.postprocess import Scores
from refineloc.training.bases.activations import Activations, activations
from refineloc.training.checkpoint import State
from refineloc.training.config import Config
from refineloc.training.data import Batch, Split
from refineloc.training.losses import pseudo_loss, video_loss_paper, video_loss_release
from refineloc.training.parallel import ALONE, Group
from refineloc.training.run import Run, build_model
from refineloc.training.scoring import Gathered, detect, in_chunks, logits

__all__ = ["Labelled", "Reporter", "TrainingError", "fit", "scores_of", "seed_of"]


class TrainingError(RefineLocError, RuntimeError):
    """Training cannot go on; what was finished before is kept."""


class Reporter(Protocol):
    """Who is told how training goes."""

    def epoch(self, record: Mapping[str, Any]) -> None:
        """After each epoch, with its line of metrics.jsonl."""

    def iteration(self, record: Mapping[str, Any]) -> None:
        """After each iteration, with its record."""

    def warning(self, message: str) -> None:
        """Something the user should know."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A split with what an iteration is trained on.

    Attributes:
        split: features and video labels.
        pseudo: pseudo labels, int64 [S], on the CPU; None in iteration 0.
        weights: of background and foreground, float [2], on the split's device.
    """

    split: Split
    pseudo: Tensor | None
    weights: Tensor


def fit(
    config: Config,
    train: Labelled,
    val: Labelled,
    iteration: int,
    run: Run,
    reporter: Reporter,
    times: Annotations | None = None,
    group: Group = ALONE,
) -> tuple[nn.Module, dict[str, Any]]:
    """Train the network of one iteration, from the run's checkpoint where it has one.

    Args:
        config: of the run.
        train, val: what is learned, and what chooses the epoch.
        iteration: its number, for the seeds and the records.
        run: where epochs and checkpoints are kept.
        reporter: is told of every epoch.
        times: the true times of the validation videos: for the scores of each epoch, nothing else.
        group: of processes that train together.

    Returns:
        The network with the weights that `training.select` names, and the record of the iteration.

    Raises:
        TrainingError: a loss that is not finite.
        OutputError: a file of the run cannot be written.
    """
    settings = config.training
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(config, iteration, 2))
        model = build_model(config, train.split.width, len(train.split.classes)).to(train.split.device)
        optimizer = Adam(model.parameters(), lr=settings.learning_rate)
        scheduler = ReduceLROnPlateau(optimizer, factor=settings.decay, patience=settings.patience)
        shuffle = torch.Generator().manual_seed(seed_of(config, iteration, 3))
        state = State(model, optimizer, scheduler, shuffle, 0, math.inf, 0, {})
        if run.checkpoint is not None:
            state.unpack(run.checkpoint)
        saved = time.monotonic()
        while state.epochs < settings.epochs:
            rate = optimizer.param_groups[0]["lr"]
            train_loss = _train_epoch(config, state, train, group)
            scored = times is not None and bool(settings.evaluate_every)
            scored = scored and (state.epochs + 1) % settings.evaluate_every == 0
            loss, scores = _validate(config, model, val, group, scored)
            record: dict[str, Any] = {
                "iteration": iteration,
                "epoch": state.epochs,
                "train_loss": train_loss,
                "validation_loss": loss,
                "learning_rate": rate,
            }
            if not (math.isfinite(train_loss) and math.isfinite(loss)):
                raise TrainingError(
                    f"{run.folder}: iteration {iteration}, epoch {state.epochs}: the loss is {train_loss} in training "
                    f"and {loss} in validation; {iteration} finished iterations are kept; "
                    "lower training.learning_rate or pseudo.beta"
                )
            found = detect(config, val.split, scores) if scores is not None else None
            if found is not None and times is not None:
                record["average_mAP"] = float(evaluate(found, times).average_mAP)
            scheduler.step(loss)
            if loss < state.best_loss:
                # A copy: state_dict() alone would follow the weights to the last epoch, as in the released code.
                state.best_loss, state.best_epoch = loss, state.epochs
                state.best_weights = copy.deepcopy(model.state_dict())
            state.epochs += 1
            run.add_epoch(record)
            reporter.epoch(record)
            if state.epochs < settings.epochs and time.monotonic() - saved >= settings.checkpoint_s:
                run.save_checkpoint(state.pack())
                saved = time.monotonic()
    if settings.select == "best":
        model.load_state_dict(state.best_weights)
        return model, {"iteration": iteration, "validation_loss": state.best_loss, "best_epoch": state.best_epoch}
    return model, {"iteration": iteration, "validation_loss": loss, "best_epoch": settings.epochs - 1}


def _train_epoch(config: Config, state: State, train: Labelled, group: Group) -> float:
    """One pass over the training videos in a new random order; gives the mean loss of a video."""
    model, settings = state.model, config.training
    order = torch.randperm(len(train.split), generator=state.shuffle)
    batches = torch.split(order, settings.batch_videos)
    shares = [group.share_of(batch) for batch in batches]
    coming = train.split.batches([share for share in shares if len(share)])
    model.train()
    total = torch.zeros((), dtype=torch.float64, device=train.split.device)
    for videos, share in zip(batches, shares, strict=True):
        state.optimizer.zero_grad(set_to_none=True)
        if len(share):
            batch = next(coming)
            class_logits, attention_logits = logits(model, batch.features, settings.precision)
            acts = activations(class_logits, attention_logits, batch.lengths)
            # The mean over the whole batch, of which other processes may have the rest.
            loss = _loss(config, acts, class_logits, attention_logits, batch, train) * (len(share) / len(videos))
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach() * len(videos)
        group.add_gradients(model.parameters())
        state.optimizer.step()
    return float(group.add(total)) / len(train.split)


def _validate(
    config: Config, model: nn.Module, val: Labelled, group: Group, scored: bool
) -> tuple[float, Scores | None]:
    """The mean loss of a validation video, and from the same pass the scores where they are wanted."""
    model.eval()
    total = torch.zeros((), dtype=torch.float64, device=val.split.device)
    gathered = Gathered(val.split) if scored else None
    with torch.inference_mode():
        for batch in val.split.batches(group.share(in_chunks(val.split.lengths))):
            class_logits, attention_logits = logits(model, batch.features, config.training.precision)
            acts = activations(class_logits, attention_logits, batch.lengths)
            total += _loss(config, acts, class_logits, attention_logits, batch, val) * len(batch.videos)
            if gathered:
                gathered.put(batch.videos, batch.rows, acts)
    loss = float(group.add(total)) / len(val.split)
    return loss, gathered.scores(group) if gathered else None


def _loss(
    config: Config, acts: Activations, class_logits: Tensor, attention_logits: Tensor, batch: Batch, data: Labelled
) -> Tensor:
    """Video loss + β · pseudo loss, mean over the videos of a batch."""
    if config.training.video_loss == "paper":
        loss = video_loss_paper(acts, batch.targets)
    else:
        loss = video_loss_release(acts, class_logits, batch.targets, batch.lengths)
    if data.pseudo is None:
        return loss
    labels = data.pseudo[batch.rows].to(attention_logits.device)
    return loss + config.pseudo.beta * pseudo_loss(attention_logits, labels, batch.lengths, data.weights)


def scores_of(evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation as an iteration's record has it."""
    by_threshold = {f"{tiou:.2f}": float(value) for tiou, value in zip(evaluation.tious, evaluation.mAP, strict=True)}
    return {"average_mAP": float(evaluation.average_mAP), "mAP": by_threshold}


def seed_of(config: Config, iteration: int, use: int) -> int:
    """An own seed for each random draw, so that an iteration can be made again without those before it."""
    words = np.random.SeedSequence([config.training.seed, iteration, use]).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))
