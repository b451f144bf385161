"""A fresh network, trained epoch by epoch (RefineLoc, section 4.1)."""

import copy
import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Adam
from torch.optim.lr_scheduler import ReduceLROnPlateau

from refineloc.runtime.errors import RefineLocError
from refineloc.runtime.segments.values import Scores
from refineloc.training.data.split import Batch, Split
from refineloc.training.data.statistics import column_statistics
from refineloc.training.losses import class_losses, pseudo_losses
from refineloc.training.machine import parallel
from refineloc.training.models.base_model import BaseModel, Outputs, build_model
from refineloc.training.models.layers.activations import Activations
from refineloc.training.models.standardised import Standardised
from refineloc.training.run.checkpoint import Checkpoint, Draws, NetworkKey, State
from refineloc.training.scoring import Gathered, outputs_of
from refineloc.training.settings.config import Config
from refineloc.training.targets import SegmentTargets

__all__ = ["Epoch", "Labelled", "TrainingError", "fit", "seed_of", "with_least_steps"]


_ONLY = NetworkKey()


class TrainingError(RefineLocError, RuntimeError):
    """Training cannot go on; what was finished before is kept."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A split with what an iteration is trained on.

    Attributes:
        split: features and video labels.
        pseudo: pseudo labels, int64 [S], on the CPU; None in iteration 0.
        weights: of background and foreground, float [2], on the split's device.
        classes: of foreground snippets, float32 [S, N], rows sum to 1, on the CPU; None where they are not learned.
        targets: foreground that pseudo labels teach, float32 [S], on the CPU; None: the labels.
        segments: what a student learns, in the place of pseudo labels; None for all other models.
    """

    split: Split
    pseudo: Tensor | None
    weights: Tensor
    classes: Tensor | None = None
    targets: Tensor | None = None
    segments: SegmentTargets | None = None


@dataclass(frozen=True, slots=True)
class Epoch:
    """An epoch that was trained.

    Attributes:
        record: iteration, network, epoch, losses and learning rate: its line of metrics.jsonl.
        scores: of the validation videos, from the pass that gave their loss; None where nobody wants them.
        pack: gives the state of training after this epoch; call it before the next epoch is asked for.
    """

    record: dict[str, Any]
    scores: Scores | None
    pack: Callable[[], Checkpoint]


def fit(
    config: Config,
    train: Labelled,
    val: Labelled,
    iteration: int,
    checkpoint: Checkpoint | None = None,
    *,
    network: NetworkKey = _ONLY,
    scored: bool = False,
) -> Generator[Epoch, None, tuple[BaseModel, dict[str, Any]]]:
    """Train a network of one iteration, an epoch each time the next one is asked for.

    Args:
        config: of the run.
        train, val: what is learned, and what chooses the epoch.
        iteration: its number, for the seeds and the records.
        checkpoint: the state to go on from; None begins.
        network: which of the iteration's; each has its own seeds.
        scored: give scores after every `training.evaluate_every`-th epoch.

    Yields:
        Each epoch.

    Returns:
        The network with the weights that `training.select` names, and its record.

    Raises:
        TrainingError: a loss is not finite; the epochs before were given.
        ModelError: the checkpoint is not one of this network.
    """
    settings = config.training
    state = _begin(config, train.split, iteration, network)
    named = {"iteration": iteration} | _named_network(config, network)
    if checkpoint is not None:
        parallel.agree(partial(state.unpack, checkpoint))
    record: dict[str, Any] = {}
    while state.epochs < settings.epochs:
        rate = state.optimizer.param_groups[0]["lr"]
        wanted = scored and settings.evaluate_every > 0 and (state.epochs + 1) % settings.evaluate_every == 0
        with state.draws.active():
            if parallel.size() > 1:
                # Dropout: each process has its own draws, the same when it goes on from here.
                torch.manual_seed(seed_of(config, iteration, 8, state.epochs, parallel.rank(), network=network))
            train_losses = _train_epoch(config, state, train)
            val_losses, scores = _validate(config, state.evaluated, val, wanted)
        record = named | {"epoch": state.epochs} | train_losses | val_losses | {"learning_rate": rate}
        if not (math.isfinite(record["train_loss"]) and math.isfinite(record["validation_loss"])):
            where = ", ".join(f"{name} {number}" for name, number in (named | {"epoch": state.epochs}).items())
            raise TrainingError(
                f"{where}: the loss is {record['train_loss']} in training and {record['validation_loss']} in validation"
            )
        state.end_epoch(record["validation_loss"])
        yield Epoch(record, scores, state.pack)
    loss, epoch = record.get("validation_loss"), settings.epochs - 1
    if settings.select == "best":
        state.evaluated.load_state_dict(state.best_weights)
        loss, epoch = state.best_loss, state.best_epoch
    return state.evaluated, named | {"validation_loss": loss, "best_epoch": epoch}


def with_least_steps(config: Config, train: Split) -> Config:
    """The settings with as many epochs as `training.min_steps` asks for, on these training videos."""
    settings = config.training
    if not settings.min_steps:
        return config
    with torch.device("meta"):  # no weights: its batches alone are asked for
        model = build_model(config.model, train.width, len(train.classes))
    steps = math.ceil(len(train) / model.videos_in_batch(settings.batch_videos))
    epochs = max(settings.epochs, math.ceil(settings.min_steps / steps))
    return config.model_copy(update={"training": settings.model_copy(update={"epochs": epochs})})


def _named_network(config: Config, network: NetworkKey) -> dict[str, int]:
    """A network as records name it: a number where the settings allow more than one."""
    several = {"member": config.training.models > 1, "attempt": config.training.restarts > 0}
    return {name: number for name, number in network._asdict().items() if several[name]}


def _begin(config: Config, split: Split, iteration: int, network: NetworkKey) -> State:
    """The state before the first epoch."""
    settings = config.training
    draws = Draws(seed_of(config, iteration, 2, network=network), split.device)
    with draws.active():
        model = build_model(config.model, split.width, len(split.classes))
    if config.features.standardise:
        model = Standardised(model, *column_statistics(split))
    model = model.to(split.device)
    optimizer = Adam(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
    scheduler = ReduceLROnPlateau(optimizer, factor=settings.decay, patience=settings.patience)
    shuffle = torch.Generator().manual_seed(seed_of(config, iteration, 3, network=network))
    average = copy.deepcopy(model).requires_grad_(False) if settings.ema else None
    return State(network, model, optimizer, scheduler, shuffle, draws, average)


def _train_epoch(config: Config, state: State, train: Labelled) -> dict[str, float]:
    """One pass over the training videos in a new random order; gives the mean losses of a video."""
    model, settings = state.model, config.training
    order = model.order(train.split.targets, state.shuffle)
    windows = _windows(train.split.lengths, model.longest, state.shuffle)
    batches = torch.split(order, model.videos_in_batch(settings.batch_videos))
    shares = [parallel.share_of_batch(batch, model.unit_videos) for batch in batches]
    coming = train.split.batches([share for share in shares if len(share)], windows)
    model.train()
    for part in model.modules():
        if isinstance(part, BaseModel):
            part.progress = state.epochs / settings.epochs
    total = torch.zeros(4, dtype=torch.float64, device=train.split.device)
    for videos, share in zip(batches, shares, strict=True):
        state.optimizer.zero_grad(set_to_none=True)
        if len(share):
            batch = next(coming)
            outputs = outputs_of(model, batch, settings.precision)
            # The mean over the whole batch, of which other processes may have the rest.
            loss = _loss(config, model, outputs, batch, train)[0] * (len(share) / len(videos))
            loss[0].backward()  # type: ignore[no-untyped-call]
            total += loss.detach() * len(videos)
        parallel.add_gradients(model.parameters())
        state.optimizer.step()
        state.end_step(settings.ema)
    return _named("train", parallel.add(total) / len(train.split), train)


def _named(split: str, losses: Tensor, data: Labelled) -> dict[str, float]:
    """Losses [4] as a line of metrics.jsonl has them; without pseudo labels the first is the video loss."""
    taught = data.pseudo is not None or data.segments is not None
    names = ["loss"] + (["video_loss", "pseudo_loss"] if taught else [])
    names += ["class_loss"] if data.classes is not None else []
    return {f"{split}_{name}": value for name, value in zip(names, losses.tolist(), strict=False)}


def _windows(lengths: Tensor, longest: int | None, generator: torch.Generator) -> Tensor | None:
    """First snippet and length of what is seen of each video, int64 [V, 2]; None where it is all."""
    if longest is None or int(lengths.max()) <= longest:
        return None
    seen = lengths.clamp_max(longest)
    first = (torch.rand(len(lengths), generator=generator, dtype=torch.float64) * (lengths - seen + 1)).long()
    return torch.stack([first, seen], dim=1)


def _validate(config: Config, model: BaseModel, val: Labelled, scored: bool) -> tuple[dict[str, float], Scores | None]:
    """The mean losses of a validation video that is judged, and from the same pass the scores where they are wanted."""
    model.eval()
    total = torch.zeros(4, dtype=torch.float64, device=val.split.device)
    gathered = Gathered(val.split, model.levels) if scored else None
    with torch.inference_mode():
        for batch in val.split.batches(parallel.share(val.split.chunks())):
            outputs = outputs_of(model, batch, config.training.precision)
            loss, activations = _loss(config, model, outputs, batch, val)
            total += loss * (len(batch.videos) if batch.judged is None else batch.judged.sum())
            if gathered:
                gathered.put(batch.videos, batch.rows, activations, model.points(outputs))
    videos = len(val.split) if val.split.judged is None else int(val.split.judged.sum())
    losses = _named("validation", parallel.add(total) / videos, val)
    return losses, gathered.scores() if gathered else None


def _loss(
    config: Config, model: BaseModel, outputs: Outputs, batch: Batch, data: Labelled
) -> tuple[Tensor, Activations]:
    """Means over the videos of a batch that are judged, and the activations on the way.

    [4]: video loss + β · pseudo loss + γ · class loss, and the three. A student's pseudo loss is that of segments,
    and its loss is pseudo loss + weight · video loss.
    """
    activations = model.activations(outputs, batch.lengths)
    targets = _smoothed(batch.targets, config.training.label_smoothing)
    video = _mean(model.video_losses(outputs, activations, targets, batch.lengths), batch.judged)
    if data.segments is not None:
        taught = data.segments.of(batch.videos, batch.lengths).to(batch.features.device)
        pseudo = _mean(model.segment_losses(outputs, taught, batch.lengths), batch.judged)
        loss = pseudo + config.student.video_weight * video
        return torch.stack([loss, video.detach(), pseudo.detach(), torch.zeros_like(video)]), activations
    if data.pseudo is None:
        nothing = torch.zeros_like(video)
        return torch.stack([video, video.detach(), nothing, nothing]), activations
    labels = data.pseudo[batch.rows].to(batch.features.device)
    release = config.training.pseudo_loss == "release"
    soft = None if data.targets is None else data.targets[batch.rows].to(batch.features.device)
    pseudo = _mean(
        pseudo_losses(outputs.attention_logits, labels, batch.lengths, data.weights, release=release, targets=soft),
        batch.judged,
    )
    loss, classes = video + config.pseudo.beta * pseudo, torch.zeros_like(video)
    if data.classes is not None:
        targets = _smoothed(data.classes[batch.rows].to(batch.features.device), config.pseudo.class_smoothing)
        classes = _mean(class_losses(outputs.class_logits, targets, labels, batch.lengths), batch.judged)
        loss = loss + config.pseudo.class_weight * classes
    return torch.stack([loss, video.detach(), pseudo.detach(), classes.detach()]), activations


def _mean(losses: Tensor, judged: Tensor | None) -> Tensor:
    """Of the videos that are judged; 0 where there is none."""
    return losses.mean() if judged is None else (losses * judged).sum() / judged.sum().clamp_min(1)


def _smoothed(targets: Tensor, smoothing: float) -> Tensor:
    """Targets [.., N] moved towards 1/N by this share, where a row has a label."""
    if not smoothing:
        return targets
    labelled = targets.any(dim=1, keepdim=True).to(targets.dtype)
    return (1 - smoothing) * targets + smoothing / targets.shape[1] * labelled


def seed_of(config: Config, iteration: int, use: int, *further: int, network: NetworkKey = _ONLY) -> int:
    """The seed of one random draw: each has its own, so that a network can be trained again without the others."""
    source = [config.training.seed, iteration, use, *further, *(network if network != _ONLY else ())]
    words = np.random.SeedSequence(source).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))
