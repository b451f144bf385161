"""Detections and annotations in FiftyOne, as TemporalDetections of a video data set (pip install fiftyone).

    python examples/fiftyone_import.py VIDEOS_DIR detections.json labels.csv

VIDEOS_DIR holds the video files, which have the names of the videos. FiftyOne reads the frame rate of each file and
converts seconds to frames. Then `fiftyone.launch_app(dataset)` shows the data set, `dataset.evaluate_detections(...)`
scores it.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

import fiftyone

from refineloc.runtime import read_annotations, read_detections

ENDINGS = (".mp4", ".webm", ".m4v", ".mov", ".mkv")


def main(videos: Path, detections: Path, annotations: Path) -> fiftyone.Dataset:
    """Make a data set of the video files, with the fields "ground_truth" and "refineloc"."""
    detected, truth = read_detections(detections), read_annotations(annotations)
    dataset = fiftyone.Dataset()
    dataset.add_samples(
        [
            fiftyone.Sample(filepath=str(path.resolve()))
            for path in sorted(videos.iterdir())
            if path.suffix.lower() in ENDINGS and path.stem in truth
        ]
    )
    dataset.compute_metadata()
    outside = 0
    for sample in dataset.iter_samples(autosave=True):
        video = truth[Path(sample.filepath).stem]
        annotated = [(*row, None) for row in zip(video.start, video.end, video.segment_labels, strict=True)]
        for field, rows in (("ground_truth", annotated), ("refineloc", list(detected.get(video.name, ())))):
            inside = temporal(sample, rows)
            outside += len(rows) - len(inside)
            sample[field] = fiftyone.TemporalDetections(detections=inside)
    if outside:
        print(f"left out: {outside} segments that lie outside their video, or end before they start", file=sys.stderr)
    return dataset


def temporal(
    sample: fiftyone.Sample, rows: Iterable[tuple[float, float, str, float | None]]
) -> list[fiftyone.TemporalDetection]:
    """Segments (start, end, label, score) in the frames of their video, clipped to it, without those outside it.

    Real annotations have some outside: 26 of THUMOS14's test segments begin at or after the end of their video.
    """
    last = sample.metadata.duration
    clipped = [(max(float(start), 0.0), min(float(end), last), label, score) for start, end, label, score in rows]
    return [
        fiftyone.TemporalDetection.from_timestamps([start, end], sample=sample, label=label, confidence=score)
        for start, end, label, score in clipped
        if start < end
    ]


if __name__ == "__main__":
    print(main(*(Path(argument) for argument in sys.argv[1:4])))
