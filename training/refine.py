"""The refinement loop (RefineLoc, section 3.2): train M_η, label with it, train M_(η+1) from scratch, and so on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from refineloc.runtime.annotations import Annotations
from refineloc.runtime.detections import Detections
from refineloc.runtime.segments.postprocess import segments
from refineloc.runtime.segments.rules import Rules
from refineloc.runtime.segments.values import Scores, Segments
from refineloc.training.criterion import agreement, attention_order, contrast, video_loss
from refineloc.training.data.split import Split
from refineloc.training.data.truth import Truth, true_foreground
from refineloc.training.fit import Epoch, Labelled, seed_of
from refineloc.training.losses import UNLABELLED, class_weights
from refineloc.training.members import Network, train_members
from refineloc.training.models.base_model import BaseModel
from refineloc.training.pseudo_labels import PseudoLabels, generate, precision_and_recall, sample, taught_segments
from refineloc.training.run.checkpoint import Checkpoint, NetworkKey
from refineloc.training.run.files import best_iteration
from refineloc.training.scoring import detect, predict, quality
from refineloc.training.settings.config import Config
from refineloc.training.signs import signs
from refineloc.training.streaming import needs_frozen_rule, streaming_record
from refineloc.training.targets import SegmentTargets

__all__ = ["Begun", "Iteration", "refine"]

_SPLITS = ("training", "validation")


@dataclass(frozen=True, slots=True)
class Begun:
    """What there is already, where training goes on.

    Attributes:
        records: of the finished iterations.
        model: of the last of them, in float32 on the device of training; None where there is none.
        networks: of the iteration after them, those that are finished.
        checkpoint: of the network after these; None where it has not begun.
    """

    records: Sequence[Mapping[str, Any]] = ()
    model: BaseModel | None = None
    networks: Mapping[NetworkKey, Network] = field(default_factory=dict)
    checkpoint: Checkpoint | None = None


@dataclass(frozen=True, slots=True)
class Iteration:
    """An iteration that was trained.

    Attributes:
        record: its losses, mAP where times are known, and how good its pseudo labels were.
        model: M_η.
        detections: of the validation videos; None where their fps is not known.
    """

    record: dict[str, Any]
    model: BaseModel
    detections: dict[str, Detections] | None


_UNKNOWN, _NOTHING = Truth(), Begun()


def refine(
    config: Config, train: Split, val: Split, truth: Truth = _UNKNOWN, begun: Begun = _NOTHING
) -> Iterator[str | Epoch | Network | Iteration]:
    """Train M_0, M_1, ...: as many as `training.iterations`, or until `training.stop_after` ends it.

    Args:
        config: settled with the data (`settled`).
        train, val: the splits, on the device of training.
        truth: their true times: for mAP, for the figures of the pseudo labels, and for the oracle. Nothing else
            depends on them.
        begun: what need not be trained again.

    Yields:
        Each epoch, each of several networks and each iteration when it was trained, and warnings as text.

    Raises:
        TrainingError: a loss is not finite.
        ConfigError: the generator needs times that are not known (`settled` says so earlier).
    """
    splits, times = (train, val), (truth.train, truth.val)
    run, records, model = config, list(begun.records), begun.model
    networks, checkpoint = begun.networks, begun.checkpoint
    precision = run.training.precision
    scores = None if model is None else predict(model, val, precision)
    of_training: Scores | None = None  # of the last model on the training videos, where they were needed already
    config = run.of_iteration(len(records) - 1)
    parts = None if scores is None else segments(scores, val.lengths.numpy(), config.detection)
    while len(records) < run.training.iterations and not _stops(run, records):
        iteration = len(records)
        teacher, config = config, run.of_iteration(iteration)
        # 1. The scores of the last model become pseudo labels; M_0 has video labels only.
        taught: list[PseudoLabels | None] = [None, None]
        warnings: list[str] = []
        if model is not None and scores is not None:
            of_training = predict(model, train, precision) if of_training is None else of_training
            made = [
                _label(config, teacher.detection, iteration - 1, which, splits[which], split_scores, times[which])
                for which, split_scores in enumerate((of_training, scores))
            ]
            of_training = None  # the scores of a large split are not held while the next networks are trained
            for name, pseudo in zip(_SPLITS, made, strict=True):
                if pseudo.warning:
                    warnings.append(f"taught with iteration {iteration - 1}, {name} videos: {pseudo.warning}")
                    yield f"iteration {iteration}, {warnings[-1]}"
            taught = list(made)
        # 2. Fresh networks learn the video labels and, of the pseudo labels, a random sample each.
        model, record = yield from train_members(
            config,
            partial(_learned, config, iteration, splits, taught),
            partial(_orders, config, train, val),
            iteration,
            networks,
            checkpoint,
            restarts=0 if _were_in_vain(config, records) else config.training.restarts,
            scored=truth.val is not None and None not in val.grids,
        )
        # 3. Its scores become detections, which are what a run is for, and the next pseudo labels.
        scores = predict(model, val, precision)
        detections = detect(config, val, scores)
        before, parts = parts, segments(scores, val.lengths.numpy(), config.detection)
        record["student"] = config.is_student(iteration)
        record["pseudo_labels"] = _describe(taught, splits, times)
        record |= _figures(val, scores, parts, before) | quality(detections, truth.val)
        if needs_frozen_rule(config):
            of_training = predict(model, train, precision)
            record |= streaming_record(config.detection, of_training, train.lengths.numpy())
        record["warnings"] = warnings + [
            f"validation videos: {sign}" for sign in signs(record["attention_order"], config, val, scores, parts)
        ]
        for warning in record["warnings"][len(warnings) :]:
            yield f"iteration {iteration}, {warning}"
        records.append(record)
        networks, checkpoint = {}, None
        yield Iteration(record, model, detections)


def _label(
    config: Config,
    rules: Rules,
    iteration: int,
    which: int,
    split: Split,
    scores: Scores,
    annotations: Annotations | None,
) -> PseudoLabels:
    """Pseudo labels of a split, for the next iteration, from an iteration's scores and its rules of detection."""
    if config.is_student(iteration + 1):
        known, student = split.targets.numpy() > 0, config.student
        return taught_segments(student.threshold, rules, scores, split.lengths.numpy(), known, inward=student.inward)
    foreground = true_foreground(split, annotations) if config.pseudo.generator == "oracle" else None
    rng = np.random.default_rng(seed_of(config, iteration, 4 + which))
    known = split.targets.numpy() > 0
    made = generate(config.pseudo, rules, scores, split.lengths.numpy(), rng, foreground, known)
    return _with_background(made, split)


def _with_background(made: PseudoLabels, split: Split) -> PseudoLabels:
    """Videos without a label are background throughout; those of a class that is not trained have no pseudo labels."""
    if split.background is not None:
        rows = _rows(split, split.background)
        for part in (made.labels, made.classes, made.targets):
            if part is not None:
                part[rows] = 0
    if split.judged is not None:
        made.labels[_rows(split, ~split.judged)] = UNLABELLED
    return made


def _rows(split: Split, videos: torch.Tensor) -> npt.NDArray[np.bool_]:
    """The snippets of some videos, bool [V], as bool [S]."""
    rows: npt.NDArray[np.bool_] = torch.repeat_interleave(videos, split.lengths).numpy()
    return rows


def _orders(config: Config, train: Split, val: Split, model: BaseModel) -> dict[str, float]:
    """The attention order of a network on the validation videos, and on the training videos where it may restart."""
    splits = {"attention_order": val} | ({"training_order": train} if config.training.restarts else {})
    return {
        name: attention_order(
            predict(model, split, config.training.precision), split.lengths.numpy(), split.targets.numpy()
        )
        for name, split in splits.items()
    }


def _were_in_vain(config: Config, records: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a network of an earlier iteration was trained anew as often as it may be, without getting in order."""
    networks = [network for record in records for network in record.get("members", [record])]
    return any(
        network.get("attempts", 1) > config.training.restarts > 0
        and min(network["attention_order"], network["training_order"]) < config.training.least_order
        for network in networks
    )


def _figures(val: Split, scores: Scores, parts: Segments, before: Segments | None) -> dict[str, float]:
    """What a choice among iterations without times can look at (`refineloc.training.criterion`)."""
    lengths, targets = val.lengths.numpy(), val.targets.numpy()
    figures = {
        "attention_order": attention_order(scores, lengths, targets),
        "video_loss": video_loss(scores, targets),
        "contrast": contrast(scores, lengths, parts),
    }
    return figures if before is None else figures | {"agreement": agreement(parts, before)}


def _learned(
    config: Config, iteration: int, splits: Sequence[Split], taught: Sequence[PseudoLabels | None], network: NetworkKey
) -> tuple[Labelled, Labelled]:
    """What a network is trained on, and what chooses its epoch."""
    train, val = (_sampled(config, iteration, network, which, splits[which], taught[which]) for which in (0, 1))
    return train, val


def _sampled(
    config: Config, iteration: int, network: NetworkKey, which: int, split: Split, taught: PseudoLabels | None
) -> Labelled:
    """The pseudo labels that a network sees: a share of each video's snippets, drawn anew (S of section 3.2)."""
    if taught is None:
        # Nor of videos without a label: with nothing to say what is foreground, background alone would end attention.
        return Labelled(split, None, torch.ones(2, device=split.device))
    if taught.segments is not None:
        of_points = SegmentTargets(taught.segments, split.lengths.numpy(), config.student.levels)
        return Labelled(split, None, torch.ones(2, device=split.device), segments=of_points)
    weights = class_weights(torch.from_numpy(taught.labels), config.pseudo.weighted).to(split.device)
    rng = np.random.default_rng(seed_of(config, iteration, 6 + which, network=network))
    kept = sample(taught.labels, split.lengths.numpy(), config.pseudo.sampled, rng)
    learned = taught.classes is not None and config.pseudo.class_weight > 0
    classes = torch.from_numpy(taught.classes) if learned else None
    targets = None if taught.targets is None else torch.from_numpy(taught.targets)
    return Labelled(split, torch.from_numpy(kept), weights, classes, targets)


def _describe(
    taught: Sequence[PseudoLabels | None], splits: Sequence[Split], times: Sequence[Annotations | None]
) -> dict[str, Any] | None:
    """The pseudo labels of both splits in figures: share of foreground; precision and recall where times are known."""
    figures: dict[str, Any] = {}
    for name, pseudo, split, annotations in zip(("train", "val"), taught, splits, times, strict=True):
        if pseudo is None:
            return None
        figures[name] = {"foreground": float((pseudo.labels == 1).mean())}
        foreground = true_foreground(split, annotations)
        if foreground is not None:
            figures[name]["precision"], figures[name]["recall"] = precision_and_recall(pseudo.labels, foreground)
    return figures


def _stops(config: Config, records: Sequence[Mapping[str, Any]]) -> bool:
    """Early stop of refinement: after so many iterations without a better one."""
    settings = config.training
    if not records or not settings.stop_after:
        return False
    return len(records) - 1 - best_iteration(records, settings.stop_by) >= settings.stop_after
