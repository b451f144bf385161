"""Detection in films: a film's features go from the backbone to the model and are never written."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from refineloc.runtime.errors import InputError, ModelError
from refineloc.runtime.jobs.blocks import Block, Row
from refineloc.runtime.jobs.detection import check_provider, check_row, row_of
from refineloc.runtime.jobs.parts import damaged
from refineloc.runtime.model.metadata import ModelMetadata
from refineloc.runtime.model.session import Provider
from refineloc.runtime.video.backbone import Backbone
from refineloc.runtime.video.extract import features_of, film_state

if TYPE_CHECKING:
    from refineloc.runtime.detections import Detections
    from refineloc.runtime.detector import Detector
    from refineloc.runtime.video.features import FilmFeatures

__all__ = ["FilmDetectionWork", "check_fits", "detect_film"]


def check_fits(model: ModelMetadata, backbone: Backbone) -> None:
    """Refuse a backbone whose features are not those that a model learnt from.

    Raises:
        ModelError: it is another than the model names, or its snippets are of other frames.
        FeatureError: its features have another width.
    """
    metadata = backbone.metadata
    if model.backbone not in ("", metadata.identity):
        raise ModelError(
            f"{backbone.name}: is the backbone {metadata.identity} ({metadata.source}), and the model learnt from "
            f"features of {model.backbone}; give that one"
        )
    model.columns(metadata.width, backbone.name)
    frames, stride = model.snippet_frames, model.stride_frames or model.snippet_frames
    if (metadata.snippet_frames, metadata.stride_frames) != (frames, stride):
        raise ModelError(
            f"{backbone.name}: its snippets are {metadata.snippet_frames} frames every {metadata.stride_frames}, and "
            f"the model's are {frames} every {stride}; give the backbone of its training features"
        )


def detect_film(detector: "Detector", film: "FilmFeatures", labels: Sequence[str] | None = None) -> "Detections":
    """The actions of a film, from its features (`Detector.detect`)."""
    grid = film.grid
    return detector.detect(
        film.features,
        fps=grid.fps,
        duration_s=grid.duration_s,
        snippet_frames=grid.snippet_frames,
        stride_frames=grid.stride,
        labels=labels,
    )


class FilmDetectionWork:
    """Detection in the films of a block (`blocks.Work`); its rows are those of `DetectionWork`.

    Args:
        detector: the model and its settings.
        films: by the name of the video.
        backbone: the loaded backbone, and in `model` its file, from which another process loads it.
        provider: of the backbone there: what really ran it here.
        threads: of the backbone there, and of decoding.
        labels: the classes of each video, if known.
        seconds: a counter, `.value`; one that processes share, where several work.

    Attributes:
        seconds: the counter of the seconds of film that were decoded.
    """

    def __init__(
        self,
        detector: "Detector",
        films: Mapping[str, Path],
        backbone: Backbone,
        model: Path,
        *,
        provider: str,
        threads: int,
        labels: Mapping[str, Sequence[str]] | None,
        seconds: Any,
    ) -> None:
        self._detector, self._films, self._model = detector, films, model
        self._backbone: Backbone | None = backbone
        self._on = detector.provider
        self._provider, self._threads, self._labels = provider, threads, labels
        self.seconds = seconds

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_backbone": None}

    def process(self, block: Block) -> Iterator[Row]:
        """See `Work`. A film that cannot be decoded is an error; the engine's errors end the job."""
        check_provider(self._detector, self._on)
        if self._backbone is None:
            self._backbone = Backbone(self._model, cast(Provider, self._provider), self._threads)
        for name in block.names:
            before = film_state(self._films[name])  # a film that is replaced meanwhile is done again
            film = features_of(self._films[name], self._backbone, threads=self._threads, seconds=self.seconds)
            if isinstance(film, str):
                yield {"video": name, "error": film}
                continue
            try:
                found = detect_film(self._detector, film, self._known(name))
            except InputError as error:
                yield {"video": name, "error": f"{self._films[name]}: {error}"}
                continue
            yield {**row_of(name, found), "notes": list(film.notes), "known": self._known(name), **before}

    def check(self, row: Row, where: str) -> None:
        """See `Work`. The film and its classes must be those that the detections are of."""
        check_row(row, where, self._detector.classes)
        name = row["video"]
        if name in self._films:
            state = {**film_state(self._films[name]), "known": self._known(name)}
            if any(row.get(key) != value for key, value in state.items()):
                raise damaged(where)

    def _known(self, name: str) -> list[str] | None:
        return None if self._labels is None else list(self._labels[name])
