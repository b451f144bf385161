"""Several model files that score as one: their scores are means."""

import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from refineloc.runtime.errors import ConfigError, ModelError
from refineloc.runtime.model.metadata import SUMMED_BASE
from refineloc.runtime.model.onnx_guard import ModelSource
from refineloc.runtime.model.session import Provider, Session
from refineloc.runtime.segments.rules import Boundaries
from refineloc.runtime.segments.values import SNIPPET_SCORES, Points, Scores

__all__ = ["SeveralSessions"]

_SHARED = ("classes", "width", "snippet_frames", "stride_frames", "stream", "stream_order")


class SeveralSessions:
    """Several `Session`s in the place of one. C̄, foreground and attention are the means of theirs.

    ŷ is the sum of that attention times that C̄ where it is so in each of them (base model refineloc), else the mean of
    theirs.

    Args:
        models: the model files.
        provider, threads, batch_snippets, engine_cache, spin: of each, see `Session`.

    Attributes:
        sessions: of the files.
        has_points: whether all find segments themselves.
        calls: how many calls at a time use the threads best, see `Session`.
        metadata, provider: those of the first; of different base models `metadata.base` names all, and
            `metadata.context_snippets` is the largest.

    Raises:
        ConfigError: no file.
        ModelError: the files do not agree in classes, width, frames a snippet or stream; or see `Session`.
    """

    def __init__(
        self,
        models: Sequence[ModelSource],
        provider: Provider,
        threads: int,
        *,
        batch_snippets: int,
        engine_cache: str | os.PathLike[str] | None,
        spin: bool,
    ) -> None:
        if not models:
            raise ConfigError("model: expected a file or several, got an empty list")
        self.sessions = [
            Session(model, provider, threads, batch_snippets=batch_snippets, engine_cache=engine_cache, spin=spin)
            for model in models
        ]
        first = self.sessions[0]
        self.has_points = all(session.has_points for session in self.sessions)
        self.calls = min(session.calls for session in self.sessions)
        self.metadata, self.provider = first.metadata, first.provider
        for other in self.sessions[1:]:
            for name in _SHARED:
                if getattr(other.metadata, name) != getattr(self.metadata, name):
                    raise ModelError(
                        f"{other.name}: its {name} differ from those of {first.name}; give models of the same classes "
                        "and features"
                    )
        if isinstance(self.metadata.detection, Boundaries):
            for other in self.sessions:
                if not other.has_points:
                    raise ModelError(
                        f"{other.name}: is no student, as {first.name} is; give students alone, or name one of the "
                        "others first"
                    )
        known = {each.name: each.metadata.backbone for each in self.sessions if each.metadata.backbone}
        if len(set(known.values())) > 1:
            (one, its), *_ = known.items()
            second = next(name for name, backbone in known.items() if backbone != its)
            raise ModelError(
                f"{second}: learnt from features of the backbone {known[second]}, {one} of {its}; give models of "
                "the same features"
            )
        self.metadata = replace(self.metadata, backbone=next(iter(known.values()), ""))
        bases = list(dict.fromkeys(each.metadata.base for each in self.sessions))
        context = max(each.metadata.context_snippets for each in self.sessions)
        networks = sum(each.metadata.networks for each in self.sessions)
        self.metadata = replace(self.metadata, base="+".join(bases), context_snippets=context, networks=networks)
        self._is_summed = bases == [SUMMED_BASE]

    def run(
        self,
        features: npt.NDArray[np.float32],
        lengths: npt.NDArray[np.int64],
        names: Sequence[str] | None = None,
        *,
        beside: bool = False,
    ) -> Scores:
        """Scores of a packed batch, see `Session.run`."""
        every = [session.run(features, lengths, names, beside=beside) for session in self.sessions]
        mean = Scores.of(_mean([getattr(scores, name) for scores in every]) for name in SNIPPET_SCORES)
        points = [scores.points for scores in every if scores.points is not None]
        if len(points) == len(every):
            mean = mean._replace(points=_mean_points(points, self.sessions[0].name))
        if not self._is_summed:
            return mean
        video_scores = np.zeros_like(mean.video_scores)
        ends = np.cumsum(lengths).tolist()
        for video, (length, end) in enumerate(zip(lengths.tolist(), ends, strict=True)):
            part = slice(end - length, end)
            video_scores[video] = mean.attention[part].astype(np.float64) @ mean.class_scores[part].astype(np.float64)
        return mean._replace(video_scores=video_scores)


def _mean_points(points: Sequence[Points], name: str) -> Points:
    if len({each.scores.shape for each in points}) > 1:
        raise ModelError(f"{name}: the other models have another number of levels; give models of the same settings")
    return Points(*(_mean(arrays) for arrays in zip(*points, strict=True)))


def _mean(arrays: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    total = np.zeros(arrays[0].shape, dtype=np.float64)
    for array in arrays:
        total += array
    return (total / len(arrays)).astype(np.float32)
