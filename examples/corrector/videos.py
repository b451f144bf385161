"""What the page shows of a video: detections and curves, of features or of a film."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refineloc.evaluation.pictures.timeline import mean_curve, score_curves, videos_of_detections
from refineloc.runtime import Detections, Detector, InputError, RefineLocError, open_features
from refineloc.runtime.annotations import Annotations
from refineloc.runtime.batches import Planned
from refineloc.runtime.features.store import FeatureStore
from refineloc.runtime.segments.grid import SnippetGrid
from refineloc.runtime.segments.values import Scores
from refineloc.runtime.video.films import films_below, find_films, is_film

MOST_SHOWN = 500  # detections of a video, the best
CURVE_POINTS = 400


class Found(NamedTuple):
    """What the page shows of a video, beside its corrections.

    Attributes:
        detections: start and end in seconds, class, score; the best first.
        curves: seconds and values from 0 to 1, by class, and of the foreground.
        duration_s: of the video.
        fps: frames a second; None of a recording.
        notes: what is to know of the film.
    """

    detections: list[tuple[float, float, str, float]]
    curves: dict[str, tuple[list[float], list[float]]]
    duration_s: float
    fps: float | None
    notes: tuple[str, ...] = ()


class OfFeatures:
    """A video whose features are in a file. It is detected whenever the page opens it, which takes milliseconds."""

    def __init__(
        self,
        detector: Detector,
        store: FeatureStore,
        planned: Planned,
        known: Sequence[str] | None,
        reading: threading.Lock,
    ) -> None:
        self._detector, self._store, self._planned, self._known = detector, store, planned, known
        self._reading = reading  # of all videos of the store: not every one can be read by two threads at a time

    @property
    def fps(self) -> float | None:
        """Frames a second."""
        return self._planned.grid.fps

    def found(self) -> Found:
        """Detect."""
        name = self._planned.name
        labels = None if self._known is None else {name: self._known}
        with self._reading:
            ((_, detections),) = (
                pair
                for batch in self._detector.detect_planned(self._store, [self._planned], labels=labels)
                for pair in batch
            )
            ((_, grid, scores),) = self._detector.scores_planned(self._store, [self._planned])
        return _shown(self._detector, detections, grid, scores, grid.fps)


class OfFilm:
    """A film. A thread detects in one after another, as a film takes minutes; what was found stays."""

    def __init__(self, detector: Detector, film: Path, backbone: Any, known: Sequence[str] | None) -> None:
        self._detector, self._film, self._backbone, self._known = detector, film, backbone, known
        self._found: Found | RefineLocError | None = None
        self.seconds = 0.0  # of film that were decoded

    @property
    def is_done(self) -> bool:
        """Whether it was detected, or cannot be."""
        return self._found is not None

    @property
    def fps(self) -> float | None:
        """Frames a second; None before the film was detected, and of a recording."""
        return self._found.fps if isinstance(self._found, Found) else None

    def found(self) -> Found | None:
        """What was found; None before that."""
        if isinstance(self._found, RefineLocError):
            raise self._found
        return self._found

    def detect(self) -> None:
        """Decode, run the backbone and the model."""
        try:
            self._found = self._detect()
        except RefineLocError as error:
            self._found = error
        except Exception as error:  # one film must not end the thread of all
            self._found = InputError(f"{self._film}: {type(error).__name__}: {error}")

    def _detect(self) -> Found:
        from refineloc.runtime.video.decode import Film
        from refineloc.runtime.video.detection import detect_film
        from refineloc.runtime.video.features import film_features

        def advance(seconds: float) -> None:
            self.seconds = seconds

        film = film_features(self._film, self._backbone, progress=advance)
        detections = detect_film(self._detector, film, self._known)
        with Film(self._film) as opened:
            fps = opened.info().fps if opened.has_pictures else None
        scores = self._detector.scores(film.features)
        return _shown(self._detector, detections, film.grid, scores, fps)._replace(notes=film.notes)


def _shown(detector: Detector, detections: Detections, grid: SnippetGrid, scores: Scores, fps: float | None) -> Found:
    last = np.array([len(scores.foreground) - 1])
    leading = videos_of_detections([{"": detections}])[""]
    curves = {}
    for name, curve in score_curves(scores, grid, leading, detector.classes).items():
        seconds, values, _ = mean_curve(*curve, CURVE_POINTS)
        curves[name] = seconds.round(2).tolist(), values.clip(0, 1).round(3).tolist()
    best = [
        (round(start, 2), round(end, 2), label, float(f"{score:.4g}"))
        for start, end, label, score in detections[:MOST_SHOWN]
    ]
    duration = grid.duration_s or float(grid.seconds(last, last)[1][0])
    return Found(best, curves, round(duration, 3), fps)


class Video(NamedTuple):
    """A video of the page: its name, its film if there is one, and what says what was found in it."""

    name: str
    film: Path | None
    source: OfFeatures | OfFilm


class Videos:
    """The videos of the page, by number, in the order in which they came."""

    def __init__(
        self,
        detector: Detector,
        *,
        backbone: Any = None,
        films: Path | None = None,
        labels: Annotations | None = None,
        fps: float | None = None,
    ) -> None:
        """See the options of the command line."""
        self.detector, self.backbone = detector, backbone
        self._films, self._labels, self._fps = films, labels or Annotations({}), fps
        self._videos: list[Video] = []
        self._changed = threading.Condition()
        threading.Thread(target=self._work, name="films", daemon=True).start()

    def __iter__(self) -> Iterator[Video]:
        return iter(list(self._videos))

    def __getitem__(self, number: int) -> Video:
        return self._videos[number]

    def add(self, path: Path, *, fps: float | None = None, untrusted: bool = False) -> None:
        """Take a film, a folder of films, or a file or folder of features.

        Raises:
            InputError: it is neither, does not fit the model, or a video of that name is there.
        """
        if is_film(path, sound=True) or (self.backbone is not None and path.is_dir() and not _is_features(path)):
            self._append(self._of_films(path))
            return
        store = open_features(path, untrusted=untrusted)
        try:
            self._append(self._of_store(store, fps or self._fps))
        except BaseException:
            store.close()
            raise

    def _append(self, videos: list[Video]) -> None:
        with self._changed:
            names = {video.name for video in self._videos}
            for video in videos:
                if video.name in names:
                    raise InputError(f"video {video.name!r} is there twice; rename one of its files")
            self._videos += videos
            self._changed.notify()

    def _of_films(self, path: Path) -> list[Video]:
        if self.backbone is None:
            raise InputError(f"{path}: is a film, whose features need a backbone; start with --backbone BACKBONE.onnx")
        films = find_films([path], sound=self.backbone.metadata.kind == "audio")
        return [
            Video(name, film, OfFilm(self.detector, film, self.backbone, self._known(name)))
            for name, film in films.items()
        ]

    def _of_store(self, store: FeatureStore, fps: float | None) -> list[Video]:
        times = {
            name: (self._labels[name].fps, self._labels[name].duration_s)
            for name in store.names
            if name in self._labels
        }
        planned = self.detector.plan(store, store.names, fps=fps, times=times)
        films = films_below(self._films, store.names) if self._films is not None else {}
        reading = threading.Lock()
        return [
            Video(
                each.name,
                films.get(each.name),
                OfFeatures(self.detector, store, each, self._known(each.name), reading),
            )
            for each in planned
        ]

    def _known(self, name: str) -> Sequence[str] | None:
        return self._labels[name].labels if name in self._labels else None

    def _work(self) -> None:
        """Detect in the films, one after another."""
        while True:
            with self._changed:
                waiting = (video.source for video in self._videos if isinstance(video.source, OfFilm))
                film = next((source for source in waiting if not source.is_done), None)
                if film is None:
                    self._changed.wait()
                    continue
            film.detect()


def _is_features(folder: Path) -> bool:
    return (folder / "index.parquet").is_file() or any(folder.glob("**/*.np[yz]"))
