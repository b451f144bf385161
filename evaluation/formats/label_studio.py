"""Label Studio: detections as predictions of the TimelineLabels tag, for correction by hand. One task for each video.

The project's labelling configuration must have these tags, with the frame rate of the videos:

    <View>
      <TimelineLabels name="actions" toName="video"><Label value="jump"/><Label value="run"/></TimelineLabels>
      <Video name="video" value="$video" framerate="25"/>
    </View>
"""

import json
import math
import os
from collections.abc import Iterable
from typing import Any

from refineloc.evaluation.formats.media import media_address
from refineloc.evaluation.formats.tracks import Track
from refineloc.runtime.errors import InputError
from refineloc.runtime.files import atomic_write

__all__ = ["write_label_studio"]


def write_label_studio(path: str | os.PathLike[str], tracks: Iterable[Track], *, media: str = "") -> None:
    """Write a list of tasks: detections as "predictions", annotations as "annotations".

    A range is in frames counted from 1, both ends included: Label Studio's convention.

    Args:
        path: the .json file to import.
        tracks: each with its frame rate.
        media: put before each video's name to make its address ("/data/local-files/?d=videos/"). A name without the
            ending of a media file gets ".mp4".

    Raises:
        InputError: a video without a frame rate.
        OutputError: the file cannot be written.
    """
    tasks = []
    for track in tracks:
        if track.fps is None:
            raise InputError(
                f"video {track.video!r}: Label Studio counts frames, and its fps is not known; give the track's fps",
                parameter="fps",
            )
        results = [_result(track, index, track.fps) for index in range(len(track))]
        entry: dict[str, Any] = {"result": results}
        if track.score is not None:
            entry["model_version"] = "refineloc"
        kind = "annotations" if track.score is None else "predictions"
        tasks.append({"data": {"video": media_address(media, track.video), "name": track.video}, kind: [entry]})
    with atomic_write(path) as handle:
        json.dump(tasks, handle, indent=1, allow_nan=False)
        handle.write("\n")


def _result(track: Track, index: int, fps: float) -> dict[str, Any]:
    # Frame k is shown from (k - 1) / fps to k / fps. Rounding keeps a float error from adding a frame.
    first = math.floor(round(max(float(track.start[index]), 0.0) * fps, 6)) + 1
    last = max(math.ceil(round(float(track.end[index]) * fps, 6)), first)
    result: dict[str, Any] = {
        "id": f"segment-{index + 1}",
        "from_name": "actions",
        "to_name": "video",
        "type": "timelinelabels",
        "value": {"ranges": [{"start": first, "end": last}], "timelinelabels": [track.labels[index]]},
    }
    if track.score is not None:
        # In the region's notes, as Label Studio's scores must be in [0, 1] and these can be larger.
        result["meta"] = {"text": [f"score {track.score[index]:.4f}"]}
    return result
