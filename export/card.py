"""The card of a model file: a README.md as Hugging Face shows it, from what the file says of itself and nothing else.

What the file does not say is "unknown" in the card. Names in a file come from strangers: they are text in YAML and in
Markdown, whatever characters they hold.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from refineloc.runtime.addresses import as_path
from refineloc.runtime.errors import OutputError, counted
from refineloc.runtime.files import atomic_write, check_writable, status_of
from refineloc.runtime.model.metadata import SUMMED_BASE, WHOLE_CONTEXT, ModelMetadata
from refineloc.runtime.model.onnx_guard import read_model
from refineloc.runtime.model.session import Session
from refineloc.runtime.segments.rules import needs_whole_video, settings_of
from refineloc.runtime.segments.values import POINT_SCORES, SNIPPET_SCORES

__all__ = ["CARD", "check_card", "model_card", "write_card"]

CARD = "README.md"  # where Hugging Face looks for it
# A file without this line was written or corrected by a person, and is not replaced.
_OURS = "<!-- written by refineloc-export --card; remove this line from a card that you correct -->"
_UNKNOWN = "unknown"
_CLASSES = 1_000  # that are listed
# Generators of pseudo labels that read the true times.
_NOT_WEAK = ("oracle", "distribution-aware")
# The licences that Hugging Face knows by these names (those of models and data that are common); others are "other".
_LICENCES = (
    "afl-3.0", "agpl-3.0", "apache-2.0", "artistic-2.0", "bsd", "bsd-2-clause", "bsd-3-clause", "bsl-1.0", "cc",
    "cc-by-2.0", "cc-by-3.0", "cc-by-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0",
    "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0",
    "cc-by-sa-4.0", "cc0-1.0", "ecl-2.0", "epl-1.0", "epl-2.0", "eupl-1.1", "eupl-1.2", "gpl", "gpl-2.0", "gpl-3.0",
    "isc", "lgpl", "lgpl-2.1", "lgpl-3.0", "mit", "mpl-2.0", "ms-pl", "ncsa", "odbl", "odc-by", "ofl-1.1", "osl-3.0",
    "pddl", "postgresql", "unlicense", "wtfpl", "zlib",
)  # fmt: skip


def model_card(model: str | os.PathLike[str]) -> str:
    """The card of a model file: Markdown with YAML front matter, as Hugging Face shows it.

    Args:
        model: path of the file.

    Raises:
        ModelError: not a file that refineloc-export wrote.
        EngineError, MissingExtraError: no ONNX Runtime.
    """
    metadata = Session(model, provider="cpu", threads=1).metadata
    _, content = read_model(model)
    return "\n".join(_lines(as_path(model).name, metadata, content)) + "\n"


def write_card(model: str | os.PathLike[str]) -> Path:
    """Write the card of a model file as README.md beside it.

    Args:
        model: path of the file.

    Returns:
        The path of the card.

    Raises:
        ModelError: see `model_card`.
        OutputError: see `check_card`.
    """
    check_card(model)
    text = model_card(model)
    path = as_path(model).with_name(CARD)
    with atomic_write(path) as file:
        file.write(text)
    return path


def check_card(model: str | os.PathLike[str]) -> None:
    """Check before hours of work that the card of a model file can be written.

    Raises:
        OutputError: the folder cannot be written, or its README.md is not a card that this module wrote.
    """
    path = as_path(model).with_name(CARD)
    if status_of(path, OutputError) is not None and _OURS not in _beginning(path):
        raise OutputError(
            f"{path}: is there, and is no card that refineloc-export wrote; write the model into a folder of its own"
        )
    check_writable(path)


def _beginning(path: Path) -> str:
    try:
        return path.read_bytes()[:10_000].decode("utf-8", "replace")
    except OSError as error:
        raise OutputError(f"{path}: cannot be read: {error.strerror}") from error


def _lines(name: str, metadata: ModelMetadata, content: bytes) -> Iterator[str]:
    yield from _front_matter(metadata)
    count = len(metadata.classes)
    yield _OURS
    yield ""
    yield f"# {_plain(name)}"
    yield ""
    yield (
        f"Finds actions of {counted(count, 'class')} in untrimmed video. It takes snippet features of a video, and "
        "gives segments with start, end, class and score. It is one ONNX file, made by "
        f"{_plain(metadata.producer) or _UNKNOWN}."
    )
    for title, body in (
        ("How to use it", _use(name)),
        ("Input and output", _interface(metadata)),
        ("Classes", [_listed(metadata.classes)]),
        ("Training", _training(metadata)),
        ("Scores", _scores(metadata)),
        ("Rule of detection", _rule(metadata)),
        ("Limits", _limits(metadata)),
        ("File", _file(metadata, content)),
        ("Licence", [_plain(metadata.licence) or f"{_UNKNOWN.capitalize()}: the file does not state one."]),
    ):
        yield from ("", f"## {title}", "")
        yield from body


def _front_matter(metadata: ModelMetadata) -> Iterator[str]:
    yield "---"
    licence = metadata.licence.strip()
    known = licence.lower().replace(" ", "-")
    if not licence:
        yield f"license: {_UNKNOWN}"
    elif known in _LICENCES:
        yield f"license: {known}"
    else:
        yield "license: other"
        yield f"license_name: {_quoted(licence)}"
    yield "library_name: refineloc"
    yield "tags:"
    base = re.sub("[^a-z0-9]+", "-", metadata.base.lower()).strip("-")
    for tag in dict.fromkeys(("temporal-action-localization", "weakly-supervised", "video", "onnx", "refineloc", base)):
        if tag and not (tag == "weakly-supervised" and metadata.pseudo_labels in _NOT_WEAK):
            yield f"- {_quoted(tag)}"
    if metadata.parity is not None and metadata.parity.map is not None:
        yield "metrics:"
        yield "- mAP"
    yield "---"


def _use(name: str) -> Iterator[str]:
    yield "```python"
    yield "from refineloc.runtime import Detector, open_features"
    yield ""
    yield f"detector = Detector({_quoted(name)})"
    yield 'for video, detections in detector.detect_many(open_features("features.h5")):'
    yield "    for start, end, label, score in detections:"
    yield '        print(f"{video}: {start:.2f} to {end:.2f} s {label} ({score:.3f})")'
    yield "```"
    yield ""
    yield "`pip install 'refineloc[cpu]'` brings what it needs, `refineloc[gpu]` does for NVIDIA GPUs. Other languages"
    yield "run it on ONNX Runtime alone; refineloc's docs/reference/onnx.md is the contract."


def _interface(metadata: ModelMetadata) -> Iterator[str]:
    frames, stride = metadata.snippet_frames, metadata.stride_frames or metadata.snippet_frames
    streams = {"both": "all columns"}.get(metadata.stream, f"the {metadata.stream} one of two streams")
    backbone = f"identity {_plain(metadata.backbone)}; features that state another are refused"
    context = "it alone"
    if metadata.context_snippets:
        around = counted(metadata.context_snippets, "snippet")
        context = "the whole video" if metadata.context_snippets == WHOLE_CONTEXT else f"it and {around} to each side"
    yield from _table(
        ("input", "features, float32 [snippets, D] of one or several videos, and the number of snippets of each"),
        ("D", f"{metadata.width}, {streams}" + ("" if metadata.stream == "both" else f" ({metadata.stream_order})")),
        ("frames a snippet (window)", str(frames)),
        ("frames from one snippet to the next (stride)", str(stride)),
        ("what made the features (backbone)", backbone if metadata.backbone else _UNKNOWN),
        ("what a snippet's scores depend on", context),
        (
            "outputs",
            ", ".join((*SNIPPET_SCORES, *(POINT_SCORES if metadata.detection.profile == "boundaries" else ())))
            + "; refineloc makes segments of them",
        ),
    )


def _training(metadata: ModelMetadata) -> Iterator[str]:
    iteration = metadata.iteration
    if metadata.base == "student":
        labels = f"the segments that iteration {iteration - 1} found" if iteration else _UNKNOWN
    elif not iteration:
        labels = "none: iteration 0 learns from labels of videos alone"
    else:
        labels = f"of iteration {iteration - 1}; generator: {_plain(metadata.pseudo_labels) or _UNKNOWN}"
    yield from _table(
        ("features", _plain(metadata.training_data) or _UNKNOWN),
        ("videos and their labels", f"{_UNKNOWN}: the file does not hold them"),
        ("preset", _plain(metadata.preset) or "none"),
        ("base model", f"{_plain(metadata.base)}, {counted(metadata.layers, 'layer')}"),
        ("networks", f"{metadata.networks}" + (", whose mean scores count" if metadata.networks > 1 else "")),
        ("iteration of refinement", str(iteration)),
        ("pseudo labels", labels),
    )


def _scores(metadata: ModelMetadata) -> Iterator[str]:
    parity, tuning = metadata.parity, metadata.tuning
    if parity is None or parity.map is None:
        yield f"Average mAP: {_UNKNOWN}. The export knew no true times to measure it with."
    else:
        before = " with the rule that it had then" if tuning is not None else ""
        yield f"Average mAP{before}: **{100 * parity.map:.1f} %**."
        yield ""
        yield from _table(
            (
                "measure",
                "mean over classes of interpolated AP, at tIoU 0.5:0.05:0.95, as ActivityNet's kit computes it",
            ),
            ("rule", "the file's own, below" if tuning is None else "that of the export, before it was tuned"),
            (
                "measured on",
                f"{_plain(parity.source)}: {counted(parity.videos, 'video')}, {counted(parity.snippets, 'snippet')}",
            ),
            ("split", "that of these features; the export takes a run's validation videos unless it is told others"),
        )
        yield ""
        yield "Whether the iteration was chosen on the same videos is unknown; the figure is too high where it was."
    if tuning is not None:
        yield ""
        changes = "; ".join(map(_plain, tuning.changed)) or "nothing"
        yield (
            f"The rule was tuned on {counted(len(tuning.videos), 'annotated video')} of {_plain(tuning.labels)} "
            f"({_plain(tuning.date)}). Changed: {changes}. Average mAP at tIoU {_plain(tuning.tious)} on these videos: "
            f"{100 * tuning.own_map:.1f} % before, {100 * tuning.map:.1f} % after, which is too high, as they chose. "
            f"Cross-validated gain: {100 * tuning.gain:+.1f} points (standard error {100 * tuning.noise:.1f})."
        )
    if metadata.operating_points:
        yield ""
        yield "| least score | precision wanted | recall | right, wrong | false alarms an hour | tIoU | measured on |"
        yield "|---|---|---|---|---|---|---|"
        for point in metadata.operating_points:
            alarms = _UNKNOWN if point.false_alarms_an_hour is None else f"{point.false_alarms_an_hour:.2f}"
            yield (
                f"| {point.min_score:.6g} | {point.precision:g} | {point.recall:.3f} | {point.true_positives}, "
                f"{point.false_positives} | {alarms} | {point.tiou:g} | {counted(point.videos, 'video')} of "
                f"{_plain(point.labels)}, {_plain(point.date)} |"
            )


def _rule(metadata: ModelMetadata) -> Iterator[str]:
    rules = metadata.detection
    values = {setting.name: getattr(rules, setting.name) for setting in settings_of(type(rules))}
    texts = {name: "none" if value is None else _plain(str(value)) for name, value in values.items()}
    yield from _table(*((f"`{name}`", text) for name, text in texts.items()))
    if metadata.streaming is not None:
        yield ""
        yield "For a running video the file has another rule, which does not need the whole video."


def _limits(metadata: ModelMetadata) -> Iterator[str]:
    yield "- It names the classes above and no others. An action of another class is missed, or called one of these."
    yield "- It takes features of the same backbone, window, stride and frame rate as in training. Others give wrong"
    yield "  segments, mostly without an error."
    if metadata.pseudo_labels in _NOT_WEAK:
        yield f"- Its pseudo labels ({metadata.pseudo_labels}) came from true times: it is a reference, and not weakly"
        yield "  supervised."
    else:
        yield "- refineloc trains with labels of videos, without times. Bounds are less exact than those of a detector"
        yield "  that was taught them."
    yield "- Scores rank detections. They are not probabilities."
    whole = metadata.streaming is None and needs_whole_video(metadata.detection)
    if metadata.base != SUMMED_BASE or metadata.context_snippets == WHOLE_CONTEXT or whole:
        yield "- It needs the whole video, and cannot follow one that is still running."
    yield "- Who is in the training videos, and for whom it works less well, is unknown."


def _file(metadata: ModelMetadata, content: bytes) -> Iterator[str]:
    parity = metadata.parity
    rows = [
        ("SHA-256", f"`{hashlib.sha256(content).hexdigest()}`"),
        ("size", f"{len(content):,} bytes"),
        ("precision", metadata.precision),
    ]
    if parity is not None:
        differences = ", ".join(
            f"{name} {value:.1e}"
            for name in SNIPPET_SCORES + POINT_SCORES
            if (value := getattr(parity, name)) is not None
        )
        rows += [
            ("largest difference from the trained model", differences),
            ("detections of the trained model", f"{parity.detections}: {parity.lost} lost, {parity.gained} gained"),
            ("compared on", _plain(parity.source)),
        ]
    yield from _table(*rows)


def _table(*rows: tuple[str, str]) -> Iterator[str]:
    yield "| | |"
    yield "|---|---|"
    for name, value in rows:
        yield f"| {name} | {value} |"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _CLASSES:,} more" if len(names) > _CLASSES else ""
    return ", ".join(map(_plain, names[:_CLASSES])) + more


def _plain(text: str) -> str:
    """A text in Markdown that is shown as it is: no markup, link, HTML, or end of a line or of a table's cell."""
    shown = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)
    marked = _MARKUP.sub(lambda match: _ENTITIES.get(match[0], f"\\{match[0]}"), shown)
    return re.sub(r"^(\d{1,9})([.)])(?=\s|$)", r"\1\\\2", marked)  # the first of a numbered list


_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;", "|": "&#124;"}
# Signs that mean something anywhere; those that begin a list or a line under a title; and those within an address.
_MARKUP = re.compile(r"[\\`*_{}\[\]#~!^$@<>&|]|^[-+=]|:(?=\S)|(?<=www)\.", re.IGNORECASE)


def _quoted(text: str) -> str:
    """A text in double quotes, as YAML and Python read it; a file's name need be no UTF-8, which a card is."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(sign if sign.isprintable() else f"\\U{ord(sign):08x}" for sign in quoted)
