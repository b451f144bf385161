"""What an annotation is like: its coverage, its length, and how many of its class its video has (DETAD, section 3).

The groups of ActivityNet and THUMOS14 have the bounds of DETAD's tool. Its figures differ a little, because it drops
annotations longer than their video; diagnosis.md has the numbers. For other data the bounds are quantiles, so that
the groups are about equally large.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from refineloc.evaluation.matching import TruthTable
from refineloc.runtime.annotations import Annotations

__all__ = ["Bins", "Characteristic", "characteristics_of", "choose_bins"]

Bins = Literal["activitynet", "thumos14", "quantile"]

# Upper bounds, which belong to their group; the last group has none (a coverage above 1, of a segment that ends after
# its video, counts as 1).
_BOUNDS: dict[str, dict[str, tuple[float, ...]]] = {
    "activitynet": {"coverage": (0.2, 0.4, 0.6, 0.8), "length": (30, 60, 120, 180), "instances": (1, 4, 8)},
    "thumos14": {"coverage": (0.02, 0.04, 0.06, 0.08), "length": (3, 6, 12, 18), "instances": (1, 40, 80)},
}
_QUANTILES = {"coverage": (0.2, 0.4, 0.6, 0.8), "length": (0.2, 0.4, 0.6, 0.8), "instances": (0.25, 0.5, 0.75)}
_SIZES = {1: ("all",), 2: ("S", "L"), 3: ("S", "M", "L"), 4: ("XS", "S", "M", "L"), 5: ("XS", "S", "M", "L", "XL")}
_TITLES = {"coverage": "coverage (%)", "length": "length (s)", "instances": "instances in the video"}


@dataclass(frozen=True, slots=True, eq=False)
class Characteristic:
    """Groups of annotations by one of their characteristics.

    Attributes:
        name: "coverage" (length over the video's duration), "length" (seconds) or "instances" (of the class in the
            video).
        title: for figures, with the unit.
        sizes: names of the groups, from "XS" on.
        ranges: of each group, as text, in the title's unit: "≤ 30", "30–60", "> 60".
        group: of each annotation, int64 [m]; -1 where it is not known (a video without a duration).
    """

    name: str
    title: str
    sizes: tuple[str, ...]
    ranges: tuple[str, ...]
    group: npt.NDArray[np.int64]

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """How many annotations each group has."""
        return np.bincount(self.group[self.group >= 0], minlength=len(self.sizes))

    def to_json(self) -> list[dict[str, Any]]:
        """[{"size", "range", "annotations"}] by group."""
        unit = " %" if self.name == "coverage" else ""
        return [
            {"size": size, "range": text + unit, "annotations": count}
            for size, text, count in zip(self.sizes, self.ranges, self.counts.tolist(), strict=True)
        ]


def choose_bins(annotations: Annotations) -> Bins:
    """The data set whose groups to use, by what its videos are called and how many classes it has.

    THUMOS14 numbers its videos (video_test_0000004); ActivityNet's carry YouTube's eleven characters, and its two
    releases have 100 and 200 classes.
    """
    if all(name.startswith(("video_test_", "video_validation_")) for name in annotations):
        return "thumos14"
    if len(annotations.classes) in (100, 200) and all(len(name.removeprefix("v_")) == 11 for name in annotations):
        return "activitynet"
    return "quantile"


def characteristics_of(truth: TruthTable, annotations: Annotations, bins: Bins) -> tuple[Characteristic, ...]:
    """The groups of all annotations by each characteristic; coverage is left out where no video states its duration."""
    durations = np.array([np.nan if v.duration_s is None else v.duration_s for v in annotations.values()])
    length = truth.end - truth.start
    values = {
        "coverage": np.minimum(length / durations[truth.video], 1.0),
        "length": length,
        "instances": np.repeat(np.diff(truth.bounds), np.diff(truth.bounds)).astype(np.float64),
    }
    return tuple(_grouped(name, value, bins) for name, value in values.items() if not np.isnan(value).all())


def _grouped(name: str, values: npt.NDArray[np.float64], bins: Bins) -> Characteristic:
    known = ~np.isnan(values)
    bounds = _quantile_bounds(name, values[known]) if bins == "quantile" else _BOUNDS[bins][name]
    group = np.where(known, np.searchsorted(np.array(bounds), values, side="left"), -1)
    texts = _short([100 * bound if name == "coverage" else bound for bound in bounds])
    middle = [f"{low}–{high}" for low, high in itertools.pairwise(texts)]
    ranges = (f"≤ {texts[0]}", *middle, f"> {texts[-1]}") if texts else ("all",)
    if name == "instances" and bounds:
        # Whole numbers: a range names its least and greatest.
        lows, highs = [1, *(int(bound) + 1 for bound in bounds)], [int(bound) for bound in bounds]
        spans = [str(low) if low == high else f"{low}–{high}" for low, high in zip(lows, highs, strict=False)]
        ranges = (*spans, f"≥ {lows[-1]}")
    return Characteristic(name, _TITLES[name], _SIZES[len(ranges)], ranges, group)


def _short(bounds: Sequence[float]) -> list[str]:
    """Numbers with two digits, or with as many more as keep them apart: short enough to stand below a bar."""
    digits = next((n for n in (2, 3) if len({_rounded(bound, n) for bound in bounds}) == len(bounds)), 4)
    return [_rounded(bound, digits) for bound in bounds]


def _rounded(number: float, digits: int) -> str:
    """All digits before the point, and so many in all where these are fewer: 0.52, 1.6, 34, 120."""
    return f"{round(number)}" if number >= 10**digits else f"{float(f'{number:.{digits}g}'):g}"


def _quantile_bounds(name: str, values: npt.NDArray[np.float64]) -> tuple[float, ...]:
    """Bounds between about equally large groups, to three digits, each once; those that part nothing are left out."""
    rounded = {float(f"{value:.3g}") for value in np.quantile(values, _QUANTILES[name], method="higher").tolist()}
    return tuple(sorted(bound for bound in rounded if values.min() <= bound < values.max()))
