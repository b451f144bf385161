"""The numbers of a study's tables: means over seeds, best iterations, best β."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from refineloc.training.study.grid import Cell, Grid

__all__ = ["Result", "Summary"]

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Result:
    """A finished run: its records of iterations.json, each with the training loss of its epoch."""

    cell: Cell
    records: list[dict[str, Any]]


class Summary:
    """What the runs of a grid add up to.

    Args:
        grid: what was wanted.
        results: of the runs that finished, at least one.

    Attributes:
        grid: as given.
        scored: whether all have an mAP; else everything here is validation loss.
        measure: its name.
        iterations: most of any run.
        values: [seeds, iterations] by generator and β: average mAP in percent, or validation loss. Iterations that not
            all seeds reached (refinement can stop early) are left out.
        first: of iteration 0, [seeds].
    """

    def __init__(self, grid: Grid, results: Sequence[Result]) -> None:
        records = [record for result in results for record in result.records]
        self.grid = grid
        self.scored = all("average_mAP" in record for record in records)
        self.iterations = max(len(result.records) for result in results)
        thresholds = sorted(records[0]["mAP"]) if self.scored else []
        self.measure = f"Average mAP (tIoU {thresholds[0]}:{thresholds[-1]})" if self.scored else "Validation loss"
        self._results = results
        self.values: dict[tuple[str, float], Values] = {}
        for generator in grid.generators:
            for beta in grid.betas:
                own = [self._of(one) for one in results if (one.cell.generator, one.cell.beta) == (generator, beta)]
                if own:
                    reached = min(map(len, own))
                    self.values[generator, beta] = np.array([values[:reached] for values in own])
        by_seed = {result.cell.seed: self._of(result)[0] for result in results}
        self.first: Values = np.array([by_seed[seed] for seed in grid.seeds if seed in by_seed])

    def _of(self, result: Result) -> list[float]:
        if self.scored:
            return [100 * float(record["average_mAP"]) for record in result.records]
        return [float(record["validation_loss"]) for record in result.records]

    def best_iteration(self, generator: str, beta: float, *, refined: bool = False) -> int:
        """The one with the best mean over seeds; with `refined`, of those after iteration 0.

        Iteration 0 counts, as in the paper (Table 1: uniform), but not by its loss, which has no pseudo loss in it.
        """
        means = self.values[generator, beta].mean(axis=0)
        first = int((refined or not self.scored) and len(means) > 1)
        later = means[first:]
        return first + int(np.argmax(later) if self.scored else np.argmin(later))

    def best(self, generator: str, beta: float, *, refined: bool = False) -> Values | None:
        """The values of its seeds at the best iteration; None where no run finished."""
        if (generator, beta) not in self.values:
            return None
        values: Values = self.values[generator, beta][:, self.best_iteration(generator, beta, refined=refined)]
        return values

    def best_beta(self, generator: str) -> float | None:
        """The best of a generator; where refinement gains nothing with any, the one that loses least."""
        betas = [beta for beta in self.grid.betas if (generator, beta) in self.values]
        return max(betas, key=lambda beta: self._quality(generator, beta), default=None)

    def _quality(self, generator: str, beta: float) -> tuple[float, float]:
        means = self.values[generator, beta].mean(axis=0) * (1 if self.scored else -1)
        either = (self.best_iteration(generator, beta, refined=refined) for refined in (False, True))
        best, refined = (float(means[iteration]) for iteration in either)
        return best, refined

    def incomplete(self) -> list[tuple[str, float, list[int]]]:
        """Generator, β and the seeds of runs that did not finish."""
        there = {result.cell for result in self._results}
        out = []
        for generator in self.grid.generators:
            for beta in self.grid.betas:
                missing = [seed for seed in self.grid.seeds if Cell(generator, beta, seed) not in there]
                if missing:
                    out.append((generator, beta, missing))
        return out

    def text(self, of_seeds: Values) -> str:
        """Mean ± standard deviation (of a sample: n - 1); one seed has none."""
        digits = 2 if self.scored else 4
        mean = f"{of_seeds.mean():.{digits}f}"
        return f"{mean} ± {of_seeds.std(ddof=1):.{digits}f}" if len(of_seeds) > 1 else mean

    def best_text(self, generator: str, beta: float) -> str:
        """A cell of the table; where nothing is gained, what is lost as well."""
        if (generator, beta) not in self.values:
            return "-"
        values = self.values[generator, beta]
        best, refined = (self.best_iteration(generator, beta, refined=refined) for refined in (False, True))
        text = f"{self.text(values[:, best])} ({best})"
        return text if best == refined else f"{text}; then {self.text(values[:, refined])} ({refined})"
