"""Which fps and duration a video has, where several files state them."""

from typing import NamedTuple, Protocol

from refineloc.runtime.segments.grid import SnippetGrid

__all__ = ["StatesTimes", "VideoTimes", "video_times"]


class VideoTimes(NamedTuple):
    """Times of a video, None where not known.

    Attributes:
        fps: frames a second of the video that the features were made from.
        duration_s: its length in seconds.
    """

    fps: float | None = None
    duration_s: float | None = None

    def grid(self, snippet_frames: int, stride_frames: int | None = None) -> SnippetGrid | None:
        """The snippets of the video in seconds, None where its fps is not known.

        Raises:
            InputError: see `SnippetGrid`.
        """
        return None if self.fps is None else SnippetGrid(self.fps, snippet_frames, self.duration_s, stride_frames)


class StatesTimes(Protocol):
    """What a file says of a video: `FeatureInfo`, `VideoAnnotation`, `VideoTimes`."""

    @property
    def fps(self) -> float | None: ...
    @property
    def duration_s(self) -> float | None: ...


def video_times(
    features: StatesTimes | None, labels: StatesTimes | None = None, *, fps: float | None = None
) -> VideoTimes:
    """Each of fps and duration from the first that states it: the features, the labels, the parameter.

    Snippets become seconds by the fps of the video that the features were made from. The labels may be of a copy at
    another frame rate.

    Args:
        features: attributes of the features.
        labels: of the same video.
        fps: of videos for which neither states it.
    """
    stated = [source for source in (features, labels) if source is not None]
    rates = [*(source.fps for source in stated), fps]
    durations = [source.duration_s for source in stated]
    return VideoTimes(
        next((rate for rate in rates if rate is not None), None),
        next((duration for duration in durations if duration is not None), None),
    )
