"""Studies: the grid is trained as its runs would be alone, survives a kill, and its tables say what the runs say."""

import csv
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import programs
import pytest
from small_data import arguments, assert_same_run, drop_times, files, write_data
from typer.testing import CliRunner
from waiting import wait_until

from refineloc.runtime.errors import ConfigError
from refineloc.runtime.jobs import processes
from refineloc.training.cli import app
from refineloc.training.data.inputs import Files
from refineloc.training.fit import TrainingError
from refineloc.training.run.files import load_iteration, read_records
from refineloc.training.run.lock import locked
from refineloc.training.settings.config import resolve
from refineloc.training.study.curves import draw_curves
from refineloc.training.study.grid import BETAS, GENERATORS, Cell, Grid
from refineloc.training.study.jobs import Job, run_jobs, share_of_cores
from refineloc.training.study.run_study import run_study
from refineloc.training.study.summary import Summary
from refineloc.training.study.tables import write_tables

SETTINGS: dict[str, Any] = {
    "detection": {"alpha_c": 0.4, "widen": 0},
    "pseudo": {"class_activation": 0.4},
    "training": {"iterations": 3, "epochs": 6, "batch_videos": 4, "learning_rate": 0.01},
}
GRID = Grid(betas=(4.0,), seeds=(3,), generators=("distribution-aware", "segment"))
RUNS = ["iteration0-seed3", *(cell.name for cell in GRID.cells())]


def study(data: Path, grid: Grid = GRID, resume: bool = False, **training: Any) -> None:
    """Train two runs at a time into data/study."""
    config = resolve(SETTINGS, {"training": training})
    run_study(config, grid, files(data), data / "study", at_a_time=2, memory=2**30, resume=resume)


def is_free(run: Path) -> bool:
    """Whether no process trains there."""
    try:
        with locked(run):
            return True
    except ConfigError:
        return False


# A study whose runs stop when they have finished two iterations. Each of its processes imports this as its main module.
STOPPING = """
import sys, threading
from pathlib import Path
from refineloc.training.fit import TrainingError
from refineloc.training.run.files import Run

sys.path[:0] = sys.argv[1:3]
import test_study

add_iteration = Run.add_iteration

def add_and_stop(run, *arguments):
    add_iteration(run, *arguments)
    if len(run.records) == 2:
        threading.Event().wait()

Run.add_iteration = add_and_stop

if __name__ == "__main__":
    test_study.study(Path(sys.argv[3]))
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data with a study that was killed in the middle of its runs, and then resumed."""
    data = write_data(tmp_path_factory.mktemp("data"), np.random.default_rng(11))
    script = data / "stopping.py"
    script.write_text(STOPPING)
    command = [sys.executable, str(script), str(Path(__file__).parent), str(Path(__file__).parents[2]), str(data)]
    process = subprocess.Popen(command)
    runs = [data / "study" / cell.name for cell in GRID.cells()]
    wait_until(lambda: all(len(read_records(run)) == 2 for run in runs) or process.poll() is not None, "two iterations")
    assert process.poll() is None
    assert not any(map(is_free, runs))  # both are trained at the same time
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_until(lambda: all(map(is_free, runs)), "the runs end with the study")
    assert not (data / "study/table.md").exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "_CONTEXT", programs.SERVER)
        study(data, resume=True)
    return data


def test_every_run_is_there_and_can_be_loaded(killed: Path) -> None:
    folders = sorted(path.name for path in (killed / "study").iterdir() if path.is_dir())
    assert folders == sorted(RUNS)
    for cell in GRID.cells():
        loaded = load_iteration(killed / "study" / cell.name, 2)
        settings = loaded.config.pseudo
        assert (settings.generator, settings.beta, loaded.config.training.seed) == (cell.generator, cell.beta, 3)
        if cell.generator == "distribution-aware":
            assert settings.foreground_share == pytest.approx(1 / 3, abs=0.05), "the true one"


def test_a_run_is_bit_equal_to_one_trained_alone(killed: Path) -> None:
    """Through shared iteration 0, kill and resume: the same weights, metrics, records and detections."""
    # As many threads as each run of the study has: with others, sums are added in another order.
    assert share_of_cores(2)[1] == int(os.environ["OMP_NUM_THREADS"])
    alone = killed / "alone"
    settings = [f"--set={section}.{key}={value}" for section, keys in SETTINGS.items() for key, value in keys.items()]
    # A study begins with no preset, a run alone with auto.
    command = [
        "--generator",
        "segment",
        '--set=preset=""',
        "--set",
        "pseudo.beta=4.0",
        "--seed",
        "3",
        "--run",
        str(alone),
        *settings,
    ]
    assert CliRunner().invoke(app, [*arguments(killed), *command]).exit_code == 0
    run = killed / "study/segment-beta4-seed3"
    assert_same_run(alone, run)
    for name in ("config.toml", *(f"iter_{k}/detections.json" for k in range(3))):
        assert (run / name).read_bytes() == (alone / name).read_bytes(), name
    assert "time line of a validation video" in (run / "log.txt").read_text()


def test_iteration_0_is_trained_once(killed: Path) -> None:
    first = killed / "study/iteration0-seed3"
    assert len(read_records(first)) == 1
    later = set()
    for cell in GRID.cells():
        folder = killed / "study" / cell.name
        assert (folder / "iter_0/model.safetensors").read_bytes() == (first / "iter_0/model.safetensors").read_bytes()
        later.add((folder / "iter_1/model.safetensors").read_bytes())
    assert len(later) == len(GRID.cells()), "generator and β change nothing"


def test_the_table_is_what_the_runs_say(killed: Path) -> None:
    text = (killed / "study/table.md").read_text()
    assert "Average mAP (tIoU 0.50:0.95)" in text
    by_beta, by_iteration = text.split("By iteration")
    for cell in GRID.cells():
        scores = [record["average_mAP"] for record in read_records(killed / "study" / cell.name)]
        assert len(scores) == 3
        best, later = int(np.argmax(scores)), 1 + int(np.argmax(scores[1:]))
        expected = f"{100 * scores[best]:.2f} ({best})"
        expected += "" if best else f"; then {100 * scores[later]:.2f} ({later})"
        assert f"\n| {cell.generator} | {expected} |\n" in by_beta
        figures = " | ".join(f"{100 * score:.2f}" for score in scores)
        assert f"\n| {cell.generator} | 4 | {figures} |\n" in by_iteration
    first = read_records(killed / "study/iteration0-seed3")[0]["average_mAP"]
    assert f"Iteration 0, before any pseudo label: {100 * first:.2f}" in text


def test_the_csv_has_every_iteration(killed: Path) -> None:
    with (killed / "study/table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * len(GRID.cells())
    for row in rows:
        cell = Cell(row["generator"], float(row["beta"]), int(row["seed"]))
        record = read_records(killed / "study" / cell.name)[int(row["iteration"])]
        assert float(row["average_mAP"]) == record["average_mAP"]
        assert float(row["mAP@0.50"]) == record["mAP"]["0.50"]
        assert float(row["validation_loss"]) == record["validation_loss"]
        lines = [json.loads(line) for line in (killed / "study" / cell.name / "metrics.jsonl").read_text().splitlines()]
        epoch = next(
            line for line in lines
            if (line["iteration"], line["epoch"]) == (record["iteration"], record["best_epoch"])
        )  # fmt: skip
        assert float(row["train_loss"]) == epoch["train_loss"]
        pseudo = (record["pseudo_labels"] or {"train": {"precision": ""}})["train"]["precision"]
        assert row["pseudo_labels_precision"] == str(pseudo)


def test_a_finished_study_trains_nothing(killed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in (killed / "study").rglob("*.safetensors")}
    study(killed, resume=True)
    told = capsys.readouterr().err.splitlines()
    assert "2 runs (2 generators x 1 β x 1 seed) and 1 of iteration 0, 3 finished" in told[0]
    assert told[1:] == [f"{killed / 'study'}: wrote table.md, table.csv and curves.png"]
    assert before == {path: path.stat().st_mtime_ns for path in (killed / "study").rglob("*.safetensors")}


def test_other_settings_are_refused(killed: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.epochs was 6, now 7; resume with the same"):
        study(killed, resume=True, epochs=7)
    with pytest.raises(ConfigError, match="holds a study already; resume it"):
        study(killed)
    run = killed / "study" / RUNS[1]
    with pytest.raises(ConfigError, match="holds a run; a study needs a folder of its own"):
        run_study(resolve(SETTINGS), GRID, files(killed), run, resume=True)
    with pytest.raises(ConfigError, match="a study needs 2 or more, got 1"):
        run_study(resolve(SETTINGS, {"training": {"iterations": 1}}), GRID, files(killed), killed / "new")
    assert not (killed / "new").exists()


def test_jobs_that_fail_are_told_apart(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One has no data, and one is killed, as the system does where memory ends; the third is trained."""
    monkeypatch.setattr(processes, "_CONTEXT", programs.SERVER)
    config = resolve(SETTINGS, {"training": {"iterations": 1, "epochs": 1}})
    os.mkfifo(data / "endless.csv")  # whoever reads it waits
    given = files(data)
    given_jobs = [
        Job(data / "killed", config, replace(given, labels=data / "endless.csv")),
        Job(data / "without", config, files(data / "nothing")),
        Job(data / "trained", config, given),
    ]
    errors = {}
    for running, ended in run_jobs(given_jobs, 2, 1):
        assert len(running) <= 2
        errors |= {end.job.name: end.error for end in ended}
        for process in multiprocessing.active_children():
            if process.name == "killed":
                process.kill()
    assert errors["killed"] == "ended by signal SIGKILL (out of memory?)"
    assert errors["without"].startswith(f"{data / 'nothing'}")
    assert (data / "without/log.txt").read_text() == f"error: {errors['without']}\n"
    assert errors["trained"] == ""
    assert [job.finished for job in given_jobs] == [False, False, True]
    assert not multiprocessing.active_children()


@pytest.mark.usefixtures("refused")
def test_without_times_and_with_a_run_that_fails(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """There is no mAP and no true share of foreground; β = 1e39 gives no finite loss, which costs one run only."""
    drop_times(data)
    grid = Grid(betas=(1e39, 2.0), seeds=(0,), generators=("distribution-aware", "segment"))
    with pytest.raises(
        TrainingError, match=r"1 of 3 runs failed, the first is segment-beta1e\+39-seed0: .*the loss is nan"
    ):
        study(data, grid, iterations=2, epochs=2)
    assert "distribution-aware is left out" in capsys.readouterr().err.splitlines()[0]
    text = (data / "study/table.md").read_text()
    loss = read_records(data / "study/segment-beta2-seed0")[1]["validation_loss"]
    assert f"| segment | - | {loss:.4f} (1) |" in text
    assert "times are not known, so there is no mAP" in text
    assert "Failed: segment with β = 1e+39, seeds 0." in text
    assert "distribution-aware" not in text
    assert (data / "study/curves.png").stat().st_size > 10_000


def test_a_seed_whose_iteration_0_fails(data: Path, refused: set[str]) -> None:
    """The runs that would begin with it are not trained; those of other seeds are."""
    refused.add("iteration0-seed1")
    grid = Grid(betas=(2.0,), seeds=(0, 1), generators=("uniform",))
    with pytest.raises(
        TrainingError, match="2 of 4 runs failed, the first is iteration0-seed1: refused; the others are"
    ):
        study(data, grid, iterations=2, epochs=1)
    assert "Failed: uniform with β = 2, seeds 1." in (data / "study/table.md").read_text()
    assert not (data / "study/uniform-beta2-seed1").exists()
    refused.clear()
    study(data, grid, resume=True, iterations=2, epochs=1)
    assert "Failed" not in (data / "study/table.md").read_text()


def result(generator: str, beta: float, seed: int, *scores: float) -> tuple[Cell, list[dict[str, Any]]]:
    records = [{"iteration": k, "average_mAP": score / 100, "mAP": {"0.50": 0.0}} for k, score in enumerate(scores)]
    return Cell(generator, beta, seed), records


def test_means_over_seeds(tmp_path: Path) -> None:
    """By hand: the iteration is chosen by the mean of the seeds, not for each of them; one has stopped early."""
    grid = Grid(betas=(1.0, 2.0), seeds=(0, 1), generators=("uniform", "segment"))
    results = [
        result("uniform", 1.0, 0, 10, 9, 8),
        result("uniform", 1.0, 1, 14, 6, 6),
        result("uniform", 2.0, 0, 10, 9.5, 3),
        result("uniform", 2.0, 1, 14, 7, 3),
        result("segment", 1.0, 0, 10, 20, 14),
        result("segment", 1.0, 1, 14, 15, 18),
        result("segment", 2.0, 0, 10, 12),
        result("segment", 2.0, 1, 14, 10, 50),
    ]
    summary = Summary(grid, dict(results))
    assert summary.text(summary.first) == "12.00 ± 2.83"
    # Iteration 1 has the best mean, 17.5, though each seed alone has another best: 20 and 18.
    assert summary.best_text("segment", 1.0) == "17.50 ± 3.54 (1)"
    # The second seed's iteration 2 has no partner.
    assert summary.best_text("segment", 2.0) == "12.00 ± 2.83 (0); then 11.00 ± 1.41 (1)"
    assert summary.best_beta("segment") == 1.0
    # Both are best at iteration 0; refined, β = 2 loses less.
    assert summary.best_text("uniform", 1.0) == "12.00 ± 2.83 (0); then 7.50 ± 2.12 (1)"
    assert summary.best_text("uniform", 2.0) == "12.00 ± 2.83 (0); then 8.25 ± 1.77 (1)"
    assert summary.best_beta("uniform") == 2.0
    assert summary.missing == {}
    assert Summary(grid, dict(results[1:])).missing == {("uniform", 1.0): [0]}
    write_tables(tmp_path, grid, dict(results), 5, "val.csv")
    by_beta, by_iteration = (tmp_path / "table.md").read_text().split("By iteration")
    assert "| segment | 17.50 ± 3.54 (1) | 12.00 ± 2.83 (0); then 11.00 ± 1.41 (1) |" in by_beta
    assert "| segment | 1 | 12.00 ± 2.83 | 17.50 ± 3.54 | 16.00 ± 2.83 |" in by_iteration
    assert "| uniform | 2 | 12.00 ± 2.83 | 8.25 ± 1.77 | 3.00 ± 0.00 |" in by_iteration
    labels = [text.get_text() for text in draw_curves(summary).legends[0].get_texts()]
    assert labels == ["uniform (β = 2)", "segment (β = 1)"]


def test_the_grid() -> None:
    grid = Grid.parse("0.5,4", "0,7")
    assert (
        grid.generators == GENERATORS == ("uniform", "distribution-aware", "class-activation", "attention", "segment")
    )
    assert [cell.name for cell in grid.cells()][:2] == ["uniform-beta0.5-seed0", "uniform-beta4-seed0"]
    assert len(grid.cells()) == 20
    assert grid.seeds == (0, 7)
    assert Grid.parse(BETAS, "0").betas == (1, 2, 4, 8, 16), "those of Table 1"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--betas", "1,x"], "betas: expected numbers from 0 on"),
        (["--betas", "-1"], "got '-1'"),
        (["--betas", "nan"], "got 'nan'"),
        (["--seeds", "0,0"], "a value is there twice"),
        (["--seeds", "0.5"], "seeds: expected numbers from 0 on"),
        (["--generator", "segment"], "--study: trains all generators"),
        (["--iterations", "1"], "a study needs 2 or more"),
        (["--student-from", "1"], "student.first: a study of generators compares"),
        (["--set", "pseudo.generator=uniform"], "--set pseudo.generator: a study trains all generators"),
        (["--set", "training.stop_after=2", "--set", "training.stop_by=mAP", "--fps", "nan"], "--fps"),
    ],
)
def test_wrong_options(data: Path, options: list[str], message: str) -> None:
    folder = data / "study"
    command = [*arguments(data), "--study", "generators-beta", "--run", str(folder), *options]
    error = CliRunner().invoke(app, command).exception
    assert isinstance(error, ConfigError)
    assert message in str(error)
    assert not folder.exists()


def test_an_error_names_the_option(data: Path) -> None:
    command = [*arguments(data), "--study", "generators-beta", "--run", "study"]
    done = programs.run("refineloc-train", *command, "--betas", "1,x", cwd=data)
    assert done.returncode == 2
    assert done.stderr.endswith("such as 1,2,4; got '1,x' (--betas B,B,...)\n")


def test_what_the_command_asks_for(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(
        "refineloc.training.study.run_study.run_study", lambda *given, **options: asked.append((given, options))
    )
    options = ["--seed", "5", "--betas", "2", "--memory", "0.5", "--fps", "25", "--device", "cpu", "--resume"]
    command = [*arguments(data), "--study", "generators-beta", "--run", str(data / "study"), *options]
    assert CliRunner().invoke(app, command).exit_code == 0
    (config, grid, given, folder), others = asked[0]
    assert config.training.seed == 5
    assert grid == Grid(betas=(2.0,), seeds=(5,))
    assert given == Files(*(data / name for name in ("train.h5", "train.csv", "val.h5", "val.csv")), fps=25.0)
    assert folder == data / "study"
    assert (others["device"], others["at_a_time"], others["memory"], others["resume"]) == ("cpu", None, 2**29, True)
