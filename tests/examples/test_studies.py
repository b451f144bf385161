"""The studies behind the documentation's tables, in a tiny form: a few videos, one epoch, no processes."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from refineloc.training.sample.cli import synth
from refineloc.training.study.jobs import Ended, Job
from refineloc.training.train_run import train_run

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def study(load_example: Callable[[str], ModuleType]) -> Callable[[str], ModuleType]:
    """Loads a study whose jobs are trained in this process."""

    def run_here(jobs: Sequence[Job], at_a_time: int, threads: int) -> Iterator[tuple[list[Job], list[Ended]]]:
        for job in jobs:
            training = job.config.training.model_copy(update={"epochs": 1})
            config = job.config.model_copy(update={"training": training})
            train_run(lambda config=config: config, job.files, job.folder, memory_gib=0.1)
            yield [], [Ended(job, 0.0, "")]

    def synth_few(folder: Path, **options: Any) -> None:
        synth(folder, **{"videos": 6, "classes": 2, "dim": 8, **options})

    def load(name: str) -> ModuleType:
        module = load_example(name)
        vars(module).update(run_jobs=run_here, synth=synth_few)
        return module

    return load


def test_no_example_hides_a_package() -> None:
    """A script's folder is the first place where Python looks for imports; torch looks for triton."""
    names = {path.stem for path in EXAMPLES.iterdir()}
    assert not names & {"triton", *sys.stdlib_module_names, *packages_distributions()}


def rows(text: str) -> list[list[str]]:
    """The cells of all rows of Markdown tables."""
    return [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]


@pytest.mark.long
def test_base_models_study(
    study: Callable[[str], ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = study("base_models_study.py")
    vars(module).update(DATA={"sample": "The sample data"}, ITERATIONS=2, SEEDS=(0, 1))
    module.main(tmp_path)
    table = rows(capsys.readouterr().out.split("The sample data:")[1])
    assert [row[0].strip() for row in table[2:]] == ["RefineLoc", "", "W-TALC", "", "BaS-Net", ""]
    assert {len(row) for row in table} == {8}
    module.main(tmp_path)
    assert rows(capsys.readouterr().out) == table, "a finished study trains nothing and says the same"


def test_auto_study(
    study: Callable[[str], ModuleType],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    module = study("auto_study.py")
    short = ["training.models=1", "training.min_steps=0", "training.restarts=0"]
    vars(module).update(DATA={"sample": "The sample data"}, SETTINGS={"sample": short})
    vars(module).update(make=lambda data, folder: synth(folder, videos=6, classes=2, dim=8) is None)
    vars(module).update(ABLATED={name: module.ABLATED[name] for name in ("all of auto", "hard labels")})
    module.main(tmp_path, 1, 1)
    table = rows(capsys.readouterr().out.split("The sample data, 1 seeds:")[1])
    assert [row[0].strip() for row in table] == [
        *("iteration", "---", "0", "1", "2", "3", "best"),
        *("", "---", "all of auto", "hard labels"),
    ]


def test_sample_study(study: Callable[[str], ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = study("sample_study.py")
    variants = {
        name: replace(module.VARIANTS[name], iterations=2, seeds=(0,)) for name in ("sample", "unweighted", "oracle")
    }
    vars(module).update(VARIANTS=variants, BOUNDARY_ITERATIONS=(0, 1), BACKGROUND=(0.5, 0.1))
    module.main(tmp_path, tmp_path)
    text = capsys.readouterr().out
    assert "## the same, not weighted (foreground >= 0.5): pseudo.foreground=0.5, pseudo.weighted=false" in text
    assert len(rows(text)) == 3 * 4 + 2 * 4
    for name in ("sample-map.png", "sample-boundaries.png"):
        assert (tmp_path / name).stat().st_size > 10_000


def test_every_base_study(
    study: Callable[[str], ModuleType],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    module = study("every_base_study.py")
    vars(module).update(
        DATA={"sample": "The sample data"},
        ITERATIONS=2,
        SETTINGS={**module.SETTINGS, "sample": ["training.min_steps=0"]},
    )
    vars(module).update(make=lambda data, folder: synth(folder, videos=6, classes=2, dim=8) is None)
    module.main(tmp_path, 1, ["cmcs", "refineloc"])
    table = rows(capsys.readouterr().out.split("The sample data, 1 seeds:")[1])
    assert [row[0].strip() for row in table[2:]] == ["cmcs", "refineloc"]
    assert {len(row) for row in table} == {5}
    configs = [module.job(tmp_path, "spoken", base, 3).config for base in ("co2net", "refineloc")]
    assert [config.training.learning_rate for config in configs] == [5e-4, 1e-3]
    assert [config.features.snippet_frames for config in configs] == [8, 8]
