"""The study of base models (Table 5): every base model is trained, and the tables say what came of it."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_data import arguments, files
from typer.testing import CliRunner

from refineloc.runtime.errors import ConfigError
from refineloc.training.cli import app
from refineloc.training.fit import TrainingError
from refineloc.training.run.files import load_iteration, read_records
from refineloc.training.settings.config import Config, resolve
from refineloc.training.study.bases import run_bases, write_base_tables
from refineloc.training.study.grid import Grid
from refineloc.training.study.run_study import run_study


def config_of(base: str, **training: Any) -> Config:
    given = {"iterations": 2, "epochs": 1, "learning_rate": 0.01, "min_steps": 0, **training}
    return resolve({"training": given}, {"model": {"base": base}})


THREE = ("basnet", "refineloc", "wtalc")


@pytest.fixture(autouse=True)
def three_bases(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were no more: each one more takes seconds."""
    monkeypatch.setattr("refineloc.training.study.bases.base_names", lambda: THREE)


def test_each_base_is_trained_alone_and_refined(
    data: Path, refused: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    refused.add("wtalc-seed4")
    folder = data / "study"
    with pytest.raises(TrainingError, match="1 of 3 runs failed, the first is wtalc-seed4: refused"):
        run_bases(config_of, [4], files(data), folder, memory=2**30)
    assert "3 runs (3 base models x 1 seed), 0 finished" in capsys.readouterr().err
    text = (folder / "table.md").read_text()
    assert "Failed: wtalc, seeds 4." in text
    refused.clear()
    run_bases(config_of, [4], files(data), folder, memory=2**30, resume=True)
    assert "3 runs (3 base models x 1 seed), 2 finished" in capsys.readouterr().err
    text = (folder / "table.md").read_text()
    assert "Failed" not in text
    for name in THREE:
        config = load_iteration(folder / f"{name}-seed4", 1).config
        assert (config.model.base, config.training.seed) == (name, 4)
        first, refined = [100 * record["average_mAP"] for record in read_records(folder / f"{name}-seed4")]
        assert f"\n| {name} | {first:.2f} | {refined:.2f} (1) | {refined - first:+.2f} |\n" in text
        assert f"\n| {name} | {first:.2f} | {refined:.2f} |\n" in text
    with (folder / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["base"], row["iteration"]) for row in rows] == [(n, str(k)) for n in THREE for k in range(2)]
    assert float(rows[0]["average_mAP"]) == read_records(folder / "basnet-seed4")[0]["average_mAP"]
    assert (folder / "curves.png").stat().st_size > 10_000
    # Other settings, and another study, are refused; nothing is trained again.
    with pytest.raises(ConfigError, match=r"training\.epochs was 1, now 2"):
        run_bases(lambda base: config_of(base, epochs=2), [4], files(data), folder, resume=True)
    with pytest.raises(ConfigError, match="holds a study already; resume it"):
        run_bases(config_of, [4], files(data), folder)
    with pytest.raises(ConfigError, match="holds another study, with the run basnet-seed4"):
        run_study(config_of("refineloc"), Grid((2.0,), (4,)), files(data), folder, resume=True)
    (folder / "basnet-seed4").rename(folder / "iteration0-seed4")
    with pytest.raises(ConfigError, match="holds another study, with the run iteration0-seed4"):
        run_bases(config_of, [4], files(data), folder, resume=True)


def records(*scores: float) -> list[dict[str, Any]]:
    return [{"iteration": k, "average_mAP": score / 100, "mAP": {"0.50": 0.0}} for k, score in enumerate(scores)]


def test_means_over_seeds(tmp_path: Path) -> None:
    """By hand: the iteration is chosen by the mean of the seeds; a gain's deviation is that of the seeds' gains."""
    results = {
        ("refineloc", 0): records(10, 20, 14),
        ("refineloc", 1): records(14, 15, 18),
        ("wtalc", 0): records(10, 9),
        ("wtalc", 1): records(12, 9, 50),
    }
    write_base_tables(tmp_path, results, [0, 1], "val.csv")
    text = (tmp_path / "table.md").read_text()
    assert "| refineloc | 12.00 ± 2.83 | 17.50 ± 3.54 (1) | +5.50 ± 6.36 |" in text
    # The second seed's iteration 2 has no partner.
    assert "| wtalc | 11.00 ± 1.41 | 9.00 ± 0.00 (1) | -2.00 ± 1.41 |" in text
    assert "| wtalc | 11.00 ± 1.41 | 9.00 ± 0.00 | - |" in text
    assert "Failed: basnet, seeds 0, 1." in text
    write_base_tables(tmp_path, {("wtalc", 0): [{"iteration": k, "validation_loss": 0.5} for k in range(2)]}, [0], "v")
    text = (tmp_path / "table.md").read_text()
    assert "times are not known, so there is no mAP" in text
    assert "alone" not in text.replace("# Base models, alone and refined", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--base", "wtalc"], "--study: trains all base models"),
        (["--betas", "1"], "--betas: of --study generators-beta alone"),
        (["--iterations", "1"], "a study needs 2 or more"),
        (["--set", "model.base=wtalc"], "--set model.base: a study trains all base models; leave it out"),
    ],
)
def test_wrong_options(data: Path, options: list[str], message: str) -> None:
    command = [*arguments(data), "--study", "bases", "--run", str(data / "study"), *options]
    error = CliRunner().invoke(app, command).exception
    assert isinstance(error, ConfigError)
    assert message in str(error)
    assert not (data / "study").exists()


def test_what_the_command_asks_for(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr("refineloc.training.study.bases.run_bases", lambda *given, **more: asked.append((given, more)))
    options = ["--seeds", "5,6", "--jobs", "3", "--set", "pseudo.beta=3"]
    command = [*arguments(data), "--study", "bases", "--run", str(data / "study"), *options]
    assert CliRunner().invoke(app, command).exit_code == 0
    (config_of_base, seeds, given, folder), more = asked[0]
    config = config_of_base("basnet")
    assert (config.model.base, config.pseudo.beta, seeds, folder) == ("basnet", 3.0, (5, 6), data / "study")
    assert np.isclose(more["at_a_time"], 3)
    assert given == files(data)
