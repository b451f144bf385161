"""What a model says about a split: scores, the detections that they become, and how good these are."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from refineloc.evaluation import evaluate, match_detections
from refineloc.runtime.annotations import Annotations
from refineloc.runtime.detections import Detections
from refineloc.runtime.segments.postprocess import segments
from refineloc.runtime.segments.values import Scores
from refineloc.training.data.split import Batch, Split
from refineloc.training.machine import parallel
from refineloc.training.models.base_model import BaseModel, Outputs
from refineloc.training.models.layers.activations import Activations
from refineloc.training.settings.config import Arithmetic, Config
from refineloc.training.targets import point_rows

__all__ = ["Gathered", "detect", "outputs_of", "predict", "quality"]


def outputs_of(model: BaseModel, batch: Batch, precision: Arithmetic = "float32") -> Outputs:
    """The model's logits of a batch in float32; with "bf16" its products are of bfloat16 numbers."""
    with torch.autocast(batch.features.device.type, torch.bfloat16, enabled=precision == "bf16"):
        outputs: Outputs = model(batch.features, batch.lengths)
    return outputs.float()


def predict(model: BaseModel, split: Split, precision: Arithmetic = "float32") -> Scores:
    """C̄, Ā and ŷ of a whole split, as arrays; of a student its points too."""
    model.eval()
    gathered = Gathered(split, model.levels)
    with torch.inference_mode():
        for batch in split.batches(parallel.share(split.chunks())):
            outputs = outputs_of(model, batch, precision)
            activations = model.activations(outputs, batch.lengths)
            gathered.put(batch.videos, batch.rows, activations, model.points(outputs))
    return gathered.scores()


class Gathered:
    """The activations of a split, put together from those of its batches.

    Args:
        split: of S snippets, V videos and N classes.
        levels: of the model's points; 0 where it has none.
    """

    def __init__(self, split: Split, levels: int = 0) -> None:
        snippets, videos, classes = split.snippets, len(split), len(split.classes)
        self._parts = [torch.zeros(snippets, classes), torch.zeros(snippets), torch.zeros(snippets)]
        self._videos = torch.zeros(videos, classes)
        self._lengths, self._levels = split.lengths, levels
        points = len(point_rows(split.lengths, torch.arange(videos), levels)) if levels else 0
        self._points = [torch.zeros(points, classes), torch.zeros(points, 2)] if levels else []

    def put(self, videos: Tensor, rows: Tensor, activations: Activations, points: Sequence[Tensor] = ()) -> None:
        """Those of a batch: indices of its videos and of its snippets in the split, its activations and points."""
        for whole, part in zip(self._parts, activations[:3], strict=True):
            whole[rows] = part.cpu()
        self._videos[videos] = activations.video_scores.cpu()
        if self._points:
            places = point_rows(self._lengths, videos, self._levels)
            for whole, part in zip(self._points, points, strict=True):
                whole[places] = part.cpu()

    def scores(self) -> Scores:
        """All of them; what other processes have put is added to the zeros here."""
        return Scores.of(parallel.add(part).numpy() for part in (*self._parts, self._videos, *self._points))


def detect(config: Config, split: Split, scores: Scores) -> dict[str, Detections] | None:
    """The detections of a split by video, best first; None where the fps of a video is not known."""
    grids = [grid for grid in split.grids if grid is not None]
    if len(grids) < len(split):
        return None
    detected = segments(scores, split.lengths.numpy(), config.detection)
    return dict(zip(split.names, Detections.from_batch(grids, detected, split.classes), strict=True))


def quality(detections: Mapping[str, Detections] | None, truth: Annotations | None) -> dict[str, Any]:
    """mAP as records have it: the average, and by tIoU; nothing where detections or true times are not known."""
    if detections is None or truth is None:
        return {}
    evaluation = evaluate(match_detections(detections, truth))
    by_threshold = zip(evaluation.tious, evaluation.mAP, strict=True)
    return {
        "average_mAP": float(evaluation.average_mAP),
        "mAP": {f"{tiou:.2f}": float(value) for tiou, value in by_threshold},
    }
