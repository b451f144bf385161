"""What is shown of a run: on terminals of any width, in TensorBoard, and in the table at the end."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from refineloc.runtime.errors import OutputError
from refineloc.training.data.record import DataRecord
from refineloc.training.run.display import RunReporter, epoch_fields, iterations_table
from refineloc.training.run.files import Run
from refineloc.training.settings.config import resolve

EPOCH = {
    "iteration": 1,
    "epoch": 0,
    "train_loss": 1.5,
    "train_video_loss": 1.25,
    "train_pseudo_loss": 0.125,
    "validation_loss": 2.5,
    "validation_video_loss": 2.25,
    "validation_pseudo_loss": 0.0625,
    "learning_rate": 0.0078125,
    "average_mAP": 0.5,
}
LAST = {"iteration": 3, "member": 3, "epoch": 49}
KINDS = ("foreground", "precision", "recall")


def record(iteration: int, **further: Any) -> dict[str, Any]:
    shares = dict(zip(KINDS, (0.25, 1.0, 0.5), strict=True))
    pseudo = {"train": shares, "val": shares} if iteration else None
    scores = {f"{0.5 + 0.05 * k:.2f}": 1.0 for k in range(10)}
    return {
        "iteration": iteration, "validation_loss": 12.3456, "best_epoch": 99, "average_mAP": 1.0, "mAP": scores,
        "attention_order": 1.25, "pseudo_labels": pseudo, **further,
    }  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Run:
    config = resolve({"training": {"iterations": 12, "epochs": 100}})
    made = Run(tmp_path / "run", config, DataRecord("", "", "", "", ("a", "b"), 4))
    made.begin()
    return made


def scalars(run: Run) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    return {name: [(one.step, one.value) for one in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_tensorboard_has_every_loss_and_the_pseudo_labels(run: Run) -> None:
    with RunReporter(run) as reporter:
        reporter.epoch(EPOCH)
        reporter.iteration(record(0))
        reporter.iteration(record(1))
    found = scalars(run)
    for name, value in EPOCH.items():
        if isinstance(value, float):
            assert found[f"epoch/{name}"] == [(100, value)], name
    for split in ("train", "val"):
        assert [found[f"pseudo_labels/{split}_{name}"] for name in KINDS] == [[(1, 0.25)], [(1, 1.0)], [(1, 0.5)]]
    assert [step for step, _ in found["iteration/validation_loss"]] == [0, 1]


def test_tensorboard_files_that_cannot_be_written_are_one_line(run: Run) -> None:
    (run.folder / "tensorboard").write_text("a file")
    with pytest.raises(OutputError, match="tensorboard: cannot be written"):
        RunReporter(run)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_live_display_fits_the_terminal(run: Run, width: int) -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=width, color_system=None)
    with RunReporter(run, console) as reporter:
        reporter.epoch({**EPOCH, "iteration": 9, "epoch": 98})
        assert reporter._progress is not None
        (line,) = Console(width=width).render_lines(reporter._progress.get_renderable())
        text = "".join(part.text for part in line)
        reporter.iteration(record(9))
    assert "…" not in text
    assert "9/11" in text
    assert "98/99" in text
    assert "2.50" in text
    assert "mAP 50.0 %" in text
    assert ("(2.25 0.06)" in text) == (width >= 80)
    assert "iteration 9: validation loss 12.3456" in shown.getvalue()


def test_the_columns_of_an_epoch_without_pseudo_labels() -> None:
    first = {name: value for name, value in EPOCH.items() if "_pseudo" not in name and "_video" not in name}
    first["iteration"] = 0
    words = {"iteration": "iteration 0/3", "epoch": "epoch 0/49", "train": "loss 1.50", "validation": "val 2.50"}
    assert epoch_fields(first, LAST, 120) == words | {"mAP": "mAP 50.0 %"}
    assert epoch_fields(first, LAST, 80)["epoch"] == "ep 0/49"
    # mAP is that of the last epoch that was evaluated, not of the iteration before.
    del first["average_mAP"]
    assert epoch_fields(first, LAST, 120)["mAP"] == ""
    assert "mAP" not in epoch_fields(first | {"epoch": 1}, LAST, 120)


def test_the_columns_of_an_ensemble() -> None:
    member = EPOCH | {"iteration": 2, "member": 1}
    assert epoch_fields(member, LAST, 120)["iteration"] == "iteration 2/3 member 1/3"
    assert epoch_fields(member, LAST, 80)["iteration"] == "it 2/3 m 1/3"


def printed(records: list[dict[str, Any]], width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=True, color_system="standard").print(iterations_table(records))
    return out.getvalue()


def test_the_table_fits_80_columns_and_its_headings_differ() -> None:
    text = printed([record(0), record(1)])
    assert "…" not in text
    for heading in ("iter", "loss", "epoch", "order", "@0.5", "@0.7", "@0.9", "mean", "fg", "prec.", "recall"):
        assert heading in text
    assert "12.3456" in text
    assert "100.00" in text


def test_the_table_says_which_iteration_to_take_without_times() -> None:
    text = printed([record(k, attention_order=order) for k, order in enumerate((1.0, 1.5, 1.25))])
    assert "--iter best, without times: iteration 1, since its attention order of 1.50" in text
    figures = [(1.0, 0.9), (0.9, 0.7), (0.1, 0.5), (1.1, 0.8)]  # the third has lost its order
    text = printed([record(k, attention_order=order, video_loss=loss) for k, (order, loss) in enumerate(figures)])
    assert "--iter best, without times: iteration 1, since its video loss of 0.700" in text
    text = printed([record(k, attention_order=order / 9, video_loss=loss) for k, (order, loss) in enumerate(figures)])
    assert "iteration 3, since its attention order of 0.12" in text
    weak = [
        {key: value for key, value in record(k, attention_order=2.0 - k).items() if "mAP" not in key} for k in (0, 1)
    ]
    assert bold(weak) == [0]


def bold(records: list[dict[str, Any]]) -> list[int]:
    lines = [line for line in printed(records).splitlines() if "12." in line]
    return [k for k, line in enumerate(lines) if "\x1b[1m" in line]


def test_the_best_iteration_is_not_the_first_by_a_loss_of_other_terms() -> None:
    weak = [
        {"iteration": k, "validation_loss": loss, "best_epoch": 0, "pseudo_labels": None}
        for k, loss in enumerate((12.0, 12.5, 12.25, 12.75))
    ]
    assert bold(weak) == [2]
    assert bold([one | {"average_mAP": mAP, "mAP": {}} for one, mAP in zip(weak, (0, 0.3, 0.1, 0.4), strict=True)]) == [
        3
    ]


def test_seconds_are_those_of_the_iteration(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([100.0, 107.0, 110.0])
    monkeypatch.setattr("refineloc.training.run.display.time.perf_counter", lambda: next(clock))
    with RunReporter(run) as reporter:
        reporter.iteration(record(0))
        reporter.iteration(record(1))
    assert [line.rsplit(", ", 1)[1] for line in capsys.readouterr().err.splitlines()] == ["7 s", "3 s"]
