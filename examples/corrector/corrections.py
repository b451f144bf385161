"""The corrected videos, and the files that they are written to."""

import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from corrector.uploads import safe_name
from refineloc.evaluation.formats.database import write_activitynet
from refineloc.evaluation.formats.label_studio import write_label_studio
from refineloc.evaluation.formats.reading import read_source
from refineloc.evaluation.formats.tracks import tracks_of_annotations
from refineloc.runtime import InputError
from refineloc.runtime.annotations import VideoAnnotation, read_annotations, write_annotations_csv
from refineloc.runtime.errors import counted
from refineloc.runtime.files import atomic_path, make_folder, writing

Segment = tuple[float, float, str]  # start and end in seconds, class


class Corrections:
    """The corrected videos and their three files."""

    def __init__(self, folder: Path, media: str = "") -> None:
        """Read what an earlier start has saved.

        Args:
            folder: of the files; it is made.
            media: put before the names of films for Label Studio (`write_label_studio`).
        """
        self.csv = make_folder(folder) / "corrected.csv"
        self.database = folder / "corrected.json"
        self.tasks = folder / "corrected_label_studio.json"
        self._folder, self._media = folder, media
        self._lock = threading.Lock()
        self._videos: dict[str, VideoAnnotation] = {}
        if self.csv.exists():
            self._videos.update(read_annotations(self.csv))
        if self.database.exists():  # it has videos without a segment, too, which a table cannot have
            for name, video in read_annotations(self.database).items():
                if not video.labels:
                    self._videos.setdefault(name, video)

    def of(self, name: str) -> list[Segment] | None:
        """The segments of a corrected video; None where it was not corrected."""
        video = self._videos.get(name)
        return None if video is None else _segments(video)

    @property
    def names(self) -> set[str]:
        """The corrected videos."""
        return set(self._videos)

    @property
    def classes(self) -> set[str]:
        """That segments have."""
        return {label for video in list(self._videos.values()) for label in video.labels}

    def save(self, name: str, segments: Sequence[Segment], *, duration_s: float, fps: float | None) -> str:
        """Write the segments of a video beside those of the others; gives a line that says what was written.

        Raises:
            InputError: labels that the file could not hold, such as two that differ in case alone.
            OutputError: a file cannot be written. Neither changes then.
        """
        ordered = sorted(segments)
        video = VideoAnnotation(
            name,
            tuple(sorted({label for _, _, label in ordered})),
            duration_s=duration_s,
            fps=fps,
            start=np.array([start for start, _, _ in ordered], dtype=np.float64),
            end=np.array([end for _, end, _ in ordered], dtype=np.float64),
            segment_labels=tuple(label for _, _, label in ordered),
        )
        with self._lock:
            videos = {**self._videos, name: video}
            tracks = tracks_of_annotations(videos)
            with (
                atomic_path(self.csv) as table,
                atomic_path(self.database) as database,
                atomic_path(self.tasks) as tasks,
            ):
                filled = {each: videos[each] for each in videos if videos[each].labels}
                write_annotations_csv(table, filled)
                self._read_back(table, filled)
                write_activitynet(database, tracks)
                write_label_studio(tasks, [track for track in tracks if track.fps], media=self._media)
            self._videos = videos
        if not filled:  # a table without a row is no file of labels
            with writing(self.csv):
                self.csv.unlink()
        count = sum(len(each.start) for each in videos.values())
        what = f"{counted(count, 'segment')} of {counted(len(videos), 'corrected video')}"
        return f"{self.csv.name}, {self.database.name} and {self.tasks.name}: {what}"

    def _read_back(self, table: Path, videos: Mapping[str, VideoAnnotation]) -> None:
        """A table that our programs would refuse, or read as something else, must not take the place of a good one."""
        if not videos:
            return
        try:
            read = read_annotations(table)
        except InputError as error:
            raise InputError(str(error).replace(str(table), self.csv.name)) from error
        for name, video in videos.items():
            if name not in read or _segments(read[name]) != _segments(video):
                raise InputError(
                    f"{self.csv.name} cannot hold video {name!r}: its name or a label reads otherwise; rename"
                )

    def load(
        self, name: str, content: bytes, rates: Mapping[str, float | None] = MappingProxyType({})
    ) -> dict[str, list[Segment]]:
        """The segments by video of any file that refineloc-convert reads. Nothing is saved.

        Args:
            name: of the file.
            content: of the file.
            rates: frames a second by video, for tasks of Label Studio that do not state theirs.

        Raises:
            InputError: another file.
        """
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=".loaded-") as aside:
            path = Path(aside, safe_name(name))
            with writing(path):
                path.write_bytes(content)
            try:
                tracks = read_source(path, rates=rates).tracks
            except InputError as error:
                raise InputError(str(error).replace(str(path), path.name)) from error
        rows = {
            track.video: zip(track.start.tolist(), track.end.tolist(), track.labels, strict=True) for track in tracks
        }
        return {
            video: [(max(round(start, 3), 0.0), round(end, 3), label) for start, end, label in each]
            for video, each in rows.items()
        }


def _segments(video: VideoAnnotation) -> list[Segment]:
    return sorted(zip(video.start.tolist(), video.end.tolist(), video.segment_labels, strict=True))
