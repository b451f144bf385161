"""Writes a trained model to a file that was compared with it."""

import os
from dataclasses import dataclass, replace

import numpy as np

from refineloc.evaluation.rules import RuleComparison, compare_rules
from refineloc.export.graph import model_bytes
from refineloc.export.parity import TOLERANCES, Sample, measure, problems
from refineloc.export.precision import build
from refineloc.runtime.errors import EngineError, ModelError
from refineloc.runtime.files import atomic_path
from refineloc.runtime.model.metadata import ModelMetadata, Precision
from refineloc.runtime.model.session import Session
from refineloc.runtime.segments.grid import SnippetGrid
from refineloc.runtime.segments.rules import OneThreshold
from refineloc.training.models.base_model import BaseModel

__all__ = ["Written", "write_model"]


@dataclass(frozen=True, slots=True)
class Written:
    """An exported file.

    Attributes:
        metadata: as in the file, with the measured parity.
        size: in bytes.
        beyond: what exceeds the tolerance, in words; empty unless that was allowed.
        streaming: the file's rule for streaming against its own rule of detection, on the same features; None where it
            has no such rule.
    """

    metadata: ModelMetadata
    size: int
    beyond: tuple[str, ...]
    streaming: RuleComparison | None = None


def write_model(
    path: str | os.PathLike[str],
    model: BaseModel,
    metadata: ModelMetadata,
    sample: Sample,
    *,
    precision: Precision = "fp32",
    allow_loss: bool = False,
) -> Written:
    """Export a model, compare the file with it, and keep the file if it is close enough.

    Args:
        path: of the ONNX file, which appears whole or not at all.
        model: features [S, D] -> class logits [S, N], attention logits [S, 2] or [S, 1].
        metadata: of the model; its precision and parity are replaced.
        sample: what to compare on.
        precision: of weights and products.
        allow_loss: keep the file even if it exceeds the tolerance of its precision.

    Raises:
        ModelError: the file exceeds the tolerance, or cannot be made.
        OutputError: it cannot be written.
    """
    graph = build(model, metadata.width, precision)
    with atomic_path(path) as aside:
        aside.write_bytes(model_bytes(graph, replace(metadata, precision=precision, parity=None)))
        try:
            session = Session(aside, provider="cpu")
            parity = measure(model, session, sample)
            streaming = None if metadata.streaming is None else _streaming_loss(session, sample, metadata.streaming)
        except (ModelError, EngineError) as error:  # its message has the name of the temporary file
            raise type(error)(str(error).replace(str(aside), str(path)), parameter=error.parameter) from error
        beyond = problems(parity, TOLERANCES[precision])
        if beyond and not allow_loss:
            raise ModelError(
                f"{path}: not written: as {precision} it is too far from the trained model: {'; '.join(beyond)}; "
                "allow_loss writes it all the same",
                parameter="allow_loss",
            )
        measured = replace(metadata, precision=precision, parity=parity)
        content = model_bytes(graph, measured)
        aside.write_bytes(content)
    return Written(measured, len(content), tuple(beyond), streaming)


def _streaming_loss(session: Session, sample: Sample, streaming: OneThreshold) -> RuleComparison:
    metadata = session.metadata
    frames, stride = metadata.snippet_frames, metadata.stride_frames
    scores = {
        video.name: session.run(video.features, np.array([len(video.features)], dtype=np.int64))
        for video in sample.videos
    }
    # Without fps a snippet is a second: overlaps are the same.
    grids = {
        video.name: video.grid or SnippetGrid(float(stride or frames), frames, None, stride) for video in sample.videos
    }
    return compare_rules(scores, grids, metadata.classes, metadata.detection, streaming, sample.annotations)
