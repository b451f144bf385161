"""Which labelled videos train a model, and which validate it."""

from dataclasses import dataclass
from typing import Literal

from refineloc.runtime.annotations import Annotations, listed_subsets
from refineloc.runtime.errors import AnnotationError, counted, counted_of
from refineloc.runtime.features.shared import shared_videos
from refineloc.runtime.features.store import FeatureStore
from refineloc.training.data.held_out import hold_out

__all__ = ["Labels", "Unlabelled", "choose_subsets", "has_validation", "hold_out_share", "leak", "refuse_leaks"]

Which = Literal["subset", "val_subset"]
Unlabelled = Literal["refuse", "leave-out", "negatives"]
_USUAL = {"subset": ("training", "train"), "val_subset": ("validation", "val")}  # in any case


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of a run, without times.

    Attributes:
        train, val: of the videos that train and that validate.
        subset, val_subset: their subsets; "" where the files have one each, or none.
        share: of the videos that was held out; 0 where validation files or subsets were given.
        notes: what was decided for the user, a line each.
    """

    train: Annotations
    val: Annotations
    subset: str = ""
    val_subset: str = ""
    share: float = 0.0
    notes: tuple[str, ...] = ()


def choose_subsets(
    labels: Annotations,
    val_labels: Annotations,
    subset: str | None = None,
    val_subset: str | None = None,
    unlabelled: Unlabelled = "refuse",
) -> Labels:
    """The videos of the subsets that are named.

    Of a file with several subsets of which none is named, those are taken whose names say it: training (or train) and
    validation (or val).

    Args:
        labels, val_labels: whole files, which may be the same.
        subset, val_subset: names; None where none is given.
        unlabelled: what becomes of videos without any label: refused, left out, or background throughout.

    Raises:
        AnnotationError: no such subset, or several and no usual name; the message says which there are. Or videos
            without a label.
    """
    (train, name, notes), (val, val_name, val_notes) = (
        _part(labels, subset, "subset", unlabelled),
        _part(val_labels, val_subset, "val_subset", unlabelled),
    )
    return Labels(train, val, name, val_name, notes=notes + val_notes)


def has_validation(labels: Annotations, subset: str | None) -> bool:
    """Whether a file has a subset for validation by its name, beside the one for training."""
    return any(name.lower() in _USUAL["val_subset"] for name in labels.subsets if name != subset)


def hold_out_share(
    labels: Annotations,
    store: FeatureStore,
    share: float,
    seed: int,
    *,
    subset: str | None,
    allow_missing: bool,
    unlabelled: Unlabelled,
) -> Labels:
    """A share of the training videos held out for validation.

    Args:
        labels: a whole file.
        store: its features; a video without any is never held out.
        share: of the videos, above 0 and below 1.
        seed: of the draw.
        subset, unlabelled: as `choose_subsets` takes them.
        allow_missing: as `load_split` takes it.

    Raises:
        InputError: as `load_split`, or no video can be held out.
    """
    part, name, notes = _part(labels, subset, "subset", unlabelled)
    videos = shared_videos(store, part, allow_missing=allow_missing, elsewhere=labels)
    held = hold_out({video: part[video].labels for video in videos}, share, seed)
    line = (
        f"no validation files: {len(held.names)} of {counted(len(videos), 'video')} (a share of {share:g}) "
        f"{'is' if len(held.names) == 1 else 'are'} held out for it"
    )
    for classes, which in ((held.single, "of one video"), (held.unshared, "whose videos other classes need")):
        if classes:
            line += (
                f"; {counted(len(classes), f'class {which} stays', f'classes {which} stay')} in training, the first "
                f"is {classes[0]!r}"
            )
    train, val = part.only(part.keys() - held.names), part.only(held.names)
    return Labels(train, val, name, share=share, notes=(*notes, line))


def _part(
    labels: Annotations, wanted: str | None, which: Which, unlabelled: Unlabelled
) -> tuple[Annotations, str, tuple[str, ...]]:
    """The videos of a subset that are used, its name, and what to say of them."""
    part, name, notes = labels, wanted or "", list[str]()
    subsets = labels.subsets
    if wanted is None and len(subsets) > 1:
        usual = [each for each in subsets if each.lower() in _USUAL[which]]
        if len(usual) != 1:
            raise AnnotationError(
                f"{labels.path}: has several subsets, {listed_subsets(subsets)}; name the one for "
                f"{'training' if which == 'subset' else 'validation'}",
                parameter=which,
            )
        name = usual[0]
        use = "trained on" if which == "subset" else "validated on"
        notes.append(f"{labels.path}: {use} the subset {name!r}; there are {listed_subsets(subsets)}")
    if name:
        part = labels.of_subset(name)
    without = [video for video in part if not part[video].labels]
    if not without:
        return part, name, tuple(notes)
    share = counted_of(len(without), len(part), "video", "has", "have")
    what = f"{labels.path}: {share} no label, the first is {without[0]!r}"
    if unlabelled == "refuse":
        raise AnnotationError(
            f"{what}; label them, or say what they are: left out, or without any action", parameter="unlabelled"
        )
    if len(without) == len(part):
        raise AnnotationError(f"{labels.path}: no video has a label")
    notes.append(f"{what}; {'left out' if unlabelled == 'leave-out' else 'background throughout'}")
    return (part.only(part.keys() - set(without)) if unlabelled == "leave-out" else part), name, tuple(notes)


def refuse_leaks(train: Annotations, val: Annotations) -> None:
    """Refuse videos that are in both splits.

    Raises:
        AnnotationError: there are some.
    """
    both = sorted(set(train) & set(val))
    if both:
        what = counted_of(len(both), len(val), "validation video", "is a training video", "are training videos")
        raise leak(val, f"{what} too", repr(both[0]))


def leak(val: Annotations, what: str, first: str) -> AnnotationError:
    """The error of videos that train and validate."""
    return AnnotationError(
        f"{val.path}: {what}, the first is {first}; validation would say too much: leave them out of one of the two, "
        "or allow_leaks goes on with them",
        parameter="allow_leaks",
    )
