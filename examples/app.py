"""Correct detections by hand, in a browser, and save them as labels.

    python examples/app.py model.onnx features.h5 --films films/ --folder corrections
    python examples/app.py model.onnx films/ --backbone backbone.onnx --folder corrections

It prints the address of its page. There one drags the ends of segments, moves, deletes, adds and relabels them, and
saves. `corrections/` then holds

    corrected.csv                  labels with times, which refineloc-train, -eval and -tune read
    corrected.json                 the same in ActivityNet's form, with the videos that have no segment, too
    corrected_label_studio.json    the same as tasks of Label Studio
    uploads/                       films and features that were dropped onto the page

and the next start goes on with them. docs/how-to/correct-and-retrain.md has what to do with the labels.

The page needs drawing, dragging and a film beside both, which no kit of forms has. So corrector/ has its three small
files, and a server of Python's own; nothing is to be installed.
"""

import argparse
import errno
import re
from collections.abc import Sequence
from pathlib import Path

from corrector.corrections import Corrections
from corrector.server import MEBIBYTE, App
from corrector.uploads import Uploads
from corrector.videos import Videos

from refineloc.runtime import Detector, InputError, OutputError
from refineloc.runtime.annotations import read_annotations
from refineloc.runtime.cli.common import run_main
from refineloc.runtime.errors import counted


def _port(text: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) >= 2**16:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 65535, got {text!r:.40}")
    return int(text)


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description="Correct detections in a browser and save them as labels.")
    parser.add_argument("model", type=Path, help="ONNX file that refineloc-export wrote")
    parser.add_argument("sources", type=Path, nargs="*", help="films, folders of films, files or folders of features")
    parser.add_argument("--folder", type=Path, default=Path("corrections"), help="where labels and uploads go")
    parser.add_argument("--backbone", type=Path, help="for films: ONNX file of refineloc-export --backbone")
    parser.add_argument("--films", type=Path, help="folder of the films of videos whose features are given")
    parser.add_argument("--labels", type=Path, help="CSV or JSON that states classes, fps or durations of videos")
    parser.add_argument("--fps", type=float, help="frames a second of features that do not state it")
    parser.add_argument("--media", default="", help="for Label Studio: goes before the file of each video")
    parser.add_argument("--provider", default="auto", choices=("auto", "cuda", "tensorrt", "cpu"))
    parser.add_argument("--port", type=_port, default=8765, help="0 takes a free one")
    parser.add_argument("--max-upload-mib", type=int, default=4096)
    return parser.parse_intermixed_args(arguments)


def create(options: argparse.Namespace) -> App:
    """The server, with its videos.

    Raises:
        RefineLocError: a file that cannot be read, or does not fit the model.
    """
    # Without a least score: the page shows all, from the model's own on.
    detector = Detector(options.model, provider=options.provider, min_score=None)
    backbone = None
    if options.backbone is not None:
        from refineloc.runtime.video.backbone import Backbone
        from refineloc.runtime.video.detection import check_fits

        backbone = Backbone(options.backbone, options.provider)
        check_fits(detector.metadata, backbone)
    labels = None if options.labels is None else read_annotations(options.labels, times=False)
    if options.films is not None and not options.films.is_dir():
        raise InputError(f"{options.films}: no such folder of films")
    corrections = Corrections(options.folder, options.media)
    videos = Videos(detector, backbone=backbone, films=options.films, labels=labels, fps=options.fps)
    for source in options.sources:
        videos.add(source)
    uploads = Uploads(options.folder / "uploads", videos, options.max_upload_mib * MEBIBYTE)
    try:
        return App(videos, corrections, uploads, options.port)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise OutputError(f"port {options.port}: another program has it; give --port 0 for a free one") from error


def main() -> None:
    """Serve until stopped."""
    server = create(parsed())
    print(f"{counted(len(list(server.videos)), 'video')}; open {server.address}", flush=True)
    with server:
        server.serve_forever()


if __name__ == "__main__":
    run_main(main)
