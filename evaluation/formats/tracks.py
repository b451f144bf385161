"""What every format holds: the labelled segments of videos, with scores (detections) or without (annotations)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from refineloc.runtime.annotations import Annotations, VideoAnnotation
from refineloc.runtime.detections import Detections

__all__ = ["Track", "to_annotations", "to_detections", "tracks_of_annotations", "tracks_of_detections"]


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """The segments of one video.

    Attributes:
        video: its name.
        start, end: seconds, float64 [n].
        labels: class names, n of them.
        score: float64 [n] of detections, None of annotations.
        duration_s, fps, frames, subset: where they are known.
        known_labels: the video's classes, where it has labels without times.
        left_out: detections of the file that are not here, as they are empty or reversed.
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
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.start)

    def take(self, index: npt.NDArray[np.int64]) -> "Track":
        """The segments at these places only."""
        return replace(
            self,
            start=self.start[index],
            end=self.end[index],
            labels=tuple(self.labels[at] for at in index.tolist()),
            score=None if self.score is None else self.score[index],
        )

    def by_time(self) -> "Track":
        """The segments in order of start, then end."""
        return self.take(np.lexsort((self.end, self.start)))


def tracks_of_detections(detections: Mapping[str, Detections]) -> list[Track]:
    """One track a video; detections that are empty or reversed are left out and counted: no other format has them."""
    tracks = []
    for name, found in detections.items():
        kept = np.flatnonzero(found.end > found.start)
        track = Track(name, found.start, found.end, tuple(found.label.tolist()), found.score)
        tracks.append(replace(track.take(kept), left_out=len(track) - len(kept)))
    return tracks


def tracks_of_annotations(annotations: Mapping[str, VideoAnnotation]) -> list[Track]:
    """One track a video."""
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
        )
        for video in annotations.values()
    ]


def to_detections(tracks: Iterable[Track]) -> dict[str, Detections]:
    """Detections by video; annotations count as detections of score 1."""
    every = list(tracks)
    classes = tuple(sorted({label for track in every for label in track.labels}))
    index = {label: at for at, label in enumerate(classes)}
    return {
        track.video: Detections(
            track.start,
            track.end,
            np.ones(len(track)) if track.score is None else track.score,
            np.array([index[label] for label in track.labels], dtype=np.int64),
            classes,
        )
        for track in every
    }


def to_annotations(tracks: Iterable[Track]) -> Annotations:
    """Annotations, without scores."""
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
