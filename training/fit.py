"""One iteration: a fresh network, trained epoch by epoch (RefineLoc, section 4.1)."""

import copy
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.optim import Adam
from torch.optim.lr_scheduler import ReduceLROnPlateau

from refineloc.evaluation import Evaluation, evaluate, match_detections
from refineloc.runtime.annotations import Annotations
from refineloc.runtime.errors import RefineLocError
from refineloc.runtime.segments.values import Scores
from refineloc.training.data.split import Batch, Split
from refineloc.training.losses import pseudo_losses
from refineloc.training.machine.parallel import ALONE, Group
from refineloc.training.models.base_model import BaseModel, Outputs, build_model
from refineloc.training.models.layers.activations import Activations
from refineloc.training.run.checkpoint import Checkpoint, State
from refineloc.training.run.files import Run
from refineloc.training.scoring import Gathered, detect, in_chunks, outputs_of
from refineloc.training.settings.config import Config

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
) -> tuple[BaseModel, dict[str, Any]]:
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
        TrainingError: a loss that is not finite; the state before that epoch is kept as the run's checkpoint.
        ModelError: the run's checkpoint is not one of this network.
        OutputError: a file of the run cannot be written.
        SharedError: one of these, in one of several processes.
    """
    settings = config.training
    device = train.split.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed_of(config, iteration, 2))
        model = build_model(config.model, train.split.width, len(train.split.classes)).to(device)
        optimizer = Adam(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
        scheduler = ReduceLROnPlateau(optimizer, factor=settings.decay, patience=settings.patience)
        shuffle = torch.Generator().manual_seed(seed_of(config, iteration, 3))
        state = State(model, optimizer, scheduler, shuffle, 0, math.inf, 0, {})
        last = run.checkpoint
        if last is not None:
            group.agree(partial(state.unpack, last))
        saved = time.monotonic()
        while state.epochs < settings.epochs:
            rate = optimizer.param_groups[0]["lr"]
            if group.size > 1:
                # Dropout: each process has its own draws, the same when it goes on from here.
                torch.manual_seed(seed_of(config, iteration, 8, state.epochs, group.rank))
            losses = _train_epoch(config, state, train, group)
            scored = times is not None and bool(settings.evaluate_every)
            scored = scored and (state.epochs + 1) % settings.evaluate_every == 0
            of_val, scores = _validate(config, model, val, group, scored)
            record: dict[str, Any] = {"iteration": iteration, "epoch": state.epochs}
            record |= losses | of_val | {"learning_rate": rate}
            loss = record["validation_loss"]
            if not (math.isfinite(record["train_loss"]) and math.isfinite(loss)):
                group.agree(partial(_give_up, run, record, last))
            found = detect(config, val.split, scores) if scores is not None else None
            if found is not None and times is not None:
                record["average_mAP"] = float(evaluate(match_detections(found, times)).average_mAP)
            scheduler.step(loss)
            if loss < state.best_loss:
                # A copy: state_dict() alone would follow the weights to the last epoch, as in the released code.
                state.best_loss, state.best_epoch = loss, state.epochs
                state.best_weights = copy.deepcopy(model.state_dict())
            state.epochs += 1
            last = state.pack()
            due = state.epochs < settings.epochs and time.monotonic() - saved >= settings.checkpoint_s
            group.agree(partial(_keep, run, reporter, record, last if due else None))
            if due:
                saved = time.monotonic()
    if settings.select == "best":
        model.load_state_dict(state.best_weights)
        return model, {"iteration": iteration, "validation_loss": state.best_loss, "best_epoch": state.best_epoch}
    return model, {"iteration": iteration, "validation_loss": loss, "best_epoch": settings.epochs - 1}


def _keep(run: Run, reporter: Reporter, record: Mapping[str, Any], checkpoint: Checkpoint | None) -> None:
    run.add_epoch(record)
    reporter.epoch(record)
    if checkpoint is not None:
        run.save_checkpoint(checkpoint)


def _give_up(run: Run, record: Mapping[str, Any], last: Checkpoint | None) -> None:
    """End with the last good state in the run's folder."""
    if last is not None:
        run.save_checkpoint(last)
    raise TrainingError(
        f"{run.folder}: iteration {record['iteration']}, epoch {record['epoch']}: the loss is {record['train_loss']} "
        f"in training and {record['validation_loss']} in validation; {record['iteration']} finished iterations "
        f"{'and the state before this epoch ' if last is not None else ''}are kept; begin another run (--run NAME) "
        "with a lower training.learning_rate or pseudo.beta: --resume takes the same settings only"
    )


def _train_epoch(config: Config, state: State, train: Labelled, group: Group) -> dict[str, float]:
    """One pass over the training videos in a new random order; gives the mean losses of a video."""
    model, settings = state.model, config.training
    order = model.order(train.split.targets, state.shuffle)
    windows = _windows(train.split.lengths, model.longest, state.shuffle)
    size = max(settings.batch_videos // model.unit_videos, 1) * model.unit_videos
    batches = torch.split(order, size)
    shares = [group.share_of(batch, model.unit_videos) for batch in batches]
    coming = train.split.batches([share for share in shares if len(share)], windows)
    model.train()
    total = torch.zeros(3, dtype=torch.float64, device=train.split.device)
    for videos, share in zip(batches, shares, strict=True):
        state.optimizer.zero_grad(set_to_none=True)
        if len(share):
            batch = next(coming)
            outputs = outputs_of(model, batch, settings.precision)
            # The mean over the whole batch, of which other processes may have the rest.
            loss = _loss(config, model, outputs, batch, train)[0] * (len(share) / len(videos))
            loss[0].backward()  # type: ignore[no-untyped-call]
            total += loss.detach() * len(videos)
        group.add_gradients(model.parameters())
        state.optimizer.step()
    return _named("train", group.add(total) / len(train.split), train)


def _named(split: str, losses: Tensor, data: Labelled) -> dict[str, float]:
    """Losses [3] as a line of metrics.jsonl has them; without pseudo labels the first is the video loss."""
    names = ("loss", "video_loss", "pseudo_loss") if data.pseudo is not None else ("loss",)
    return {f"{split}_{name}": value for name, value in zip(names, losses.tolist(), strict=False)}


def _windows(lengths: Tensor, longest: int | None, generator: torch.Generator) -> Tensor | None:
    """First snippet and length of what is seen of each video, int64 [V, 2]; None where it is all."""
    if longest is None or int(lengths.max()) <= longest:
        return None
    seen = lengths.clamp_max(longest)
    first = (torch.rand(len(lengths), generator=generator, dtype=torch.float64) * (lengths - seen + 1)).long()
    return torch.stack([first, seen], dim=1)


def _validate(
    config: Config, model: BaseModel, val: Labelled, group: Group, scored: bool
) -> tuple[dict[str, float], Scores | None]:
    """The mean losses of a validation video, and from the same pass the scores where they are wanted."""
    model.eval()
    total = torch.zeros(3, dtype=torch.float64, device=val.split.device)
    gathered = Gathered(val.split) if scored else None
    with torch.inference_mode():
        for batch in val.split.batches(group.share(in_chunks(val.split.lengths))):
            outputs = outputs_of(model, batch, config.training.precision)
            loss, found = _loss(config, model, outputs, batch, val)
            total += loss * len(batch.videos)
            if gathered:
                gathered.put(batch.videos, batch.rows, found)
    losses = _named("validation", group.add(total) / len(val.split), val)
    return losses, gathered.scores(group) if gathered else None


def _loss(
    config: Config, model: BaseModel, outputs: Outputs, batch: Batch, data: Labelled
) -> tuple[Tensor, Activations]:
    """Means over the videos of a batch, [3]: video loss + β · pseudo loss, and the two; the activations on the way."""
    found = model.activations(outputs, batch.lengths)
    video = model.video_losses(outputs, found, batch.targets, batch.lengths).mean()
    if data.pseudo is None:
        return torch.stack([video, video.detach(), torch.zeros_like(video)]), found
    labels = data.pseudo[batch.rows].to(batch.features.device)
    release = config.training.pseudo_loss == "release"
    pseudo = pseudo_losses(outputs.attention_logits, labels, batch.lengths, data.weights, release=release).mean()
    return torch.stack([video + config.pseudo.beta * pseudo, video.detach(), pseudo.detach()]), found


def scores_of(evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation as an iteration's record has it."""
    by_threshold = {f"{tiou:.2f}": float(value) for tiou, value in zip(evaluation.tious, evaluation.mAP, strict=True)}
    return {"average_mAP": float(evaluation.average_mAP), "mAP": by_threshold}


def seed_of(config: Config, iteration: int, use: int, *further: int) -> int:
    """An own seed for each random draw, so that an iteration can be made again without those before it."""
    words = np.random.SeedSequence([config.training.seed, iteration, use, *further]).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))
