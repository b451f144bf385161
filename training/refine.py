"""The refinement loop (RefineLoc, section 3.2): train M_η, label with it, train M_(η+1) from scratch, and so on."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import ReduceLROnPlateau

from refineloc.runtime.annotations import Annotations
from refineloc.runtime.detections import Detections
from refineloc.runtime.errors import RefineLocError
from refineloc.runtime.evaluation import Evaluation, evaluate
from refineloc.runtime.postprocess import Scores, segments
from refineloc.training.bases.activations import activations
from refineloc.training.config import Config
from refineloc.training.data import Batch, Split
from refineloc.training.losses import class_weights, pseudo_loss, video_loss_paper, video_loss_release
from refineloc.training.pseudo_labels import generate, precision_and_recall, sample, true_foreground
from refineloc.training.run import Run, build_model, load_weights

__all__ = ["Reporter", "TrainingError", "Truth", "refine"]

_SNIPPETS_A_CALL = 16_384  # of predictions: bounds the memory, and fills the matrix products


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
class Truth:
    """Annotations with times: for evaluation and the oracle only, nothing is trained with them.

    Attributes:
        train, val: of the splits, None where no times are known.
    """

    train: Annotations | None = None
    val: Annotations | None = None


@dataclass(frozen=True, slots=True)
class _Labelled:
    """A split with what an iteration is trained on.

    Attributes:
        split: features and video labels.
        pseudo: pseudo labels, int64 [S], None in iteration 0.
        weights: of background and foreground, float [2].
    """

    split: Split
    pseudo: Tensor | None
    weights: Tensor


def refine(config: Config, train: Split, val: Split, run: Run, reporter: Reporter, truth: Truth = Truth()) -> None:
    """Train M_0 .. M_(iterations-1) and write them to `run`; finished iterations of a resumed run are read instead.

    Raises:
        TrainingError: a loss that is not finite; the iterations before are kept.
        OutputError: a file of the run cannot be written.
    """
    # 1. M_0 has video labels only.
    train_pseudo: npt.NDArray[np.int64] | None = None
    val_pseudo: npt.NDArray[np.int64] | None = None
    for iteration in range(config.training.iterations):
        if iteration < len(run.records):
            record = run.records[iteration]
            model = build_model(config, train.features.shape[1], len(train.classes)).to(train.features.device)
            load_weights(run.iteration_folder(iteration) / "model.safetensors", model)
        else:
            # 2. A fresh network learns the video labels, and the pseudo labels that its predecessor gave.
            labels = {"train": train_pseudo, "val": val_pseudo}
            model, record = _train_iteration(
                config,
                _sampled(config, train, train_pseudo, iteration, 0),
                _sampled(config, val, val_pseudo, iteration, 1),
                iteration,
                run,
                reporter,
                truth,
            )
            record["pseudo_labels"] = _describe(labels, {"train": train, "val": val}, truth)
            # 3. Its detections are what the run is for; they need seconds, so every video's fps.
            detections = detect(config, val, predict(model, val))
            if detections is not None and truth.val is not None:
                record |= _scores_of(evaluate(detections, truth.val))
            run.add_iteration(record, model, detections)
        reporter.iteration(record)
        if iteration + 1 == config.training.iterations or _stops(config, run.records[: iteration + 1]):
            break
        # 4. Its scores become the pseudo labels of the next.
        train_pseudo = _label(config, model, train, iteration, 0, reporter, truth.train)
        val_pseudo = _label(config, model, val, iteration, 1, reporter, truth.val)


def predict(model: nn.Module, split: Split) -> Scores:
    """C̄, Ā and ŷ of a whole split, as arrays."""
    model.eval()
    parts = []
    with torch.inference_mode():
        for videos in _chunks(split.lengths):
            batch = split.batch(videos)
            class_logits, attention_logits = model(batch.features)
            parts.append([output.cpu() for output in activations(class_logits, attention_logits, batch.lengths)])
    return Scores(*(torch.cat(columns).numpy() for columns in zip(*parts, strict=True)))


def detect(config: Config, split: Split, scores: Scores) -> dict[str, Detections] | None:
    """The detections of a split, best first; None where the fps of a video is not known."""
    grids = [grid for grid in split.grids if grid is not None]
    if len(grids) < len(split):
        return None
    found = segments(scores, split.lengths.cpu().numpy(), config.detection.post_process())
    videos = zip(split.names, grids, found.by_video(len(split)), strict=True)
    return {name: Detections.from_segments(grid, own, split.classes) for name, grid, own in videos}


def _train_iteration(
    config: Config, train: _Labelled, val: _Labelled, iteration: int, run: Run, reporter: Reporter, truth: Truth
) -> tuple[nn.Module, dict[str, Any]]:
    settings = config.training
    device = train.split.features.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_seed(settings.seed, iteration, 2))
        model = build_model(config, train.split.features.shape[1], len(train.split.classes)).to(device)
    optimizer = Adam(model.parameters(), lr=settings.learning_rate)
    scheduler = ReduceLROnPlateau(optimizer, factor=settings.decay, patience=settings.patience)
    shuffle = torch.Generator().manual_seed(_seed(settings.seed, iteration, 3))

    best_loss, best_epoch, best_weights = math.inf, 0, model.state_dict()
    for epoch in range(settings.epochs):
        order = torch.randperm(len(train.split), generator=shuffle).to(device)
        model.train()
        losses = []
        for videos in torch.split(order, settings.batch_videos):
            loss = _loss(config, model, train, train.split.batch(videos))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.detach() * len(videos))
        train_loss = float(torch.stack(losses).sum()) / len(train.split)
        val_loss = _validation_loss(config, model, val)
        record = {
            "iteration": iteration,
            "epoch": epoch,
            "train_loss": train_loss,
            "validation_loss": val_loss,
            "learning_rate": optimizer.param_groups[0]["lr"],
        }
        if not (math.isfinite(train_loss) and math.isfinite(val_loss)):
            raise TrainingError(
                f"{run.folder}: iteration {iteration}, epoch {epoch}: the loss is {train_loss} in training and "
                f"{val_loss} in validation; {iteration} finished iterations are kept; "
                "lower training.learning_rate or pseudo.beta"
            )
        scheduler.step(val_loss)
        # A copy: state_dict() alone would follow the weights to the last epoch, as it does in the released code.
        if val_loss < best_loss or settings.select == "last":
            best_loss, best_epoch, best_weights = val_loss, epoch, copy.deepcopy(model.state_dict())
        run.add_epoch(record)
        reporter.epoch(record)
    model.load_state_dict(best_weights)
    return model, {"iteration": iteration, "validation_loss": best_loss, "best_epoch": best_epoch}


def _loss(config: Config, model: nn.Module, data: _Labelled, batch: Batch) -> Tensor:
    """Video loss + β · pseudo loss, mean over the videos of a batch."""
    class_logits, attention_logits = model(batch.features)
    acts = activations(class_logits, attention_logits, batch.lengths)
    if config.training.video_loss == "paper":
        loss = video_loss_paper(acts, batch.targets)
    else:
        loss = video_loss_release(acts, class_logits, batch.targets, batch.lengths)
    if data.pseudo is None:
        return loss
    labels = data.pseudo[batch.rows]
    return loss + config.pseudo.beta * pseudo_loss(attention_logits, labels, batch.lengths, data.weights)


def _validation_loss(config: Config, model: nn.Module, val: _Labelled) -> float:
    model.eval()
    total = 0.0
    with torch.inference_mode():
        for videos in _chunks(val.split.lengths):
            total += float(_loss(config, model, val, val.split.batch(videos))) * len(videos)
    return total / len(val.split)


def _label(
    config: Config,
    model: nn.Module,
    split: Split,
    iteration: int,
    which: int,
    reporter: Reporter,
    annotations: Annotations | None,
) -> npt.NDArray[np.int64]:
    lengths = split.lengths.cpu().numpy()
    truth = None
    if config.pseudo.generator == "oracle" and annotations is not None:
        truth = true_foreground(annotations, split.names, split.grids, lengths)
    rng = np.random.default_rng(_seed(config.training.seed, iteration, 4 + which))
    made = generate(config.pseudo, config.detection.profile, predict(model, split), lengths, rng, truth)
    if made.warning:
        reporter.warning(f"iteration {iteration}, {('training', 'validation')[which]} videos: {made.warning}")
    return made.labels


def _sampled(
    config: Config, split: Split, labels: npt.NDArray[np.int64] | None, iteration: int, which: int
) -> _Labelled:
    """The pseudo labels that an iteration sees: a share of each video's snippets, drawn anew (S of section 3.2)."""
    device = split.features.device
    if labels is None:
        return _Labelled(split, None, torch.ones(2, device=device))
    weights = class_weights(torch.from_numpy(labels), config.pseudo.weighted).to(device)
    rng = np.random.default_rng(_seed(config.training.seed, iteration, 6 + which))
    kept = sample(labels, split.lengths.cpu().numpy(), config.pseudo.sampled, rng)
    return _Labelled(split, torch.from_numpy(kept).to(device), weights)


def _describe(
    labels: Mapping[str, npt.NDArray[np.int64] | None], splits: Mapping[str, Split], truth: Truth
) -> dict[str, Any] | None:
    """Of the pseudo labels an iteration was trained with: share of foreground, precision and recall where known."""
    out: dict[str, Any] = {}
    for name, annotations in (("train", truth.train), ("val", truth.val)):
        pseudo, split = labels[name], splits[name]
        if pseudo is None:
            return None
        out[name] = {"foreground": float((pseudo == 1).mean())}
        true = None
        if annotations is not None:
            true = true_foreground(annotations, split.names, split.grids, split.lengths.cpu().numpy())
        if true is not None:
            out[name]["precision"], out[name]["recall"] = precision_and_recall(pseudo, true)
    return out


def _scores_of(evaluation: Evaluation) -> dict[str, Any]:
    by_threshold = {f"{tiou:.2f}": float(value) for tiou, value in zip(evaluation.tious, evaluation.mAP, strict=True)}
    return {"average_mAP": float(evaluation.average_mAP), "mAP": by_threshold}


def _stops(config: Config, records: list[dict[str, Any]]) -> bool:
    """Early stop of refinement: by mAP where it is known (as the released code), else by validation loss."""
    if not config.training.stop_after:
        return False
    known = all("average_mAP" in record for record in records)
    quality = [record["average_mAP"] if known else -record["validation_loss"] for record in records]
    return len(records) - 1 - int(np.argmax(quality)) >= config.training.stop_after


def _chunks(lengths: Tensor) -> tuple[Tensor, ...]:
    """All videos in order, in groups of about as many snippets as one call takes."""
    group = (torch.cumsum(lengths, 0) - 1) // _SNIPPETS_A_CALL
    _, counts = torch.unique_consecutive(group, return_counts=True)
    chunks: tuple[Tensor, ...] = torch.split(torch.arange(len(lengths), device=lengths.device), counts.tolist())
    return chunks


def _seed(seed: int, iteration: int, use: int) -> int:
    """An own seed for each random draw, so that an iteration can be made again without those before it."""
    return int(np.random.SeedSequence([seed, iteration, use]).generate_state(1, np.uint64)[0] >> np.uint64(1))
