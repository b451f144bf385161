"""`refineloc-convert`: detections and annotations in the formats of other tools."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import numpy as np
import typer

from refineloc.evaluation.cli.clips import write_clips
from refineloc.evaluation.formats.database import write_activitynet, write_training_data
from refineloc.evaluation.formats.elan import write_elan
from refineloc.evaluation.formats.label_studio import write_label_studio
from refineloc.evaluation.formats.media import MEDIA_ENDINGS, media_address
from refineloc.evaluation.formats.parquet import write_parquet
from refineloc.evaluation.formats.reading import read_source
from refineloc.evaluation.formats.subtitles import write_subtitles
from refineloc.evaluation.formats.tracks import Track, to_annotations, to_detections, tracks_of_annotations
from refineloc.runtime.annotations import Annotations, read_annotations, write_annotations_csv
from refineloc.runtime.cli.common import VersionOption, new_app, note, run_app
from refineloc.runtime.detections import write_detections
from refineloc.runtime.errors import ConfigError, InputError, OutputError, counted, counted_of
from refineloc.runtime.features.opening import open_features
from refineloc.runtime.features.shards import ShardWriter
from refineloc.runtime.files import check_writable, claim_folder, is_folder, is_stream
from refineloc.runtime.jobs.detection import MergedDetections
from refineloc.runtime.jobs.parts import holds_parts
from refineloc.runtime.names import first_names, why_unmatched
from refineloc.runtime.segments.odd import odd_segments
from refineloc.runtime.text import plain_label, read_names, trimmed

__all__ = ["main"]

app = new_app("refineloc-convert")

Form = Literal["detections", "annotations", "training", "label-studio", "parquet", "srt", "vtt", "elan", "features"]

# The endings that a format's files may have; files in a folder get the first.
_ENDINGS: dict[Form, tuple[str, ...]] = {
    "detections": (".json", ".csv", ".jsonl"),
    "annotations": (".json", ".csv"),
    "training": (".json",),
    "label-studio": (".json",),
    "parquet": (".parquet",),
    "srt": (".srt",),
    "vtt": (".vtt",),
    "elan": (".eaf",),
    "features": (),
}
_LONGEST_NAME = 255  # bytes; the limit of the usual file systems
_FROM_ZERO: tuple[Form, ...] = ("srt", "vtt", "elan", "label-studio")  # have no times before 0
_ONE_VIDEO: tuple[Form, ...] = ("srt", "vtt", "elan")


# Of the options in the help.
GROUPS = {
    "What to convert": (),
    "What the files do not say": ("videos", "fps", "classes", "validation", "media"),
}


@app.command()
def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN",
            help="Detections (.json, .csv, .jsonl, refineloc-detect's folder of parts), annotations (.csv, .json), "
            "back from Label Studio (.json), ELAN (.eaf), subtitles (.srt, .vtt; a folder too), .parquet, W-TALC's; "
            "with --to features: features, whose shards go into the folder OUT.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help=".srt .vtt .eaf (one video, or a folder), .parquet, .csv .json .jsonl; see --to."
        ),
    ],
    to: Annotated[
        Form | None,
        typer.Option(help="The format, where OUT's ending leaves it open: .json and .csv stay what IN is otherwise."),
    ] = None,
    video: Annotated[
        str | None, typer.Option(help="Convert this video only; of a file of one video (.srt .vtt .eaf): its name.")
    ] = None,
    subset: Annotated[str | None, typer.Option(help="Of annotations with subsets: convert this one.")] = None,
    min_score: Annotated[float | None, typer.Option(help="Of detections: leave out those below this score.")] = None,
    cap: Annotated[int | None, typer.Option(min=1, help="Of detections: keep the best so many of each video.")] = None,
    videos: Annotated[
        Path | None,
        typer.Option(help="Labels CSV or JSON: frame rates, durations and subsets of the videos (and their classes)."),
    ] = None,
    known_labels: Annotated[
        bool, typer.Option(help="Leave out detections of classes that --videos does not give their video.")
    ] = False,
    fps: Annotated[float | None, typer.Option(help="Frames a second of videos that do not state it.")] = None,
    classes: Annotated[
        Path | None, typer.Option(help="Class names, one a line, in the order of label_id (training; default: sorted).")
    ] = None,
    validation: Annotated[
        Path | None, typer.Option(help="Annotations that go along as the validation subset (training).")
    ] = None,
    clips: Annotated[
        Path | None,
        typer.Option(
            metavar="FILMS",
            help="Cut the segments out of the films in this folder; OUT is a folder for the clips. They are copied "
            "where they begin with a key frame, else re-encoded; OUT/clips.csv says which.",
        ),
    ] = None,
    media: Annotated[
        str, typer.Option(help="Where the videos are, put before their names (label-studio, elan): file:///videos/")
    ] = "",
    shard_mb: Annotated[int, typer.Option(min=1, max=2**20, help="Of features: MB of a shard.")] = 512,
    allow_pickle: Annotated[
        bool,
        typer.Option(
            "--allow-pickle",
            help="Read W-TALC's object arrays. Trusted files only: a pickle can run any program.",
        ),
    ] = False,
    _version: VersionOption = False,
) -> None:
    """Convert detections or annotations (docs/how-to/convert.md).

    Subtitles and ELAN files hold one video: OUT is a file for one, or a folder, with --to, for all.
    """
    if fps is not None and not (fps > 0 and math.isfinite(fps)):
        raise ConfigError(f"--fps: expected a positive number, got {fps}")
    if min_score is not None and math.isnan(min_score):
        raise ConfigError("--min-score: expected a number, got nan")
    if clips is not None and to is not None:
        raise ConfigError("--clips: OUT is a folder of clips; leave --to out")
    if to == "features":
        _write_shards(source, out, shard_mb)
        return
    if known_labels and videos is None:
        raise ConfigError("--known-labels: needs --videos LABELS, which has the labels of each video")
    changes = (video, subset, min_score, cap, videos)
    if holds_parts(source) and (to or _form_of(out, True)) == "detections" and changes == (None,) * len(changes):
        _merge(source, out)
        return
    labels = read_annotations(videos, times=False) if videos is not None else None
    rates = {} if labels is None else {video.name: video.fps for video in labels.values()}
    tracks, scored, unread_scores, remarks = read_source(
        source, allow_pickle=allow_pickle, subset=subset, video=video, rates=rates, fps=fps
    )
    form = None if clips is not None else to or _form_of(out, scored)
    if not scored and (min_score is not None or cap is not None):
        raise ConfigError(f"--min-score and --cap: only for detections, and {source} holds annotations")
    if media and form not in ("label-studio", "elan"):
        raise ConfigError("--media: only with --to label-studio and elan")
    if form != "training" and (classes is not None or validation is not None):
        raise ConfigError("--classes and --validation: only with --to training")
    if labels is not None:
        tracks = _with_video_facts(tracks, labels, known_labels)
    tracks = [_limited(track, fps, min_score, cap) for track in tracks]
    if video is not None:
        names = [track.video for track in tracks]
        tracks = [track for track in tracks if track.video == video]
        if not tracks:
            why = why_unmatched([video], names) or f"; the first is {first_names(names, 1)}"
            raise InputError(f"{source}: has no video {video!r}{why}")
    for remark in remarks:
        note(remark)
    if form is None:
        assert clips is not None
        note(write_clips(source, out, tracks, clips, _file_name))
        return
    if form in _ONE_VIDEO:
        written = _write_each(form, out, tracks, media)
    else:
        check_writable(out, _ENDINGS[form])
        if form == "training":
            _write_training(out, tracks, classes, validation, labels.classes if labels is not None else ())
        elif form == "label-studio":
            write_label_studio(out, tracks, media=media)
            if len({track.fps for track in tracks}) > 1:
                note('the videos have several frame rates: the project needs <Video ... framerate="$fps"/>')
        elif form == "parquet":
            write_parquet(out, tracks)
        elif form == "detections":
            write_detections(out, to_detections(tracks))
        elif out.suffix.lower() == ".csv":
            write_annotations_csv(out, to_annotations(tracks))
        else:
            write_activitynet(out, tracks)
        written = str(out)
    _note_losses(form, out, tracks, unread_scores)
    note(f"{written}: {_counted(tracks)} ({form})")


def _merge(folder: Path, out: Path) -> None:
    """Write the file that one run of refineloc-detect would have written, with one video in memory at a time."""
    check_writable(out, _ENDINGS["detections"])
    merged = MergedDetections(folder)
    write_detections(out, merged, merged.external_data)
    if merged.errors:
        note(f"warning: {merged.without()}")
    note(f"{out}: {counted(merged.count, 'detection')} of all parts")


def _write_shards(source: Path, out: Path, shard_mb: int) -> None:
    """Write the features of a file or folder into a folder of shards, with an index."""
    with open_features(source) as store, ShardWriter(out, shard_mb * 10**6) as shards:
        for name in store.names:
            info = store.info(name)
            # As they are: float16 stays so, and others become float32, which models take.
            dtype = info.dtype if info.dtype == np.float16 else np.dtype(np.float32)
            features = store.room(name, (info.snippets, info.width), dtype)
            store.read_into(name, features)
            shards.add(
                name,
                features,
                {
                    "fps": info.fps,
                    "duration": info.duration_s,
                    "snippet_frames": info.snippet_frames,
                    "stride_frames": info.stride_frames,
                    "backbone": info.backbone,
                },
            )
    note(f"{out}: {counted(len(store.names), 'video')} in {counted(shards.count, 'shard')}, and an index")


def _note_losses(form: Form, out: Path, tracks: list[Track], unread_scores: int) -> None:
    """Print a line for everything in IN that the format of OUT cannot hold."""
    empty = [(track.video, *bounds) for track in tracks for bounds in track.left_out]
    if empty:
        video, start, end = empty[0]
        which = counted(len(empty), "segment that ends by its", "segments that end by their")
        note(f"left out: {which} start or by 0 s, the first in video {video!r:.80} ({start:.10g} to {end:.10g} s)")
    durations = {track.video: track.duration_s for track in tracks}
    for odd in odd_segments({track.video: track for track in tracks}, durations):
        clipped = "negative" if form in _FROM_ZERO else odd.kind if form == "training" else None
        then = "clipped to the video" if clipped == odd.kind else "kept as in IN"
        note(f"warning: {odd.line('segment', sum(map(len, tracks)), then)}")
    if unread_scores:
        note(f"left out: the scores of {counted(unread_scores, 'annotation')}, which have none here (detections do)")
    is_csv = out.suffix.lower() == ".csv"
    if is_csv or form == "parquet":
        lost = [t.video for t in tracks if not len(t) and not (form == "annotations" and t.known_labels)]
        if lost:
            note(
                f"left out: {len(lost)} of {counted(len(tracks), 'video')} without a segment, as the file has a row a "
                f"segment; the first is {lost[0]!r}"
            )
    if is_csv and form == "annotations" and any(track.subset is not None for track in tracks):
        note("left out: the videos' subsets, which the CSV has no column for")
    if form != "annotations":
        weak = sum(label not in track.labels for track in tracks for label in track.known_labels)
        if weak:
            note(f"left out: {weak} label{'s' * (weak != 1)} without times, which {form} has no place for")
    if is_csv:
        texts = {track.video: trimmed(track.video) for track in tracks}
        texts |= {label: plain_label(label) for track in tracks for label in (*track.labels, *track.known_labels)}
        spaced = sorted(text for text, read in texts.items() if text != read)
        if spaced:
            note(f"warning: spaces around a name do not count in a CSV: {spaced[0]!r} is read as {texts[spaced[0]]!r}")


def _form_of(out: Path, scored: bool) -> Form:
    """The format by OUT's ending; .json, .csv and streams stay detections or annotations, as the input is."""
    ending = out.suffix.lower()
    if ending == ".jsonl":
        return "detections"
    if ending in (".json", ".csv"):
        return "detections" if scored else "annotations"
    for form, endings in _ENDINGS.items():
        if ending in endings:
            return form
    if is_stream(out):
        return "detections" if scored else "annotations"
    known = sorted({ending for endings in _ENDINGS.values() for ending in endings})
    raise InputError(f"{out}: expected a name that ends in {', '.join(known)}, or a folder and --to srt, vtt or elan")


def _counted(tracks: list[Track]) -> str:
    """How many segments of how many videos, in words."""
    segments, videos, without = sum(map(len, tracks)), len(tracks), sum(not len(track) for track in tracks)
    text = f"{counted(segments, 'segment')} of {counted(videos, 'video')}"
    return f"{text}, {without} of them without any" if without else text


def _with_video_facts(tracks: list[Track], labels: Annotations, known_labels: bool) -> list[Track]:
    """Fill in frame rates, durations and subsets; with `known_labels` keep only segments of the video's labels."""
    missing = [track.video for track in tracks if track.video not in labels]
    if missing:
        why = why_unmatched(missing, labels.keys())
        raise InputError(
            f"{labels.path}: lacks {len(missing)} of {counted(len(tracks), 'video')}, the first is {missing[0]!r}{why}"
        )
    filled = []
    for track in tracks:
        video = labels[track.video]
        if known_labels:
            track = track.take(np.flatnonzero([label in video.labels for label in track.labels]))
        filled.append(
            replace(
                track,
                duration_s=track.duration_s or video.duration_s,
                fps=track.fps or video.fps,
                frames=track.frames or video.frames,
                subset=track.subset or video.subset,
            )
        )
    return filled


def _limited(track: Track, fps: float | None, min_score: float | None, cap: int | None) -> Track:
    """The best detections of a video, in their order. Annotations have no scores: all are kept."""
    if track.fps is None and fps is not None:
        track = replace(track, fps=fps)
    if track.score is None:
        return track
    kept = np.arange(len(track)) if min_score is None else np.flatnonzero(track.score >= min_score)
    if cap is not None and len(kept) > cap:
        best = np.argsort(-track.score[kept], kind="stable")[:cap]
        kept = kept[np.sort(best)]
    return track.take(kept)


def _write_each(form: Form, out: Path, tracks: list[Track], media: str) -> str:
    """Write a file for the only video, or a folder with a file for each; gives what was written, for the message."""

    def write(path: Path, track: Track) -> None:
        if form == "elan":
            write_elan(path, track, media=media_address(media, track.video) if media else None)
        else:
            write_subtitles(path, track, "srt" if form == "srt" else "vtt")

    ending = _ENDINGS[form][0]
    if out.suffix.lower() == ending or is_stream(out):
        if len(tracks) != 1:
            raise InputError(
                f"{out}: {form} holds one video, and there are {len(tracks)}; "
                f"choose one with --video, or give a folder and --to {form}"
            )
        write(out, tracks[0])
        return str(out)
    if out.suffix and not is_folder(out, OutputError):
        raise InputError(f"{out}: expected a name that ends in {ending}, or a folder")
    beside = {ending, *MEDIA_ENDINGS, *((".pfsx",) if form == "elan" else ())}  # ELAN's own settings of a file
    names = _file_names(out, tracks, ending)  # before the first file is written, as this can fail
    claim_folder(out, lambda name: Path(name).suffix.lower() in beside, f"{form} files or films")
    for track, name in zip(tracks, names, strict=True):
        write(out / name, track)
    return f"{out}/*{ending}"


def _file_names(folder: Path, tracks: list[Track], ending: str) -> list[str]:
    """A file name for each video: its name, without separators and control characters, cut to the longest allowed.

    Raises:
        InputError: two videos would have the same file name.
    """
    names: dict[str, str] = {}
    changed = []
    for track in tracks:
        name = _file_name(track.video, ending) + ending
        if name in names:
            raise InputError(
                f"{folder}: videos {names[name]!r:.80} and {track.video!r:.80} would both be {name!r:.80}; "
                "convert them one at a time, with --video and a file's name"
            )
        names[name] = track.video
        if name != f"{track.video}{ending}":
            changed.append(name)
    if changed:
        note(
            f"{counted_of(len(changed), len(tracks), 'video', 'has another name', 'have other names')} as files, the "
            "first: "
            f"{names[changed[0]]!r:.80} is {changed[0]!r:.80}"
        )
    return list(names)


def _file_name(text: str, ending: str) -> str:
    """A text as the name of a file to which `ending` is added, which is no longer than file systems allow."""
    safe = "".join(letter if letter.isprintable() and letter not in "/\\" else "_" for letter in text)
    if not safe.strip("."):
        safe = "_" * len(safe)
    # Cut in bytes, as the limit is in bytes; a letter that the cut would halve is dropped.
    return safe.encode()[: _LONGEST_NAME - len(ending)].decode(errors="ignore")


def _write_training(
    out: Path, tracks: list[Track], classes: Path | None, validation: Path | None, known_classes: Sequence[str]
) -> None:
    """Pseudo labels as the training subset, and annotations beside them as the validation subset."""
    validation_tracks: list[Track] = []
    if validation is not None:
        validation_tracks = [
            replace(track, subset="validation") for track in tracks_of_annotations(read_annotations(validation))
        ]
        both = {track.video for track in tracks} & {track.video for track in validation_tracks}
        if both:
            raise InputError(
                f"{validation}: {counted(len(both), 'video is', 'videos are')} in both subsets, the first is "
                f"{min(both)!r}"
            )
    all_tracks = [replace(track, subset="training") for track in tracks] + validation_tracks
    used = {label for track in all_tracks for label in track.labels}
    # All classes of --videos get a label_id: it must not change when --min-score leaves a class without segments.
    names = (
        sorted({*used, *known_classes})
        if classes is None
        else read_names(classes, InputError, "give class names, one a line")
    )
    left_out = write_training_data(out, all_tracks, names)
    if validation_tracks:
        note(f"{validation}: {_counted(validation_tracks)} (validation)")
    if left_out:
        note(
            f"left out: {len(left_out)} of {counted(len(tracks), 'video')}, without a segment; the first is "
            f"{left_out[0]!r}"
        )
    absent = sorted(set(names) - used)
    if absent:
        note(
            f"warning: {counted_of(len(absent), len(names), 'class', 'has', 'have')} no segment, the first is "
            f"{absent[0]!r}; ActionFormer's loaders stop where num_classes counts them"
        )


def main() -> NoReturn:
    """Entry point of the console script."""
    options = {
        "fps": "--videos LABELS or --fps X",
        "duration_s": "--videos LABELS",
        "subset": "--subset",
        "video": "--video NAME",
        "allow_pickle": "--allow-pickle",
    }
    run_app(app, options, groups=GROUPS)


if __name__ == "__main__":
    main()
