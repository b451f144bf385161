"""Detections and annotations in FiftyOne, as TemporalDetections of a video data set (pip install fiftyone).

    python examples/fiftyone_import.py VIDEOS_DIR detections.json labels.csv

VIDEOS_DIR holds the video files, called as the videos are. FiftyOne reads each file's frame rate and turns
seconds into frames itself. Then `fiftyone.launch_app(dataset)` shows them, `dataset.evaluate_detections(...)` compares.
"""

import sys
from pathlib import Path

import fiftyone

from refineloc.runtime import read_annotations, read_detections

ENDINGS = (".mp4", ".webm", ".m4v", ".mov", ".mkv")


def main(videos: Path, detections: Path, annotations: Path) -> fiftyone.Dataset:
    """Make a data set of the video files, with the fields "ground_truth" and "refineloc"."""
    found, truth = read_detections(detections), read_annotations(annotations)
    dataset = fiftyone.Dataset()
    dataset.add_samples(
        [
            fiftyone.Sample(filepath=str(path.resolve()))
            for path in sorted(videos.iterdir())
            if path.suffix.lower() in ENDINGS and path.stem in truth
        ]
    )
    dataset.compute_metadata()
    for sample in dataset.iter_samples(autosave=True):
        video = truth[Path(sample.filepath).stem]
        rows = zip(video.start, video.end, video.segment_labels, strict=True)
        sample["ground_truth"] = fiftyone.TemporalDetections(
            detections=[temporal(sample, start, end, label) for start, end, label in rows]
        )
        own = found.get(video.name, ())
        sample["refineloc"] = fiftyone.TemporalDetections(
            detections=[temporal(sample, start, end, label, score) for start, end, label, score in own]
        )
    return dataset


def temporal(
    sample: fiftyone.Sample, start: float, end: float, label: str, score: float | None = None
) -> fiftyone.TemporalDetection:
    """One segment, in the frames of its video."""
    last = sample.metadata.duration
    return fiftyone.TemporalDetection.from_timestamps(
        [max(float(start), 0.0), min(float(end), last)], sample=sample, label=label, confidence=score
    )


if __name__ == "__main__":
    print(main(*(Path(argument) for argument in sys.argv[1:4])))
