"""The value that all formats share: labelled segments of a video, with scores (detections) or without (annotations)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from refineloc.runtime.annotations import Annotations, VideoAnnotation
from refineloc.runtime.detections import Detections

__all__ = ["Track", "to_annotations", "to_detections", "track_of_rows", "tracks_of_annotations", "tracks_of_detections"]


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """The segments of one video.

    Attributes:
        video: the video's name.
        start, end: seconds, float64 [n].
        labels: class names, n of them.
        score: float64 [n] for detections, None for annotations.
        duration_s, fps, frames, subset: None if not known.
        known_labels: the classes of the video, for annotations; some may have no segment.
        left_out: start and end of the file's segments that are missing here: they end by their start, or by 0 s.
    """

    video: str
    start: npt.NDArray[np.float64]
    end: npt.NDArray[np.float64]
    labels: tuple[str, ...]
    score: npt.NDArray[np.float64] | None = None
    duration_s: float | None = None
    fps: float | None = None
    frames: int | None = None
    subset: str | None = None
    known_labels: tuple[str, ...] = ()
    left_out: tuple[tuple[float, float], ...] = ()

    def __len__(self) -> int:
        return len(self.start)

    def take(self, index: npt.NDArray[np.int64]) -> "Track":
        """Only the segments of these indices, in their order."""
        return replace(
            self,
            start=self.start[index],
            end=self.end[index],
            labels=tuple(self.labels[i] for i in index.tolist()),
            score=None if self.score is None else self.score[index],
        )

    def by_time(self) -> "Track":
        """The segments in order of start, then end."""
        return self.take(np.lexsort((self.end, self.start)))

    def without_empty(self) -> "Track":
        """Only the segments that end after their start and after 0 s: other formats have no others."""
        kept = self.end > np.maximum(self.start, 0.0)
        if kept.all():
            return self
        left_out = zip(self.start[~kept].tolist(), self.end[~kept].tolist(), strict=True)
        return replace(self.take(np.flatnonzero(kept)), left_out=tuple(left_out))


def track_of_rows(
    video: str, rows: Sequence[tuple[float, float, str, float | None]], **about: Any
) -> tuple[Track, int]:
    """A video's segments of start, end, label and score: detections if all have a score, else annotations.

    Returns:
        The track, without segments that last no time; and how many scores were left out, as others have none.
    """
    scores = [row[3] for row in rows if row[3] is not None]
    is_scored = bool(rows) and len(scores) == len(rows)
    track = Track(
        video,
        np.array([row[0] for row in rows], dtype=np.float64),
        np.array([row[1] for row in rows], dtype=np.float64),
        tuple(row[2] for row in rows),
        np.array(scores, dtype=np.float64) if is_scored else None,
        known_labels=() if is_scored else tuple(sorted({row[2] for row in rows})),
        **about,
    )
    return track.without_empty(), 0 if is_scored else len(scores)


def tracks_of_detections(detections: Mapping[str, Detections]) -> list[Track]:
    """One track for each video, without segments that last no time (see `Track.left_out`)."""
    return [
        Track(name, video.start, video.end, tuple(video.label.tolist()), video.score).without_empty()
        for name, video in detections.items()
    ]


def tracks_of_annotations(annotations: Mapping[str, VideoAnnotation]) -> list[Track]:
    """One track for each video, without segments that last no time (see `Track.left_out`)."""
    return [
        Track(
            video.name,
            video.start,
            video.end,
            video.segment_labels,
            duration_s=video.duration_s,
            fps=video.fps,
            frames=video.frames,
            subset=video.subset,
            known_labels=video.labels,
        ).without_empty()
        for video in annotations.values()
    ]


def to_detections(tracks: Iterable[Track]) -> dict[str, Detections]:
    """Detections by video; annotations become detections of score 1."""
    tracks = list(tracks)
    classes = tuple(sorted({label for track in tracks for label in track.labels}))
    index = {label: i for i, label in enumerate(classes)}
    return {
        track.video: Detections(
            track.start,
            track.end,
            np.ones(len(track)) if track.score is None else track.score,
            np.array([index[label] for label in track.labels], dtype=np.int64),
            classes,
        )
        for track in tracks
    }


def to_annotations(tracks: Iterable[Track]) -> Annotations:
    """Annotations by video; scores are dropped."""
    return Annotations(
        {
            track.video: VideoAnnotation(
                name=track.video,
                labels=tuple(sorted({*track.labels, *track.known_labels})),
                duration_s=track.duration_s,
                fps=track.fps,
                frames=track.frames,
                subset=track.subset,
                start=track.start,
                end=track.end,
                segment_labels=track.labels,
            )
            for track in tracks
        }
    )
