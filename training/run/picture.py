"""What a run has learned, as one picture: a validation video's truth, and what each iteration detects in it."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from refineloc.evaluation.pictures.timeline import draw_timeline, score_curves
from refineloc.runtime.annotations import Annotations
from refineloc.runtime.detections import Detections, read_detections
from refineloc.runtime.errors import RefineLocError
from refineloc.runtime.segments.grid import SnippetGrid
from refineloc.runtime.segments.values import Scores
from refineloc.training.data.split import Split
from refineloc.training.models.base_model import BaseModel
from refineloc.training.run.files import Run
from refineloc.training.scoring import outputs_of
from refineloc.training.settings.config import Arithmetic

__all__ = ["draw_run"]


def draw_run(run: Run, val: Split, annotations: Annotations) -> str:
    """Draw the picture of a finished run: truth, detections by iteration, the last one's scores.

    The video is no chosen one: it is in the middle when all are sorted by their number of annotated segments, then by
    the last iteration's number of detections, then by name. Videos without segments count where none has any.

    Args:
        run: with at least one iteration.
        val: the validation videos.
        annotations: of the validation videos; without times the row of the truth is empty.

    Returns:
        A line that says what was drawn, or why nothing was: a picture is no reason for a finished run to fail.
    """
    grids = [grid for grid in val.grids if grid is not None]
    if len(grids) < len(val):
        return "no time line: a video's fps is not known"
    path = run.files.picture
    try:
        _draw(path, run, val, grids, annotations)
    except RefineLocError as error:
        return f"no time line: {error}"
    return f"{path}: time line of a validation video"


def _draw(path: Path, run: Run, val: Split, grids: Sequence[SnippetGrid], annotations: Annotations) -> None:
    by_iteration = [read_detections(run.files.detections(iteration)) for iteration in range(len(run.records))]
    last = len(by_iteration) - 1
    index = _typical(val, annotations, by_iteration[last])
    name, grid = val.names[index], grids[index]
    scores = _scores(run.model(last).to(val.device), val, index, run.config.training.precision)
    video = annotations[name]
    if video.duration_s is None:
        last_snippet = val.lengths[index].numpy() - 1
        _, end = grid.seconds(last_snippet, last_snippet)
        video = dataclasses.replace(video, duration_s=grid.duration_s or float(end))
    rows = {f"iteration {k}": detections[name] for k, detections in enumerate(by_iteration) if name in detections}
    title = f"{name}; curves: iteration {last}"
    draw_timeline(path, video, rows, title=title, curves=score_curves(scores, grid, video, val.classes))


def _typical(val: Split, annotations: Annotations, detections: Mapping[str, Detections]) -> int:
    """The index of the video in the middle; names are sorted already."""
    ranked = sorted(
        (len(annotations[name].start), len(detections.get(name, ())), index) for index, name in enumerate(val.names)
    )
    counted = [entry for entry in ranked if entry[0]] or ranked
    return counted[len(counted) // 2][-1]


def _scores(model: BaseModel, split: Split, video: int, precision: Arithmetic) -> Scores:
    """What a model says about one video."""
    (batch,) = split.batches([torch.tensor([video])])
    with torch.inference_mode():
        activations = model.activations(outputs_of(model, batch, precision), batch.lengths)
    return Scores.of(part.cpu().numpy() for part in activations)
