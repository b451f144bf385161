"""What a study trains: every generator with every β and every seed (RefineLoc, Table 1)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from refineloc.runtime.errors import ConfigError
from refineloc.training.settings import config

__all__ = ["BETAS", "GENERATORS", "Cell", "Grid"]

# The five of the paper's section 3.2; the oracle is not one of them.
GENERATORS: tuple[str, ...] = tuple(name for name in config.GENERATORS if name not in ("fused", "oracle"))
BETAS = "1,2,4,8,16"  # of the paper's Table 1


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of the grid."""

    generator: str
    beta: float
    seed: int

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.generator}-beta{self.beta:g}-seed{self.seed}"


@dataclass(frozen=True, slots=True)
class Grid:
    """The runs of a study: rows, columns and seeds of its table."""

    betas: tuple[float, ...]
    seeds: tuple[int, ...]
    generators: tuple[str, ...] = GENERATORS

    @classmethod
    def parse(cls, betas: str, seeds: str) -> "Grid":
        """A grid of all generators, from numbers with commas between them.

        Raises:
            ConfigError: not numbers, below 0, or one of them twice.
        """
        grid = cls(tuple(_numbers("betas", betas, float)), tuple(map(int, _numbers("seeds", seeds, int))))
        names = [cell.name for cell in grid.cells()]
        if len(set(names)) < len(names):
            raise ConfigError(f"betas {betas!r}, seeds {seeds!r}: a value is there twice (of β, 6 digits count)")
        return grid

    def cells(self) -> list[Cell]:
        """All runs, those of a seed together."""
        return [
            Cell(generator, beta, seed) for seed in self.seeds for generator in self.generators for beta in self.betas
        ]


def first_name(seed: int | str) -> str:
    """Name of the run that trains iteration 0 of a seed."""
    return f"iteration0-seed{seed}"


def _numbers(parameter: str, text: str, kind: Callable[[str], float]) -> list[float]:
    try:
        numbers = [kind(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(math.isfinite(number) and number >= 0 for number in numbers):
        raise ConfigError(
            f"{parameter}: expected numbers from 0 on with commas between them, such as 1,2,4; got {text!r}",
            parameter=parameter,
        )
    return numbers


def settings_file(folder: Path) -> Path:
    """The settings of a study's runs, except generator, β and seed: the file that makes a folder a study."""
    return folder / "settings.toml"
