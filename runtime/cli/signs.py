"""Signs that a detection went wrong, each one line that names the cause and the setting."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from refineloc.runtime.detections import Detections
from refineloc.runtime.errors import counted
from refineloc.runtime.features.store import FeatureStore
from refineloc.runtime.segments.rules import Boundaries, OneThreshold
from refineloc.runtime.segments.values import WHOLE_VIDEO

if TYPE_CHECKING:
    from refineloc.runtime.batches import Planned
    from refineloc.runtime.detector import Detector

__all__ = ["WholeVideos", "why_none"]


class WholeVideos:
    """Counts videos whose best detection covers nearly all of them (`WHOLE_VIDEO`).

    Args:
        planned: the videos by name.
    """

    def __init__(self, planned: Mapping[str, "Planned"]) -> None:
        self._planned = planned
        self._whole = self._videos = 0

    def counted(self, detections: Iterable[tuple[str, Detections]]) -> Iterator[tuple[str, Detections]]:
        """The same detections, which are counted on the way."""
        for name, video in detections:
            if len(video):
                best = int(video.score.argmax())
                planned = self._planned[name]
                start, end = planned.grid.seconds(np.zeros(1), np.array([planned.snippets - 1.0]))
                self._videos += 1
                self._whole += bool(video.end[best] - video.start[best] > WHOLE_VIDEO * (end[0] - start[0]))
            yield name, video

    def line(self, detector: "Detector") -> str:
        """What is likely wrong where that is so in more than half of the videos with detections; "" elsewhere."""
        if 2 * self._whole <= self._videos:
            return ""
        share = f"{100 * WHOLE_VIDEO:.0f} %"
        return (
            f"in {self._whole} of {counted(self._videos, 'video')} the best detection covers more than {share} of "
            "the video, so "
            f"it says nothing of when: nothing is separated by {_thresholds(detector)}, so try stricter ones, or "
            "another iteration (refineloc-export --iter best)"
        )


def why_none(detector: "Detector", store: FeatureStore, name: str) -> str:
    """The likely cause where there are no detections, by one of the videos."""
    foreground = detector.scores(store.read(name)).foreground
    least, most = float(foreground.min()), float(foreground.max())
    if len(foreground) > 1 and least == most:
        return (
            f"the foreground is {least:.2g} in every snippet of {name!r}, so the model tells no action from the rest; "
            "export another iteration (refineloc-export --iter best), or train again"
        )
    rules = detector.settings
    least_score = f" and --min-score {rules.min_score:g}" if rules.min_score is not None else ""
    return (
        f"nothing passes {_thresholds(detector)}{least_score}; the foreground of {name!r} goes from {least:.2g} to "
        f"{most:.2g}"
    )


def _thresholds(detector: "Detector") -> str:
    rules = detector.settings
    if isinstance(rules, OneThreshold):
        return f"--alpha-a {rules.alpha_a:g} with --alpha-c {rules.alpha_c:g}"
    if isinstance(rules, Boundaries):
        return f"--point-score {rules.point_score:g}"
    return f"--thresholds from {min(rules.thresholds):g}"
