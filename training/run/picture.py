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
from refineloc.training.models.base_model import build_model
from refineloc.training.run.files import Run, load_weights
from refineloc.training.scoring import outputs_of
from refineloc.training.settings.config import Config

__all__ = ["draw_run"]


def draw_run(config: Config, val: Split, run: Run, annotations: Annotations) -> str:
    """Draw `timeline.png` in the folder of a finished run: truth, detections by iteration, the last one's scores.

    The video is no chosen one: it is in the middle when all are sorted by their number of annotated segments, then by
    the last iteration's number of detections, then by name. Videos without segments count where none has any.

    Args:
        config: of the run.
        val: the validation videos.
        run: with at least one iteration.
        annotations: of the validation videos; without times the row of the truth is empty.

    Returns:
        A line that says what was drawn, or why nothing was: a picture is no reason for a finished run to fail.
    """
    grids = [grid for grid in val.grids if grid is not None]
    if len(grids) < len(val):
        return "no time line: a video's fps is not known"
    path = run.folder / "timeline.png"
    try:
        _draw(path, config, val, grids, run, annotations)
    except RefineLocError as error:
        return f"no time line: {error}"
    return f"{path}: time line of a validation video"


def _draw(
    path: Path, config: Config, val: Split, grids: Sequence[SnippetGrid], run: Run, annotations: Annotations
) -> None:
    found = [read_detections(run.iteration_folder(index) / "detections.json") for index in range(len(run.records))]
    at = _typical(val, annotations, found[-1])
    name, grid = val.names[at], grids[at]
    scores = _scores(config, val, at, run.iteration_folder(len(found) - 1) / "model.safetensors")
    video = annotations[name]
    if video.duration_s is None:
        _, end = grid.seconds(val.lengths[at].numpy() - 1, val.lengths[at].numpy() - 1)
        video = dataclasses.replace(video, duration_s=grid.duration_s or float(end))
    rows = {f"iteration {index}": of_all[name] for index, of_all in enumerate(found) if name in of_all}
    title = f"{name}; curves: iteration {len(found) - 1}"
    draw_timeline(path, video, rows, title=title, curves=score_curves(scores, grid, video, val.classes))


def _typical(val: Split, annotations: Annotations, found: Mapping[str, Detections]) -> int:
    """The index of the video in the middle; names are sorted already."""
    ranked = sorted((len(annotations[name].start), len(found.get(name, ())), at) for at, name in enumerate(val.names))
    counted = [entry for entry in ranked if entry[0]] or ranked
    return counted[len(counted) // 2][-1]


def _scores(config: Config, split: Split, video: int, weights: Path) -> Scores:
    """What a model of the run says about one video."""
    model = build_model(config.model, split.width, len(split.classes)).to(split.device).eval()
    load_weights(weights, model)
    (batch,) = split.batches([torch.tensor([video])])
    with torch.inference_mode():
        found = model.activations(outputs_of(model, batch, config.training.precision), batch.lengths)
    return Scores(*(part.cpu().numpy() for part in found))
