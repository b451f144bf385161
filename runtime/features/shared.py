"""Which videos a file of features and a file of labels share."""

from collections.abc import Collection
from typing import Protocol

from refineloc.runtime.annotations import Annotations
from refineloc.runtime.errors import InputError, counted
from refineloc.runtime.names import first_names, nothing_shared, why_unmatched

__all__ = ["Named", "shared_videos"]


class Named(Protocol):
    """Videos, and where they are, for messages: a file of features, or films."""

    @property
    def path(self) -> object: ...
    @property
    def names(self) -> tuple[str, ...]: ...


def shared_videos(
    store: Named, labels: Annotations, *, allow_missing: bool = False, elsewhere: Collection[str] = ()
) -> tuple[str, ...]:
    """The videos that both files have, sorted.

    Args:
        store: the features, or the films.
        labels: the labels.
        allow_missing: leave out videos that only one has.
        elsewhere: videos with labels of another split: no labels are missing for their features.

    Raises:
        InputError: a video that only one has, unless `allow_missing` leaves it out; or no video in common.
    """
    with_labels = set(labels)
    with_features = set(store.names) - (set(elsewhere) - with_labels)
    names = tuple(sorted(with_features & with_labels))
    if not names:
        raise InputError(nothing_shared("video", store.path, with_features, labels.path, with_labels))
    unmatched = [
        f"{counted(len(missing), one, many)}, the first: {first_names(missing)}{why_unmatched(missing, others)}"
        for missing, others, one, many in (
            (
                with_labels - with_features,
                with_features,
                f"video of {labels.path} has no features in {store.path}",
                f"videos of {labels.path} have no features in {store.path}",
            ),
            (
                with_features - with_labels,
                with_labels,
                f"video of {store.path} is not in {labels.path}",
                f"videos of {store.path} are not in {labels.path}",
            ),
        )
        if missing
    ]
    if unmatched and not allow_missing:
        raise InputError(
            f"{'; '.join(unmatched)}; allow_missing goes on without them",
            parameter="allow_missing",
        )
    return names
