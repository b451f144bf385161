"""Which videos `refineloc-detect` is asked for, with which labels; and what its file says of the model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refineloc.runtime.annotations import read_annotations
from refineloc.runtime.errors import InputError
from refineloc.runtime.features.shared import Named
from refineloc.runtime.names import why_unmatched

if TYPE_CHECKING:
    from refineloc.runtime.detector import Detector

__all__ = ["check_labelled", "external_data", "labels_of", "without"]


def labels_of(path: Path) -> dict[str, tuple[str, ...]]:
    """The classes of each video of a file of labels."""
    return {name: video.labels for name, video in read_annotations(path, times=False).items()}


def check_labelled(labels: Mapping[str, Sequence[str]], names: Sequence[str], path: Path) -> None:
    missing = [name for name in names if not labels.get(name)]
    if missing:
        why = why_unmatched([name for name in missing if name not in labels], labels.keys())
        cure = "" if why else "; add its classes, or leave it out (--leave-out)"
        raise InputError(f"{path}: video {missing[0]!r}: has no label{why}{cure}")


def without(names: Sequence[str], leave_out: Sequence[str], store: Named) -> tuple[str, ...]:
    unknown = [name for name in leave_out if name not in names]
    if unknown:
        why = why_unmatched(unknown, names)
        raise InputError(f"--leave-out: video {unknown[0]!r} is not among those of {store.path}{why}")
    kept = tuple(name for name in names if name not in leave_out)
    if not kept:
        raise InputError(f"--leave-out: leaves no video of {store.path}")
    return kept


def external_data(detector: "Detector", models: Sequence[Path]) -> dict[str, Any]:
    """Model, provider and profile, for ActivityNet's field `external_data`."""
    files = ", ".join(model.name for model in models)
    return {
        "used": False,
        "details": f"refineloc, {detector.metadata.base} iteration {detector.metadata.iteration} ({files})",
        "provider": detector.provider,
        "profile": detector.settings.profile,
    }
