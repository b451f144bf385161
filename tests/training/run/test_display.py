"""What is shown of a run: on terminals of any width, in TensorBoard, and in the table at the end."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from refineloc.runtime.errors import ModelError, OutputError
from refineloc.training.data.record import DataRecord
from refineloc.training.run.choice import best_of, choose
from refineloc.training.run.display import RunReporter, epoch_texts, iterations_table
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
        reporter._progress.update(reporter._task, completed=600)
        lines = Console(width=width).render_lines(reporter._progress.get_renderable())
        texts = ["".join(part.text for part in line) for line in lines]
        reporter.iteration(record(9))
    bar, losses = texts
    assert "…" not in bar + losses
    assert bar.startswith("iteration 9/11 epoch 98/99 ━")
    assert bar.rstrip().endswith("left")  # the one clock
    assert ("(video 2.25 pseudo 0.06)" in losses) == (width >= 80)
    assert "val" in losses
    assert "2.50" in losses
    assert "mAP 50.0 %" in losses
    assert "iteration 9: validation loss 12.3456" in shown.getvalue()


def test_the_bar_of_an_ensemble_fits_too(run: Run) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=60, color_system=None)
    with RunReporter(run, console) as reporter:
        reporter.epoch({**EPOCH, "iteration": 9, "member": 0, "epoch": 98})
        assert reporter._progress is not None
        reporter._progress.update(reporter._task, completed=600)
        lines = Console(width=60).render_lines(reporter._progress.get_renderable())
    texts = ["".join(part.text for part in line) for line in lines]
    assert len(texts) == 2
    assert texts[0].startswith("iteration 9/11 member 0/0 epoch 98/99 ━")
    assert "left" in texts[0]
    assert "…" not in "".join(texts)


def test_losses_have_names_and_parts_where_there_is_room() -> None:
    assert epoch_texts(EPOCH, LAST, 120) == (
        "iteration 1/3 epoch 0/49",
        "loss: train 1.50 (video 1.25 pseudo 0.12) val 2.50 (video 2.25 pseudo 0.06)",
    )
    assert epoch_texts(EPOCH, LAST, 69)[1] == "train 1.50 (video 1.25 pseudo 0.12) val 2.50 (video 2.25 pseudo 0.06)"
    assert epoch_texts(EPOCH, LAST, 68)[1] == "train loss 1.50 val loss 2.50"
    first = {name: value for name, value in EPOCH.items() if "_pseudo" not in name and "_video" not in name}
    assert epoch_texts(first, LAST, 120)[1] == "train loss 1.50 val loss 2.50"
    assert epoch_texts(EPOCH | {"iteration": 2, "member": 1}, LAST, 80)[0] == "iteration 2/3 member 1/3 epoch 0/49"


def test_mAP_is_that_of_the_last_epoch_that_has_it_and_not_of_the_iteration_before(run: Run) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    without = {name: value for name, value in EPOCH.items() if name != "average_mAP"}
    with RunReporter(run, console) as reporter:
        assert reporter._progress is not None
        shown = []
        for epoch in (EPOCH, without | {"epoch": 1}, without | {"iteration": 2}):
            reporter.epoch(epoch)
            shown.append("mAP 50.0 %" in reporter._progress.losses)
    assert shown == [True, True, False]


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
    records = [record(k, attention_order=order, video_loss=loss) for k, (order, loss) in enumerate(figures)]
    assert "--iter best, without times: iteration 1, since it is the last in order" in printed(records)
    assert choose(records) == (1, "it is the last in order with the lowest video loss, 0.700")
    records[3]["video_loss"] = 0.72
    assert choose(records) == (3, "it is the last in order with a video loss, 0.720, near the lowest, 0.700")
    # A student is taken whatever its order and whatever the base model's losses are.
    students = [record(k, attention_order=-0.3, video_loss=loss, student=True) for k, loss in ((4, 0.9), (5, 0.92))]
    assert choose([*records, students[0]]) == (4, "it is the last student with the lowest video loss, 0.900")
    assert choose([*records, *students]).iteration == 5
    with pytest.raises(ModelError, match="runs/first: has no finished iteration; resume its training first"):
        best_of([], "runs/first")
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
