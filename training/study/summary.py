"""The numbers of a study's tables: means over seeds, best iterations, best β."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from refineloc.training.study.grid import Cell, Grid

__all__ = ["Results", "Summary", "mean_text", "measure_of", "values_of"]

Values = npt.NDArray[np.float64]


# The finished runs, by their place in the grid: records of iterations.json, each with the training loss of its epoch.
Results = Mapping[Cell, Sequence[Mapping[str, Any]]]


def measure_of(results: Iterable[Sequence[Mapping[str, Any]]]) -> tuple[bool, str]:
    """Whether all records of some runs have an mAP, and what their values are called (`values_of`)."""
    records = list(itertools.chain.from_iterable(results))
    if not all("average_mAP" in record for record in records):
        return False, "Validation loss"
    thresholds = sorted(records[0]["mAP"])
    return True, f"Average mAP (tIoU {thresholds[0]}:{thresholds[-1]})"


def values_of(records: Sequence[Mapping[str, Any]], scored: bool) -> list[float]:
    """Of each iteration of a run: average mAP in percent, or validation loss."""
    if scored:
        return [100 * float(record["average_mAP"]) for record in records]
    return [float(record["validation_loss"]) for record in records]


def mean_text(values: Values, scored: bool, *, sign: str = "") -> str:
    """Mean ± standard deviation (of a sample: n - 1) over seeds; the mean alone of one seed."""
    digits = 2 if scored else 4
    mean = f"{values.mean():{sign}.{digits}f}"
    return f"{mean} ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else mean


class Summary:
    """What the runs of a grid add up to.

    Args:
        grid: what was wanted.
        results: of the runs that finished, at least one.

    Attributes:
        grid: as given.
        scored: whether all runs have an mAP; otherwise all values here are validation losses.
        measure: the name of the values.
        iterations: of the longest run.
        values: [seeds, iterations] by generator and β: average mAP in percent, or validation loss. Iterations that not
            all seeds reached (refinement can stop early) are left out.
        first: values of iteration 0, [seeds].
        missing: seeds of the runs that did not finish, by generator and β.
    """

    def __init__(self, grid: Grid, results: Results) -> None:
        self.grid = grid
        self.scored, self.measure = measure_of(results.values())
        self.iterations = max(map(len, results.values()))
        by_cell = {cell: values_of(records, self.scored) for cell, records in results.items()}
        by_seed = {cell.seed: values[0] for cell, values in by_cell.items()}
        self.first: Values = np.array([by_seed[seed] for seed in grid.seeds if seed in by_seed])
        self.values: dict[tuple[str, float], Values] = {}
        self.missing: dict[tuple[str, float], list[int]] = {}
        for generator in grid.generators:
            for beta in grid.betas:
                cells = [Cell(generator, beta, seed) for seed in grid.seeds]
                runs = [by_cell[cell] for cell in cells if cell in by_cell]
                if runs:
                    reached = min(map(len, runs))
                    self.values[generator, beta] = np.array([values[:reached] for values in runs])
                if len(runs) < len(cells):
                    self.missing[generator, beta] = [cell.seed for cell in cells if cell not in by_cell]

    def best_iteration(self, generator: str, beta: float, *, refined: bool = False) -> int:
        """The iteration with the best mean over seeds; with `refined`, of those after iteration 0.

        Iteration 0 counts by its mAP, as in the paper (Table 1: uniform). It does not count by its loss, which has no
        pseudo loss in it.
        """
        means = self.values[generator, beta].mean(axis=0)
        start = int((refined or not self.scored) and len(means) > 1)
        return start + int(np.argmax(means[start:]) if self.scored else np.argmin(means[start:]))

    def best(self, generator: str, beta: float, *, refined: bool = False) -> Values | None:
        """The values of the best iteration, [seeds]; None where no run finished."""
        if (generator, beta) not in self.values:
            return None
        values: Values = self.values[generator, beta][:, self.best_iteration(generator, beta, refined=refined)]
        return values

    def best_beta(self, generator: str) -> float | None:
        """The best β of a generator: by its best iteration; of equals, by the best after iteration 0."""

        def quality(beta: float) -> list[float]:
            means = self.values[generator, beta].mean(axis=0) * (1 if self.scored else -1)
            return [float(means[self.best_iteration(generator, beta, refined=refined)]) for refined in (False, True)]

        return max((beta for beta in self.grid.betas if (generator, beta) in self.values), key=quality, default=None)

    def text(self, values: Values) -> str:
        """Mean ± standard deviation (of a sample: n - 1) over seeds; the mean alone of one seed."""
        return mean_text(values, self.scored)

    def best_text(self, generator: str, beta: float) -> str:
        """A cell of the table: the best iteration; where that is iteration 0, the best after it as well."""
        if (generator, beta) not in self.values:
            return "-"
        values = self.values[generator, beta]
        best, refined = (self.best_iteration(generator, beta, refined=refined) for refined in (False, True))
        text = f"{self.text(values[:, best])} ({best})"
        return text if best == refined else f"{text}; then {self.text(values[:, refined])} ({refined})"
